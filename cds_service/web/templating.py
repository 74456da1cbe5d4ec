"""HTML from templates: every value is escaped, and one that is missing is an error."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cds_service.api.refusals import ProblemDetails
from cds_service.api.stored import DISCLAIMER

_templates = Environment(
    loader=PackageLoader("cds_service", "web/templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.globals["disclaimer"] = DISCLAIMER
_templates.globals["caller"] = None
_templates.filters["percent"] = lambda share: f"{share:.1%}".replace("%", " %")
_templates.filters["utc"] = lambda moment: f"{moment:%Y-%m-%d %H:%M:%S} UTC"
_templates.filters["day"] = lambda moment: f"{moment:%Y-%m-%d %H:%M} UTC"


def render(template: str, **values: Any) -> str:
    """A page as HTML. ``caller`` is who is logged in, for the head of the page."""
    return _templates.get_template(template).render(**values)


def problem_page(problem: ProblemDetails) -> str:
    """A problem for a person's eyes."""
    return render("problem.html", problem=problem)
