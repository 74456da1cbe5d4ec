"""Gives committed leaves their place in the tree, and signs the new tree head: one sequencer at a time.

A batch is one transaction: positions, roots, checkpoint, and the removal of the pending marks stand together or not at
all, so a crash at any moment loses and doubles nothing. Position is given in the order of sequencing (within a batch by
time and id): a leaf that commits late simply comes into a later batch, and no gap can arise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, delete, func, insert, select, text

from audit.checkpoint import Checkpoint, Signer, checkpoint_from, write_checkpoints
from audit.log import timestamp
from audit.merkle import CompactRange
from audit.tables import CHECKPOINT, LEAF, PENDING, TREE
from dermoscopy.errors import AuditLogTampered

_ADVISORY_LOCK = 0x61756469745F7472
"""Key of the PostgreSQL advisory lock ("audit_tr")."""
BATCH = 1000


@dataclass(frozen=True, slots=True)
class Sequenced:
    """What one call did: how many leaves were placed, and the tree head it signed (none if there was nothing to do)."""

    count: int
    checkpoint: Checkpoint | None


NOTHING = Sequenced(0, None)


def sequence(engine: Engine, signer: Signer, *, limit: int = BATCH, witness: Path | None = None) -> Sequenced:
    """Place up to ``limit`` waiting leaves and sign the tree head.

    Returns at once with nothing done where another sequencer is at work. ``witness`` is a file outside the database to
    which the new checkpoint is added after the commit. Raises `AuditLogTampered` if the stored head does not hold.
    """
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection = connection.execution_options(isolation_level="READ COMMITTED")
        with connection.begin():
            if not _alone(connection):
                return NOTHING
            done = _place(connection, signer, limit)
    if witness is not None and done.checkpoint is not None:
        write_checkpoints(witness, [done.checkpoint])
    return done


def sequence_all(engine: Engine, signer: Signer, *, witness: Path | None = None) -> int:
    """Place every waiting leaf, batch by batch; how many."""
    total = 0
    while (count := sequence(engine, signer, witness=witness).count) > 0:
        total += count
    return total


def _alone(connection: Connection) -> bool:
    """Take the right to sequence until the end of this transaction."""
    if connection.dialect.name == "postgresql":
        query = text("SELECT pg_try_advisory_xact_lock(:key)")
        return bool(connection.execute(query, {"key": _ADVISORY_LOCK}).scalar())
    # SQLite has one writer: a write that changes nothing takes its lock whatever kind of BEGIN the engine emits.
    connection.execute(delete(PENDING).where(PENDING.c.leaf_id == ""))
    return True


def _place(connection: Connection, signer: Signer, limit: int) -> Sequenced:
    waiting = connection.execute(
        select(LEAF.c.id, LEAF.c.leaf_hash)
        .join(PENDING, PENDING.c.leaf_id == LEAF.c.id)
        .outerjoin(TREE, TREE.c.leaf_id == LEAF.c.id)
        .where(TREE.c.position.is_(None))
        .order_by(LEAF.c.at, LEAF.c.id)
        .limit(limit)
    ).all()
    if not waiting:
        return NOTHING
    number, tree = _head(connection)
    rows = []
    for leaf_id, leaf_hash in waiting:
        tree.append(bytes.fromhex(leaf_hash))
        root = tree.root().hex()
        rows.append({"position": tree.size - 1, "leaf_id": leaf_id, "leaf_hash": leaf_hash, "root_hash": root})
    checkpoint = signer.sign(number, tree.size, tree.root().hex(), timestamp())
    connection.execute(insert(TREE), rows)
    connection.execute(
        insert(CHECKPOINT),
        {
            "number": checkpoint.number,
            "tree_size": checkpoint.tree_size,
            "root_hash": checkpoint.root_hash,
            "at": checkpoint.at,
            "key_id": checkpoint.key_id,
            "signature": checkpoint.signature,
            "peaks": " ".join(peak.hex() for peak in tree.peaks),
        },
    )
    _unmark(connection, [leaf_id for leaf_id, _ in waiting])
    return Sequenced(len(rows), checkpoint)


def _unmark(connection: Connection, leaf_ids: list[str]) -> None:
    for start in range(0, len(leaf_ids), 500):
        connection.execute(delete(PENDING).where(PENDING.c.leaf_id.in_(leaf_ids[start : start + 500])))


def _head(connection: Connection) -> tuple[int, CompactRange]:
    """Number of the next checkpoint, and the tree as the last one left it."""
    row = connection.execute(select(CHECKPOINT).order_by(CHECKPOINT.c.number.desc()).limit(1)).mappings().first()
    placed = connection.execute(select(func.coalesce(func.max(TREE.c.position) + 1, 0))).scalar_one()
    if row is None and placed == 0:
        return 0, CompactRange()
    if row is None or row["tree_size"] != placed:
        raise AuditLogTampered("The audit tree does not end where its last checkpoint does: run `cds audit verify`.")
    last = checkpoint_from(dict(row))
    try:
        tree = CompactRange(last.tree_size, [bytes.fromhex(peak) for peak in str(row["peaks"]).split()])
    except ValueError:
        tree = CompactRange()
    if tree.root().hex() != last.root_hash:
        raise AuditLogTampered(f"Audit checkpoint {last.number} does not fit its own tree: run `cds audit verify`.")
    return last.number + 1, tree


def latest(engine: Engine) -> Checkpoint | None:
    """The newest signed tree head."""
    with engine.connect() as connection:
        query = select(CHECKPOINT).order_by(CHECKPOINT.c.number.desc()).limit(1)
        row = connection.execute(query).mappings().first()
    return checkpoint_from(dict(row)) if row else None


def waiting(engine: Engine) -> int:
    """How many leaves have no place in the tree yet: a number that keeps growing means that no sequencer runs."""
    with engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(PENDING)).scalar_one())
