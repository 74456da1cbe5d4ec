"""Finished analyses whose FHIR bundles are real ones, and amendments of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cds_service.node import Node
from dermoscopy.analyses import keep_former, save_artifacts
from dermoscopy.domain import (
    Analysis,
    Artifact,
    ArtifactKind,
    DermoscopicImage,
    LesionClass,
    PatientIdentity,
    Review,
    SourceObject,
    TriageTier,
    Verdict,
    derive_id,
    derive_uid,
)
from dermoscopy.ports import RenderInput
from dermoscopy.tables import AnalysisRow, ArtifactRow, utc_now
from fhir_adapters.render import RENDERERS
from tests.findings import PATIENT, drawn_lesion, finish, make_finding, take_in


def reported(
    node: Node, tier: TriageTier = TriageTier.URGENT, patient: PatientIdentity = PATIENT, name: str = "1"
) -> Analysis:
    """A finished analysis of a new image, as the pipeline leaves it."""
    analysis = finish(node, take_in(node, patient, name).analysis_id, make_finding(tier))
    _store(node, analysis, ())
    return analysis


def amended(node: Node, analysis: Analysis, verdict: Verdict, at: datetime | None = None) -> None:
    """The next version of its results, after a clinician's review."""
    review = Review(
        id=derive_id("test-review", analysis.id, verdict.value),
        analysis_id=analysis.id,
        revision=1,
        at=at or utc_now(),
        reviewer="https://login|doctor-1",
        reviewer_name="Dr Ada Example",
        verdict=verdict,
        lesion_class=LesionClass.NV if verdict is Verdict.CORRECTED else None,
    )
    _store(node, analysis, (review,))


def _store(node: Node, analysis: Analysis, reviews: Sequence[Review]) -> None:
    image = DermoscopicImage(drawn_lesion().pixels, "23" * 32, (0.05, 0.05))
    capture = ArtifactKind.SECONDARY_CAPTURE
    drawn = Artifact(
        capture, "application/dicom", b"a picture", derive_uid(capture, analysis.id), "1.2.840.10008.5.1.4.1.1.7"
    )
    source = SourceObject(analysis.instance_id, b"pixels", analysis.header, analysis.created_at)
    what = RenderInput(analysis, image, source, companions={capture: drawn}, reviews=tuple(reviews))
    bundle = RENDERERS[ArtifactKind.FHIR_BUNDLE](what)
    digest = node.blobs.put(bundle.data)
    with node.begin() as session:
        row = session.get_one(AnalysisRow, analysis.id)
        old = session.get_one(ArtifactRow, derive_id("artifact", analysis.id, ArtifactKind.FHIR_BUNDLE))
        if reviews:
            keep_former(session, old, revision=row.rendered_revision)
        save_artifacts(session, analysis.id, [(bundle, digest)])
        row.rendered_revision, row.reviews, row.report_status = what.revision, len(reviews), what.status.value
