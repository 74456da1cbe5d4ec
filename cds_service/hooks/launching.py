"""Links that the EHR launches: with its own login, its own patient, and no second password.

A card's link to the page of a result becomes one of type ``smart`` (https://cds-hooks.hl7.org/2.0/#link) where the
call names a FHIR server that may launch us (``smart_launch_servers``). ``appContext`` names the analysis alone.
"""

from __future__ import annotations

import re

from cds_service.hooks.messages import Card, HookRequest, Link
from cds_service.login.app_context import app_context
from dermoscopy.settings import Settings

_PAGE = re.compile(r"/analyses/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


def with_launch(card: Card, request: HookRequest, settings: Settings) -> Card:
    """``card`` as this EHR can open it; unchanged for one that launches nothing here."""
    bases = {server.base_url.rstrip("/") for server in settings.smart_launch_servers}
    if not card.links or (request.fhir_server or "").rstrip("/") not in bases:
        return card
    links = [_launched(link, settings.resolved_public_url) for link in card.links]
    return card.model_copy(update={"links": links})


def _launched(link: Link, public_url: str) -> Link:
    page = _PAGE.fullmatch(link.url.removeprefix(public_url)) if link.url.startswith(public_url) else None
    if page is None:
        return link
    return Link(label=link.label, url=f"{public_url}/launch", type="smart", app_context=app_context(page[1]))
