"""What only an HTTP edge can refuse, and the shape in which it says so.

Problem details are RFC 9457 (https://www.rfc-editor.org/rfc/rfc9457). Errors of the rooms below stand in
`dermoscopy.errors`; which status each one gets is `cds_service.error_handlers.ANSWERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

PROBLEM = "application/problem+json"


class FieldError(BaseModel):
    """One wrong field. ``pointer`` is a JSON pointer into the body (RFC 6901) or names a parameter."""

    model_config = ConfigDict(frozen=True)
    pointer: str = Field(examples=["#/patient/id"])
    detail: str = Field(examples=["Field required"])


class ProblemDetails(BaseModel):
    """Problem details for HTTP APIs (RFC 9457, 3.1). Says what is wrong and what to do, and carries no patient data."""

    model_config = ConfigDict(extra="forbid")
    type: str = Field(description="What kind of problem; resolves to its explanation", examples=["/docs#not-found"])
    title: str = Field(examples=["Not found"])
    status: int = Field(ge=400, le=599, examples=[404])
    detail: str = Field(default="", examples=["There is no analysis with this id."])
    trace_id: str | None = Field(default=None, description="Name this when asking for help; it is in the log as well")
    errors: list[FieldError] | None = Field(default=None, description="Each wrong field, where fields are wrong")
    report_id: str | None = Field(default=None, description="The analysis this is about, where there is one")


class Refusal(Exception):
    """Something this edge does not do for the caller; ``detail`` may be shown to a person."""

    def __init__(self, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members


class NotFound(Refusal):
    """There is no such thing here."""


class NotReady(Refusal):
    """It will be there; come back after ``Retry-After`` seconds."""

    def __init__(self, detail: str, *, retry_after: int = 1, **members: Any) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)}, **members)


class AlreadyDecided(Refusal):
    """The state of the thing does not allow this."""


class ReviewConflict(Refusal):
    """Somebody else reviewed the result meanwhile."""


class NotAuthenticated(Refusal):
    """No token, or one that is not known."""


class LoginNeeded(NotAuthenticated):
    """Nobody is logged in, or not any more; a browser is sent to the login."""


class NotAllowed(Refusal):
    """The token is known, but its role may not do this."""


class CrossSiteRequest(Refusal):
    """A page of another site asked a browser to do this."""


class Misdirected(Refusal):
    """The Host header names another host (DNS rebinding)."""


class MalformedRequest(Refusal):
    """The body is not what its Content-Type says."""


class UnsupportedMediaType(Refusal):
    """The body is of a type this endpoint does not take."""


class NotAcceptable(Refusal):
    """None of the forms that there are is one that the Accept header names."""


class InvalidRequest(Refusal):
    """Well-formed, but a field is missing, unknown or wrong; ``errors`` names each."""

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__("; ".join(f"{e.pointer}: {e.detail}" for e in errors[:5]), errors=errors)


class PrefetchMissing(Refusal):
    """Data that the CDS service needs did not come with the call (CDS Hooks 2.0, Prefetch: 412)."""


class TooLarge(Refusal):
    """The body is larger than this endpoint takes."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"Connection": "close"})


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI ``responses`` for these problem statuses."""
    return {status: {"model": ProblemDetails, "description": _MEANING[status], **_content()} for status in statuses}


def _content() -> dict[str, Any]:
    return {"content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}}


_MEANING = {
    400: "Malformed request",
    401: "No known token",
    403: "The token's role may not do this",
    404: "No such thing",
    406: "None of the forms that the Accept header names",
    409: "Not ready yet, or decided already",
    412: "Data that is needed did not come along",
    413: "Larger than the service takes",
    415: "A kind of object or body that is not taken",
    421: "The Host header names another host",
    422: "Well-formed, but it cannot be done: the detail says why",
    500: "An error of this service; the log has it under the trace id",
    503: "Not available now: try again after Retry-After",
    507: "No room to store anything: keep your copy and try again",
}
