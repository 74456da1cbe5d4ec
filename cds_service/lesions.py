"""Change over time in the pipeline: an analysed image is compared with the lesion's earlier images; the result is kept.

It stands in a row of its own, so that what the algorithm said of the image stays as it was. An earlier image may come
later (a pulled one): whatever is compared differently then is compared again, by a durable workflow per pair. Each
image's row is committed before its neighbours are looked for, so of two that come at once at least one sees the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import sqlalchemy as sa
import structlog
from opentelemetry import metrics
from pydantic import TypeAdapter
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlmodel import col, select

from cds_service.node import Node
from cds_service.steps import ACTOR, hold, step
from dermoscopy.analyses import load_analysis, load_source
from dermoscopy.domain import Analysis, DermoscopicImage, PatientIdentity, ReportStatus, SourceObject, derive_id
from dermoscopy.errors import AnalysisFailed, IntegrityViolation, Rejected
from dermoscopy.lesions import SAME_VISIT, Candidates, Change, Match, MatchState, Sighting, candidates, concerned
from dermoscopy.ports import AuditEntry, CompareLesions, JsonValue, Pictured, RenderInput, StatedOf
from dermoscopy.reviews import reviews_of, standing
from dermoscopy.tables import AnalysisRow, InstanceRow, LesionChangeRow, LesionImageRow, utc_now
from dermoscopy.workqueue import COMPARE

log = structlog.get_logger(__name__)
_compared = metrics.get_meter(__name__).create_counter("cds_comparisons", description="comparisons by state of match")

_ANALYSED = ("analysed", "rendered", "complete")
_MOST_IMAGES = 200
"""Images of one patient that are looked at, the newest received."""
_CHANGE = TypeAdapter(Change)


def change_of(session: Session, analysis_id: str) -> Change | None:
    """What is stored of the change of a lesion; ``None`` where there was no earlier image."""
    row = session.get(LesionChangeRow, analysis_id)
    return None if row is None else _CHANGE.validate_json(row.document)


def to_document(change: Change) -> str:
    """JSON of a change, as `LesionChangeRow.document` keeps it."""
    return _CHANGE.dump_json(change).decode()


def summaries_of(session: Session, analysis_ids: Sequence[str]) -> dict[str, str]:
    """What changed, in words, by analysis; those without an earlier image are not among them. One indexed query."""
    if not analysis_ids:
        return {}
    query = select(LesionChangeRow).where(col(LesionChangeRow.analysis_id).in_(analysis_ids))
    rows = session.execute(query).scalars()
    return {row.analysis_id: _CHANGE.validate_json(row.document).summary for row in rows}


class Comparisons:
    """Compares and keeps what comes of it."""

    def __init__(
        self,
        node: Node,
        decode: Callable[[SourceObject], DermoscopicImage],
        compare: CompareLesions,
        stated: StatedOf,
    ) -> None:
        self._node = node
        self._decode = decode
        self._compare = compare
        self._stated = stated

    def sight(self, session: Session, analysis: Analysis, source: SourceObject) -> None:
        """Record when the image was taken and what it tracks; doing it twice changes nothing."""
        patient = analysis.header.patient
        if patient.known and session.get(LesionImageRow, analysis.id) is None:
            session.add(self._image(analysis.id, patient, source))

    def first(self, what: RenderInput) -> Change | None:
        """Compare a new analysis, and have those compared again that it may be an earlier image of."""
        return self._made(what, first=True)

    def again(self, analysis_id: str) -> None:
        """Compare once more, now that other images are known."""
        with step(self._node, "compare", analysis_id):
            with self._node.begin() as session:
                row = session.get_one(AnalysisRow, analysis_id)
                now, others = self._sightings(session, row)
                if now is None or (not candidates(now, others).earlier and change_of(session, analysis_id) is None):
                    return
                analysis = load_analysis(session, self._node.blobs, analysis_id)
                source = load_source(session, self._node.blobs, analysis.instance_id)
            self._made(RenderInput(analysis, self._decode(source), source), first=False)

    def hold(self, analysis_id: str, reason: str) -> None:
        """Leave to a person that an image could not be compared again with earlier ones."""
        with self._node.begin() as session:
            hold(session, "comparison_failed", analysis_id, reason)

    def reviewed(self, session: Session, analysis_id: str, revision: int) -> None:
        """A review may have withdrawn the image or moved its site: have compared again what it touches."""
        row = session.get_one(AnalysisRow, analysis_id)
        touched = set(
            session.execute(
                select(LesionChangeRow.analysis_id).where(LesionChangeRow.prior_id == analysis_id)
            ).scalars()
        )
        now, others = self._sightings(session, row)
        if now is not None:
            touched |= {one.analysis_id for one in concerned(now, others)}
            touched.add(analysis_id)
        for one in sorted(touched):
            self._node.queue.start(session, COMPARE, derive_id("compare", one, analysis_id, str(revision)), one)

    # ------------------------------------------------------------------------------------------------------ inside

    def _made(self, what: RenderInput, *, first: bool) -> Change | None:
        analysis = what.analysis
        if not analysis.header.patient.known:
            return None
        self._fill_in(analysis.header.patient)
        with self._node.begin() as session:
            now, others = self._sightings(session, session.get_one(AnalysisRow, analysis.id))
        change = None
        if now is not None and (found := candidates(now, others)).earlier:
            change = self._compared(what, now, found)
        with self._node.begin() as session:
            self._keep(session, analysis, change)
            if first and now is not None:
                self._start_others(session, now, others)
        return change

    def _compared(self, what: RenderInput, now: Sighting, found: Candidates) -> Change | None:
        try:
            return self._compare(Pictured(what.analysis, what.image), now, found, self._load)
        except AnalysisFailed as error:  # the image's own result stands all the same
            log.error("comparison.failed", analysis_id=now.analysis_id, reason=str(error))
            words = "Not compared with earlier images: the comparison failed. This says nothing about a change."
            return Change(Match(MatchState.NOT_COMPARED, words), now.taken_at, dated=now.dated)

    def _load(self, sighting: Sighting) -> Pictured | None:
        try:
            with self._node.begin() as session:
                analysis = load_analysis(session, self._node.blobs, sighting.analysis_id)
                source = load_source(session, self._node.blobs, sighting.instance_id)
            return Pictured(analysis, self._decode(source))
        except (Rejected, IntegrityViolation, KeyError) as error:
            log.error("comparison.earlier_unreadable", analysis_id=sighting.analysis_id, error=type(error).__name__)
            return None

    def _keep(self, session: Session, analysis: Analysis, change: Change | None) -> None:
        """Store the change with its audit leaf, unless that is what stands already."""
        row = session.get(LesionChangeRow, analysis.id, with_for_update=True)
        if change is None:
            if row is None:
                return
            words = "An earlier comparison no longer holds: the earlier image was withdrawn or is of another site."
            change = Change(Match(MatchState.NOT_COMPARED, words), analysis.created_at)
        document = to_document(change)
        if row is not None and row.document == document:
            return
        if row is None:
            row = LesionChangeRow(analysis_id=analysis.id, state="", made_at=utc_now(), document="")
            session.add(row)
        row.prior_id, row.state = change.prior_id, change.match.state.value
        row.document, row.made_at = document, utc_now()
        patient = analysis.header.patient
        self._node.audit.append(
            session,
            AuditEntry(
                action="comparison.made",
                actor=ACTOR,
                subject_type="analysis",
                subject_id=analysis.id,
                patient_issuer=patient.issuer,
                patient_id=patient.patient_id,
                details=_details(change),
            ),
        )
        _compared.add(1, {"state": change.match.state.value})

    def _start_others(self, session: Session, now: Sighting, others: Sequence[Sighting]) -> None:
        """Later images have one more to be compared with; one of the same visit takes an uncertain match back."""
        touched = concerned(now, others)
        beside = [one.analysis_id for one in touched if one.taken_at < now.taken_at + SAME_VISIT]
        doubted = select(LesionChangeRow.analysis_id).where(
            col(LesionChangeRow.analysis_id).in_(beside), LesionChangeRow.state == MatchState.UNCERTAIN.value
        )
        again = set(session.execute(doubted).scalars()) if beside else set()
        for one in touched:
            if one.taken_at >= now.taken_at + SAME_VISIT or one.analysis_id in again:
                pair = derive_id("compare", one.analysis_id, now.analysis_id)
                self._node.queue.start(session, COMPARE, pair, one.analysis_id)

    def _sightings(self, session: Session, row: AnalysisRow) -> tuple[Sighting | None, list[Sighting]]:
        """The sighting of ``row`` and those of the patient's other images, one for each, of the same model if any.

        ``None`` for an image that a clinician withdrew; withdrawn ones are not among the others.
        """
        now: Sighting | None = None
        chosen: dict[str, tuple[bool, Sighting]] = {}
        for one, digest in self._images(session, PatientIdentity(row.issuer, row.patient_id)):
            if one.analysis_id == row.id:
                now = one
            elif one.instance_id != row.instance_id:
                fits = digest == row.model_digest
                if one.instance_id not in chosen or (fits and not chosen[one.instance_id][0]):
                    chosen[one.instance_id] = (fits, one)
        return now, [one for _, one in chosen.values()]

    def _images(self, session: Session, patient: PatientIdentity) -> list[tuple[Sighting, str]]:
        """Every analysed image of ``patient`` that was not withdrawn, with the digest of its model; newest first."""
        query = (
            sa.select(
                col(AnalysisRow.id),
                col(AnalysisRow.instance_id),
                col(AnalysisRow.model_digest),
                col(AnalysisRow.reviews),
                col(InstanceRow.body_site_code),
                col(InstanceRow.laterality),
                col(LesionImageRow.taken_at),
                col(LesionImageRow.dated),
                col(LesionImageRow.tracking_uid),
            )
            .join(InstanceRow, col(InstanceRow.id) == col(AnalysisRow.instance_id))
            .join(LesionImageRow, col(LesionImageRow.analysis_id) == col(AnalysisRow.id))
            .where(
                col(AnalysisRow.issuer) == patient.issuer,
                col(AnalysisRow.patient_id) == patient.patient_id,
                col(AnalysisRow.state).in_(_ANALYSED),
                col(AnalysisRow.report_status) != ReportStatus.ENTERED_IN_ERROR.value,
            )
            .order_by(col(AnalysisRow.created_at).desc(), col(AnalysisRow.id))
            .limit(_MOST_IMAGES)
        )
        found = []
        for row in session.execute(query):
            stands = standing(reviews_of(session, row.id) if row.reviews else ())
            one = Sighting(
                analysis_id=row.id,
                instance_id=row.instance_id,
                taken_at=row.taken_at,
                dated=row.dated,
                tracking_uid=row.tracking_uid,
                body_site_code=stands.body_site_code or row.body_site_code,
                laterality=stands.laterality or row.laterality,
            )
            found.append((one, row.model_digest))
        return found

    def _fill_in(self, patient: PatientIdentity) -> None:
        """Rows of images that were analysed by a version that kept none."""
        with self._node.begin() as session:
            query = (
                sa.select(col(AnalysisRow.id), col(AnalysisRow.instance_id))
                .join(LesionImageRow, col(LesionImageRow.analysis_id) == col(AnalysisRow.id), isouter=True)
                .where(
                    col(AnalysisRow.issuer) == patient.issuer,
                    col(AnalysisRow.patient_id) == patient.patient_id,
                    col(AnalysisRow.state).in_(_ANALYSED),
                    col(LesionImageRow.analysis_id).is_(None),
                )
                .limit(_MOST_IMAGES)
            )
            missing = session.execute(query).all()
        for analysis_id, instance_id in missing:
            try:
                with self._node.begin() as session:
                    source = load_source(session, self._node.blobs, instance_id)
                    session.add(self._image(analysis_id, patient, source))
            except IntegrityError:  # another worker has just done the same
                continue
            except (KeyError, IntegrityViolation) as error:
                log.error("comparison.earlier_unreadable", analysis_id=analysis_id, error=type(error).__name__)

    def _image(self, analysis_id: str, patient: PatientIdentity, source: SourceObject) -> LesionImageRow:
        stated = self._stated(source)
        return LesionImageRow(
            analysis_id=analysis_id,
            issuer=patient.issuer,
            patient_id=patient.patient_id,
            taken_at=stated.taken_at or source.received_at,
            dated=stated.taken_at is not None,
            tracking_uid=stated.tracking_uid,
        )


def _details(change: Change) -> dict[str, JsonValue]:
    """What the audit log says of a comparison: the pair, the match, and the measures that changed beyond noise."""
    return {
        "prior_id": change.prior_id,
        "state": change.match.state.value,
        "points": change.match.points,
        "candidates": change.candidates,
        "beyond_noise": [fact.name for fact in change.facts if fact.beyond_noise],
    }
