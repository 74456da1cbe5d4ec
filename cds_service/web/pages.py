"""Start page, API reference and the static files. Patient identity stands in no address and no title."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, Response

from cds_service.api.refusals import NotFound
from cds_service.authorization import Reader
from cds_service.error_handlers import ANSWERS, slug_of
from cds_service.web import layers, review, worklist
from cds_service.web.templating import render

_router = APIRouter(include_in_schema=False)
_STATIC: Final = {
    "style.css": "text/css",
    "print.css": "text/css",
    "theme.js": "text/javascript",
    "viewer.js": "text/javascript",
    "outline.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
"""Every static file, with its media type. Scripts are plain and our own: nothing is built, nothing foreign."""


def add_pages(app: FastAPI, pictures: layers.Pictures) -> None:
    """Add the pages to ``app``."""
    app.state.pictures = pictures
    for router in (_router, layers.router, review.router, worklist.router):
        app.include_router(router)


@_router.get("/")
def home(caller: Reader) -> HTMLResponse:
    """What this is, and where everything is."""
    return HTMLResponse(render("home.html", caller=caller))


@_router.get("/static/{name}")
def static(name: str) -> Response:
    """One static file; they hold nothing of anybody."""
    if name not in _STATIC:
        raise NotFound("There is nothing at this address.")
    text = files("cds_service").joinpath(f"web/static/{name}").read_text(encoding="utf-8")
    return Response(text, media_type=_STATIC[name], headers={"Cache-Control": "max-age=300"})


@_router.get("/docs")
def reference(request: Request, caller: Reader) -> HTMLResponse:
    """The API reference, from the OpenAPI document, and what every problem type means."""
    document = request.app.openapi()
    by_tag: dict[str, list[dict[str, Any]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            by_tag[operation["tags"][0]].append({"method": method.upper(), "path": path, **operation})
    kinds = [
        {"slug": slug_of(kind), "status": status, "title": title, "meaning": (kind.__doc__ or "").partition("\n")[0]}
        for kind, (status, title) in ANSWERS.items()
        if kind.__module__.startswith(("dermoscopy", "cds_service"))
    ]
    return HTMLResponse(render("docs.html", caller=caller, tags=document["tags"], operations=by_tag, kinds=kinds))
