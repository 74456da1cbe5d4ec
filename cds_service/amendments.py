"""Amended results: what a clinician said, drawn into every output and sent in the place of what was there.

One workflow per review. It may be killed at any point and run again: bytes have the address of their digest, rows have
derived keys, and the revision that the outputs show is compared and changed in the transaction that stores them. Of
several reviews in quick succession the last stands; who comes late finds the work done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import sqlalchemy as sa
import structlog
from opentelemetry import metrics
from sqlalchemy.orm import Session
from sqlmodel import col, select

from cds_service.deliveries import Deliveries
from cds_service.delivery_attempts import settle
from cds_service.lesions import Comparisons, change_of
from cds_service.node import Node
from cds_service.rendering import draw, with_hair
from cds_service.steps import ACTOR, hold, step
from dermoscopy.analyses import (
    artifact_rows,
    former_artifacts,
    keep_former,
    load_analysis,
    load_source,
    save_artifacts,
)
from dermoscopy.domain import Artifact, ArtifactKind, DermoscopicImage, Review, SourceObject, Verdict
from dermoscopy.errors import AnalysisFailed, DermoscopyError, IntegrityViolation, Rejected, Unavailable
from dermoscopy.outline import outline_mask
from dermoscopy.ports import (
    AuditEntry,
    FindHair,
    FormerOutput,
    JsonValue,
    MeasureOutline,
    Outlined,
    Renderer,
    RenderInput,
)
from dermoscopy.reviews import reviews_of, standing
from dermoscopy.routing import Route
from dermoscopy.tables import AnalysisRow, ArtifactRow, InstanceRow, ReviewRow

log = structlog.get_logger(__name__)
_amended = metrics.get_meter(__name__).create_counter("cds_amendments", description="amended results by report status")

REPLACED = (ArtifactKind.SEG, ArtifactKind.SR, ArtifactKind.SECONDARY_CAPTURE)
"""Outputs that a PACS holds and that a rejection note names once they are replaced."""


class Amendments:
    """Draws and stores amended results and starts their deliveries."""

    def __init__(
        self,
        node: Node,
        decode: Callable[[SourceObject], DermoscopicImage],
        measure: MeasureOutline,
        renderers: Mapping[ArtifactKind, Renderer],
        deliveries: Deliveries,
        hair: FindHair | None = None,
        comparisons: Comparisons | None = None,
    ) -> None:
        """``renderers`` are those of the first report and, after what it names, that of the rejection note."""
        self._node = node
        self._decode = decode
        self._measure = measure
        self._renderers = renderers
        self._deliveries = deliveries
        self._hair = hair
        self._comparisons = comparisons

    def amend(self, analysis_id: str, review_id: str) -> None:
        """Bring the outputs to the reviews as they are now; a failure that no repeat can mend waits for a person."""
        with step(self._node, "amend", analysis_id):
            with self._node.begin() as session:
                review = session.get_one(ReviewRow, review_id)
                shown = session.get_one(AnalysisRow, analysis_id).rendered_revision
                said = reviews_of(session, analysis_id)
            if shown >= _revision(said[: review.revision]):
                return  # done before a crash, or together with a later review
            try:
                what = self._what(analysis_id, said)
                artifacts = draw(self._renderers, what)
            except (Rejected, AnalysisFailed, IntegrityViolation) as error:
                self.fail(analysis_id, review_id, error)
                return
            stored = [(artifact, self._node.blobs.put(artifact.data)) for artifact in artifacts]
            self._store(what, stored, shown)

    def _what(self, analysis_id: str, said: tuple[Review, ...]) -> RenderInput:
        with self._node.begin() as session:
            analysis = load_analysis(session, self._node.blobs, analysis_id)
            source = load_source(session, self._node.blobs, analysis.instance_id)
            change = change_of(session, analysis_id)
            former = _former(session, analysis_id, _route(session, analysis.instance_id))
        image = self._decode(source)
        outline = standing(said).outline
        outlined = None
        if outline:
            mask = outline_mask(outline, image.rows, image.columns)
            outlined = Outlined(mask, self._measure(image, mask))
        what = RenderInput(analysis, image, source, reviews=said, outlined=outlined, former=former, change=change)
        return with_hair(what, self._hair)

    def _store(self, what: RenderInput, stored: Sequence[tuple[Artifact, str]], shown: int) -> None:
        analysis_id, revision = what.analysis.id, what.revision
        with self._node.begin() as session:
            claimed = session.execute(
                sa.update(AnalysisRow)
                .where(col(AnalysisRow.id) == analysis_id, col(AnalysisRow.rendered_revision) == shown)
                .values(rendered_revision=revision)
                .returning(col(AnalysisRow.id))
            ).scalar_one_or_none()
            if claimed is None:
                raise Unavailable("another revision of this report was stored meanwhile: drawn again", retry_after=1)
            present = artifact_rows(session, analysis_id)
            drawn = {artifact.kind for artifact, _ in stored}
            changed = [one for one in stored if not _is_out(present.get(one[0].kind), one[0])]
            digests = {artifact.kind: digest for artifact, digest in changed}
            replaced = [row for kind, row in present.items() if kind in digests and row.digest != digests[kind]]
            withdrawn = [row for kind, row in present.items() if kind in REPLACED and kind not in drawn]
            for row in (*replaced, *withdrawn):
                keep_former(session, row, revision=shown)
            named = [row.uid for row in (*replaced, *withdrawn) if row.uid]
            rows = save_artifacts(session, analysis_id, changed)
            for row in withdrawn:
                row.current = False
            session.flush()
            self._append(session, what, rows, named)
            self._deliveries.start(session, rows)
            for row in withdrawn:
                self._deliveries.call_off(session, row, "withdrawn")
            settle(session, analysis_id)
            if self._comparisons is not None and any(map(_moves_or_withdraws, what.reviews)):
                self._comparisons.reviewed(session, analysis_id, revision)
        _amended.add(1, {"status": what.status.value})
        log.info("results.amended", analysis_id=analysis_id, revision=revision, status=what.status.value)

    def fail(self, analysis_id: str, review_id: str, error: Exception) -> None:
        """Record that a review stands but the outputs do not show it, and leave that to a person."""
        if isinstance(error, DermoscopyError):
            reason = str(error)
        else:  # the text of a foreign error may carry anything, patient data too
            reason = "internal error: see the log"
            log.exception("amendment.broke", analysis_id=analysis_id, exc_info=error)
        with self._node.begin() as session:
            row = session.get_one(AnalysisRow, analysis_id)
            review = session.get_one(ReviewRow, review_id)
            if row.rendered_revision >= _revision(reviews_of(session, analysis_id)[: review.revision]):
                return  # the results stand, and only a later checkpoint broke
            words = f"review {review.revision} of analysis {analysis_id} is not in its results: {reason}"
            hold(session, "amendment_failed", review_id, words)
            self._node.audit.append(
                session,
                AuditEntry(
                    action="amendment.failed",
                    actor=ACTOR,
                    subject_type="analysis",
                    subject_id=analysis_id,
                    outcome="failure",
                    patient_issuer=row.issuer,
                    patient_id=row.patient_id,
                    details={"review_id": review_id, "error": type(error).__name__, "reason": reason},
                ),
            )
        log.error("amendment.failed", analysis_id=analysis_id, error=type(error).__name__, reason=reason)

    def _append(self, session: Session, what: RenderInput, rows: Sequence[ArtifactRow], replaced: list[str]) -> None:
        patient = what.analysis.header.patient
        details: dict[str, JsonValue] = {row.kind: {"digest": row.digest, "uid": row.uid} for row in rows}
        details |= {"revision": what.revision, "report_status": what.status.value, "replaced": replaced}
        self._node.audit.append(
            session,
            AuditEntry(
                action="results.amended",
                actor=ACTOR,
                subject_type="analysis",
                subject_id=what.analysis.id,
                patient_issuer=patient.issuer,
                patient_id=patient.patient_id,
                details=details,
            ),
        )


def _is_out(row: ArtifactRow | None, drawn: Artifact) -> bool:
    """Whether the very DICOM object is there already: what has gone out under a UID never changes under it, although
    a later version of this program may draw it a little differently.
    """
    return row is not None and bool(drawn.sop_class_uid) and row.uid == drawn.uid


def _revision(reviews: Sequence[Review]) -> int:
    return sum(review.changes_report for review in reviews)


def _route(session: Session, instance_id: str) -> Route:
    return Route.from_text(session.execute(select(InstanceRow.route).where(InstanceRow.id == instance_id)).scalar_one())


def _moves_or_withdraws(review: Review) -> bool:
    """Whether other images of the lesion may have to be compared with another one because of this review."""
    return review.verdict is Verdict.UNUSABLE or bool(review.body_site_code or review.laterality)


def _former(session: Session, analysis_id: str, route: Route) -> tuple[FormerOutput, ...]:
    """What earlier revisions put into a PACS, and what is there now; outputs that the route never sends are no part."""
    rows: list[tuple[str, str, str]] = [
        (row.kind, row.uid, row.sop_class_uid) for row in former_artifacts(session, analysis_id)
    ]
    present = artifact_rows(session, analysis_id)
    rows += [(kind.value, present[kind].uid, present[kind].sop_class_uid) for kind in REPLACED if kind in present]
    wanted = {kind.value for kind in REPLACED if route.outputs is None or kind.value in route.outputs}
    return tuple(FormerOutput(ArtifactKind(kind), uid, sop) for kind, uid, sop in rows if kind in wanted and uid)
