"""The review page: what the model saw and said, beside an earlier image, and the form by which a clinician answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import sqlalchemy as sa
from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy.orm import Session
from sqlmodel import col

from cds_service.api.analyses import AnalysisId, note_read, send_output
from cds_service.api.refusals import CrossSiteRequest, FieldError, InvalidRequest, NotFound, ReviewConflict
from cds_service.api.stored import LINKED, READY, answer, find_analysis, node_of
from cds_service.authorization import Caller, Reader, Reviewer, allows
from cds_service.node import Node
from cds_service.reviews import MAX_COMMENT, ReviewDraft, record_review
from cds_service.web import wording
from cds_service.web.changes import changes_between, compared_with
from cds_service.web.forms import check_form, check_origin
from cds_service.web.layers import Pictures, editable
from cds_service.web.templating import render
from cds_service.web.visible import check_visible
from dermoscopy.analyses import artifact_rows
from dermoscopy.domain import ArtifactKind, LesionClass, Verdict
from dermoscopy.reviews import UNREVIEWED, reviews_of, standing
from dermoscopy.settings import Role
from dermoscopy.tables import AnalysisRow, InstanceRow
from dermoscopy.wording import not_excluded

router = APIRouter(include_in_schema=False)
NO_PRIOR: Final = "none"
_PRIOR: Final = rf"^([0-9a-f-]{{36}}|{NO_PRIOR})?$"
_MOST_PRIORS: Final = 20
_SEE_OTHER: Final = 303
_Outline = list[tuple[float, float]]
_FIELDS = ("verdict", "lesion_class", "outline", "body_site_code", "laterality", "comment")


@dataclass(frozen=True, slots=True)
class _Told:
    """What became of a form that could not be recorded, and what was typed into it."""

    title: str = ""
    lines: Sequence[str] = ()
    typed: Mapping[str, str] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True, slots=True)
class _Shown:
    """One image with its layers, as the viewer of the page draws it."""

    key: str
    """``now`` or ``prior``: begins the ids of its elements."""
    title: str
    id: str
    rows: int
    columns: int
    outlines: list[_Outline]
    corrected: _Outline
    """The outline that a clinician gave; empty where the algorithm's stands."""
    layers: tuple[str, ...]


@router.get("/analyses/{analysis_id:uuid}")
def review(
    request: Request, caller: Reader, analysis_id: AnalysisId, prior: Annotated[str, Query(pattern=_PRIOR)] = ""
) -> HTMLResponse:
    """One analysis as a clinician reads it. ``prior``: the analysis to show beside it, or ``none``."""
    return _page(request, caller, str(analysis_id), prior, _Told())


@router.get("/analyses/{analysis_id:uuid}/files/{name}")
def download(request: Request, caller: Reader, analysis_id: AnalysisId, name: str) -> Response:
    """One output as a file, for whoever is logged in to the pages."""
    node = node_of(request)
    if name not in LINKED.values():
        raise NotFound("There is no such output.")
    check_visible(node, caller, str(analysis_id))
    return send_output(node, caller, str(analysis_id), name, "")


@router.post("/analyses/{analysis_id:uuid}/reviews")
def say(
    request: Request,
    caller: Reviewer,
    analysis_id: AnalysisId,
    verdict: Annotated[str, Form(max_length=20)] = "",
    lesion_class: Annotated[str, Form(max_length=10)] = "",
    outline: Annotated[str, Form(max_length=200_000)] = "",
    body_site_code: Annotated[str, Form(max_length=20)] = "",
    laterality: Annotated[str, Form(max_length=1)] = "",
    comment: Annotated[str, Form(max_length=20_000)] = "",
    seen: Annotated[int, Form(ge=0, le=1_000_000)] = 0,
    key: Annotated[str, Form(max_length=200)] = "",
    prior: Annotated[str, Form(pattern=_PRIOR)] = "",
) -> Response:
    """A clinician's word. What cannot be recorded comes back with the reason and everything that was typed."""
    node, of = node_of(request), str(analysis_id)
    values = (verdict, lesion_class, outline, body_site_code, laterality, comment.replace("\r\n", "\n"))
    typed = dict(zip(_FIELDS, values, strict=True))
    check_origin(request)
    check_visible(node, caller, of)
    try:
        check_form(request, caller, key)
    except CrossSiteRequest:
        told = "You have logged in anew since this page was opened. Nothing was recorded: look at it and send it again."
        return _page(request, caller, of, prior, _Told("Please send it again", [told], typed, 403))
    try:
        record_review(node, of, _draft(typed), caller=caller, seen=seen)
    except ReviewConflict:
        told = "Somebody else reviewed this result while you had it open; what they said stands below. "
        told += "Nothing of yours was recorded yet: it is still in the form. Read theirs, then send yours or leave it."
        return _page(request, caller, of, prior, _Told("Another review came first", [told], typed, 409))
    except InvalidRequest as wrong:
        lines = [f"{_FIELD_TITLES.get(e.pointer, '')}{e.detail}." for e in wrong.members["errors"]]
        return _page(request, caller, of, prior, _Told("This cannot be recorded", lines, typed, 422))
    return RedirectResponse(f"/analyses/{of}?{'prior=' + prior + '&' if prior else ''}recorded=1#reviews", _SEE_OTHER)


_FIELD_TITLES = {
    "#/lesion_class": "Class: ",
    "#/outline": "Outline: ",
    "#/body_site_code": "Body site: ",
    "#/laterality": "Side: ",
    "#/comment": "Comment: ",
}


def _draft(typed: Mapping[str, str]) -> ReviewDraft:
    """The form as a draft. Raises `InvalidRequest`."""
    wrong = []
    if typed["verdict"] not in {v.value for v in Verdict}:
        wrong.append(FieldError(pointer="#/verdict", detail="choose one of the four answers"))
    if typed["lesion_class"] and typed["lesion_class"] not in {c.value for c in LesionClass}:
        wrong.append(FieldError(pointer="#/lesion_class", detail="choose one of the classes"))
    outline: tuple[tuple[float, float], ...] = ()
    try:
        said = json.loads(typed["outline"]) if typed["outline"].strip() else []
        outline = tuple((float(x), float(y)) for x, y in said)
    except (ValueError, TypeError, RecursionError):
        wrong.append(FieldError(pointer="#/outline", detail="it cannot be read: draw it again"))
    if wrong:
        raise InvalidRequest(wrong)
    return ReviewDraft(
        verdict=Verdict(typed["verdict"]),
        lesion_class=LesionClass(typed["lesion_class"]) if typed["lesion_class"] else None,
        outline=outline,
        body_site_code=typed["body_site_code"],
        laterality=typed["laterality"],
        comment=typed["comment"].strip(),
    )


def _page(request: Request, caller: Caller, analysis_id: str, prior: str, told: _Told) -> HTMLResponse:
    node: Node = node_of(request)
    pictures: Pictures = request.app.state.pictures
    check_visible(node, caller, analysis_id)
    with node.begin() as session:
        row = find_analysis(session, analysis_id)
        shown = answer(session, node, row, pictures=False)
        instance = session.get_one(InstanceRow, row.instance_id)
        said = reviews_of(session, row.id)
        stands = standing(said)
        site = stands.body_site_code or instance.body_site_code, stands.laterality or instance.laterality
        compared, change_words = compared_with(session, row.id)
        priors = _priors(session, row, site, compared) if row.state in READY else []
        chosen = _chosen(priors, prior, compared)
        views = [_view(session, pictures, row, instance, "now", "This image")]
        changes: Sequence[Any] = ()
        if chosen is not None:
            before = session.get_one(AnalysisRow, chosen["id"])
            its = session.get_one(InstanceRow, before.instance_id)
            views.append(_view(session, pictures, before, its, "prior", "Earlier image"))
            changes = changes_between(node, session, row, before)
    if row.state in READY:
        with node.begin() as session:
            note_read(node, session, caller, row, "page")
            if chosen is not None:
                note_read(node, session, caller, session.get_one(AnalysisRow, chosen["id"]), "page, as the earlier one")
    document = json.loads(row.document) if row.document else {}
    inference = document["finding"]["inference"] if shown.diagnosis else {}
    measured = shown.segmentation.region_statistics if shown.segmentation else None
    return HTMLResponse(
        render(
            "analysis.html",
            caller=caller,
            may_review=allows(caller, Role.REVIEW) and (bool(caller.form_key) or request.app.state.gate.open),
            analysis=shown,
            row=row,
            instance=instance,
            reviews=list(reversed(said)),
            stands=stands,
            told=told,
            typed={name: told.typed.get(name, "") for name in _FIELDS},
            recorded=request.query_params.get("recorded") == "1",
            views=views,
            edit=_edited(views[0], told.typed.get("outline", "")),
            priors=priors,
            prior=chosen,
            changes=changes,
            change_words=change_words,
            classes=wording.probabilities(shown.diagnosis) if shown.diagnosis else [],
            left=not_excluded(shown.diagnosis.prediction_set, inference["thresholds"]) if shown.diagnosis else "",
            titles=wording.TITLES,
            measurements=wording.measurements(measured),
            colours=wording.colours(measured),
            site=wording.place(*site),
            acquisition=wording.acquisition(document),
            remarks=[one["words"] for one in document.get("remarks", ())],
            document=document,
            inference=inference,
            statuses=wording.STATUSES,
            verdicts=wording.VERDICTS,
            place=wording.place,
            sites=wording.SITES,
            sides=wording.SIDES,
            most_words=MAX_COMMENT,
            no_prior=NO_PRIOR,
        ),
        told.status,
    )


def _view(
    session: Session, pictures: Pictures, row: AnalysisRow, instance: InstanceRow, key: str, title: str
) -> _Shown:
    outputs = artifact_rows(session, row.id) if row.state in READY else {}
    document = json.loads(row.document) if outputs else {}
    outlines = []
    if ArtifactKind.MASK in outputs and document["finding"]["measurements"]:
        outlines = pictures.outlines(outputs[ArtifactKind.MASK])
    return _Shown(
        key=key,
        title=title,
        id=row.id,
        rows=document.get("rows", instance.rows),
        columns=document.get("columns", instance.columns),
        outlines=outlines,
        corrected=list(standing(reviews_of(session, row.id)).outline) if row.reviews else [],
        layers=(("mask", "heat", "hair") if outlines else ("heat", "hair")) if outputs else (),
    )


def _edited(now: _Shown, typed: str) -> _Outline:
    """The outline that editing begins with: the one just typed, the corrected one, the algorithm's, or none."""
    try:
        return [(float(x), float(y)) for x, y in json.loads(typed)]
    except (ValueError, TypeError, RecursionError):
        largest = now.outlines[0] if now.outlines else []
        return now.corrected or editable(largest, now.rows, now.columns)


def _priors(session: Session, row: AnalysisRow, site: tuple[str, str], compared: str) -> list[dict[str, Any]]:
    """Earlier images of the patient with results; those of the same body site and side first, then the newest."""
    if not row.patient_id:
        return []
    query = (
        sa.select(
            col(AnalysisRow.id),
            col(AnalysisRow.created_at),
            col(AnalysisRow.tier),
            col(AnalysisRow.primary_class),
            col(AnalysisRow.reviews),
            col(InstanceRow.body_site_code),
            col(InstanceRow.laterality),
        )
        .join(InstanceRow, col(InstanceRow.id) == col(AnalysisRow.instance_id))
        .where(
            col(AnalysisRow.issuer) == row.issuer,
            col(AnalysisRow.patient_id) == row.patient_id,
            sa.or_(col(AnalysisRow.created_at) < row.created_at, col(AnalysisRow.id) == compared),  # pulled: came later
            col(AnalysisRow.state).in_(READY),
            col(AnalysisRow.instance_id) != row.instance_id,
        )
        .order_by((col(AnalysisRow.id) == compared).desc(), col(AnalysisRow.created_at).desc())
        .limit(_MOST_PRIORS)
    )
    found = [_prior(session, one, site) for one in session.execute(query)]
    return sorted(found, key=lambda one: not one["same"])


def _prior(session: Session, one: Any, site: tuple[str, str]) -> dict[str, Any]:
    """An earlier image as clinicians left it: class and site by them where they gave one."""
    stands = standing(reviews_of(session, one.id)) if one.reviews else UNREVIEWED
    its = stands.body_site_code or one.body_site_code, stands.laterality or one.laterality
    return {
        "id": one.id,
        "created_at": one.created_at,
        "tier": one.tier,
        "title": wording.called(one.primary_class, stands, "the algorithm abstains"),
        "place": wording.place(*its) or "site unknown",
        "same": bool(site[0]) and its == site,
    }


def _chosen(priors: list[dict[str, Any]], wanted: str, compared: str) -> dict[str, Any] | None:
    """The earlier image to show; without a wish the one compared with, or the newest of the same site.

    Raises `NotFound`.
    """
    if wanted == NO_PRIOR:
        return None
    if wanted:
        for one in priors:
            if one["id"] == wanted:
                return one
        raise NotFound("There is no such earlier image of this patient.")
    for one in priors:
        if one["id"] == compared:
            return one
    return priors[0] if priors and priors[0]["same"] else None
