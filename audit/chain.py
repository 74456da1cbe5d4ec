"""Follows the recorded roots position by position, and finds out what happened where they stop following.

As long as each recorded root is the root of the leaves so far, a step is one hash chain. Where it is not, this module
tries what an intruder could have done (altered a root, exchanged, inserted or removed rows), takes the explanation
under which the hashes hold again, names it, and goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, select

from audit.checkpoint import Checkpoint
from audit.leaf import from_hex
from audit.merkle import CompactRange
from audit.tables import CHECKPOINT, LEAF, TREE

Report = Callable[[str, str, int, str | None], None]
"""Kind (`audit.verify.ProblemKind`), message, position, leaf id."""

_MAXIMUM_SEARCHES = 32
"""Whole-log searches in one verification: each costs about ten seconds for a million leaves."""
_LONGEST_FILL = 64


@dataclass(frozen=True, slots=True)
class Link:
    """One row of the tree."""

    position: int
    leaf_id: str
    leaf_hash: str
    root_hash: str


class Chain:
    """The tree as recomputed so far, true to the hashes and not to the rows' numbers."""

    def __init__(self, connection: Connection, size: int, report: Report) -> None:
        self.tree = CompactRange()
        self._connection, self._size, self._report = connection, size, report
        self._shift = 0
        """Rows inserted (+) or removed (−) before here, by which positions differ from places in the tree."""
        self._consumed = -1
        """Position of the last row followed."""
        self._before: tuple[CompactRange, Link] | None = None
        """The last row that followed, and the tree before it."""
        self._lost = False
        self._forged: CompactRange | None = None
        """The intruder's tree, where roots were rewritten consistently but never signed."""
        self._searches = 0
        self._orphans: list[tuple[str, str]] | None = None
        self._displaced: dict[str, str] = {}

    def follow(self, link: Link, content_hash: str | None) -> None:
        """Take the next row. ``content_hash`` is the hash of what its leaf says now."""
        if link.position <= self._consumed:
            return
        place = self.tree.size + self._shift
        if link.position < 0:
            self._report(
                "inserted", f"a row with position {link.position} was put into the tree", link.position, link.leaf_id
            )
            return
        if link.position > place:
            self._gap(link, link.position - place)
        self._consumed = link.position
        if self._forged is not None:
            self._forged.append(_hash(link.leaf_hash))
            if self._forged.root().hex() == link.root_hash:
                self.tree.append(_hash(link.leaf_hash))
                return
        trial = _with(self.tree, link.leaf_hash)
        if self._lost or trial.root().hex() == link.root_hash:
            self._before = (self.tree, link)
            self.tree = trial
            return
        self._explain(link, content_hash, trial)

    def last_was_inserted(self, signed: Checkpoint) -> bool:
        """Whether the signed tree head holds with the following row in place of the last one; then that is undone."""
        if self._before is None or self.tree.size != signed.tree_size or self.tree.root().hex() == signed.root_hash:
            return False
        before, link = self._before
        following = self._following(link.position)
        if following is None or _with(before, following.leaf_hash).root().hex() != signed.root_hash:
            return False
        self._inserted(link)
        self.tree, self._before = before, None
        return True

    def resume(self, tree: CompactRange) -> None:
        """Go on from a signed tree head of the present size, because what was computed is not what was signed."""
        self._before = None
        if not self._lost:
            self._forged = self._forged or self.tree
        self._lost = False
        self.tree = tree
        query = select(TREE.c.position).where(TREE.c.root_hash == tree.root().hex())
        anchor = self._connection.execute(query).scalar()
        self._connection.rollback()
        if anchor is None or anchor == self._consumed:
            return
        self._forged = None
        self._shift = anchor + 1 - tree.size
        if anchor > self._consumed:
            self._consumed = anchor
            return
        between = _LINKS.where(TREE.c.position > anchor, TREE.c.position <= self._consumed).order_by(TREE.c.position)
        for row in self._rows(between):
            self.tree.append(_hash(row.leaf_hash))

    def _gap(self, link: Link, count: int) -> None:
        """Rows between the last one and ``link`` are gone: put the leaves that lost them back, if the root agrees."""
        first = self.tree.size + self._shift
        where = f"position {first}" if count == 1 else f"positions {first}…{first + count - 1}"
        orphans = self._orphan_leaves()
        candidates = [[orphan] for orphan in orphans] if count == 1 else [orphans] if len(orphans) == count else []
        for candidate in candidates if count <= _LONGEST_FILL else []:
            trial = self.tree.copy()
            for _, leaf_hash in candidate:
                trial.append(_hash(leaf_hash))
            if _with(trial, link.leaf_hash).root().hex() == link.root_hash:
                self.tree = trial
                for offset, (leaf_id, _) in enumerate(candidate):
                    self._report(
                        "removed",
                        f"leaf {leaf_id} was removed from position {first + offset} of the tree",
                        first + offset,
                        leaf_id,
                    )
                return
        self._report("removed", f"{where} removed from the tree", first, None)
        for _ in range(count):
            self.tree.append(bytes(32))
        self._lost = True

    def _explain(self, link: Link, content_hash: str | None, trial: CompactRange) -> None:
        position = link.position
        if content_hash is not None and _with(self.tree, content_hash).root().hex() == link.root_hash:
            self.tree = _with(self.tree, content_hash)  # the hash in the tree was altered: reported with its leaf
            return
        following = self._following(position)
        if self._root_altered(trial, following):
            self._report(
                "root altered", f"the root recorded at position {position} was changed", position, link.leaf_id
            )
            self.tree = trial
            return
        if following and _with(self.tree, following.leaf_hash).root().hex() == following.root_hash:
            self._inserted(link)
            return
        if self._before and _with(self._before[0], link.leaf_hash).root().hex() == link.root_hash:
            before, inserted = self._before
            self._inserted(inserted)
            self.tree = _with(before, link.leaf_hash)
            return
        if self._orphan_belongs(link) or self._displaced_belongs(link):
            return
        message = f"the tree does not follow from position {position} on (there stands leaf {link.leaf_id})"
        self._report("reordered", message, position, link.leaf_id)
        self.tree, self._lost = trial, True

    def _inserted(self, link: Link) -> None:
        message = f"the row at position {link.position} (leaf {link.leaf_id}) was inserted into the tree"
        self._report("inserted", message, link.position, link.leaf_id)
        self._shift += 1

    def _following(self, position: int) -> Link | None:
        return next(self._rows(_LINKS.where(TREE.c.position > position).order_by(TREE.c.position).limit(1)), None)

    def _root_altered(self, trial: CompactRange, following: Link | None) -> bool:
        if following and _with(trial, following.leaf_hash).root().hex() == following.root_hash:
            return True
        signed = select(CHECKPOINT.c.root_hash).where(CHECKPOINT.c.tree_size == trial.size)
        return bool(self._connection.execute(signed).scalar() == trial.root().hex())

    def _orphan_belongs(self, link: Link) -> bool:
        """A leaf that has lost its row in the tree stood here, or just before here."""
        for leaf_id, leaf_hash in self._orphan_leaves():
            trial = _with(self.tree, leaf_hash)
            if trial.root().hex() == link.root_hash:
                self._report(
                    "reordered",
                    f"position {link.position} belongs to leaf {leaf_id}, but leaf {link.leaf_id} was put there",
                    link.position,
                    leaf_id,
                )
                self._displaced[link.leaf_hash] = link.leaf_id
                self.tree = trial
                return True
            both = _with(trial, link.leaf_hash)
            if both.root().hex() == link.root_hash:
                self._report(
                    "removed",
                    f"leaf {leaf_id} was removed from position {link.position} of the tree, and what "
                    "follows was moved up",
                    link.position,
                    leaf_id,
                )
                self.tree = both
                self._shift -= 1
                return True
        return False

    def _displaced_belongs(self, link: Link) -> bool:
        """Another row of the tree belongs here."""
        for leaf_hash, leaf_id in list(self._displaced.items()):
            trial = _with(self.tree, leaf_hash)
            if trial.root().hex() in (link.root_hash, self._root_of(leaf_id)):
                self._misplaced(link, leaf_id, trial)
                del self._displaced[leaf_hash]
                return True
        if self._searches >= _MAXIMUM_SEARCHES:
            return False
        self._searches += 1
        for row in self._rows(_LINKS.where(TREE.c.position != link.position)):
            trial = _with(self.tree, row.leaf_hash)
            if trial.root().hex() in (link.root_hash, row.root_hash):
                self._misplaced(link, row.leaf_id, trial, row.position)
                return True
        return False

    def _misplaced(self, link: Link, leaf_id: str, trial: CompactRange, stands: int | None = None) -> None:
        now = f" and stands at position {stands} now" if stands is not None else ""
        message = f"leaf {leaf_id} belongs at position {link.position}{now}; leaf {link.leaf_id} was put in its place"
        self._report("reordered", message, link.position, leaf_id)
        self._displaced[link.leaf_hash] = link.leaf_id
        self.tree = trial

    def _root_of(self, leaf_id: str) -> str:
        row = self._connection.execute(select(TREE.c.root_hash).where(TREE.c.leaf_id == leaf_id)).scalar()
        return str(row)

    def _orphan_leaves(self) -> list[tuple[str, str]]:
        """Leaves without a place in the tree, by time: waiting ones, and those whose row was removed."""
        if self._orphans is None:
            query = (
                select(LEAF.c.id, LEAF.c.leaf_hash)
                .outerjoin(TREE, TREE.c.leaf_id == LEAF.c.id)
                .where(TREE.c.position.is_(None))
                .order_by(LEAF.c.at, LEAF.c.id)
                .limit(1000)
            )
            self._orphans = [(row[0], row[1]) for row in self._connection.execute(query)]
            self._connection.rollback()
        return self._orphans

    def _rows(self, query: Select[Any]) -> Iterator[Link]:
        query = query.where(TREE.c.position < self._size).execution_options(yield_per=2000)
        for row in self._connection.execute(query).mappings():
            yield Link(row["position"], row["leaf_id"], row["leaf_hash"], row["root_hash"])


_LINKS = select(TREE.c.position, TREE.c.leaf_id, TREE.c.leaf_hash, TREE.c.root_hash)


def _hash(text: str) -> bytes:
    """A stored hash; what is no hash any more becomes one that fits nowhere."""
    try:
        value = from_hex(text)
    except ValueError:
        return bytes(32)
    return value if len(value) == 32 else bytes(32)


def _with(tree: CompactRange, leaf_hash: str) -> CompactRange:
    longer = tree.copy()
    longer.append(_hash(leaf_hash))
    return longer
