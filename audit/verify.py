"""Offline proof that the trail is what was written: recomputes every hash and names what does not hold.

Three walls, each for an attacker who came past the one before: leaf hashes (a changed row), recorded roots (a removed,
moved or inserted row), signed checkpoints (somebody who rewrote rows, hashes and roots, but has no key). Somebody who
also cuts the end off, checkpoints included, is found by checkpoints kept outside the database.

Streams: one million leaves take one page of memory. Safe beside a running service: the extent is fixed first, and what
comes later is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, Engine, func, select

from audit.chain import Chain, Link
from audit.checkpoint import Checkpoint, checkpoint_from
from audit.leaf import from_hex, leaf_hash
from audit.merkle import CompactRange
from audit.tables import CHECKPOINT, LEAF, PENDING, TREE
from dermoscopy.errors import AuditLogTampered

PAGE = 2000
MAXIMUM_PROBLEMS = 1000
"""After so many the rest is only counted: the log is lost anyway, and a report must stay readable."""


class ProblemKind(StrEnum):
    """What was done to the log."""

    CHANGED = "changed"
    REMOVED = "removed"
    REORDERED = "reordered"
    INSERTED = "inserted"
    TRUNCATED = "truncated"
    ROOT = "root altered"
    CHECKPOINT = "checkpoint"
    UNMARKED = "unmarked"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, with the row it is about as far as that can be known."""

    kind: ProblemKind
    message: str
    position: int | None = None
    leaf_id: str | None = None
    action: str | None = None
    at: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome. ``pending`` leaves are committed and not yet in the tree: normal for a second or two."""

    size: int
    pending: int
    root_hash: str
    checkpoints: int
    problems: tuple[Problem, ...]
    more_problems: int = 0

    @property
    def ok(self) -> bool:
        return not self.problems

    def require(self) -> None:
        """Raise `AuditLogTampered` unless everything holds."""
        if self.problems:
            count = len(self.problems) + self.more_problems
            raise AuditLogTampered(f"{count} problem(s) in the audit log; the first: {self.problems[0]}")


@dataclass(slots=True)
class _Findings:
    problems: list[Problem] = field(default_factory=list)
    more: int = 0

    def add(self, kind: ProblemKind, message: str, position: int | None = None, **row: str | None) -> None:
        if len(self.problems) < MAXIMUM_PROBLEMS:
            self.problems.append(Problem(kind, message, position, row.get("leaf_id"), row.get("action"), row.get("at")))
        else:
            self.more += 1


def verify(
    engine: Engine, keys: Mapping[str, Ed25519PublicKey], *, external: Iterable[Checkpoint] = ()
) -> Verification:
    """Check all rows against each other, the signatures against ``keys``, and ``external`` checkpoints against both."""
    findings = _Findings()
    with engine.connect() as connection:
        witnessed = _witnesses(external, keys, findings)  # first: what was kept outside is in the database by now
        size, heads = _extent(connection)
        checkpoints = _Checkpoints(connection, keys, witnessed, heads, findings)
        chain = _walk(connection, size, checkpoints, findings)
        checkpoints.finish(chain.tree.size)
        pending = _outside_the_tree(connection, findings)
    return Verification(
        size, pending, chain.tree.root().hex(), checkpoints.seen, tuple(findings.problems), findings.more
    )


def verify_or_raise(
    engine: Engine, keys: Mapping[str, Ed25519PublicKey], *, external: Iterable[Checkpoint] = ()
) -> Verification:
    """`verify`, raising `AuditLogTampered` that names the first problem."""
    result = verify(engine, keys, external=external)
    result.require()
    return result


def _extent(connection: Connection) -> tuple[int, int]:
    """Positions and checkpoints that exist now, read in one statement so that the two belong together."""
    size = select(func.coalesce(func.max(TREE.c.position) + 1, 0)).scalar_subquery()
    heads = select(func.coalesce(func.max(CHECKPOINT.c.number) + 1, 0)).scalar_subquery()
    row = connection.execute(select(size, heads)).one()
    connection.rollback()
    return int(row[0]), int(row[1])


def _walk(connection: Connection, size: int, checkpoints: _Checkpoints, findings: _Findings) -> Chain:
    chain = Chain(
        connection,
        size,
        lambda kind, message, position, leaf_id: findings.add(ProblemKind(kind), message, position, leaf_id=leaf_id),
    )
    for row in _tree_rows(connection, size):
        link = Link(row["position"], row["tree_leaf_id"], row["tree_hash"], row["root_hash"])
        if row["id"] is None:
            findings.add(
                ProblemKind.REMOVED,
                f"leaf {link.leaf_id} at position {link.position} is in the tree but its row is gone",
                link.position,
                leaf_id=link.leaf_id,
            )
        else:
            _content(row, "position", findings)
        chain.follow(link, leaf_hash(row) if row["id"] is not None else None)
        checkpoints.at(chain)
    return chain


def _content(row: Mapping[str, object], where: str, findings: _Findings) -> None:
    """Whether a leaf's row still has the hash that was recorded, in the row itself and in the tree."""
    computed = leaf_hash(row)
    recorded = {str(row["leaf_hash"]), str(row["leaf_hash"] if row["tree_hash"] is None else row["tree_hash"])}
    if recorded == {computed}:
        return
    at, action, leaf_id = str(row["at"]), str(row["action"]), str(row["id"])
    position = row["position"]
    place = f"position {position}" if position is not None else "not yet in the tree"
    if computed not in recorded:
        message = f"leaf {leaf_id} ({action}, {at}, {place}) was changed: its content no longer has its hash"
    else:
        message = f"leaf {leaf_id} ({action}, {at}, {place}): a recorded hash was changed, the content was not"
    number = position if isinstance(position, int) else None
    findings.add(ProblemKind.CHANGED, message, number, leaf_id=leaf_id, action=action, at=at)


def _tree_rows(connection: Connection, size: int) -> Iterator[dict[str, Any]]:
    columns = (
        TREE.c.position,
        TREE.c.leaf_id.label("tree_leaf_id"),
        TREE.c.leaf_hash.label("tree_hash"),
        TREE.c.root_hash,
    )
    query = select(*columns, LEAF).outerjoin(LEAF, LEAF.c.id == TREE.c.leaf_id).order_by(TREE.c.position).limit(PAGE)
    after = -(1 << 62)
    while True:
        page = connection.execute(query.where(TREE.c.position > after, TREE.c.position < size)).mappings().all()
        connection.rollback()
        yield from map(dict, page)
        if len(page) < PAGE:
            return
        after = page[-1]["position"]


def _outside_the_tree(connection: Connection, findings: _Findings) -> int:
    """Leaves without a position: waiting ones are counted, those that nobody would ever place are problems."""
    query = (
        select(LEAF, TREE.c.position, TREE.c.leaf_hash.label("tree_hash"), PENDING.c.leaf_id.label("mark"))
        .outerjoin(TREE, TREE.c.leaf_id == LEAF.c.id)
        .outerjoin(PENDING, PENDING.c.leaf_id == LEAF.c.id)
        .where(TREE.c.position.is_(None))
    )
    pending = 0
    for row in connection.execute(query).mappings().all():
        _content(dict(row), "pending", findings)
        if row["mark"] is not None:
            pending += 1
            continue
        findings.add(
            ProblemKind.UNMARKED,
            f"leaf {row['id']} ({row['action']}, {row['at']}) is neither in the tree nor waiting for it: it was "
            "inserted behind the log's back, or its place in the tree was removed",
            leaf_id=row["id"],
            action=row["action"],
            at=row["at"],
        )
    marks = (
        select(PENDING.c.leaf_id, LEAF.c.id, TREE.c.position)
        .outerjoin(LEAF, LEAF.c.id == PENDING.c.leaf_id)
        .outerjoin(TREE, TREE.c.leaf_id == PENDING.c.leaf_id)
        .where((LEAF.c.id.is_(None)) | (TREE.c.position.is_not(None)))
    )
    for row in connection.execute(marks).mappings().all():
        if row["position"] is None:
            message = f"leaf {row['leaf_id']} waits for its place in the tree but its row is gone"
            findings.add(ProblemKind.REMOVED, message, leaf_id=row["leaf_id"])
        else:
            message = f"leaf {row['leaf_id']} stands at position {row['position']} and is marked as waiting too"
            findings.add(ProblemKind.INSERTED, message, row["position"], leaf_id=row["leaf_id"])
    connection.rollback()
    return pending


def _witnesses(
    external: Iterable[Checkpoint], keys: Mapping[str, Ed25519PublicKey], findings: _Findings
) -> dict[int, Checkpoint]:
    """External checkpoints by number, their signatures checked."""
    witnessed: dict[int, Checkpoint] = {}
    for checkpoint in external:
        key = keys.get(checkpoint.key_id)
        if key is None or not checkpoint.signed_by(key):
            message = (
                f"external checkpoint {checkpoint.number} (size {checkpoint.tree_size}) is not signed by a known key"
            )
            findings.add(ProblemKind.CHECKPOINT, message)
            continue
        known = witnessed.setdefault(checkpoint.number, checkpoint)
        if known.text() != checkpoint.text():
            message = f"two different external checkpoints {checkpoint.number} are both signed: the log was forked"
            findings.add(ProblemKind.CHECKPOINT, message)
    return witnessed


class _Checkpoints:
    """Walks the checkpoints beside the tree: each must be signed, follow the one before, and have the computed root."""

    def __init__(
        self,
        connection: Connection,
        keys: Mapping[str, Ed25519PublicKey],
        witnessed: dict[int, Checkpoint],
        heads: int,
        findings: _Findings,
    ) -> None:
        self._keys, self._findings = keys, findings
        self._witnessed = witnessed
        self._covered = 0
        self.seen = 0
        self._rows = self._read(connection, heads)
        self._next = next(self._rows, None)

    def at(self, chain: Chain) -> None:
        """Compare all checkpoints of the chain's present size."""
        while self._next is not None and self._next[0].tree_size <= chain.tree.size:
            checkpoint, tree = self._next
            if chain.last_was_inserted(checkpoint):
                return
            self._next = next(self._rows, None)
            if checkpoint.tree_size < chain.tree.size:
                message = f"checkpoint {checkpoint.number} is for {checkpoint.tree_size} leaves and is out of order"
                self._findings.add(ProblemKind.CHECKPOINT, message)
                continue
            if chain.tree.root().hex() != checkpoint.root_hash:
                last = checkpoint.tree_size - 1
                self._findings.add(
                    ProblemKind.CHECKPOINT,
                    f"the tree up to position {last} is not what checkpoint {checkpoint.number} signed at "
                    f"{checkpoint.at}: "
                    f"something in positions {self._covered}…{last} was changed, removed or "
                    "reordered and its hashes rewritten",
                    self._covered,
                )
                if tree is not None:
                    chain.resume(tree)
            self._covered = checkpoint.tree_size

    def finish(self, size: int) -> None:
        """After the last leaf: what was signed and is no longer there, or is there and was never signed."""
        while self._next is not None:
            checkpoint, _ = self._next
            self._next = next(self._rows, None)
            if checkpoint.tree_size <= size:
                self._covered = checkpoint.tree_size
                continue
            message = (
                f"the tree ends after {size} leaves, but checkpoint {checkpoint.number} signed {checkpoint.tree_size} "
                f"at {checkpoint.at}: positions {size}…{checkpoint.tree_size - 1} were removed"
            )
            self._findings.add(ProblemKind.TRUNCATED, message, size)
            self._covered = checkpoint.tree_size
        if self._covered < size:
            message = f"positions {self._covered}…{size - 1} are in the tree but no valid checkpoint covers them"
            self._findings.add(ProblemKind.CHECKPOINT, message, self._covered)

    def _read(self, connection: Connection, heads: int) -> Iterator[tuple[Checkpoint, CompactRange | None]]:
        """Trustworthy checkpoints of the database, and those that only the outside file still has, by number."""
        expected = 0
        for row in _checkpoint_rows(connection, heads):
            checkpoint = checkpoint_from(row)
            yield from self._missing(expected, checkpoint.number)
            expected = checkpoint.number + 1
            self.seen += 1
            witness = self._witnessed.pop(checkpoint.number, None)
            key = self._keys.get(checkpoint.key_id)
            if key is None or not checkpoint.signed_by(key):
                reason = "is not signed by a known key" if key is None else "has a signature that does not hold"
                message = f"checkpoint {checkpoint.number} (size {checkpoint.tree_size}, {checkpoint.at}) {reason}"
                self._findings.add(ProblemKind.CHECKPOINT, message)
                if witness is None:
                    continue
                checkpoint = witness
            elif witness is not None and witness.text() != checkpoint.text():
                message = f"checkpoint {checkpoint.number} is not the one that was kept outside: the log was forked"
                self._findings.add(ProblemKind.CHECKPOINT, message)
                checkpoint = witness
            tree = _peaks(checkpoint, str(row["peaks"]))
            if tree is None:
                message = f"the stored subtree roots of checkpoint {checkpoint.number} do not fit its signed root"
                self._findings.add(ProblemKind.CHECKPOINT, message)
            yield checkpoint, tree
        newest = max(self._witnessed, default=-1)
        yield from self._missing(expected, newest + 1)

    def _missing(self, start: int, end: int) -> Iterator[tuple[Checkpoint, CompactRange | None]]:
        if start >= end:
            return
        which = f"checkpoint {start}" if end == start + 1 else f"checkpoints {start}…{end - 1}"
        self._findings.add(ProblemKind.CHECKPOINT, f"{which} removed from the database")
        for number in sorted(number for number in self._witnessed if start <= number < end):
            yield self._witnessed.pop(number), None


def _peaks(checkpoint: Checkpoint, text: str) -> CompactRange | None:
    try:
        tree = CompactRange(checkpoint.tree_size, [from_hex(peak) for peak in text.split(" ")] if text else [])
    except ValueError:
        return None
    return tree if tree.root().hex() == checkpoint.root_hash else None


def _checkpoint_rows(connection: Connection, heads: int) -> Iterator[dict[str, Any]]:
    query = select(CHECKPOINT).order_by(CHECKPOINT.c.number).limit(PAGE)
    after = -(1 << 62)
    while True:
        page = (
            connection.execute(query.where(CHECKPOINT.c.number > after, CHECKPOINT.c.number < heads)).mappings().all()
        )
        connection.rollback()
        yield from map(dict, page)
        if len(page) < PAGE:
            return
        after = page[-1]["number"]
