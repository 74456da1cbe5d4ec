"""The answer that telemedicine apps built for a general skin model expect, so that they can switch without change.

Flat names, confidence in percent, one word of severity. What such an app cannot show in its own fields (that the
algorithm abstains, what cannot be excluded, what a clinician said since) stands in fields of its own, and never as a
confident guess in the old ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field

from cds_service.api.analyses import AnalysisId, note_read
from cds_service.api.analyze import held, request_body, take_in, wait_for
from cds_service.api.answers import Accepted, AnalysisAnswer, RegionStatistics
from cds_service.api.refusals import problems
from cds_service.api.stored import READY, answer, failure_of, find_analysis, node_of
from cds_service.api.uploads import ReadObject, Upload, read_upload
from cds_service.authorization import Caller, Reader, Submitter
from cds_service.error_handlers import respond
from cds_service.node import Node
from dermoscopy.domain import MALIGNANT, LesionClass, TriageTier, Verdict
from dermoscopy.overlay import CLASS_TITLES
from dermoscopy.wording import PATIENT_NOTICE, PATIENT_WORDS

PREFIX: Final = "/api/v1/telemedicine"
UNDETERMINED: Final = "undetermined"
WITHDRAWN: Final = "withdrawn"

SEVERITY: Final[Mapping[TriageTier, str]] = {
    TriageTier.URGENT: "critical",
    TriageTier.EXPEDITED: "high",
    TriageTier.UNDETERMINED: UNDETERMINED,
    TriageTier.ROUTINE: "moderate",
    TriageTier.MONITOR: "low",
}
"""Urgency tier → the one word that apps sort and colour by. An abstention is never "low"."""

Audience = Literal["clinician", "patient"]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DetectedCondition(_Answer):
    """One class with its calibrated probability."""

    condition: str
    confidence: float = Field(ge=0, le=100, description="Percent")


class LesionRegion(_Answer):
    """Where the lesion is; null measures are unknown, never estimated."""

    area_percent: float = Field(ge=0, le=100)
    area_mm2: float | None = None
    diameter_mm: float | None = None
    bounding_box: tuple[int, int, int, int] = Field(description="Top, left, bottom, right, pixels; last two exclusive")
    mask_url: str


class PatientWords(_Answer):
    """What a patient may be told: how urgent it is and what to do, never a probability and never a diagnosis."""

    urgency: TriageTier
    heading: str
    explanation: str
    next_step: str
    notice: str


class TelemedicineReport(_Answer):
    """The older response, and what it had no place for."""

    report_id: str
    image_id: str
    analysis_type: Literal["dermoscopy"] = "dermoscopy"
    condition: str = Field(description="Class called, 'undetermined' when the algorithm abstains, 'withdrawn'")
    confidence: float | None = Field(ge=0, le=100, description="Percent; null where there is nothing to be sure of")
    severity: str = Field(examples=sorted(set(SEVERITY.values())))
    characteristics: list[str]
    recommendation: str
    segmentation: LesionRegion | None
    conditions_detected: list[DetectedCondition] = Field(
        description="Most probable first; empty for patients and once a clinician says otherwise"
    )
    mask_visualization_url: str | None = Field(
        description="PNG: the image with contour and legend; the mask for patients"
    )
    urgency: TriageTier
    abstention: str | None = None
    cannot_be_excluded: list[str] = Field(default_factory=list)
    report_status: str
    patient: PatientWords | None = Field(default=None, description="With audience=patient")
    model_version: str
    notice: str


def add_telemedicine(app: FastAPI, read: ReadObject) -> None:
    """Add the two routes to ``app``; ``read`` tells what image some bytes are."""
    router = APIRouter(tags=["analyses"])

    @router.post(
        f"{PREFIX}/analyze",
        summary="Analyse an image for a telemedicine app",
        response_model=TelemedicineReport,
        responses={
            202: {"model": Accepted, "description": "Kept safely, but not finished, or held for a person"},
            **problems(400, 401, 403, 413, 415, 421, 422, 503, 507),
        },
        openapi_extra={"requestBody": request_body()},
    )
    async def analyze(
        request: Request,
        caller: Submitter,
        upload: Annotated[Upload, Depends(read_upload)],
        audience: Annotated[Audience, Query()] = "clinician",
    ) -> Response:
        """As `POST /api/v1/analyze`, answered in the older form. With `audience=patient` in plain words."""
        node = node_of(request)
        receipt = await run_in_threadpool(take_in, node, caller, upload, read)
        if receipt.hold or not receipt.analysis_id:
            return held(receipt)
        asked, limit = upload.fields.wait, node.settings.analyze_wait_seconds
        await wait_for(node, receipt.analysis_id, limit if asked is None else min(asked, limit))
        return await run_in_threadpool(_answered, node, request, None, receipt.analysis_id, audience)

    @router.get(
        f"{PREFIX}/reports/{{analysis_id}}",
        summary="A report in the older form",
        response_model=TelemedicineReport,
        responses={
            202: {"model": Accepted, "description": "Not finished yet"},
            **problems(401, 403, 404, 421, 422),
        },
    )
    def report(
        request: Request,
        caller: Reader,
        analysis_id: AnalysisId,
        audience: Annotated[Audience, Query()] = "clinician",
    ) -> Response:
        return _answered(node_of(request), request, caller, str(analysis_id), audience)

    app.include_router(router)


def _answered(node: Node, request: Request, reader: Caller | None, analysis_id: str, audience: Audience) -> Response:
    with node.begin() as session:
        row = find_analysis(session, analysis_id)
        if (problem := failure_of(row)) is not None:
            return respond(request.url.path, request.headers.get("accept", ""), problem, {})
        if row.state not in READY:
            location = f"{PREFIX}/reports/{row.id}"
            body = Accepted(report_id=row.id, state=row.state, links={"self": location})  # type: ignore[arg-type]
            headers = {"Location": location, "Retry-After": "1"}
            return Response(body.model_dump_json(exclude_none=True), 202, headers, "application/json")
        whole = answer(session, node, row, pictures=False)
        if reader is not None:
            note_read(node, session, reader, row, "telemedicine")
        said = telemedicine_report(whole, row.instance_id, node.settings.resolved_public_url, audience)
    return Response(said.model_dump_json(), 200, media_type="application/json")


def telemedicine_report(
    whole: AnalysisAnswer, image_id: str, public_url: str, audience: Audience
) -> TelemedicineReport:
    """The older form of a finished analysis."""
    assert whole.diagnosis is not None and whole.triage is not None
    verdict = next((r for r in reversed(whole.reviews) if r.verdict is not Verdict.COMMENTED), None)
    withdrawn = verdict is not None and verdict.verdict is Verdict.UNUSABLE
    corrected = next((r.lesion_class for r in reversed(whole.reviews) if r.lesion_class), None)
    named = corrected or (whole.diagnosis.primary if whole.abstention is None else None)
    to_patient = audience == "patient"
    sure = not (withdrawn or corrected or named is None or to_patient)
    algorithm = not (withdrawn or corrected or to_patient)  # whether its own list of classes is what stands
    tier = _tier(whole.triage.tier, corrected, withdrawn)
    region = whole.segmentation.region_statistics if whole.segmentation else None
    return TelemedicineReport(
        report_id=whole.report_id,
        image_id=image_id,
        condition=WITHDRAWN if withdrawn else CLASS_TITLES[named] if named and not to_patient else UNDETERMINED,
        confidence=round(whole.diagnosis.confidence * 100, 1) if sure else None,
        severity=SEVERITY[tier],
        characteristics=[] if withdrawn or to_patient else characteristics(region),
        recommendation=_recommendation(whole, withdrawn, corrected, to_patient, tier),
        segmentation=None if withdrawn or region is None else _region(region, whole, public_url),
        conditions_detected=_detected(whole.diagnosis.all_classes) if algorithm else [],
        mask_visualization_url=_picture(whole, public_url, withdrawn, to_patient),
        urgency=tier,
        abstention=whole.abstention,
        cannot_be_excluded=[CLASS_TITLES[label] for label in whole.diagnosis.prediction_set] if algorithm else [],
        report_status=whole.report_status.value,
        patient=_patient_words(tier) if to_patient else None,
        model_version=whole.model_version,
        notice=whole.notice,
    )


def _tier(tier: TriageTier, corrected: LesionClass | None, withdrawn: bool) -> TriageTier:
    """The urgency after what clinicians said: a correction may raise it and never lowers it."""
    if withdrawn:
        return TriageTier.UNDETERMINED
    if corrected is LesionClass.MEL:
        return TriageTier.URGENT
    if corrected in MALIGNANT and tier is not TriageTier.URGENT:
        return TriageTier.EXPEDITED
    return tier


def characteristics(region: RegionStatistics | None) -> list[str]:
    """What was measured, as short phrases; nothing where no lesion was found."""
    if region is None:
        return []
    colours = sorted(region.colour_fractions, key=lambda name: -region.colour_fractions[name])
    seen = [name.replace("_", " ") for name in colours if region.colour_fractions[name] > 0]
    said = [
        f"asymmetry {region.asymmetry:.2f} (0 is symmetric)",
        f"border irregularity {region.border_irregularity:.2f} (1 is a circle)",
        f"{region.colour_count} dermoscopic colours{': ' + ', '.join(seen) if seen else ''}",
        f"{region.area_percent:.1f} % of the image",
    ]
    if region.equivalent_diameter_mm is not None:
        said.append(f"diameter {region.equivalent_diameter_mm:.1f} mm")
    return said


def _recommendation(
    whole: AnalysisAnswer, withdrawn: bool, corrected: LesionClass | None, to_patient: bool, tier: TriageTier
) -> str:
    if to_patient:
        return PATIENT_WORDS[tier].next_step
    if withdrawn:
        return "A clinician withdrew this result. Do not use it; retake the image or examine the lesion in person."
    if corrected:  # what the algorithm recommended was for another class, and may reassure where a clinician does not
        return f"A clinician corrected this result to {CLASS_TITLES[corrected]}: follow the clinician's advice."
    return whole.recommendation or ""


def _region(region: RegionStatistics, whole: AnalysisAnswer, public_url: str) -> LesionRegion:
    return LesionRegion(
        area_percent=region.area_percent,
        area_mm2=region.area_mm2,
        diameter_mm=region.equivalent_diameter_mm,
        bounding_box=region.bounding_box,
        mask_url=f"{public_url}{whole.links['mask']}",
    )


def _picture(whole: AnalysisAnswer, public_url: str, withdrawn: bool, to_patient: bool) -> str | None:
    """The legend of the overlay names class and probability: patients get the mask alone, where there is one."""
    name = "mask" if to_patient else "overlay"
    region = whole.segmentation.region_statistics if whole.segmentation else None
    if withdrawn or (to_patient and region is None):
        return None
    return f"{public_url}{whole.links[name]}"


def _detected(classes: Mapping[LesionClass, float]) -> list[DetectedCondition]:
    ordered = sorted(classes.items(), key=lambda pair: -pair[1])
    return [DetectedCondition(condition=CLASS_TITLES[label], confidence=round(p * 100, 1)) for label, p in ordered]


def _patient_words(tier: TriageTier) -> PatientWords:
    words = PATIENT_WORDS[tier]
    return PatientWords(
        urgency=tier,
        heading=words.heading,
        explanation=words.explanation,
        next_step=words.next_step,
        notice=PATIENT_NOTICE,
    )
