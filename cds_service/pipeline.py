"""The whole flow on one screen: analyse → compare and render → deliver, as durable workflows of small steps.

Steps run at least once. Each is idempotent: its rows have derived keys, its bytes derived addresses, and the leaf in
the audit log stands in the same transaction as the change it tells of.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from threading import Lock

import sqlalchemy.exc
import structlog
from dbos import DBOS, StepOptions
from opentelemetry import metrics
from sqlalchemy.orm import Session

from cds_service.amendments import Amendments
from cds_service.bulk_export import BulkExport
from cds_service.commitments import Commitments
from cds_service.deliveries import Deliveries
from cds_service.lesions import Comparisons
from cds_service.node import Node
from cds_service.priors import PriorPulls
from cds_service.rendering import draw, with_hair
from cds_service.result_commitments import ResultCommitments
from cds_service.steps import ACTOR, hold, step
from dermoscopy.analyses import (
    load_analysis,
    load_source,
    raster_artifacts,
    save_artifacts,
    save_finding,
)
from dermoscopy.domain import (
    Analysis,
    ArtifactKind,
    DermoscopicImage,
    Finding,
    SourceObject,
)
from dermoscopy.errors import AnalysisFailed, DermoscopyError, IntegrityViolation, Rejected, Unavailable
from dermoscopy.ports import (
    Algorithm,
    AuditEntry,
    Destination,
    FindHair,
    JsonValue,
    MeasureOutline,
    Renderer,
    RenderInput,
)
from dermoscopy.tables import AnalysisRow, utc_now
from dermoscopy.workqueue import AMEND, ANALYSE, ASK_COMMITMENT, COMMIT, COMPARE, DELIVER, END_COMMITMENT, EXPORT, PULL
from monitoring.features import store_features

log = structlog.get_logger(__name__)
_meter = metrics.get_meter(__name__)
_analysed = _meter.create_counter("cds_analyses", description="finished analyses by triage tier, or failed")
_abstained = _meter.create_counter("cds_abstentions", description="analyses in which the algorithm gave no answer")
_elapsed = _meter.create_histogram("cds_end_to_end_seconds", unit="s", description="from acceptance to stored results")

_CACHE_SIZE = 16
_RENDERED = ("rendered", "complete")


class Pipeline:
    """The steps, with what they need; `register` makes them workflows of the durable engine."""

    def __init__(
        self,
        node: Node,
        algorithm: Algorithm,
        decode: Callable[[SourceObject], DermoscopicImage],
        renderers: Mapping[ArtifactKind, Renderer],
        destinations: Sequence[Destination],
        *,
        measure: MeasureOutline,
        hair: FindHair | None = None,
        comparisons: Comparisons | None = None,
    ) -> None:
        self._node = node
        self._algorithm = algorithm
        self._decode = decode
        self._renderers = renderers
        self._deliveries = Deliveries(node, destinations)
        self._amendments = Amendments(node, decode, measure, renderers, self._deliveries, hair, comparisons)
        self._hair = hair
        self._comparisons = comparisons
        self._commitments = Commitments(node)
        self._result_commitments = ResultCommitments(node)
        self._priors = PriorPulls(node)
        self._exports = BulkExport(node)
        self._recent: OrderedDict[str, RenderInput] = OrderedDict()
        self._recent_lock = Lock()

    def register(self) -> None:
        """Declare the workflows under the names that `dermoscopy.workqueue` starts them by."""

        @DBOS.workflow(name=ANALYSE)
        def analyse(analysis_id: str) -> None:
            try:
                if DBOS.run_step(_options("analyse"), self.analyse, analysis_id):
                    DBOS.run_step(_options("render"), self.render, analysis_id)
            except Exception as error:  # noqa: BLE001 - outermost loop: no image may vanish without a word
                DBOS.run_step(_options("fail"), self.fail, analysis_id, error)

        @DBOS.workflow(name=AMEND)
        def amend(analysis_id: str, review_id: str) -> None:
            try:
                DBOS.run_step(_options("amend"), self._amendments.amend, analysis_id, review_id)
            except Exception as error:  # noqa: BLE001 - outermost loop: no review may vanish without a word
                DBOS.run_step(_options("fail"), self._amendments.fail, analysis_id, review_id, error)

        @DBOS.workflow(name=DELIVER)
        def deliver(delivery_id: str, attempt: str) -> None:
            try:
                DBOS.run_step(_options("deliver"), self._deliveries.deliver, delivery_id, int(attempt))
            except Exception as error:
                reason = f"internal error ({type(error).__name__}): see the log"
                log.exception("delivery.broke", delivery_id=delivery_id)
                DBOS.run_step(_options("hold"), self._deliveries.hold, delivery_id, int(attempt), reason)

        @DBOS.workflow(name=COMMIT)
        def commit(commitment_id: str, attempt: str) -> None:
            try:
                DBOS.run_step(_options("report"), self._commitments.report, commitment_id, int(attempt))
            except Exception as error:
                reason = f"internal error ({type(error).__name__}): see the log"
                log.exception("commitment.broke", commitment_id=commitment_id)
                DBOS.run_step(_options("hold"), self._commitments.hold, commitment_id, int(attempt), reason)

        @DBOS.workflow(name=ASK_COMMITMENT)
        def ask_commitment(commitment_id: str, attempt: str) -> None:
            try:
                DBOS.run_step(_options("ask"), self._result_commitments.ask, commitment_id, int(attempt))
            except Exception as error:
                reason = f"internal error ({type(error).__name__}): see the log"
                log.exception("result_commitment.broke", commitment_id=commitment_id)
                DBOS.run_step(_options("hold"), self._result_commitments.refuse, commitment_id, int(attempt), reason)

        @DBOS.workflow(name=END_COMMITMENT)
        def end_commitment(commitment_id: str) -> None:
            DBOS.run_step(_options("end"), self._result_commitments.end, commitment_id)

        @DBOS.workflow(name=EXPORT)
        def export(order: str) -> str:
            return DBOS.run_step(_options("list_parts"), self._exports.list_parts, order)

        @DBOS.workflow(name=PULL)
        def pull(instance_id: str, pull_id: str, attempt: str) -> None:
            try:
                DBOS.run_step(_options("pull"), self._priors.attempt, instance_id, pull_id, int(attempt))
            except Exception as error:
                log.exception("priors.broke", instance_id=instance_id)
                reason = f"internal error ({type(error).__name__}): see the log"
                DBOS.run_step(_options("hold"), self._priors.hold, instance_id, reason)

        comparisons = self._comparisons
        if comparisons is None:
            return

        @DBOS.workflow(name=COMPARE)
        def compare(analysis_id: str) -> None:
            try:
                DBOS.run_step(_options("compare"), comparisons.again, analysis_id)
            except Exception as error:
                reason = f"internal error ({type(error).__name__}): see the log"
                log.exception("comparison.broke", analysis_id=analysis_id)
                DBOS.run_step(_options("hold"), comparisons.hold, analysis_id, reason)

    # ------------------------------------------------------------------------------------------------ analyse

    def analyse(self, analysis_id: str) -> bool:
        """Decode, run the model, store the finding. False when it failed for good (the row says why)."""
        with step(self._node, "analyse", analysis_id):
            with self._node.begin() as session:
                row = session.get_one(AnalysisRow, analysis_id)
                if row.state == "failed" or row.document:
                    return row.state != "failed"
            try:
                what, milliseconds = self._compute(analysis_id)
            except (Rejected, AnalysisFailed, IntegrityViolation) as error:
                self.fail(analysis_id, error)
                return False
            rasters = [(artifact, self._node.blobs.put(artifact.data)) for artifact in raster_artifacts(what.analysis)]
            with self._node.begin() as session:
                save_finding(session, what.analysis, milliseconds=milliseconds)
                if self._comparisons is not None:
                    self._comparisons.sight(session, what.analysis, what.source)
                save_artifacts(session, analysis_id, rasters)
                store_features(session, what.analysis)
                self._append(session, "analysis.completed", what.analysis, _inference_details(what.analysis))
            finding = what.analysis.finding
            _analysed.add(1, {"tier": finding.triage.tier.value, "abstained": str(finding.abstention is not None)})
            if finding.abstention is not None:
                _abstained.add(1, {"reason": _abstention_kind(finding)})
            self._remember(analysis_id, what)
            return True

    def _compute(self, analysis_id: str) -> tuple[RenderInput, float]:
        with self._node.begin() as session:
            row = session.get_one(AnalysisRow, analysis_id)
            source = load_source(session, self._node.blobs, row.instance_id)
        if row.model_digest != self._algorithm.reference.digest:
            raise AnalysisFailed(
                f"this analysis was asked of {row.model_name} {row.model_version}, which this worker no longer runs: "
                "send the image again to have it analysed by the present model"
            )
        began = time.perf_counter()
        image = self._decode(source)
        finding = self._algorithm.analyze(image)
        milliseconds = (time.perf_counter() - began) * 1000
        analysis = Analysis(
            id=analysis_id,
            instance_id=row.instance_id,
            created_at=row.created_at,
            finding=finding,
            header=source.header,
            rows=image.rows,
            columns=image.columns,
            pixel_digest=image.pixel_digest,
            spacing_mm=image.spacing_mm,
            acquisition=image.acquisition,
            remarks=image.remarks,
        )
        return RenderInput(analysis, image, source), milliseconds

    def fail(self, analysis_id: str, error: Exception) -> None:
        """Record that an accepted image has no result and needs a person; the image itself is kept."""
        if isinstance(error, DermoscopyError):
            reason = str(error)
        else:  # the text of a foreign error may carry anything, patient data too
            reason = "internal error: see the log"
            log.exception("analysis.broke", analysis_id=analysis_id, exc_info=error)
        with self._node.begin() as session:
            row = session.get_one(AnalysisRow, analysis_id, with_for_update=True)
            if row.state in ("failed", *_RENDERED):
                return  # recorded before a crash, or the results stand and only a later checkpoint broke
            row.state, row.error, row.completed_at = "failed", f"{type(error).__name__}: {reason}", utc_now()
            hold(session, "analysis_failed", analysis_id, reason)
            self._node.audit.append(
                session,
                AuditEntry(
                    action="analysis.failed",
                    actor=ACTOR,
                    subject_type="analysis",
                    subject_id=analysis_id,
                    outcome="failure",
                    patient_issuer=row.issuer,
                    patient_id=row.patient_id,
                    details={"error": type(error).__name__, "reason": reason},
                ),
            )
        _analysed.add(1, {"tier": "failed", "abstained": "False"})
        level = log.critical if isinstance(error, IntegrityViolation) else log.error
        level("analysis.failed", analysis_id=analysis_id, error=type(error).__name__, reason=reason)

    # ------------------------------------------------------------------------------------------------- render

    def render(self, analysis_id: str) -> None:
        """Draw every output once, store it, and start one delivery per output and destination."""
        with step(self._node, "render", analysis_id):
            with self._node.begin() as session:
                if session.get_one(AnalysisRow, analysis_id).state in _RENDERED:
                    return  # done before a crash; deliveries may have finished since
            what = self._recall(analysis_id)
            if self._comparisons is not None:
                with step(self._node, "compare", analysis_id):
                    what = replace(what, change=self._comparisons.first(what))
            try:
                artifacts = draw(self._renderers, with_hair(what, self._hair))
            except (Rejected, AnalysisFailed, IntegrityViolation) as error:
                self.fail(analysis_id, error)
                return
            stored = [(artifact, self._node.blobs.put(artifact.data)) for artifact in artifacts]
            with self._node.begin() as session:
                row = session.get_one(AnalysisRow, analysis_id, with_for_update=True)
                rows = save_artifacts(session, analysis_id, stored)
                session.flush()
                details: dict[str, JsonValue] = {r.kind: {"digest": r.digest, "uid": r.uid} for r in rows}
                self._append(session, "results.rendered", what.analysis, details)
                row.state = "rendered" if self._deliveries.start(session, rows) else "complete"
                row.completed_at = utc_now()
                _elapsed.record((row.completed_at - row.created_at).total_seconds())

    # ------------------------------------------------------------------------------------------------- shared

    def _remember(self, analysis_id: str, what: RenderInput) -> None:
        """Keep the decoded image for the next step of the same workflow; after a crash it is decoded again."""
        with self._recent_lock:
            self._recent[analysis_id] = what
            while len(self._recent) > _CACHE_SIZE:
                self._recent.popitem(last=False)

    def _recall(self, analysis_id: str) -> RenderInput:
        with self._recent_lock:
            what = self._recent.pop(analysis_id, None)
        if what is not None:
            return what
        with self._node.begin() as session:
            analysis = load_analysis(session, self._node.blobs, analysis_id)
            source = load_source(session, self._node.blobs, analysis.instance_id)
        return RenderInput(analysis, self._decode(source), source)

    def _append(self, session: Session, action: str, analysis: Analysis, details: dict[str, JsonValue]) -> None:
        patient = analysis.header.patient
        self._node.audit.append(
            session,
            AuditEntry(
                action=action,
                actor=ACTOR,
                subject_type="analysis",
                subject_id=analysis.id,
                patient_issuer=patient.issuer,
                patient_id=patient.patient_id,
                details=details,
            ),
        )


def _abstention_kind(finding: Finding) -> str:
    """Why the algorithm gave no answer, in a few fixed words for the metrics; the full reason is in the analysis."""
    if not finding.quality.usable:
        return "image"
    return "no_lesion" if finding.measurements is None else "uncertain"


def _inference_details(analysis: Analysis) -> dict[str, JsonValue]:
    """What must be known to repeat the inference and to compare the answer (docs/audit.md)."""
    finding, inference = analysis.finding, analysis.finding.inference
    return {
        "instance_id": analysis.instance_id,
        "sop_instance_uid": analysis.header.sop_instance_uid,
        "accession_number": analysis.header.accession_number,
        "pixel_digest": analysis.pixel_digest,
        "decoding": [remark.code for remark in analysis.remarks],
        "model": {"name": finding.model.name, "version": finding.model.version, "sha256": finding.model.digest},
        "execution_provider": inference.execution_provider,
        "precision": inference.precision,
        "preprocessing_digest": inference.preprocessing_digest,
        "calibration": dict(inference.calibration),
        "thresholds": dict(inference.thresholds),
        "code_version": inference.code_version,
        "logits": {c.label.value: c.logit for c in finding.classes},
        "probabilities": {c.label.value: c.probability for c in finding.classes},
        "melanoma_risk": finding.melanoma_risk,
        "quality": dict(finding.quality.scores),
        "mask_digest": inference.mask_digest,
        "heatmap_digest": inference.heatmap_digest,
        "tier": finding.triage.tier.value,
        "abstention": finding.abstention or "",
    }


def _transient(error: BaseException) -> bool:
    return isinstance(error, Unavailable | sqlalchemy.exc.OperationalError)


def _options(name: str) -> StepOptions:
    return {
        "name": name,
        "retries_allowed": True,
        "max_attempts": 10,
        "interval_seconds": 0.5,
        "backoff_rate": 2.0,
        "should_retry": _transient,
    }
