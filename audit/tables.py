"""Rows of the audit trail. Only `audit.log` and `audit.sequencer` write them; nothing ever updates a leaf.

``audit_leaf`` is what happened. ``audit_pending`` marks leaves that have no tree position yet (written with the leaf,
removed with the position; it keeps sequencing independent of the log's length). ``audit_tree`` is the order.
``audit_checkpoint`` is the signed tree head after each batch.
"""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import DDL, BigInteger, Column, Integer, Table, Text, event
from sqlmodel import Field, SQLModel

_POSITION = BigInteger().with_variant(Integer, "sqlite")


class AuditLeaf(SQLModel, table=True):
    """One thing that happened. Every column except ``leaf_hash`` is content, and is under the hash."""

    __tablename__ = "audit_leaf"

    id: str = Field(primary_key=True, max_length=36)
    at: str = Field(max_length=27, index=True)
    """UTC, RFC 3339 with six decimals and ``Z``: sorts as text and reads back to the same bytes on every database."""
    action: str = Field(max_length=64, index=True)
    actor: str
    outcome: str = Field(max_length=32)
    subject_type: str = Field(max_length=64)
    subject_id: str = Field(index=True)
    patient_issuer: str = ""
    patient_id: str = Field(default="", index=True)
    details: str = Field(default="{}", sa_column=Column(Text, nullable=False))
    """Canonical JSON object (`audit.leaf.canonical`), stored as the text that was hashed."""
    trace_id: str = Field(default="", max_length=32)
    leaf_hash: str = Field(max_length=64)


class AuditPending(SQLModel, table=True):
    """A leaf that is committed but not yet in the tree."""

    __tablename__ = "audit_pending"

    leaf_id: str = Field(primary_key=True, max_length=36)


class AuditTree(SQLModel, table=True):
    """Which leaf stands at which position, and the root of the tree that ends with it."""

    __tablename__ = "audit_tree"

    position: int = Field(sa_column=Column(_POSITION, primary_key=True, autoincrement=False))
    leaf_id: str = Field(unique=True, max_length=36)
    leaf_hash: str = Field(max_length=64)
    root_hash: str = Field(max_length=64)


class AuditCheckpoint(SQLModel, table=True):
    """A signed tree head (RFC 6962 §3.5 in spirit; the signed text is a C2SP tlog-checkpoint)."""

    __tablename__ = "audit_checkpoint"

    number: int = Field(sa_column=Column(_POSITION, primary_key=True, autoincrement=False))
    """0, 1, 2 …, signed: a missing number is a removed checkpoint."""
    tree_size: int = Field(sa_column=Column(_POSITION, unique=True, nullable=False))
    root_hash: str = Field(max_length=64)
    at: str = Field(max_length=27)
    key_id: str = Field(max_length=8)
    signature: str = Field(max_length=128)
    """Ed25519 over the checkpoint's text, hexadecimal."""
    peaks: str = Field(sa_column=Column(Text, nullable=False))
    """Roots of the complete subtrees, hexadecimal, space separated; they hash to ``root_hash``."""


def table(row: type[SQLModel]) -> Table:
    """The SQLAlchemy table of a row class."""
    return cast(Table, cast(Any, row).__table__)


LEAF, PENDING, TREE, CHECKPOINT = table(AuditLeaf), table(AuditPending), table(AuditTree), table(AuditCheckpoint)

_APPEND_ONLY = ("audit_leaf", "audit_tree", "audit_checkpoint")


def append_only_statements(dialect: str) -> tuple[str, ...]:
    """SQL that makes the database itself refuse UPDATE and DELETE (migrations run it after creating the tables).

    A guard against mistakes, not against an owner of the database, who can drop a trigger: that is what hashes are for.
    """
    if dialect == "sqlite":
        return tuple(
            f"CREATE TRIGGER IF NOT EXISTS {name}_no_{verb} BEFORE {verb.upper()} ON {name} "
            f"BEGIN SELECT RAISE(ABORT, '{name} is append-only'); END"
            for name in _APPEND_ONLY
            for verb in ("update", "delete")
        )
    if dialect == "postgresql":
        function = (
            "CREATE OR REPLACE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END$$"
        )
        return function, *(
            f"CREATE OR REPLACE TRIGGER {name}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {name} "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only()"
            for name in _APPEND_ONLY
        )
    return ()


def _guard(name: str) -> None:
    for dialect in ("sqlite", "postgresql"):
        for statement in append_only_statements(dialect):
            if f" ON {name} " in statement or "FUNCTION audit_append_only() RETURNS" in statement:
                ddl = DDL(statement.replace("%", "%%"))
                event.listen(SQLModel.metadata.tables[name], "after_create", ddl.execute_if(dialect=dialect))


for _name in _APPEND_ONLY:
    _guard(_name)
