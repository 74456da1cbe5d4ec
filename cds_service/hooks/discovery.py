"""The CDS Hooks endpoints: discovery, calls and feedback. Everything but success is an OperationOutcome."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from cds_service.api.refusals import MalformedRequest, NotFound
from cds_service.api.stored import node_of
from cds_service.hooks import feedback
from cds_service.hooks.admission import CdsCaller
from cds_service.hooks.answering import answer_to
from cds_service.hooks.calls import Call
from cds_service.hooks.messages import Discovery, Feedback, HookAnswer, HookRequest, OperationOutcome
from cds_service.hooks.services import Service

PREFIX = "/cds-services"
router = APIRouter(prefix=PREFIX, tags=["CDS Hooks"])

ServiceId = Annotated[str, Path(min_length=1, max_length=100, description="``id`` of a service that discovery names")]

_MEANING = {
    400: "Malformed call, or a hook that the service does not answer",
    401: "Not authenticated: never says why",
    403: "The token's role may not do this, or a page of another site asks",
    404: "No such service",
    412: "The patient neither came along nor can be read from fhirServer, or is not the one of the context",
    413: "Larger than the service takes",
    421: "The Host header names another host",
    503: "Not available now",
}


def _outcomes(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/fhir+json": {"schema": {"$ref": "#/components/schemas/OperationOutcome"}}}
    return {s: {"model": OperationOutcome, "description": _MEANING[s], "content": content} for s in statuses}


@router.get("", summary="Discovery", response_model_exclude_none=True, responses=_outcomes(401, 403, 421))
def discover(request: Request, caller: CdsCaller) -> Discovery:
    """Which services there are (https://cds-hooks.hl7.org/2.0/#discovery)."""
    return Discovery(services=[service.description for service in _services(request).values()])


@router.post(
    "/{service_id}",
    summary="Call a service",
    response_model=HookAnswer,
    responses=_outcomes(400, 401, 403, 404, 412, 413, 421, 503),
)
async def call(request: Request, caller: CdsCaller, service_id: ServiceId, hook: HookRequest) -> Response:
    """Cards from what is stored; nothing heavy happens inside a call. Images of the chart are waited for a little."""
    service = _find(request, service_id)
    if hook.hook != service.description.hook:
        raise MalformedRequest(f"The service {service_id} answers the hook {service.description.hook}.")
    state = request.app.state
    asked = Call(node_of(request), caller, state.ehr, state.read_object)
    body = await answer_to(asked, service, hook, state.cds_shown)
    return Response(body, media_type="application/json")


@router.post(
    "/{service_id}/feedback",
    summary="Feedback on cards",
    response_class=Response,
    responses={200: {"description": "Noted"}, **_outcomes(400, 401, 403, 404, 413, 421, 503)},
)
def give_feedback(request: Request, caller: CdsCaller, service_id: ServiceId, said: Feedback) -> Response:
    """What users did with cards. Sending the same again changes nothing."""
    _find(request, service_id)
    feedback.record(node_of(request), caller, service_id, said.feedback)
    return Response(status_code=200)


def _services(request: Request) -> Mapping[str, Service]:
    services: Mapping[str, Service] = request.app.state.cds_services
    return services


def _find(request: Request, service_id: str) -> Service:
    service = _services(request).get(service_id)
    if service is None:
        raise NotFound("There is no such CDS service; GET /cds-services lists them.")
    return service
