"""Protocols through which siblings meet. `cds_service.bootstrap` is the only place that joins them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from sqlalchemy.orm import Session

from dermoscopy.domain import (
    Analysis,
    Artifact,
    ArtifactKind,
    DeliveryReceipt,
    DermoscopicImage,
    Finding,
    LesionMeasurements,
    Mask,
    ModelReference,
    ReportStatus,
    Review,
    RGBPixels,
    SourceObject,
    report_status,
)
from dermoscopy.lesions import Candidates, Change, Sighting, Stated

JsonValue = str | int | float | bool | None | Sequence["JsonValue"] | Mapping[str, "JsonValue"]


class BlobStore(Protocol):
    """Content-addressed bytes. ``digest`` is the SHA-256 of the bytes in lower-case hex."""

    def put(self, data: bytes) -> str:
        """Store durably (on disk: fsynced) before returning the digest; storing twice is harmless.

        Raises `StorageFull` when there is no room: nothing was kept.
        """
        ...

    def get(self, digest: str) -> bytes:
        """The bytes, checked against their digest. Raises `KeyError` if absent, `BlobCorrupted` if they changed."""
        ...

    def exists(self, digest: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that happened. ``action`` is dotted (``instance.accepted``); ``subject`` is what it happened to.

    Patient identity goes into ``patient_*`` and nowhere else, so that an export can leave it out.
    """

    action: str
    actor: str
    subject_type: str
    subject_id: str
    outcome: str = "success"
    patient_issuer: str = ""
    patient_id: str = ""
    details: Mapping[str, JsonValue] = field(default_factory=dict)
    at: datetime | None = None
    """UTC; the log fills it in when absent."""


class AuditLog(Protocol):
    """Append-only log. An entry stands exactly when the caller's transaction commits."""

    def append(self, session: Session, entry: AuditEntry) -> None: ...


class WorkQueue(Protocol):
    """Starts durable work inside the caller's transaction."""

    def start(
        self, session: Session, workflow: str, workflow_id: str, *arguments: str, delay_seconds: float = 0.0
    ) -> None:
        """Start ``workflow`` with ``arguments`` once this transaction commits; the same ``workflow_id`` starts once."""
        ...


class Algorithm(Protocol):
    """Pixels in, finding out. Pure: the same image and weights give the same finding."""

    @property
    def reference(self) -> ModelReference: ...

    def analyze(self, image: DermoscopicImage) -> Finding:
        """Raises `AnalysisFailed` (broken), `ModelServerBusy` (try again); abstention is a result, not an error."""
        ...


class MeasureOutline(Protocol):
    """Measures what a person outlined as the algorithm measures its own outline."""

    def __call__(self, image: DermoscopicImage, mask: Mask) -> LesionMeasurements:
        """``mask`` is bool [rows, columns] of the image and not empty. Raises `AnalysisFailed`."""
        ...


@dataclass(frozen=True, slots=True)
class Pictured:
    """An analysis with the image that it is of."""

    analysis: Analysis
    image: DermoscopicImage


class CompareLesions(Protocol):
    """Says what changed since an earlier image, and how sure it is that it shows the same lesion."""

    def __call__(
        self, now: Pictured, sighting: Sighting, found: Candidates, load: Callable[[Sighting], Pictured | None]
    ) -> Change | None:
        """``sighting`` is that of ``now``; ``load`` gives an earlier image of ``found``, or ``None`` if it is gone.

        ``None`` where there is nothing to compare with. Pure but for ``load``, and deterministic.
        """
        ...


class StatedOf(Protocol):
    """Reads when an object says that it was taken, and which lesion it says that it shows."""

    def __call__(self, source: SourceObject) -> Stated: ...


class FindHair(Protocol):
    """Finds hair, for a segment of its own."""

    def __call__(self, pixels: RGBPixels, lesion: Mask) -> Mask:
        """Bool [rows, columns] like ``lesion``; what lies wholly inside the lesion is left out. Pure."""
        ...


@dataclass(frozen=True, slots=True)
class Outlined:
    """A clinician's outline, as pixels, and what was measured in it."""

    mask: Mask
    measurements: LesionMeasurements


@dataclass(frozen=True, slots=True)
class FormerOutput:
    """A DICOM object of an earlier revision that was, or is now being, replaced or withdrawn."""

    kind: ArtifactKind
    uid: str
    sop_class_uid: str


@dataclass(frozen=True, slots=True)
class RenderInput:
    """What a renderer may look at. ``companions`` holds the artifacts rendered before it (a bundle names the SEG)."""

    analysis: Analysis
    image: DermoscopicImage
    source: SourceObject
    companions: Mapping[ArtifactKind, Artifact] = field(default_factory=dict)
    reviews: tuple[Review, ...] = ()
    """What clinicians said of it, oldest first."""
    outlined: Outlined | None = None
    """The outline that a clinician put in the place of the algorithm's, where one did."""
    hair: Mask | None = None
    """Where hair lies, where a segment of it is wanted."""
    change: Change | None = None
    """What changed since an earlier image of the lesion, where there is one."""
    former: tuple[FormerOutput, ...] = ()
    """What was rendered for earlier revisions, oldest first; the last of a kind is the present one's predecessor."""

    @property
    def status(self) -> ReportStatus:
        return report_status(self.reviews)

    @property
    def revision(self) -> int:
        """0 as the algorithm gave it; then one more for each review that changes the report."""
        return sum(review.changes_report for review in self.reviews)


class Renderer(Protocol):
    """Draws one output from an analysis; deterministic, so that a repeat gives the same bytes."""

    def __call__(self, what: RenderInput) -> Artifact: ...


class Destination(Protocol):
    """Somewhere artifacts go. ``accepts`` says which."""

    @property
    def name(self) -> str: ...

    @property
    def accepts(self) -> frozenset[ArtifactKind]: ...

    def deliver(self, artifact: Artifact, analysis: Analysis) -> DeliveryReceipt:
        """Send once. Sending the same artifact again must change nothing at the other end.

        Raises `DestinationUnavailable` (try again), `Rejected` (a person must look).
        """
        ...
