"""``cds conformance``: the DICOM Conformance Statement of this configuration."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cds_service.commands.session import prepare
from dermoscopy.errors import IntegrityViolation, StorageFull, Unavailable
from dermoscopy.settings import Settings

if TYPE_CHECKING:
    from dicom_listener.conformance import Deployment, WebResource

Format = Literal["md", "json"]


def conformance(
    form: Annotated[Format, typer.Option("--format", help="Markdown for people, JSON for programs")] = "md",
) -> None:
    """Write the DICOM Conformance Statement (PS3.2) of this configuration to standard output. Needs no database."""
    settings = prepare(migrated=False)
    from cds_service.bootstrap import code_version
    from dicom_listener.conformance import statement

    document = statement(deployment(settings, code_version()))
    if form == "json":
        sys.stdout.write(json.dumps(document.to_json(), indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(document.to_markdown())


def deployment(settings: Settings, version: str) -> Deployment:
    """What the statement is of. Raises `Misconfigured` where the service would not start with it."""
    from cds_service.error_handlers import answer_for
    from cds_service.listening import check, listener_settings
    from dicom_listener.conformance import Deployment

    check(settings)
    refusals = tuple(answer_for(error)[1:] for error in _refusals())
    return Deployment(version, settings, listener_settings(settings), _resources(), refusals)


def _refusals() -> tuple[Exception, ...]:
    """Everything that a request of DICOMweb can be refused for as a whole."""
    from cds_service.api import refusals

    kinds = (
        refusals.MalformedRequest,
        refusals.NotAuthenticated,
        refusals.NotAllowed,
        refusals.NotFound,
        refusals.NotAcceptable,
        refusals.TooLarge,
        refusals.UnsupportedMediaType,
        refusals.Misdirected,
    )
    return (*(kind("") for kind in kinds), *(kind("") for kind in (IntegrityViolation, StorageFull, Unavailable)))


def _resources() -> tuple[WebResource, ...]:
    """The routes of the DICOMweb origin server, each with the first sentence of what it does."""
    from fastapi.routing import APIRoute

    from cds_service.api.dicomweb import router
    from dicom_listener.conformance import WebResource

    return tuple(
        WebResource(method, route.path, route.description.split("\n")[0])
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in sorted(route.methods or ())
    )
