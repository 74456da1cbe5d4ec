"""What the REST API answers with. Every field says its unit; what has no value is null, never a made-up value."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cds_service.api.outcome_answers import OutcomeAnswer
from cds_service.api.refusals import ProblemDetails
from dermoscopy.domain import (
    ArtifactKind,
    CommitmentState,
    DeliveryState,
    LesionClass,
    ReportStatus,
    ScaleSource,
    TriageTier,
    Verdict,
)
from dermoscopy.lesions import MatchState

State = Literal["queued", "analysed", "rendered", "complete", "failed"]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Diagnosis(_Answer):
    """Calibrated probabilities of the seven HAM10000 classes. A second opinion of a machine, not a diagnosis."""

    primary: LesionClass | None = Field(description="The class called; null when the algorithm abstains")
    confidence: float = Field(ge=0, le=1, description="Probability of the class called")
    melanoma_risk: float = Field(ge=0, le=1)
    malignancy_risk: float = Field(
        ge=0, le=1, description="Melanoma, basal cell carcinoma and actinic keratosis together"
    )
    all_classes: dict[LesionClass, float]
    most_probable: LesionClass
    decision_note: str = Field(default="", description="Why the class called is not the most probable one; empty if so")
    prediction_set: list[LesionClass] = Field(
        default_factory=list,
        description="Classes that cannot be excluded at the model's error rate, most probable first",
    )


class RegionStatistics(_Answer):
    """Measured on the largest lesion region. Millimetres are null unless the image states a scale or shows a ruler."""

    area_px: float
    area_percent: float = Field(description="Share of the image, in percent")
    area_mm2: float | None = None
    perimeter_px: float
    perimeter_mm: float | None = None
    equivalent_diameter_px: float
    equivalent_diameter_mm: float | None = None
    circularity: float
    solidity: float
    eccentricity: float
    asymmetry: float = Field(description="0 (symmetric) to 1")
    border_irregularity: float = Field(description="Perimeter squared over 4 pi area; 1 is a circle")
    colour_count: int = Field(description="Of the six dermoscopic reference colours")
    colour_variety: float
    colour_fractions: dict[str, float]
    scale_source: ScaleSource | None = Field(
        default=None,
        description="Where millimetres come from: DICOM header or ruler marks; null in results of earlier versions",
    )
    centroid: tuple[float, float] = Field(description="Row, column")
    bounding_box: tuple[int, int, int, int] = Field(description="Top, left, bottom, right; the last two exclusive")


class Segmentation(_Answer):
    """Where the lesion is."""

    mask: str | None = Field(
        default=None, description="PNG, base64: 255 inside, 0 outside. Left out where links name it"
    )
    region_statistics: RegionStatistics | None = Field(description="Null when no lesion was found")


class ReasonAnswer(_Answer):
    """One reason for which the algorithm does not answer."""

    code: str = Field(examples=["blur"])
    words: str


class TriageAnswer(_Answer):
    """How soon a clinician should look, and why."""

    tier: TriageTier
    reason: str


class QualityAnswer(_Answer):
    """Whether the image is fit for analysis."""

    usable: bool
    reasons: list[str]
    scores: dict[str, float]


class AcquisitionAnswer(_Answer):
    """How the picture was taken, as the device stated it (PS3.3 C.8.12.13); null where it did not."""

    contact: bool | None = None
    polarised: bool | None = None
    immersion: str | None = Field(default=None, examples=["alcohol"])
    magnification: float | None = Field(default=None, description="Optical, in times")
    station: str | None = Field(default=None, description="Manufacturer and model of the device")


class RemarkAnswer(_Answer):
    """What decoding had to assume or change."""

    code: str = Field(examples=["profile_absent"])
    words: str


class ImageAnswer(_Answer):
    """The picture that was analysed, as it was decoded."""

    rows: int
    columns: int
    pixel_digest: str = Field(description="SHA-256 of size and decoded RGB bytes: what the algorithm saw")
    spacing_mm: tuple[float, float] | None = Field(
        default=None, description="Row, column spacing that the header states, mm"
    )
    acquisition: AcquisitionAnswer
    remarks: list[RemarkAnswer] = Field(default_factory=list)


class Delivery(_Answer):
    """One output on its way to one destination. An amended output has a delivery of its own."""

    destination: str
    kind: ArtifactKind
    uid: str = Field(default="", description="SOP Instance UID of what is sent; empty where it is no DICOM object")
    state: DeliveryState
    attempts: int
    last_error: str = ""
    next_attempt_at: datetime | None = None
    delivered_at: datetime | None = None
    commitment: CommitmentState | None = Field(
        default=None, description="Whether the PACS keeps it (DICOM storage commitment); null where it is not asked"
    )
    asked_at: datetime | None = Field(default=None, description="When it was last asked")
    committed_at: datetime | None = Field(default=None, description="When it said that it keeps it")


class ReviewAnswer(_Answer):
    """What one clinician said of a result."""

    review_id: str
    revision: int = Field(ge=1, description="1 for the first review of the result, then one more each time")
    at: datetime
    reviewer: str = Field(description="Who, as the audit log names them")
    reviewer_name: str = Field(default="", description="Who, for people; empty where the login gives no name")
    verdict: Verdict
    lesion_class: LesionClass | None = Field(default=None, description="The class the clinician gives")
    outline: list[tuple[float, float]] = Field(
        default_factory=list, description="Corners (column, row) of the corrected outline in pixels of the source"
    )
    body_site_code: str = Field(default="", description="SNOMED CT; empty where the site stands")
    laterality: str = Field(default="", description="L, R, B or U; empty where it stands")
    comment: str = ""


class ReviewList(_Answer):
    """Oldest first."""

    report_id: str
    report_status: ReportStatus
    reviews: list[ReviewAnswer]


class MatchAnswer(_Answer):
    """How sure it is that both images show one lesion."""

    state: MatchState = Field(
        description="same_lesion: the source states one Tracking UID; likely: site, side and the pictures agree; "
        "uncertain: site and side agree, the pictures do not show it; not_compared: the words say why"
    )
    words: str
    points: int = Field(ge=0, description="Distinct structures that both pictures show in one arrangement")
    overlap: float | None = Field(default=None, description="Of the smaller outline, 0 to 1, once laid over each other")
    turn_degrees: float | None = None
    zoom: float | None = Field(default=None, description="A length in this picture over the same in the earlier one")
    zoom_error: float | None = Field(default=None, description="Relative standard error of zoom")


class FactAnswer(_Answer):
    """One measure then and now."""

    name: str = Field(examples=["area"])
    title: str
    before: str
    after: str
    words: str
    unit: str = Field(description="UCUM; empty where it is no number")
    before_value: float | None = None
    after_value: float | None = None
    difference: float | None = None
    noise: float | None = Field(
        default=None, description="What 95 % of picture pairs of one lesion differ by at most, in unit"
    )
    beyond_noise: bool | None = Field(
        default=None, description="Whether the difference is more than that; null where it cannot be told"
    )


class ChangeAnswer(_Answer):
    """What changed since an earlier image of the lesion. It never lowers a tier and never says that nothing changed."""

    summary: str
    match: MatchAnswer
    prior_report_id: str | None = Field(default=None, description="The earlier analysis; null: nothing was compared")
    prior_taken_at: datetime | None = None
    taken_at: datetime
    dated: bool = Field(description="Whether both images state when they were taken; else when they were received")
    days: int | None = None
    candidates: int = Field(ge=0, description="How many earlier images were in question")
    facts: list[FactAnswer]


class AnalysisAnswer(_Answer):
    """One analysis. Results are there from state ``rendered`` on, with ``failed`` comes a ``problem``."""

    report_id: str
    state: State
    created_at: datetime
    completed_at: datetime | None = None
    diagnosis: Diagnosis | None = None
    segmentation: Segmentation | None = None
    attention_map: str | None = Field(default=None, description="PNG, base64: class evidence, 0 to 255")
    overlay: str | None = Field(default=None, description="PNG, base64: the image with contour and legend")
    recommendation: str | None = None
    triage: TriageAnswer | None = None
    abstention: str | None = Field(default=None, description="Why the algorithm does not answer, where it does not")
    abstention_reasons: list[ReasonAnswer] = Field(default_factory=list, description="The same, one by one and coded")
    quality: QualityAnswer | None = None
    image: ImageAnswer | None = None
    explanation: list[str] | None = None
    model_version: str = Field(description="name==version of the weights", examples=["lesionnet==1.0.0"])
    latency_ms: float | None = Field(default=None, description="Decoding, inference and measurement, milliseconds")
    problem: ProblemDetails | None = Field(default=None, description="Why it failed, where it failed")
    deliveries: list[Delivery] = Field(default_factory=list)
    report_status: ReportStatus = Field(
        description="preliminary until a clinician reviews it; what the algorithm said stays as it was"
    )
    reviews: list[ReviewAnswer] = Field(default_factory=list, description="What clinicians said, oldest first")
    outcome: OutcomeAnswer | None = Field(
        default=None, description="What pathology or follow-up found since; of several the gravest of the most certain"
    )
    change: ChangeAnswer | None = Field(
        default=None, description="Since an earlier image of the lesion; null where there is none"
    )
    links: dict[str, str] = Field(description="Where the outputs are")
    notice: str = Field(description="What this is, and what it is not")


class Accepted(_Answer):
    """The image is safe here, but there is no result yet."""

    report_id: str | None = Field(default=None, description="Ask for it at the Location; null while held")
    state: Literal["queued", "analysed", "held"]
    hold_id: str | None = Field(default=None, description="What waits for a person, when held")
    reason: str | None = Field(default=None, description="Why it is held")
    links: dict[str, str] = Field(default_factory=dict)


class AnalysisItem(_Answer):
    """One line of a list; no patient data."""

    report_id: str
    state: State
    created_at: datetime
    tier: TriageTier | None = None
    primary: LesionClass | None = None
    confidence: float | None = None
    melanoma_risk: float | None = None
    report_status: ReportStatus = Field(
        description="What clinicians made of it; the class and tier are the algorithm's"
    )
    model_version: str
    links: dict[str, str]


class AnalysisPage(_Answer):
    """Newest first. ``next`` leads to the older ones."""

    analyses: list[AnalysisItem]
    next: str | None = Field(default=None, description="Address of the next page; absent on the last")


class Hold(_Answer):
    """Something that waits for a person."""

    hold_id: str
    kind: str
    subject_id: str
    reason: str
    created_at: datetime
    resolved_at: datetime | None = None
    resolved_by: str = ""
    resolution: str = ""


class HoldList(_Answer):
    """Oldest first: what waits longest stands first."""

    holds: list[Hold]


class SentAgain(_Answer):
    """What was held and is sent again."""

    sent: int = Field(ge=0, description="How many deliveries")


class HoldDecision(_Answer):
    """What became of a hold."""

    hold: Hold
    report_id: str | None = Field(default=None, description="The analysis that was started, if one was")


class Model(_Answer):
    """Weights that answer, or answered."""

    name: str
    version: str
    digest: str = Field(description="SHA-256 of the weights file")
    role: Literal["champion", "past"]
    analyses: int = Field(ge=0, description="How many analyses stand in the database")


class ModelList(_Answer):
    """The champion first."""

    models: list[Model]
