"""Start page, review page, worklist and API reference. Patient identity stands in no address and no title."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from sqlmodel import col, func, select

from cds_service.api.analyses import AnalysisId, note_read
from cds_service.api.answers import AnalysisItem, Diagnosis
from cds_service.api.stored import READY, answer, find_analysis, item, node_of, select_items
from cds_service.authorization import Reader
from cds_service.error_handlers import ANSWERS, slug_of
from cds_service.web.templating import render
from dermoscopy import codes
from dermoscopy.domain import TriageTier
from dermoscopy.overlay import CLASS_TITLES
from dermoscopy.tables import AnalysisRow, HoldRow, InstanceRow
from dermoscopy.wording import not_excluded

WORKLIST_LENGTH = 50
_URGENCY = {tier: rank for rank, tier in enumerate(TriageTier)}
_ROWS = (
    ("area_mm2", "Area", "mm²"),
    ("area_px", "Area", "pixels"),
    ("area_percent", "Share of the image", "%"),
    ("equivalent_diameter_mm", "Diameter of the circle of equal area", "mm"),
    ("equivalent_diameter_px", "Diameter of the circle of equal area", "pixels"),
    ("perimeter_mm", "Perimeter", "mm"),
    ("perimeter_px", "Perimeter", "pixels"),
    ("asymmetry", "Asymmetry (0 is symmetric)", ""),
    ("border_irregularity", "Border irregularity (1 is a circle)", ""),
    ("circularity", "Circularity", ""),
    ("solidity", "Solidity", ""),
    ("eccentricity", "Eccentricity", ""),
    ("colour_count", "Dermoscopic colours", "of 6"),
    ("colour_variety", "Colour variety", ""),
)
_router = APIRouter(include_in_schema=False)


def add_pages(app: FastAPI) -> None:
    """Add the pages to ``app``."""
    app.include_router(_router)


@_router.get("/")
def home(caller: Reader) -> HTMLResponse:
    """What this is, and where everything is."""
    return HTMLResponse(render("home.html"))


@_router.get("/static/style.css")
def style() -> Response:
    """The one style sheet."""
    text = files("cds_service").joinpath("web/static/style.css").read_text(encoding="utf-8")
    return Response(text, media_type="text/css", headers={"Cache-Control": "max-age=300"})


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
    return HTMLResponse(render("docs.html", tags=document["tags"], operations=by_tag, kinds=kinds))


@_router.get("/analyses/{analysis_id:uuid}")
def review(request: Request, caller: Reader, analysis_id: AnalysisId) -> HTMLResponse:
    """One analysis as a clinician reads it."""
    node = node_of(request)
    with node.begin() as session:
        row = find_analysis(session, str(analysis_id))
        shown = answer(session, node, row, pictures=False)
        instance = session.get_one(InstanceRow, row.instance_id)
        inference = json.loads(row.document)["finding"]["inference"] if shown.diagnosis else {}
        if row.state in READY:
            note_read(node, session, caller, row, "page")
    return HTMLResponse(
        render(
            "analysis.html",
            analysis=shown,
            classes=_probabilities(shown.diagnosis) if shown.diagnosis else [],
            left=not_excluded(shown.diagnosis.prediction_set, inference["thresholds"]) if shown.diagnosis else "",
            titles={label.value: title for label, title in CLASS_TITLES.items()},
            measurements=_measurements(shown.segmentation.region_statistics) if shown.segmentation else [],
            colours=_colours(shown.segmentation.region_statistics) if shown.segmentation else [],
            site=_site(instance),
            instance=instance,
            model=row,
            inference=inference,
        )
    )


@_router.get("/worklist")
def worklist(request: Request, caller: Reader) -> HTMLResponse:
    """The newest analyses, the most urgent first."""
    newest = select_items().order_by(col(AnalysisRow.created_at).desc()).limit(WORKLIST_LENGTH)
    waiting = col(HoldRow.resolved_at).is_(None)
    with node_of(request).begin() as session:
        items = [item(row) for row in session.execute(newest)]
        oldest = select(HoldRow).where(waiting).order_by(col(HoldRow.created_at)).limit(20)
        holds = session.execute(oldest).scalars().all()
        count = session.execute(select(func.count()).select_from(HoldRow).where(waiting)).scalar_one()
    items.sort(key=_worklist_order)
    titles = {label.value: title for label, title in CLASS_TITLES.items()}
    return HTMLResponse(render("worklist.html", items=items, holds=holds, hold_count=count, titles=titles))


def _worklist_order(one: AnalysisItem) -> tuple[int, float]:
    """Failed ones stand beside the undetermined: both need a person; what is under way comes last."""
    if one.state == "failed":
        rank = _URGENCY[TriageTier.UNDETERMINED]
    else:
        rank = _URGENCY[one.tier] if one.tier is not None else len(_URGENCY)
    return rank, -one.created_at.timestamp()


def _probabilities(said: Diagnosis) -> list[dict[str, Any]]:
    """Most probable first; the called class is marked where it is another one."""
    ordered = sorted(said.all_classes.items(), key=lambda pair: -pair[1])
    return [
        {"title": CLASS_TITLES[k], "probability": p, "called": bool(said.decision_note) and k == said.primary}
        for k, p in ordered
    ]


def _measurements(measured: Any) -> list[tuple[str, str]]:
    if measured is None:
        return []
    values = ((title, getattr(measured, name), unit) for name, title, unit in _ROWS)
    return [(title, f"{value:.4g} {unit}".strip()) for title, value, unit in values if value is not None]


def _colours(measured: Any) -> list[tuple[str, float]]:
    if measured is None:
        return []
    seen = ((name.replace("_", " "), share) for name, share in measured.colour_fractions.items() if share > 0)
    return sorted(seen, key=lambda pair: -pair[1])


def _site(instance: InstanceRow) -> str:
    site = codes.SITES.get(instance.body_site_code)
    side = codes.LATERALITY.get(instance.laterality)
    return ", ".join(part.display for part in (site, side) if part is not None)
