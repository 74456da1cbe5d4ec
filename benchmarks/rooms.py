"""What single rooms cost when nothing else runs: audit, intake, sequencer, and each output."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from audit.sequencer import sequence
from benchmarks.bare_loop import NO_PATIENT, analysed, open_algorithm, open_renderers, read
from benchmarks.results import NOT_INSTALLED, Cell, Table, median
from benchmarks.setting import Setting
from cds_service.bootstrap import open_audit_signer, open_node
from cds_service.node import Node
from cds_service.reading import read_object
from cds_service.schema import migrate
from dermoscopy.domain import Artifact, ArtifactKind
from dermoscopy.ports import AuditEntry, RenderInput
from dicom_listener.decode import decode
from tests.peers.postgres import postgres
from tests.peers.processes import MissingPeer

LEAVES = 100
"""Leaves of one transaction, and of one batch of the sequencer."""
APPEND, APPEND_ALONE, SEQUENCE, BYTES, ACCEPT = (
    "audit: append a leaf (in a larger transaction)",
    "audit: append a leaf and commit",
    f"audit: sequence a leaf (of {LEAVES})",
    "object store: put 0.8 MB (fsync)",
    "intake: accept 0.8 MB",
)


def measure(setting: Setting) -> list[Table]:
    """Rooms with a database, on both databases; then each output."""
    setting.tell("audit, intake and object store")
    sqlite = _on_database(setting, "")
    try:
        with postgres() as cluster, cluster.database() as url:
            other: dict[str, list[float]] | None = _on_database(setting, url)
    except MissingPeer:
        other = None
    rows: list[tuple[Cell, ...]] = [
        (name, median(ms), NOT_INSTALLED if other is None else median(other[name])) for name, ms in sqlite.items()
    ]
    databases = Table(
        "rooms", "Rooms with a database, ms", ("", "SQLite", "PostgreSQL"), tuple(rows), "Medians.", {**sqlite}
    )
    setting.tell("outputs")
    drawn = _outputs(setting)
    outputs = Table(
        "outputs",
        "Outputs, ms each",
        ("output", "ms", "kB"),
        tuple((name, median(ms), median(kilobytes)) for name, (ms, kilobytes) in drawn.items()),
        "Medians.",
        {name: ms for name, (ms, _) in drawn.items()},
    )
    return [databases, outputs]


@contextmanager
def _node(setting: Setting, url: str) -> Iterator[Node]:
    with setting.fresh_folder() as folder:
        node = open_node(setting.settings.model_copy(update={"data_dir": folder, "database_url": url}))
        migrate(node.engine)
        try:
            yield node
        finally:
            node.engine.dispose()


def _on_database(setting: Setting, url: str) -> dict[str, list[float]]:
    rounds = setting.size.room_rounds
    with _node(setting, url) as node, setting.fresh_folder() as folder:
        files = [file.read_bytes() for file in setting.images.write(folder, rounds, batch="rooms")]
        objects = [read_object(data, NO_PATIENT) for data in files]
        signer = open_audit_signer(node.settings)
        accepted = [
            _milliseconds(lambda: node.intake.accept(data, header, source="cstore", caller="BENCH"))  # noqa: B023
            for data, header in objects
        ]
        unseen = [data + b"\0" for data, _ in objects]
        put = [_milliseconds(lambda: node.blobs.put(data)) for data in unseen]  # noqa: B023
        while sequence(node.engine, signer).count:
            pass
        alone = [_milliseconds(lambda: _append(node, 1)) for _ in range(rounds)]
        while sequence(node.engine, signer).count:
            pass
        many, placed = [], []
        for _ in range(rounds):
            many.append(_append(node, LEAVES) / LEAVES)
            placed.append(_milliseconds(lambda: sequence(node.engine, signer)) / LEAVES)
    return {APPEND: many, APPEND_ALONE: alone, SEQUENCE: placed, BYTES: put, ACCEPT: accepted}


def _outputs(setting: Setting) -> dict[str, tuple[list[float], list[float]]]:
    """Milliseconds and kilobytes of each output."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    algorithm = open_algorithm(setting.settings)
    with setting.fresh_folder() as folder, open_renderers(setting.settings) as renderers:
        for path in setting.images.write(folder, setting.size.room_rounds, batch="outputs"):
            source = read(path)
            image = decode(source)
            analysis = analysed(algorithm, source, image)
            done: dict[ArtifactKind, Artifact] = {}
            for kind, draw in renderers.items():
                if kind is ArtifactKind.SEG and analysis.finding.measurements is None:
                    continue
                what = RenderInput(analysis, image, source, dict(done))
                began = time.perf_counter()
                done[kind] = draw(what)
                milliseconds, kilobytes = found.setdefault(kind.value, ([], []))
                milliseconds.append((time.perf_counter() - began) * 1000)
                kilobytes.append(len(done[kind].data) / 1000)
    return found


def _append(node: Node, leaves: int) -> float:
    """Milliseconds of appending so many leaves in one transaction, its begin and commit left out."""
    entry = AuditEntry("analysis.completed", "bench", "analysis", "0" * 36, details={"tier": "routine", "risk": 0.25})
    with node.begin() as session:
        session.connection()
        began = time.perf_counter()
        for _ in range(leaves):
            node.audit.append(session, entry)
        return (time.perf_counter() - began) * 1000


def _milliseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000
