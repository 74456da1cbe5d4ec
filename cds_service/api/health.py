"""Is it alive, can it work, and how is it doing."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from cds_service.api.refusals import problems
from cds_service.authorization import Reader
from monitoring.health import Readiness


class Alive(BaseModel):
    """The process answers."""

    model_config = ConfigDict(frozen=True)
    status: str = "alive"


class CheckAnswer(BaseModel):
    """One thing the process needs."""

    model_config = ConfigDict(frozen=True, from_attributes=True)
    name: str
    ok: bool
    problem: str = Field(description="What is wrong; empty when nothing is")
    milliseconds: float


class Ready(BaseModel):
    """Whether this process can do its work now."""

    model_config = ConfigDict(frozen=True)
    ready: bool
    checks: list[CheckAnswer]


def add_health(
    app: FastAPI, readiness: Callable[[], Readiness] | None, render_metrics: Callable[[], tuple[bytes, str]] | None
) -> None:
    """Add ``/health/live``, ``/health/ready`` and, if there is something to render, ``/metrics``."""
    router = APIRouter(tags=["health"])

    @router.get("/health/live", summary="Liveness", responses=problems(421))
    def live() -> Alive:
        """Restart the process when this does not answer."""
        return Alive()

    @router.get(
        "/health/ready",
        summary="Readiness",
        response_model=Ready,
        responses={503: {"model": Ready, "description": "Something it needs is missing"}, **problems(421)},
    )
    def ready() -> Response:
        """Send no traffic while this answers 503; ``checks`` says what is missing."""
        state = readiness() if readiness is not None else None
        checks = [CheckAnswer.model_validate(check) for check in state.checks] if state else []
        body = Ready(ready=state is None or state.ok, checks=checks)
        return JSONResponse(body.model_dump(mode="json"), 200 if body.ready else 503)

    if render_metrics is not None:

        @router.get(
            "/metrics",
            summary="Metrics",
            response_class=Response,
            responses={
                200: {"description": "Prometheus text", "content": {"text/plain": {"schema": {"type": "string"}}}},
                **problems(401, 403, 421),
            },
        )
        def metrics(caller: Reader) -> Response:
            """Counters and histograms of this process (https://prometheus.io/docs/instrumenting/exposition_formats/)."""
            body, media_type = render_metrics()
            return Response(body, headers={"Content-Type": media_type})

    app.include_router(router)
