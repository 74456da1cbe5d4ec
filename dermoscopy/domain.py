"""Frozen types that every room speaks: the image, what was found in it, and what is sent out.

Units are in the names or the docstrings; coordinates are (row, column) from the top left pixel.
Identifiers are derived (UUIDv5 of what they stand for), so that doing anything twice changes nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import numpy as np
import numpy.typing as npt

NAMESPACE = uuid.UUID("6f0f3d3e-8c0e-5a43-9d0b-3f6c4c1f2a77")
"""UUIDv5 namespace of everything that this service derives (RFC 9562, 5.5)."""

RGBPixels = npt.NDArray[np.uint8]
"""Decoded pixels, shape (rows, columns, 3), RGB, sRGB-like."""
Mask = npt.NDArray[np.bool_]
"""Lesion mask at source size, shape (rows, columns)."""
HeatMap = npt.NDArray[np.float32]
"""Class evidence in 0…1 at source size, shape (rows, columns)."""


def derive_id(kind: str, *parts: str) -> str:
    """UUIDv5 of ``kind`` and ``parts``: the same question always gets the same identifier."""
    return str(uuid.uuid5(NAMESPACE, "\x1f".join((kind, *parts))))


def derive_uid(kind: str, *parts: str) -> str:
    """DICOM UID of ``kind`` and ``parts`` under the UUID arc ``2.25`` (PS3.5 B.2); at most 44 characters."""
    return f"2.25.{uuid.UUID(derive_id(kind, *parts)).int}"


class LesionClass(StrEnum):
    """The seven classes of HAM10000 (Tschandl et al. 2018). ``AKIEC``, ``BKL`` and ``VASC`` are groups."""

    AKIEC = "akiec"
    BCC = "bcc"
    BKL = "bkl"
    DF = "df"
    MEL = "mel"
    NV = "nv"
    VASC = "vasc"


MALIGNANT: frozenset[LesionClass] = frozenset({LesionClass.AKIEC, LesionClass.BCC, LesionClass.MEL})
"""Classes that count towards malignancy risk: melanoma, basal cell carcinoma, actinic keratosis / Bowen."""


class TriageTier(StrEnum):
    """How soon a clinician should look, from most to least urgent. ``UNDETERMINED`` means the algorithm abstained."""

    URGENT = "urgent"
    EXPEDITED = "expedited"
    UNDETERMINED = "undetermined"
    ROUTINE = "routine"
    MONITOR = "monitor"


class ScaleSource(StrEnum):
    """Where the millimetres of a measurement come from: stated with the image, read from ruler marks in it, nowhere."""

    DICOM = "dicom"
    RULER = "ruler"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class PatientIdentity:
    """Issuer of Patient ID (0010,0021) and Patient ID (0010,0020); the pair is the patient, never the id alone."""

    issuer: str
    patient_id: str

    @property
    def known(self) -> bool:
        """Whether the sender said who the patient is (an absent Patient ID is legal in DICOM)."""
        return bool(self.patient_id)


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an edge read from an object without decoding its pixels. Empty strings stand for absent values."""

    media_type: str
    """``application/dicom`` (a dataset without its file meta information), ``image/png`` or ``image/jpeg``."""
    patient: PatientIdentity
    rows: int
    columns: int
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    accession_number: str = ""
    transfer_syntax_uid: str = ""
    body_site_code: str = ""
    laterality: str = ""
    frames: int = 1
    """Pictures in the object; one with several is kept, and a person is asked."""


@dataclass(frozen=True, slots=True)
class Acquisition:
    """How the picture was taken (Dermoscopic Image module, PS3.3 C.8.12.13). ``None`` where not stated."""

    contact: bool | None = None
    polarised: bool | None = None
    immersion: str | None = None
    magnification: float | None = None
    station: str | None = None


@dataclass(frozen=True, slots=True)
class Remark:
    """What a person should know of how an image was decoded: a fixed ``code`` for machines, and plain ``words``."""

    code: str
    words: str


@dataclass(frozen=True, slots=True)
class DermoscopicImage:
    """Decoded image. ``spacing_mm`` is (row, column) spacing in mm per pixel, or ``None`` if no scale is known."""

    pixels: RGBPixels
    pixel_digest: str
    """SHA-256 of shape and RGB bytes: what the algorithm really saw."""
    spacing_mm: tuple[float, float] | None = None
    acquisition: Acquisition = field(default_factory=Acquisition)
    aspect: float = 1.0
    """Height of a pixel over its width on the skin; the pixels themselves stay as the source has them."""
    remarks: tuple[Remark, ...] = ()

    @property
    def rows(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def columns(self) -> int:
        return int(self.pixels.shape[1])


@dataclass(frozen=True, slots=True)
class SourceObject:
    """A stored object: its bytes as received, with what is needed to read them again."""

    instance_id: str
    data: bytes
    header: ImageHeader
    received_at: datetime


@dataclass(frozen=True, slots=True)
class ModelReference:
    """Which weights answered. ``digest`` is the SHA-256 of the ONNX file."""

    name: str
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class ClassProbability:
    """One class with its raw logit and its calibrated probability (0…1)."""

    label: LesionClass
    logit: float
    probability: float


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the algorithm gives no class: a fixed ``code`` for machines and what it means here in plain ``words``.

    Codes: ``not_dermoscopy``, ``too_small``, ``blur``, ``exposure``, ``glare``, ``no_lesion``, ``lesion_cut_off``,
    ``unlike_training``, ``low_confidence``, ``ambiguous``. At most 16 characters (DICOM Code Value, PS3.5 6.2).
    """

    code: str
    words: str


@dataclass(frozen=True, slots=True)
class Quality:
    """Image-quality and novelty scores. ``reasons`` is empty when the image is fit for analysis."""

    usable: bool
    reasons: tuple[str, ...]
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class LesionMeasurements:
    """Geometry and colour of the largest connected lesion region, in pixels of the source image.

    Millimetre values are ``None`` unless the image states its scale or shows a ruler.
    ``asymmetry`` (0…1) is the mean non-overlap
    after folding about both principal axes; ``border_irregularity`` is perimeter² / (4π·area) of the outline.
    """

    area_px: float
    area_percent: float
    perimeter_px: float
    equivalent_diameter_px: float
    circularity: float
    solidity: float
    eccentricity: float
    asymmetry: float
    border_irregularity: float
    colour_count: int
    colour_variety: float
    colour_fractions: Mapping[str, float]
    """Share of lesion pixels near each of the six dermoscopic reference colours."""
    centroid: tuple[float, float]
    bounding_box: tuple[int, int, int, int]
    """Top row, left column, bottom row, right column; the last two exclusive."""
    area_mm2: float | None = None
    perimeter_mm: float | None = None
    equivalent_diameter_mm: float | None = None
    scale_source: ScaleSource = ScaleSource.NONE


@dataclass(frozen=True, slots=True)
class Triage:
    """Urgency tier, why, and what a clinician might do, in plain words."""

    tier: TriageTier
    reason: str
    recommendation: str


@dataclass(frozen=True, slots=True)
class Inference:
    """Everything needed to say which computation produced the answer, and to repeat it."""

    execution_provider: str
    precision: str
    preprocessing_digest: str
    calibration: Mapping[str, float | str]
    thresholds: Mapping[str, float]
    code_version: str
    mask_digest: str
    heatmap_digest: str
    milliseconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Finding:
    """What the algorithm says of one image, before it has an identity in the database."""

    model: ModelReference
    classes: tuple[ClassProbability, ...]
    primary: LesionClass | None
    """The class that is called by the model's decision rule, or ``None`` when the algorithm abstains."""
    confidence: float
    """Calibrated probability of the called class (when abstaining: of the one that would have been called)."""
    melanoma_risk: float
    malignancy_risk: float
    quality: Quality
    measurements: LesionMeasurements | None
    """``None`` when no lesion was found."""
    triage: Triage
    abstention: str | None
    explanation: tuple[str, ...]
    inference: Inference
    mask: Mask
    heatmap: HeatMap
    embedding: npt.NDArray[np.float32]
    abstention_reasons: tuple[Reason, ...] = ()
    """What ``abstention`` says, one by one and coded; empty in findings of earlier versions."""
    prediction_set: tuple[LesionClass, ...] = ()
    """Classes that cannot be excluded at the model's error rate, most probable first; empty if it has no sets."""
    decision_note: str = ""
    """Why ``primary`` is not the most probable class, in plain words; empty where it is."""

    @property
    def most_probable(self) -> LesionClass:
        """The class with the highest calibrated probability, called or not."""
        return max(self.classes, key=lambda one: one.probability).label


@dataclass(frozen=True, slots=True)
class Analysis:
    """A stored finding: the finding with identity, time and the source it belongs to."""

    id: str
    instance_id: str
    created_at: datetime
    finding: Finding
    header: ImageHeader
    rows: int
    columns: int
    pixel_digest: str
    spacing_mm: tuple[float, float] | None
    acquisition: Acquisition
    remarks: tuple[Remark, ...] = ()
    """What decoding remarked; empty in analyses of earlier versions."""


class Verdict(StrEnum):
    """What a clinician said of a result."""

    CONFIRMED = "confirmed"
    CORRECTED = "corrected"
    """The class, the outline or the body site was put right."""
    UNUSABLE = "unusable"
    """The image or the result must not be used."""
    COMMENTED = "commented"
    """Words only: the report stays as it is."""


class ReportStatus(StrEnum):
    """Life of a report (https://hl7.org/fhir/R4/valueset-diagnostic-report-status.html)."""

    PRELIMINARY = "preliminary"
    FINAL = "final"
    AMENDED = "amended"
    ENTERED_IN_ERROR = "entered-in-error"


@dataclass(frozen=True, slots=True)
class Review:
    """One clinician's word on one analysis; reviews are added, never changed."""

    id: str
    analysis_id: str
    revision: int
    """1 for the first review of an analysis, then one more each time."""
    at: datetime
    reviewer: str
    """Who, as the audit log names them: ``issuer|subject`` of the login, or the name of a token."""
    reviewer_name: str
    """Who, for people; empty where the login gives no name."""
    verdict: Verdict
    lesion_class: LesionClass | None = None
    """The class the clinician gives, where it is another one."""
    outline: tuple[tuple[float, float], ...] = ()
    """Corners (column, row) of the corrected outline in pixels of the source; empty where the outline stands."""
    body_site_code: str = ""
    """SNOMED CT code of `dermoscopy.codes.SITES`; empty where the site stands."""
    laterality: str = ""
    """``L``, ``R``, ``B`` or ``U``; empty where it stands."""
    comment: str = ""

    @property
    def changes_report(self) -> bool:
        return self.verdict is not Verdict.COMMENTED


def report_status(reviews: Sequence[Review]) -> ReportStatus:
    """Status of the report after ``reviews``, oldest first."""
    status = ReportStatus.PRELIMINARY
    for review in reviews:
        if review.verdict is Verdict.UNUSABLE:
            status = ReportStatus.ENTERED_IN_ERROR
        elif review.verdict is Verdict.CORRECTED:
            status = ReportStatus.AMENDED
        elif review.verdict is Verdict.CONFIRMED:
            # what was amended or withdrawn and is then confirmed stays visibly changed
            first = status in (ReportStatus.PRELIMINARY, ReportStatus.FINAL)
            status = ReportStatus.FINAL if first else ReportStatus.AMENDED
    return status


class ArtifactKind(StrEnum):
    """What is kept and sent for one analysis."""

    SOURCE = "source"
    SEG = "seg"
    SR = "sr"
    SECONDARY_CAPTURE = "secondary_capture"
    REJECTION_NOTE = "rejection_note"
    """Names the objects that an amendment replaced (IHE RAD, Imaging Object Change Management)."""
    FHIR_BUNDLE = "fhir_bundle"
    OVERLAY = "overlay"
    HEATMAP = "heatmap"
    MASK = "mask"


@dataclass(frozen=True, slots=True)
class Artifact:
    """One rendered output. ``uid`` is the SOP Instance UID or the FHIR identifier value it was derived to."""

    kind: ArtifactKind
    media_type: str
    data: bytes
    uid: str
    sop_class_uid: str = ""


class DeliveryState(StrEnum):
    """Life of one artifact on its way to one destination."""

    PENDING = "pending"
    RETRYING = "retrying"
    DELIVERED = "delivered"
    HELD = "held"
    """A person must decide (no such patient, several, refused for good)."""
    SUPERSEDED = "superseded"
    """A later revision of the same output is delivered in its place."""


class CommitmentState(StrEnum):
    """Whether a PACS has taken responsibility for keeping an object that was delivered to it (PS3.4 J)."""

    WAITING = "waiting"
    """Stored there, to be asked about."""
    ASKED = "asked"
    COMMITTED = "committed"
    UNCONFIRMED = "unconfirmed"
    """The PACS reported a failure, or nothing in time: the object is sent again, or held."""


@dataclass(frozen=True, slots=True)
class DeliveryReceipt:
    """What a destination answered: its own reference of what it stored (empty if it gives none)."""

    reference: str = ""
