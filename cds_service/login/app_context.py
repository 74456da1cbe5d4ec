"""``appContext``: what a card's link of type ``smart`` hands to our page through the EHR: the analysis, nothing else.

https://cds-hooks.hl7.org/2.0/#link: the EHR gives the text back unread in the token response of the launch. It is the
JSON object ``{"analysis": "<report_id>"}``; it names no patient and gives no right: the page checks both by itself.
"""

from __future__ import annotations

import json
from uuid import UUID


def app_context(analysis_id: str) -> str:
    """The ``appContext`` that leads to the page of this analysis."""
    return json.dumps({"analysis": analysis_id})


def analysis_of(context: object) -> str | None:
    """The analysis that ``context`` (of a token response) names; ``None`` if it names none, whatever it is."""
    if not isinstance(context, str) or len(context) > 1000:
        return None
    try:
        named = json.loads(context)
        return str(UUID(named["analysis"]))
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None
