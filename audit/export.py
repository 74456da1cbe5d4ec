"""Electronic copy of the trail (21 CFR 11.10(b)): JSON lines, each with a proof that it stood in the signed log.

The first line is the signed checkpoint. Every further line is one leaf; with ``proofs`` its inclusion proof (RFC 6962
§2.1.1) leads to the root of that checkpoint, so that one line can be shown to somebody without the rest of the log.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Engine, Select, select

from audit import merkle
from audit.checkpoint import Checkpoint, checkpoint_from
from audit.leaf import CONTENT, canonical, leaf_hash
from audit.sequencer import latest
from audit.tables import CHECKPOINT, LEAF, TREE
from dermoscopy.errors import AuditLogTampered

PAGE = 2000
PATIENT_COLUMNS = ("patient_issuer", "patient_id")


def export(
    engine: Engine, *, proofs: bool = False, patients: bool = True, start: int = 0, end: int | None = None
) -> Iterator[str]:
    """Lines for positions ``start`` … ``end`` (exclusive) of the newest signed tree; ends lines with no newline.

    Without ``patients`` the two patient columns are left out; such a leaf's hash is stated but cannot be recomputed.
    Proofs need all leaf hashes in memory: about 150 MB for a million.
    """
    head = latest(engine)
    if head is None:
        return
    yield canonical({"checkpoint": {**asdict(head), "note": head.note()}})
    tree = merkle.Tree(_leaf_hashes(engine, head.tree_size)) if proofs else None
    if tree is not None and tree.root().hex() != head.root_hash:
        raise AuditLogTampered("The audit tree is not what its checkpoint signed: run `cds audit verify`.")
    stop = head.tree_size if end is None else min(end, head.tree_size)
    content = tuple(name for name in CONTENT if patients or name not in PATIENT_COLUMNS)
    for row in _rows(
        engine,
        select(TREE.c.position, TREE.c.leaf_hash.label("tree_hash"), LEAF).join(LEAF, LEAF.c.id == TREE.c.leaf_id),
        start,
        stop,
    ):
        line: dict[str, Any] = {
            "position": row["position"],
            "leaf": {name: row[name] for name in content},
            "leaf_hash": row["tree_hash"],
        }
        if tree is not None:
            line["proof"] = [sibling.hex() for sibling in tree.inclusion_proof(row["position"])]
        yield canonical(line)


def checkpoints(engine: Engine, after: int = -1) -> Iterator[Checkpoint]:
    """Signed tree heads with a number above ``after``, to be kept outside the database."""
    while True:
        query = select(CHECKPOINT).where(CHECKPOINT.c.number > after).order_by(CHECKPOINT.c.number).limit(PAGE)
        with engine.connect() as connection:
            page = connection.execute(query).mappings().all()
        for row in page:
            yield checkpoint_from(dict(row))
        if len(page) < PAGE:
            return
        after = page[-1]["number"]


def consistency_proof(engine: Engine, first: int, second: int) -> tuple[bytes, ...]:
    """Proof (RFC 6962 §2.1.2) that the tree of ``first`` leaves is the beginning of the tree of ``second``."""
    return merkle.Tree(_leaf_hashes(engine, second)).consistency_proof(first, second)


def check_export(lines: Iterable[str], keys: Mapping[str, Ed25519PublicKey]) -> int:
    """Check an export without the database: signature, leaf hashes and proofs; the number of leaves proven.

    Raises `AuditLogTampered` naming the first line that does not hold.
    """
    head: Checkpoint | None = None
    proven = 0
    for number, text in enumerate(lines, start=1):
        line = json.loads(text)
        if head is None:
            head = checkpoint_from(line["checkpoint"])
            key = keys.get(head.key_id)
            if key is None or not head.signed_by(key):
                raise AuditLogTampered("The export's checkpoint is not signed by a known key.")
            continue
        leaf, stated = line["leaf"], line["leaf_hash"]
        if all(name in leaf for name in CONTENT) and leaf_hash(leaf) != stated:
            raise AuditLogTampered(f"Line {number}: leaf {leaf['id']} does not have its hash.")
        if "proof" in line:
            proof = [bytes.fromhex(sibling) for sibling in line["proof"]]
            root = bytes.fromhex(head.root_hash)
            if not merkle.verify_inclusion(bytes.fromhex(stated), line["position"], head.tree_size, proof, root):
                raise AuditLogTampered(f"Line {number}: leaf {leaf['id']} was not at its position in the signed log.")
            proven += 1
    return proven


def _leaf_hashes(engine: Engine, size: int) -> Iterator[bytes]:
    query = select(TREE.c.position, TREE.c.leaf_hash)
    return (bytes.fromhex(row["leaf_hash"]) for row in _rows(engine, query, 0, size))


def _rows(engine: Engine, query: Select[Any], start: int, stop: int) -> Iterator[Mapping[str, Any]]:
    after = start - 1
    while True:
        page_query = query.where(TREE.c.position > after, TREE.c.position < stop).order_by(TREE.c.position).limit(PAGE)
        with engine.connect() as connection:
            page = connection.execute(page_query).mappings().all()
        yield from map(dict, page)
        if len(page) < PAGE:
            return
        after = page[-1]["position"]
