"""The worklist: most urgent first, filtered by urgency, status and site, in pages; patients searched for by POST."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import sqlalchemy as sa
from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session
from sqlmodel import col, func, select, tuple_

from cds_service.api.refusals import FieldError, InvalidRequest
from cds_service.api.stored import node_of
from cds_service.authorization import Caller, Reader
from cds_service.web import wording
from cds_service.web.forms import check_form
from cds_service.web.templating import render
from dermoscopy import codes
from dermoscopy.domain import PatientIdentity, ReportStatus, TriageTier
from dermoscopy.ports import AuditEntry
from dermoscopy.reviews import UNREVIEWED, reviews_of, standing
from dermoscopy.tables import AnalysisRow, HoldRow, InstanceRow

router = APIRouter(include_in_schema=False)
WORKLIST_LENGTH: Final = 50
MOST_OF_A_PATIENT: Final = 200
ANY: Final = "all"
_FAILED, _UNDER_WAY = "failed", "under way"
_GROUPS: Final = (
    TriageTier.URGENT.value,
    TriageTier.EXPEDITED.value,
    _FAILED,  # beside the undetermined: both need a person
    TriageTier.UNDETERMINED.value,
    TriageTier.ROUTINE.value,
    TriageTier.MONITOR.value,
    _UNDER_WAY,
)
"""In the order in which they stand; each is one walk along an index, whatever else is stored."""
_STATUSES: Final = {
    ReportStatus.PRELIMINARY.value: "to be reviewed",
    ReportStatus.FINAL.value: "confirmed",
    ReportStatus.AMENDED.value: "amended",
    ReportStatus.ENTERED_IN_ERROR.value: "withdrawn",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CURSOR = r"^([0-6]_[0-9]{1,16}_[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})?$"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the list is narrowed to; empty strings and ``all`` narrow nothing."""

    urgency: str = ""
    status: str = ReportStatus.PRELIMINARY.value
    site: str = ""
    before: str = ""

    def address(self, before: str) -> str:
        asked = {"urgency": self.urgency, "status": self.status, "site": self.site, "before": before}
        return f"/worklist?{urlencode({k: v for k, v in asked.items() if v})}"


@router.get("/worklist")
def worklist(
    request: Request,
    caller: Reader,
    urgency: Annotated[str, Query(max_length=20)] = "",
    status: Annotated[str, Query(max_length=20)] = ReportStatus.PRELIMINARY.value,
    site: Annotated[str, Query(pattern=r"^[0-9]{0,18}$")] = "",
    before: Annotated[str, Query(pattern=_CURSOR)] = "",
) -> HTMLResponse:
    """One page of the list; ``before`` is the cursor of the page before."""
    wanted = _Wanted(urgency, status, site, before)
    _check(wanted)
    with node_of(request).begin() as session:
        items = _items(session, caller, wanted, WORKLIST_LENGTH + 1)
        shown = items[:WORKLIST_LENGTH]
        following = wanted.address(_cursor(shown[-1])) if len(items) > WORKLIST_LENGTH else ""
        return _page(request, caller, session, wanted, shown, following=following)


@router.post("/worklist")
def search(
    request: Request,
    caller: Reader,
    patient: Annotated[str, Form(max_length=200)] = "",
    issuer: Annotated[str, Form(max_length=200)] = "",
    key: Annotated[str, Form(max_length=200)] = "",
) -> HTMLResponse:
    """Every analysis of one patient, the newest first. The id is in no address; the search is in the audit log."""
    check_form(request, caller, key)
    node = node_of(request)
    wanted = PatientIdentity(issuer.strip(), patient.strip())
    if not wanted.known or not (patient + issuer).isprintable():
        raise InvalidRequest([FieldError(pointer="patient", detail="type a patient id, in printable characters")])
    canonical = node.issuers.canonical(wanted)
    with node.begin() as session:
        where = tuple_(col(AnalysisRow.issuer), col(AnalysisRow.patient_id)).in_(
            [(p.issuer, p.patient_id) for p in {wanted, canonical}]
        )
        query = _select().where(where, *_visible(caller)).order_by(col(AnalysisRow.created_at).desc())
        found = session.execute(query.limit(MOST_OF_A_PATIENT)).all()
        items = [_item(session, one, _group_of(one)) for one in found]
        page = _page(request, caller, session, _Wanted(status=ANY), items, searched=True)
    with node.begin() as session:
        entry = AuditEntry(
            action="analysis.searched",
            actor=caller.name,
            subject_type="patient",
            subject_id="",
            patient_issuer=canonical.issuer,
            patient_id=canonical.patient_id,
            details={"found": len(items)},
        )
        node.audit.append(session, entry)
    return page


def _check(wanted: _Wanted) -> None:
    wrong = []
    if wanted.urgency and wanted.urgency not in _GROUPS:
        wrong.append(FieldError(pointer="query:urgency", detail=f"one of {', '.join(_GROUPS)}"))
    if wanted.status not in (*_STATUSES, ANY):
        wrong.append(FieldError(pointer="query:status", detail=f"one of {', '.join((*_STATUSES, ANY))}"))
    if wanted.site and wanted.site not in codes.SITES:
        wrong.append(FieldError(pointer="query:site", detail="a SNOMED CT code of a skin site known here"))
    if wrong:
        raise InvalidRequest(wrong)


def _items(session: Session, caller: Caller, wanted: _Wanted, most: int) -> list[dict[str, Any]]:
    """The next ``most`` lines, group after group."""
    first, _, rest = wanted.before.partition("_")
    items: list[dict[str, Any]] = []
    for number, group in enumerate(_GROUPS):
        if (wanted.urgency and group != wanted.urgency) or number < int(first or 0) or len(items) >= most:
            continue
        narrowed = [*_in_group(group), *_visible(caller)]
        if wanted.site:
            narrowed.append(col(InstanceRow.body_site_code) == wanted.site)
        if rest and number == int(first):
            narrowed.append(_after(rest))
        items += [_item(session, one, group) for one in _newest(session, narrowed, wanted.status, most - len(items))]
    return items


def _newest(session: Session, narrowed: Sequence[sa.ColumnElement[bool]], status: str, most: int) -> list[Any]:
    """The newest rows; of any status one walk for each, since the index has the status before the time."""
    found: list[Any] = []
    for one in _STATUSES if status == ANY else (status,):
        query = _select().where(*narrowed, col(AnalysisRow.report_status) == one)
        query = query.order_by(col(AnalysisRow.created_at).desc(), col(AnalysisRow.id).desc())
        found += session.execute(query.limit(most)).all()
    return sorted(found, key=lambda row: (row.created_at, row.id), reverse=True)[:most]


def _after(cursor: str) -> sa.ColumnElement[bool]:
    microseconds, _, last = cursor.partition("_")
    moment = _EPOCH + timedelta(microseconds=int(microseconds))
    return tuple_(col(AnalysisRow.created_at), col(AnalysisRow.id)) < tuple_(moment, last)


def _select() -> sa.Select[*tuple[Any, ...]]:
    return sa.select(
        col(AnalysisRow.id),
        col(AnalysisRow.state),
        col(AnalysisRow.created_at),
        col(AnalysisRow.tier),
        col(AnalysisRow.primary_class),
        col(AnalysisRow.melanoma_risk),
        col(AnalysisRow.report_status),
        col(AnalysisRow.reviews),
        col(InstanceRow.body_site_code),
        col(InstanceRow.laterality),
    ).join(InstanceRow, col(InstanceRow.id) == col(AnalysisRow.instance_id))


def _in_group(group: str) -> Sequence[sa.ColumnElement[bool]]:
    if group == _FAILED:
        return (col(AnalysisRow.state) == "failed",)
    tier = "" if group == _UNDER_WAY else group
    return col(AnalysisRow.tier) == tier, col(AnalysisRow.state) != "failed"


def _group_of(row: Any) -> str:
    return _FAILED if row.state == "failed" else row.tier or _UNDER_WAY


def _visible(caller: Caller) -> Sequence[sa.ColumnElement[bool]]:
    if caller.patients is None:
        return ()
    own = [(p.issuer, p.patient_id) for p in caller.patients]
    return (tuple_(col(AnalysisRow.issuer), col(AnalysisRow.patient_id)).in_(own),)


def _item(session: Session, row: Any, group: str) -> dict[str, Any]:
    """One line; what a clinician said stands before what the algorithm says, whose urgency orders the list."""
    stands = standing(reviews_of(session, row.id)) if row.reviews else UNREVIEWED
    site = stands.body_site_code or row.body_site_code, stands.laterality or row.laterality
    return {
        "id": row.id,
        "group": group,
        "created_at": row.created_at,
        "title": wording.called(row.primary_class, stands, "abstains" if row.tier else "–"),
        "melanoma_risk": row.melanoma_risk,
        "place": wording.place(*site) or "–",
        "status": _STATUSES[row.report_status],
    }


def _cursor(last: dict[str, Any]) -> str:
    return f"{_GROUPS.index(last['group'])}_{(last['created_at'] - _EPOCH) // timedelta(microseconds=1)}_{last['id']}"


def _page(
    request: Request,
    caller: Caller,
    session: Session,
    wanted: _Wanted,
    items: Sequence[dict[str, Any]],
    *,
    following: str = "",
    searched: bool = False,
) -> HTMLResponse:
    holds: Sequence[HoldRow] = ()
    count = 0
    if caller.patients is None:
        waiting = col(HoldRow.resolved_at).is_(None)
        oldest = select(HoldRow).where(waiting).order_by(col(HoldRow.created_at)).limit(20)
        holds = session.execute(oldest).scalars().all()
        count = session.execute(select(func.count()).select_from(HoldRow).where(waiting)).scalar_one()
    return HTMLResponse(
        render(
            "worklist.html",
            caller=caller,
            items=items,
            wanted=wanted,
            following=following,
            searched=searched,
            groups=_GROUPS,
            statuses=_STATUSES,
            any_status=ANY,
            sites=wording.SITES,
            holds=holds,
            hold_count=count,
        )
    )
