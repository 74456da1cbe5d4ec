"""Bulk export of results as FHIR (https://hl7.org/fhir/uv/bulkdata/): which analyses stand in which file.

An export is the state of all results at one moment, newer or older reports than that are no part of it. Nothing is
copied: rows tell which version of a report stood at that moment, and a file is drawn from the stored bundles when it is
fetched. So an export costs no room, needs no cleaning up, and holds patient data nowhere a second time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlmodel import col

from cds_service.api.fhir_stored import Rows, Stored, as_of, devices, present, read_row, resources
from cds_service.node import Node
from dermoscopy.domain import ArtifactKind
from dermoscopy.tables import AnalysisRow, FormerArtifactRow
from fhir_adapters.elements import JsonObject

ANALYSES_IN_A_FILE = 200
"""So that the largest file, of reports with their pictures, is some tens of megabytes."""
SETTLE_SECONDS = 5.0
"""Pause before the rows are read: longer than what stores a result takes from reading the clock to its commit, so that
nothing is stored later with a time before the export's, which neither this export nor the next would hold."""
DEVICE = "Device"


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for."""

    caller: str
    at: str
    """Moment whose state is exported (RFC 3339, UTC)."""
    since: str
    """Only what was stored after this; empty: everything."""
    types: tuple[str, ...]
    request: str
    """Address of the kick-off."""

    def as_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Order:
        said = json.loads(text)
        return cls(**{**said, "types": tuple(said["types"])})


@dataclass(frozen=True, slots=True)
class Part:
    """The analyses of one file of each type: behind ``after`` and up to ``last``, each (time, id); empty: no bound."""

    after: tuple[str, str] | tuple[()]
    last: tuple[str, str] | tuple[()]
    analyses: int


class BulkExport:
    """Lists the parts of an export, in a worker."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def list_parts(self, order_text: str) -> str:
        """JSON list of `Part`."""
        order = Order.from_text(order_text)
        query = _analyses(order).with_only_columns(
            col(AnalysisRow.created_at), col(AnalysisRow.id), maintain_column_froms=True
        )
        ends: list[tuple[str, str]] = []
        number = 0
        with self._node.begin() as session:
            for created_at, analysis_id in session.execute(query.execution_options(yield_per=1000)):
                number += 1
                if number % ANALYSES_IN_A_FILE == 0:
                    ends.append((created_at.isoformat(), analysis_id))
        if number % ANALYSES_IN_A_FILE == 0 and ends:
            ends.pop()
        parts = []
        for place in range(len(ends) + 1) if number else ():
            after: tuple[str, str] | tuple[()] = ends[place - 1] if place else ()
            last: tuple[str, str] | tuple[()] = ends[place] if place < len(ends) else ()
            count = ANALYSES_IN_A_FILE if last else number - ANALYSES_IN_A_FILE * place
            parts.append(asdict(Part(after, last, count)))
        return json.dumps(parts)


def read_parts(text: str) -> list[Part]:
    """What `BulkExport.list_parts` wrote."""
    return [Part(tuple(one["after"]), tuple(one["last"]), one["analyses"]) for one in json.loads(text)]


def lines(node: Node, order: Order, kind: str, part: Part) -> Iterator[JsonObject]:
    """Resources of one file. Raises `IntegrityViolation` when the store has lost a bundle."""
    for stored in _editions(node, order, part):
        yield from (one for one in resources(node, stored) if one["resourceType"] == kind)


def exported_devices(node: Node, order: Order) -> list[JsonObject]:
    """Devices that were there at that moment, and answered for the first time after ``since``."""
    at, since = _moment(order.at), _moment(order.since)
    found = []
    for one in devices(node):
        began = datetime.fromisoformat(one["meta"]["lastUpdated"])
        if began <= at and (since is None or began > since):
            found.append(one)
    return found


def _editions(node: Node, order: Order, part: Part) -> list[Stored]:
    place = sa.tuple_(col(AnalysisRow.created_at), col(AnalysisRow.id))
    query = _analyses(order)
    if part.after:
        query = query.where(place > sa.tuple_(datetime.fromisoformat(part.after[0]), part.after[1]))
    if part.last:
        query = query.where(place <= sa.tuple_(datetime.fromisoformat(part.last[0]), part.last[1]))
    at = _moment(order.at)
    with node.begin() as session:
        now = [read_row(row) for row in session.execute(query)]
        found = [as_of(session, one, at) for one in now]
    return [one for one in found if one is not None]


def _analyses(order: Order) -> Rows:
    """Analyses with a version that was stored after ``since`` and no later than the export's moment."""
    at, since = _moment(order.at), _moment(order.since)
    first = sa.func.coalesce(col(AnalysisRow.completed_at), col(AnalysisRow.created_at))
    query = present().where(first <= at).order_by(col(AnalysisRow.created_at), col(AnalysisRow.id))
    if since is None:
        return query
    replaced = sa.exists().where(
        col(FormerArtifactRow.analysis_id) == col(AnalysisRow.id),
        col(FormerArtifactRow.kind) == ArtifactKind.FHIR_BUNDLE.value,
        col(FormerArtifactRow.replaced_at) > since,
        col(FormerArtifactRow.replaced_at) <= at,
    )
    return query.where(sa.or_(first > since, replaced))


def _moment(text: str) -> Any:
    return datetime.fromisoformat(text) if text else None


def whole_milliseconds(moment: datetime) -> datetime:
    """``moment`` as FHIR states it, so that the next export begins exactly where this one ended."""
    return moment - timedelta(microseconds=moment.microsecond % 1000)
