"""``POST /api/v1/analyze``: take an image in through the one door and wait a little for its result.

Waiting happens in the event loop and looks at one row now and then, so that many waiting callers hold no threads.
"""

from __future__ import annotations

import time
from hashlib import sha256
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from sqlmodel import select

from cds_service.api.answers import Accepted, AnalysisAnswer
from cds_service.api.refusals import problems
from cds_service.api.stored import READY, address, answer, failure_of, find_analysis, links, node_of
from cds_service.api.uploads import (
    NOBODY,
    AnalyzeFields,
    AnalyzeJson,
    ReadObject,
    Upload,
    complete,
    read_upload,
)
from cds_service.authorization import Caller, Submitter
from cds_service.error_handlers import respond
from cds_service.node import Node
from dermoscopy.domain import ImageHeader, derive_id
from dermoscopy.errors import Rejected
from dermoscopy.intake import Receipt
from dermoscopy.tables import AnalysisRow

ANALYZE = "/api/v1/analyze"
SOURCE = "rest"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.2
_TAKEN = ("application/json", "multipart/form-data")


def request_body() -> dict[str, Any]:
    """The body of an upload, for the OpenAPI document."""
    form = AnalyzeFields.model_json_schema()
    properties = {name: schema for name, schema in form["properties"].items() if name != "patient"}
    properties |= {
        "image": {"type": "string", "format": "binary", "description": "PNG, JPEG or DICOM Part 10 file"},
        "patient_system": {"type": "string", "maxLength": 200, "description": "Identifier system or issuer"},
        "patient_id": {"type": "string", "maxLength": 64, "description": "Without one the image is held for a person"},
    }
    multipart = {"type": "object", "required": ["image"], "properties": properties, "additionalProperties": False}
    return {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/AnalyzeJson"}},
            "multipart/form-data": {"schema": multipart},
        },
    }


def add_analyze(app: FastAPI, read: ReadObject) -> None:
    """Add the endpoint to ``app``; ``read`` tells what image some bytes are."""
    router = APIRouter(tags=["analyses"])

    @router.post(
        ANALYZE,
        summary="Analyse an image",
        response_model=AnalysisAnswer,
        response_description="The finished analysis, pictures included",
        responses={
            202: {
                "model": Accepted,
                "description": "Kept safely, but not finished (ask at the Location) or held for a person",
                "headers": {
                    "Location": {"description": "Where the analysis will be", "schema": {"type": "string"}},
                    "Retry-After": {"description": "Seconds", "schema": {"type": "integer"}},
                },
            },
            **problems(400, 401, 403, 413, 415, 421, 422, 503, 507),
        },
        openapi_extra={"requestBody": request_body()},
    )
    async def analyze(request: Request, caller: Submitter, upload: Annotated[Upload, Depends(read_upload)]) -> Response:
        """Takes a PNG, JPEG or DICOM image, as base64 in JSON or as a file in multipart/form-data.

        The image is stored durably before anything is answered. Sending the same image of the same patient again is
        harmless: it gives the same report. An image without a patient is not refused but held for a person.
        """
        node = node_of(request)
        began = time.perf_counter()
        receipt = await run_in_threadpool(take_in, node, caller, upload, read)
        if receipt.hold or not receipt.analysis_id:
            return held(receipt)
        asked = upload.fields.wait
        limit = node.settings.analyze_wait_seconds
        state = await wait_for(node, receipt.analysis_id, limit if asked is None else min(asked, limit))
        response = await run_in_threadpool(finished, node, receipt.analysis_id, state, request)
        response.headers["Server-Timing"] = f"total;dur={(time.perf_counter() - began) * 1000:.1f}"
        return response

    app.include_router(router)
    app.state.extra_schemas = {
        "AnalyzeJson": AnalyzeJson.model_json_schema(ref_template="#/components/schemas/{model}")
    }


def take_in(node: Node, caller: Caller, upload: Upload, read: ReadObject) -> Receipt:
    """Check and keep an upload. What is refused leaves a leaf in the audit log."""
    header: ImageHeader | None = None
    try:
        data, header = read(upload.image, NOBODY)
        header = complete(header, upload.fields, node.issuers)
    except Rejected as error:
        digest = sha256(upload.image).hexdigest()
        node.intake.reject(error, digest=digest, source=SOURCE, caller=caller.name, header=header)
        raise
    return node.intake.accept(data, header, source=SOURCE, caller=caller.name)


async def wait_for(node: Node, analysis_id: str, seconds: float) -> str:
    """State of the analysis, as soon as it is final or when ``seconds`` are over."""
    deadline = anyio.current_time() + seconds
    pause = _FIRST_PAUSE
    while True:
        state = await run_in_threadpool(_state, node, analysis_id)
        left = deadline - anyio.current_time()
        if state in READY or state == "failed" or left <= 0:
            return state
        await anyio.sleep(min(pause, left))
        pause = min(pause * 1.5, _LONGEST_PAUSE)


def _state(node: Node, analysis_id: str) -> str:
    with node.begin() as session:
        return session.execute(select(AnalysisRow.state).where(AnalysisRow.id == analysis_id)).scalar_one()


def finished(node: Node, analysis_id: str, state: str, request: Request) -> Response:
    """200 with the result, 202 while there is none, 422 when it failed."""
    if state not in READY and state != "failed":
        body = Accepted(report_id=analysis_id, state=state, links=links(analysis_id))  # type: ignore[arg-type]
        headers = {"Location": address(analysis_id), "Retry-After": "1"}
        return JSONResponse(body.model_dump(mode="json", exclude_none=True), 202, headers)
    with node.begin() as session:
        row = find_analysis(session, analysis_id)
        if (problem := failure_of(row)) is not None:
            headers = {"Location": address(analysis_id)}
            return respond(request.url.path, request.headers.get("accept", ""), problem, headers)
        whole = answer(session, node, row, pictures=True)
    return Response(whole.model_dump_json(exclude_none=False), 200, media_type="application/json")


def held(receipt: Receipt) -> Response:
    """202: the image is safe, a person must decide about it before it is analysed."""
    hold_id = derive_id("hold", receipt.hold, receipt.instance_id) if receipt.hold else None
    body = Accepted(
        state="held",
        hold_id=hold_id,
        reason=receipt.hold_reason or "a person decided not to have this image analysed",
        links={"holds": "/api/v1/holds"},
    )
    return JSONResponse(body.model_dump(mode="json", exclude_none=True), 202)
