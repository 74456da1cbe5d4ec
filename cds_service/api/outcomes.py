"""What was found out of lesions: pathology and follow-up in (FHIR R4), and what stands of it (docs/outcomes.md)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import col, select

from cds_service.api.moments import Moment
from cds_service.api.outcome_answers import OutcomeAnswer, outcome_answer
from cds_service.api.refusals import (
    FieldError,
    InvalidRequest,
    MalformedRequest,
    NotFound,
    UnsupportedMediaType,
    problems,
)
from cds_service.api.stored import node_of
from cds_service.authorization import Reader, Reviewer, Submitter
from cds_service.outcome_assignment import Decision, assign
from cds_service.outcome_intake import take_resource
from cds_service.outcome_polls import ask_soon
from cds_service.outcomes import Recorded
from dermoscopy.domain import LesionClass
from dermoscopy.errors import Rejected
from dermoscopy.outcomes import OutcomeState
from dermoscopy.ports import AuditEntry
from dermoscopy.tables import OutcomeRow, OutcomeVersionRow
from fhir_adapters.pathology import KINDS

PREFIX = "/api/v1/outcomes"
router = APIRouter(prefix=PREFIX, tags=["outcomes"])
_FHIR = {
    "requestBody": {
        "required": False,
        "content": {"application/fhir+json": {"schema": {"type": "object", "description": "A FHIR R4 resource"}}},
    }
}
FhirId = Annotated[str, Path(pattern=r"^[A-Za-z0-9\-.]{1,64}$")]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ResourceTaken(_Answer):
    """What became of one resource."""

    resource_type: str
    result: Literal["recorded", "duplicate", "superseded", "withdrawn", "passed_over"] = Field(
        description="duplicate: this version was here; superseded: a later one was; passed_over: it tells no outcome"
    )
    reason: str = Field(default="", description="Why it was passed over")
    outcomes: list[OutcomeAnswer] = Field(default_factory=list)


class OutcomesTaken(_Answer):
    """What became of each resource, in the order of the Bundle."""

    resources: list[ResourceTaken]


class OutcomeList(_Answer):
    """The latest first."""

    outcomes: list[OutcomeAnswer]


class OutcomeVersion(_Answer):
    """One version of the resource, as it came."""

    version: str
    received_at: datetime
    way: str = Field(description="post or poll")
    caller: str
    superseded: bool = Field(description="Whether a later version was here already")
    said: list[dict[str, Any]]


class OutcomeHistory(_Answer):
    """An outcome with every version of what told it, oldest first."""

    outcome: OutcomeAnswer
    versions: list[OutcomeVersion]


class Assignment(BaseModel):
    """Which lesion an outcome belongs to."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    report_id: UUID = Field(description="The analysis; it must be of the same patient")
    lesion_class: LesionClass | None = Field(
        default=None, description="What the report found, where its code is not known here"
    )
    malignant: bool | None = Field(default=None, description="The same for a diagnosis that is none of the classes")


async def _body(request: Request) -> bytes:
    """The raw body. Raises `UnsupportedMediaType`."""
    body = await request.body()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body.strip() and kind not in ("application/fhir+json", "application/json"):
        raise UnsupportedMediaType("Send a FHIR R4 resource as application/fhir+json.")
    return body


Body = Annotated[bytes, Depends(_body)]


@router.post(
    "",
    summary="Tell what was found",
    responses={
        202: {"description": "An empty notification (rest-hook without payload): the servers are asked at once"},
        **problems(400, 401, 403, 413, 415, 421, 422, 503, 507),
    },
    openapi_extra=_FHIR,
)
def tell_outcomes(request: Request, response: Response, caller: Submitter, body: Body) -> OutcomesTaken:
    """A DiagnosticReport, Observation or Condition, or a Bundle with them and what they refer to.

    Also the endpoint of an R4 Subscription (rest-hook). The same version again changes nothing.
    """
    if not body.strip():
        ask_soon(node_of(request))
        response.status_code = 202
        return OutcomesTaken(resources=[])
    return _taken(request, caller.name, _parsed(body), body)


def _notified(kind: str) -> Callable[..., OutcomesTaken]:
    def put_outcome(request: Request, caller: Submitter, resource_id: FhirId, body: Body) -> OutcomesTaken:
        """As `POST`, by servers that notify with an update of the resource below the endpoint."""
        resource = _parsed(body)
        if resource.get("resourceType") != kind or resource.get("id") != resource_id:
            detail = "type and id of the resource must be those of the address"
            raise InvalidRequest([FieldError(pointer="#/id", detail=detail)])
        return _taken(request, caller.name, resource, body)

    return put_outcome


for _kind in KINDS:
    router.add_api_route(
        f"/{_kind}/{{resource_id}}",
        _notified(_kind),
        methods=["PUT"],
        summary="Tell what was found (notification of a Subscription)",
        responses=problems(400, 401, 403, 404, 413, 415, 421, 422, 503, 507),
        openapi_extra=_FHIR,
    )


@router.get("", summary="List outcomes", responses=problems(401, 403, 421, 422, 503))
def list_outcomes(
    request: Request,
    caller: Reader,
    state: Annotated[OutcomeState | None, Query(description="Only those in this state")] = None,
    before: Annotated[Moment | None, Query(description="Received before this time: the next page")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> OutcomeList:
    """Without patient data: who it is about stands with the analysis."""
    query = select(OutcomeRow).order_by(col(OutcomeRow.received_at).desc(), col(OutcomeRow.id)).limit(limit)
    if state is not None:
        query = query.where(col(OutcomeRow.state) == state.value)
    if before is not None:
        query = query.where(col(OutcomeRow.received_at) < before)
    node = node_of(request)
    with node.begin() as session:
        found = [outcome_answer(row) for row in session.execute(query).scalars()]
        entry = AuditEntry("outcome.read", caller.name, "outcome", "list", details={"found": len(found)})
        node.audit.append(session, entry)
    return OutcomeList(outcomes=found)


@router.get(
    "/{outcome_id:uuid}", summary="One outcome with its versions", responses=problems(401, 403, 404, 421, 422, 503)
)
def read_outcome(request: Request, caller: Reader, outcome_id: Annotated[UUID, Path()]) -> OutcomeHistory:
    """What stands, and everything that was said before."""
    node = node_of(request)
    with node.begin() as session:
        row = session.get(OutcomeRow, str(outcome_id))
        if row is None:
            raise NotFound("There is no outcome with this id.")
        versions = session.execute(
            select(OutcomeVersionRow)
            .where(col(OutcomeVersionRow.source_key) == row.source_key)
            .order_by(col(OutcomeVersionRow.received_at))
        ).scalars()
        answer = OutcomeHistory(outcome=outcome_answer(row), versions=[_version(one) for one in versions])
        node.audit.append(session, AuditEntry("outcome.read", caller.name, "outcome", row.id))
    return answer


@router.post(
    "/{outcome_id:uuid}/assign",
    summary="Say which lesion an outcome belongs to",
    responses=problems(400, 401, 403, 404, 409, 413, 421, 422, 503),
)
def assign_outcome(
    request: Request, caller: Reviewer, outcome_id: Annotated[UUID, Path()], said: Assignment
) -> OutcomeAnswer:
    """For what is held; an analysis of another patient is refused."""
    decision = Decision(str(said.report_id), said.lesion_class, said.malignant)
    return outcome_answer(assign(node_of(request), str(outcome_id), decision, caller=caller))


def _parsed(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedRequest("The body is not JSON.") from error
    if not isinstance(found, dict):
        raise MalformedRequest("The body is not a FHIR resource: send a JSON object with resourceType.")
    return found


def _taken(request: Request, caller: str, resource: Mapping[str, Any], body: bytes) -> OutcomesTaken:
    try:
        told = take_resource(node_of(request), resource, body, caller=caller)
    except Rejected as error:
        raise InvalidRequest([FieldError(pointer="#/resourceType", detail=str(error))]) from error
    return OutcomesTaken(resources=[_one(each) for each in told])


def _one(each: Any) -> ResourceTaken:
    if not isinstance(each, Recorded):
        return ResourceTaken(resource_type=each.resource_type, result="passed_over", reason=each.words)
    return ResourceTaken(
        resource_type=each.told.resource_type,
        result=each.result,
        outcomes=[outcome_answer(row) for row in each.rows],
    )


def _version(row: OutcomeVersionRow) -> OutcomeVersion:
    return OutcomeVersion(
        version=row.version,
        received_at=row.received_at,
        way=row.way,
        caller=row.caller,
        superseded=row.superseded,
        said=json.loads(row.told),
    )
