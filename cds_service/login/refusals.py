"""Why somebody was not let in."""

from __future__ import annotations

from cds_service.api.refusals import Refusal


class LoginFailed(Refusal):
    """The login did not succeed; the page says why, and the audit log keeps it."""
