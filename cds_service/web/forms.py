"""Forms come from our own pages, and from the page of the very login that sends them (CSRF)."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from fastapi import Request

from cds_service.api.refusals import CrossSiteRequest
from cds_service.authorization import Caller
from dermoscopy.settings import Settings


def check_origin(request: Request) -> None:
    """Raises `CrossSiteRequest` when the browser says that another site's page sent this."""
    settings: Settings = request.app.state.node.settings
    public = urlsplit(settings.resolved_public_url)
    own = {f"{public.scheme}://{public.netloc}".lower(), f"{request.url.scheme}://{request.url.netloc}".lower()}
    origin = request.headers.get("origin", "")
    if origin and origin.lower() not in own:
        raise CrossSiteRequest("This form did not come from a page of this service; open the page here and try again.")
    if not origin and request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise CrossSiteRequest("This form did not come from a page of this service; open the page here and try again.")


def check_form(request: Request, caller: Caller, key: str) -> None:
    """Raises `CrossSiteRequest` unless ``key`` is the one that this login's pages carry."""
    check_origin(request)
    if caller.form_key and not hmac.compare_digest(caller.form_key, key):
        raise CrossSiteRequest("This form belongs to another login: open the page again and repeat what you said.")
