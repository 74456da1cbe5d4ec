"""What travels between the EHR and a CDS service (https://cds-hooks.hl7.org/2.0/#calling-a-cds-service).

Requests are read tolerantly (unknown members are the client's own affair), answers hold no null and no empty values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel

from cds_service.api.integers import Whole
from cds_service.api.moments import Moment
from fhir_adapters.text import text_fault

SUMMARY_LIMIT = 139
"""A card's summary has less than 140 characters."""
FHIR_ID = r"[A-Za-z0-9\-.]{1,64}"


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore")


# ---------------------------------------------------------------------------------------------------------- requests


class FhirAuthorization(_Message):
    """Access to the EHR's FHIR server, for what the call did not bring. Never stored, never logged."""

    model_config = ConfigDict(alias_generator=None, extra="ignore", frozen=True)
    access_token: SecretStr
    token_type: Literal["Bearer"]
    expires_in: Whole = Field(ge=0)
    scope: str
    subject: str
    patient: Annotated[str, StringConstraints(max_length=64)] | None = None
    """The one patient that it is good for, if it is for one."""


class HookContext(_Message):
    """Context of the hooks that are answered (https://cds-hooks.hl7.org/hooks/patient-view/, …/order-select/ …).

    Which members a hook requires is `REQUIRED`.
    """

    patient_id: Annotated[str, StringConstraints(pattern=rf"^(Patient/)?{FHIR_ID}$")]
    user_id: Annotated[str, StringConstraints(pattern=rf"^[A-Za-z]{{1,64}}/{FHIR_ID}$")] = Field(
        description="Reference to the current user", examples=["Practitioner/123"]
    )
    encounter_id: Annotated[str, StringConstraints(pattern=rf"^(Encounter/)?{FHIR_ID}$")] | None = None
    selections: Annotated[list[Annotated[str, StringConstraints(max_length=500)]], Field(max_length=500)] | None = None
    draft_orders: dict[str, Any] | None = Field(default=None, description="FHIR Bundle of orders that are not signed")

    @property
    def patient(self) -> str:
        """The id alone."""
        return self.patient_id.removeprefix("Patient/")

    @property
    def encounter(self) -> str:
        """The id alone; empty where no encounter is named."""
        return (self.encounter_id or "").removeprefix("Encounter/")

    @property
    def actor(self) -> str:
        """The user as the audit log names them; a patient or relative who looks at their own chart is not named."""
        kind = self.user_id.partition("/")[0]
        return kind if kind in ("Patient", "RelatedPerson") else self.user_id


REQUIRED: Mapping[str, tuple[str, ...]] = {
    "order-select": ("selections", "draftOrders"),
    "order-sign": ("draftOrders",),
    "encounter-discharge": ("encounterId",),
}
"""What a context must hold besides ``userId`` and ``patientId``, by hook."""


class HookRequest(_Message):
    """One call of a service."""

    hook: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    hook_instance: UUID
    fhir_server: Annotated[str, StringConstraints(pattern=r"^https?://[^\s\x00-\x1f]{1,500}$")] | None = None
    fhir_authorization: FhirAuthorization | None = None
    context: HookContext
    prefetch: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _authorization_needs_a_server(self) -> Self:
        if self.fhir_authorization is not None and self.fhir_server is None:
            raise ValueError("fhirServer is required when fhirAuthorization is given")
        return self

    @model_validator(mode="after")
    def _context_is_whole(self) -> Self:
        held = self.context.model_dump(by_alias=True, include={"encounter_id", "selections", "draft_orders"})
        if missing := [name for name in REQUIRED.get(self.hook, ()) if held[name] is None]:
            raise ValueError(f"the context of {self.hook} needs {' and '.join(missing)}")
        return self

    @model_validator(mode="after")
    def _resources_are_text(self) -> Self:
        """What no database, no hash and no answer can hold is refused before anything is done with it."""
        for name, held in (("prefetch", self.prefetch), ("context.draftOrders", self.context.draft_orders)):
            if fault := text_fault(held):
                raise ValueError(f"{name} {fault}")
        return self


class Coding(_Message):
    """A code with its meaning."""

    code: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    system: Annotated[str, StringConstraints(max_length=500)] | None = None
    display: Annotated[str, StringConstraints(max_length=500)] | None = None


class OverrideReason(_Message):
    """Why a card was overridden. The comment may say anything about anybody: it is kept apart from log and audit."""

    reason: Coding | None = None
    user_comment: Annotated[str, StringConstraints(max_length=10_000)] | None = None


class AcceptedSuggestion(_Message):
    """A suggestion the user took."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=200)]


class CardFeedback(_Message):
    """What a user did with one card (https://cds-hooks.hl7.org/2.0/#feedback)."""

    card: UUID
    outcome: Literal["accepted", "overridden"]
    accepted_suggestions: Annotated[list[AcceptedSuggestion], Field(max_length=100)] | None = None
    override_reason: OverrideReason | None = None
    outcome_timestamp: Moment


class Feedback(_Message):
    """Outcomes of cards."""

    feedback: Annotated[list[CardFeedback], Field(min_length=1, max_length=100)]


# ----------------------------------------------------------------------------------------------------------- answers


class Source(_Message):
    """Who speaks."""

    label: str
    url: str | None = None
    topic: Coding | None = None


class Link(_Message):
    """Where more is. Absolute: the page checks for itself who may see it. Smart: the EHR launches it."""

    label: str
    url: str
    type: Literal["absolute", "smart"] = "absolute"
    app_context: str | None = Field(default=None, description="With ``smart`` only: what the launch hands to the page")


class Action(_Message):
    """One step of a suggestion. An update carries the whole resource, its id unchanged."""

    type: Literal["create", "update"]
    description: str
    resource: dict[str, Any]


class Suggestion(_Message):
    """What the clinician may take with one click."""

    label: str
    uuid: str
    is_recommended: bool | None = None
    actions: Annotated[list[Action], Field(min_length=1)]


class Card(_Message):
    """One thing to tell the clinician."""

    uuid: str
    summary: Annotated[str, StringConstraints(min_length=1, max_length=SUMMARY_LIMIT)]
    detail: str | None = None
    indicator: Literal["info", "warning", "critical"]
    source: Source
    suggestions: Annotated[list[Suggestion], Field(min_length=1)] | None = None
    selection_behavior: Literal["at-most-one", "any"] | None = Field(default=None, description="With suggestions")
    override_reasons: Annotated[list[Coding], Field(min_length=1)] | None = None
    links: Annotated[list[Link], Field(min_length=1)] | None = None


class HookAnswer(_Message):
    """Cards, or none."""

    cards: list[Card]


class ServiceDescription(_Message):
    """One service as discovery shows it."""

    hook: str
    id: str
    title: str
    description: str
    prefetch: dict[str, str]
    usage_requirements: str | None = None
    version: str | None = Field(default=None, description="Of the service; a member of CDS Hooks 3.0")


class Discovery(_Message):
    """All services."""

    services: list[ServiceDescription]


class Issue(_Message):
    """One thing that is wrong."""

    severity: Literal["error"]
    code: str
    diagnostics: str


class OperationOutcome(_Message):
    """What is wrong, in FHIR's words (https://hl7.org/fhir/R4/operationoutcome.html)."""

    resource_type: Literal["OperationOutcome"]
    issue: Annotated[list[Issue], Field(min_length=1)]
