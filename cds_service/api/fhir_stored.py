"""Rows and blobs → resources of the read side. Analyses are chosen by columns; only bundles that a page needs are read.

Newest analyses come first, so that a page behind another never shifts when new reports come.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select, tuple_

from cds_service.api.fhir_query import Asked, Place
from cds_service.api.stored import READY
from cds_service.node import Node
from dermoscopy.domain import ArtifactKind, ModelReference, PatientIdentity
from dermoscopy.errors import IntegrityViolation
from dermoscopy.tables import AnalysisRow, ArtifactRow, FormerArtifactRow, InstanceRow
from fhir_adapters.elements import JsonObject
from fhir_adapters.facade import Edition, analysis_of, device_id, included, views
from fhir_adapters.facade_matching import Span, allows, matches

MOST_READ = 500
"""Bundles that one page reads; where filters leave little, a page may be short, and its next link goes on."""
_BLOCK = 100
_UUID_ROOT = "2.25."
"""PS3.5 B.2; `dermoscopy.domain.derive_uid` makes no others."""
_BUNDLE = ArtifactKind.FHIR_BUNDLE.value
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


Rows = sa.Select[str, int, datetime, datetime, str, str, str]
"""Query for what `read_row` takes."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of the results of one analysis, and where its bundle lies."""

    edition: Edition
    created_at: datetime
    patient: PatientIdentity
    digest: str


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a search."""

    matches: list[JsonObject]
    others: list[JsonObject]
    after: Place | None
    """Where it goes on; ``None`` at the end."""
    analyses: tuple[str, ...]
    """Whose resources are shown."""
    cut: bool
    """Whether it ended because enough was read, and not because it was full."""


def replaced_at() -> sa.ScalarSelect[Any]:
    """When the present bundle of an analysis took the place of the one before; NULL for the first."""
    former = col(FormerArtifactRow.replaced_at)
    return (
        sa.select(sa.func.max(former))
        .where(col(FormerArtifactRow.analysis_id) == col(AnalysisRow.id), col(FormerArtifactRow.kind) == _BUNDLE)
        .correlate(AnalysisRow)
        .scalar_subquery()
    )


def stored_at() -> sa.ColumnElement[datetime]:
    """When the present bundle of an analysis was stored; what was never amended has no former one to look for."""
    first = sa.func.coalesce(col(AnalysisRow.completed_at), col(AnalysisRow.created_at))
    return sa.case((col(AnalysisRow.rendered_revision) == 0, first), else_=sa.func.coalesce(replaced_at(), first))


def present() -> Rows:
    """Every analysis whose results may be shown, with its present bundle; rows as `read_row` takes them.

    The bundle is looked up for each analysis, and not joined: SQLite would go through all artifacts and sort, instead
    of going along the index of times until a page is full.
    """
    bundle = (
        sa.select(col(ArtifactRow.digest))
        .where(
            col(ArtifactRow.analysis_id) == col(AnalysisRow.id),
            col(ArtifactRow.kind) == _BUNDLE,
            col(ArtifactRow.current),
        )
        .correlate(AnalysisRow)
        .scalar_subquery()
    )
    return sa.select(
        col(AnalysisRow.id),
        col(AnalysisRow.rendered_revision),
        stored_at(),
        col(AnalysisRow.created_at),
        col(AnalysisRow.issuer),
        col(AnalysisRow.patient_id),
        bundle,
    ).where(col(AnalysisRow.state).in_(READY), bundle.is_not(None))


def read_row(row: Any) -> Stored:
    """A row of `present`."""
    analysis_id, revision, moment, created, issuer, patient_id, digest = row
    edition = Edition(analysis_id, revision, moment or created)
    return Stored(edition, created, PatientIdentity(issuer, patient_id), digest)


def newest(session: Session, analysis_id: str) -> Stored | None:
    """The present version; ``None`` while there is none."""
    row = session.execute(present().where(col(AnalysisRow.id) == analysis_id)).one_or_none()
    return read_row(row) if row else None


def former(session: Session, now: Stored, revision: int) -> Stored | None:
    """The version of this revision, be it the present one or one that was replaced."""
    if revision == now.edition.revision:
        return now
    rows = list(
        session.execute(
            select(FormerArtifactRow)
            .where(FormerArtifactRow.analysis_id == now.edition.analysis_id, FormerArtifactRow.kind == _BUNDLE)
            .order_by(col(FormerArtifactRow.revision))
        ).scalars()
    )
    began = session.execute(
        select(sa.func.coalesce(col(AnalysisRow.completed_at), col(AnalysisRow.created_at))).where(
            AnalysisRow.id == now.edition.analysis_id
        )
    ).scalar_one()
    for row in rows:
        if row.revision == revision:
            edition = Edition(now.edition.analysis_id, revision, began)
            return Stored(edition, now.created_at, now.patient, row.digest)
        began = row.replaced_at
    return None


def as_of(session: Session, now: Stored, moment: datetime) -> Stored | None:
    """The version that was the present one at ``moment``; ``None`` before there was any."""
    if now.edition.stored_at <= moment:
        return now
    query = select(FormerArtifactRow.revision).where(
        FormerArtifactRow.analysis_id == now.edition.analysis_id,
        FormerArtifactRow.kind == _BUNDLE,
        col(FormerArtifactRow.replaced_at) > moment,
    )
    revision = session.execute(query.order_by(col(FormerArtifactRow.replaced_at)).limit(1)).scalar_one_or_none()
    found = None if revision is None else former(session, now, revision)
    return found if found is not None and found.edition.stored_at <= moment else None


def resources(node: Node, stored: Stored) -> list[JsonObject]:
    """Everything of one version. Raises `IntegrityViolation` when the store has lost it."""
    try:
        bundle = json.loads(node.blobs.get(stored.digest))
    except KeyError as error:
        raise IntegrityViolation(f"a FHIR bundle of analysis {stored.edition.analysis_id} is gone") from error
    root = f"{node.settings.resolved_public_url}/dicom-web"
    return views(bundle, stored.edition, dicomweb=root, system_of=node.issuers.system_of)


def devices_for(node: Node, asked: Asked) -> list[JsonObject]:
    """The Devices that were asked for: as many as there are models, so all of them are looked at."""
    return [one for one in devices(node) if fits(asked, one, ()) and _updated_within(asked, one)]


def _updated_within(asked: Asked, one: JsonObject) -> bool:
    moment = datetime.fromisoformat(one["meta"]["lastUpdated"])
    return all(allows(span, moment) for span in asked.updated)


def devices(node: Node) -> list[JsonObject]:
    """The Device of every set of weights that answered, newest first; each as its newest analysis draws it."""
    first = sa.func.min(sa.func.coalesce(col(AnalysisRow.completed_at), col(AnalysisRow.created_at)))
    model = (col(AnalysisRow.model_name), col(AnalysisRow.model_version), col(AnalysisRow.model_digest))
    found = []
    with node.begin() as session:
        rows = session.execute(
            sa.select(*model, first).where(col(AnalysisRow.state).in_(READY)).group_by(*model).order_by(first.desc())
        ).all()
        for *weights, began in rows:
            query = present().where(*(column == value for column, value in zip(model, weights, strict=True)))
            row = session.execute(query.order_by(col(AnalysisRow.created_at).desc()).limit(1)).one_or_none()
            if row is not None:
                found.append((ModelReference(*weights), began, read_row(row)))
    made = []
    for reference, began, stored in found:
        wanted = device_id(reference)
        shared = Stored(Edition(stored.edition.analysis_id, 0, began), stored.created_at, stored.patient, stored.digest)
        made += [one for one in resources(node, shared) if one["resourceType"] == "Device" and one["id"] == wanted]
    return made


class KnownDevices:
    """Devices by id. One never changes, so it is looked for in the rows once only: every Observation refers to one."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._known: dict[str, JsonObject] = {}

    def find(self, logical_id: str) -> JsonObject | None:
        """The Device with this id, if any model of that id ever answered."""
        if logical_id not in self._known:
            self._known = {one["id"]: one for one in devices(self._node)}
        return self._known.get(logical_id)


def patients_of(node: Node, session: Session, asked: Asked) -> tuple[PatientIdentity, ...] | None:
    """Under which identities the patient that is searched for may stand; ``None`` where none is."""
    if asked.patient is not None:
        said = PatientIdentity((asked.patient.system or "").strip(), asked.patient.code.strip())
    elif asked.patient_of:
        row = session.get(AnalysisRow, asked.patient_of)
        if row is None:
            return ()
        said = PatientIdentity(row.issuer, row.patient_id)
    else:
        return None
    one = node.issuers.canonical(said)
    return tuple({one, said, PatientIdentity(node.issuers.system_of(one.issuer), one.patient_id)})


def selected(asked: Asked, patients: Sequence[PatientIdentity] | None) -> Rows:
    """Query for the analyses among which the answer is; what no column knows is left to `fits`."""
    query = present()
    if patients is not None:
        keys = [(one.issuer, one.patient_id) for one in patients]
        query = query.where(tuple_(col(AnalysisRow.issuer), col(AnalysisRow.patient_id)).in_(keys))
    named = [{analysis_of(one) for one in several} for several in asked.ids]
    named += [{analysis_of(one.partition("/")[2]) for one in several} for several in asked.targets]
    for several in named:
        query = query.where(col(AnalysisRow.id).in_(several))
    for studies in asked.studies:
        query = query.where(col(AnalysisRow.instance_id).in_(_instances_of(studies)))
    for span in asked.moments:
        query = query.where(_within(col(AnalysisRow.created_at), span))
    for span in asked.updated:
        query = query.where(_within(stored_at(), span))
    for element, tokens in asked.tokens:
        if (asked.served.name, element) == ("DiagnosticReport", "status"):
            said = col(AnalysisRow.report_status).in_(
                {one.code for one in tokens}
            )  # ahead of what is drawn, if not equal
            query = query.where(sa.or_(said, col(AnalysisRow.reviews) > col(AnalysisRow.rendered_revision)))
    for tokens in asked.identifiers:
        codes = {one.code for one in tokens}
        if asked.served.name == "DiagnosticReport":
            query = query.where(col(AnalysisRow.id).in_(_holding(codes)))
        elif asked.served.name == "ImagingStudy":
            uids = {code.removeprefix("urn:oid:") for code in codes}
            query = query.where(col(AnalysisRow.instance_id).in_(_instances_of(uids)))
        elif all(code.startswith("urn:oid:") for code in codes) and asked.served.name in ("DocumentReference", "Media"):
            uids = {code.removeprefix("urn:oid:") for code in codes}
            query = query.where(col(AnalysisRow.id).in_(_holding(uids)))
    return query


def _instances_of(studies: Iterable[str]) -> sa.Select[str]:
    """Images of these studies; and those without one, where a study may be that of a picture that was wrapped.

    Such a study's UID is derived from the image and stands in no column, but always under the root of UUIDs.
    """
    wanted = set(studies)
    if any(uid.startswith(_UUID_ROOT) for uid in wanted):
        wanted.add("")
    return sa.select(col(InstanceRow.id)).where(col(InstanceRow.study_instance_uid).in_(wanted))


def _holding(uids: Iterable[str]) -> sa.Select[str]:
    return sa.select(col(ArtifactRow.analysis_id)).where(col(ArtifactRow.uid).in_(set(uids)))


def _within(column: Any, span: Span) -> sa.ColumnElement[bool]:
    inside = [column >= span.low] if span.low else []
    inside += [column < span.high] if span.high else []
    found = sa.and_(*inside)
    return sa.not_(found) if span.outside else found


def by_columns(asked: Asked) -> bool:
    """Whether columns alone say how many resources there are: one report for each analysis."""
    looked_into = asked.tokens or asked.identifiers or asked.studies or asked.ids
    return asked.served.name == "DiagnosticReport" and not looked_into


def fits(asked: Asked, resource: JsonObject, all_of_it: Sequence[JsonObject]) -> bool:
    """Whether a resource of a selected analysis is one that was asked for."""
    if resource["resourceType"] != asked.served.name:
        return False
    if not all(resource["id"] in several for several in asked.ids):
        return False
    element = asked.served.parameters.get("identifier")
    if element and not all(matches(resource, element.element, tokens) for tokens in asked.identifiers):
        return False
    if asked.studies and not _of_studies(asked, all_of_it):
        return False
    if asked.targets:
        targets = {one.get("reference") for one in resource.get("target", ())}
        if not all(targets & several for several in asked.targets):
            return False
    return all(matches(resource, name, tokens) for name, tokens in asked.tokens)


def _of_studies(asked: Asked, all_of_it: Sequence[JsonObject]) -> bool:
    there = {
        str(one.get("value", "")).removeprefix("urn:oid:")
        for study in all_of_it
        if study["resourceType"] == "ImagingStudy"
        for one in study["identifier"]
    }
    return all(there & several for several in asked.studies)


def find_page(node: Node, asked: Asked, patients: Sequence[PatientIdentity] | None) -> Page:
    """One page, which ends where it is full or enough was read."""
    found: list[JsonObject] = []
    others: dict[str, JsonObject] = {}
    shown: dict[str, None] = {}
    last = asked.after
    for number, stored in enumerate(_walk(node, asked, patients)):
        if number >= MOST_READ:
            return Page(found, list(others.values()), last, tuple(shown), True)
        all_of_it = resources(node, stored)
        for one in _behind(asked.after, [one for one in all_of_it if fits(asked, one, all_of_it)]):
            if len(found) == asked.count:
                return Page(found, list(others.values()), last, tuple(shown), False)
            found.append(one)
            shown[stored.edition.analysis_id] = None
            for other in included(one, all_of_it, asked.include):
                others[f"{other['resourceType']}/{other['id']}"] = other
            last = _place(stored, one["id"])
        last = _place(stored, last.logical_id if last and last.analysis_id == stored.edition.analysis_id else "~")
    return Page(found, list(others.values()), None, tuple(shown), False)


def count_all(node: Node, asked: Asked, patients: Sequence[PatientIdentity] | None) -> int | None:
    """How many there are; ``None`` where more bundles than `MOST_READ` would have to be read to know."""
    if by_columns(asked):
        query = selected(asked, patients).with_only_columns(sa.func.count(), maintain_column_froms=True)
        with node.begin() as session:
            return int(session.execute(query).scalar_one())
    total = 0
    for number, stored in enumerate(_walk(node, asked, patients)):
        if number >= MOST_READ:
            return None
        all_of_it = resources(node, stored)
        total += sum(1 for one in all_of_it if fits(asked, one, all_of_it))
    return total


def _walk(node: Node, asked: Asked, patients: Sequence[PatientIdentity] | None) -> Iterator[Stored]:
    """Selected analyses, newest first, from the one on at which the last page ended."""
    order = tuple_(col(AnalysisRow.created_at), col(AnalysisRow.id))
    query = selected(asked, patients).order_by(col(AnalysisRow.created_at).desc(), col(AnalysisRow.id).desc())
    if asked.after is None:
        following = query
    else:
        moment = _EPOCH + timedelta(microseconds=asked.after.microseconds)
        following = query.where(order <= tuple_(moment, asked.after.analysis_id))
    size = min(_BLOCK, asked.count + 1)
    while True:
        with node.begin() as session:
            block = [read_row(row) for row in session.execute(following.limit(size))]
        yield from block
        if len(block) < size:
            return
        following = query.where(order < tuple_(block[-1].created_at, block[-1].edition.analysis_id))


def _behind(after: Place | None, found: Sequence[JsonObject]) -> Sequence[JsonObject]:
    """What follows the resource at which the last page ended, if it is among ``found``."""
    if after is None:
        return found
    for number, one in enumerate(found):
        if one["id"] == after.logical_id:
            return found[number + 1 :]
    return found


def _place(stored: Stored, logical_id: str) -> Place:
    microseconds = (stored.created_at - _EPOCH) // timedelta(microseconds=1)
    return Place(microseconds, stored.edition.analysis_id, logical_id)
