"""C-STORE: objects per second that a receiver acknowledges, beside its peers, from the same senders and files."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.receivers import OPENERS, OURS, SLOW, Receiver
from benchmarks.results import NOT_INSTALLED, Cell, Table, median, rounded
from benchmarks.sample_files import megabytes
from benchmarks.setting import Setting, send, send_one_by_one
from tests.peers.processes import MissingPeer, program

KINDS = {"jpeg": "JPEG", "rgb": "uncompressed RGB", "large": "uncompressed RGB, large"}
ASSOCIATIONS = (1, 4, 16)
LARGE_SHARE = 5
SLOWER = 4
"""A receiver that waits for delayed acknowledgements gets so many times fewer objects, to be done in time."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is sent, over how many associations at once, and whether each image has one of its own."""

    kind: str
    associations: int
    own: bool


CASES = tuple(Case(kind, count, own) for kind in KINDS for own in (True, False) for count in ASSOCIATIONS)
Files = Mapping[Case, list[Path]]


def measure(setting: Setting) -> list[Table]:
    """Every receiver takes every case, in turns."""
    try:
        program("storescu", package="dcmtk")
    except MissingPeer as missing:
        return [Table("ingest", "C-STORE ingest", ("",), ((NOT_INSTALLED,),), str(missing))]
    rates: dict[tuple[str, Case], list[float]] = defaultdict(list)
    missing_peers: dict[str, str] = {}
    with setting.fresh_folder() as folder:
        files = {case: _written(setting, folder, case) for case in CASES}
        for number in range(setting.size.repeats):
            for name in OPENERS:
                setting.tell(f"C-STORE to {name}, {number + 1} of {setting.size.repeats}")
                try:
                    for case, rate in _round(setting, name, files).items():
                        rates[name, case].append(rate)
                except MissingPeer as missing:
                    missing_peers[name] = str(missing)
        sizes = {kind: megabytes(files[Case(kind, 1, True)]) / len(files[Case(kind, 1, True)]) for kind in KINDS}
    return [_table(setting, kind, own, sizes[kind], rates, missing_peers) for own in (True, False) for kind in KINDS]


def _written(setting: Setting, folder: Path, case: Case) -> list[Path]:
    name = f"{case.kind}-{case.associations}-{case.own}"
    count = setting.size.objects // (LARGE_SHARE if case.kind == "large" else 1)
    return setting.images.write(folder / name, max(count, case.associations), kind=case.kind, batch=name)


def _round(setting: Setting, name: str, files: Files) -> dict[Case, float]:
    """Start one receiver, send it every case, and make sure that it holds all of it."""
    rates: dict[Case, float] = {}
    with setting.fresh_folder() as folder, OPENERS[name](setting, folder) as receiver:
        sent = 0
        for case in CASES:
            some = files[case][: max(len(files[case]) // SLOWER, case.associations)] if name in SLOW else files[case]
            rates[case] = _rate(receiver, some, case)
            sent += len(some)
            if (held := receiver.count()) != sent:
                raise RuntimeError(f"{name} acknowledged {sent} objects and holds {held}")
    return rates


def _rate(receiver: Receiver, files: list[Path], case: Case) -> float:
    compressed = case.kind == "jpeg"
    began = time.perf_counter()
    if case.own:
        send_one_by_one(receiver.port, receiver.ae_title, files, compressed=compressed, at_once=case.associations)
    else:
        send(receiver.port, receiver.ae_title, files, compressed=compressed, associations=case.associations)
    return len(files) / (time.perf_counter() - began)


def _table(
    setting: Setting,
    kind: str,
    own: bool,
    megabytes_each: float,
    rates: dict[tuple[str, Case], list[float]],
    missing_peers: dict[str, str],
) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name in OPENERS:
        if name in missing_peers:
            rows.append((name, *[NOT_INSTALLED] * (3 * len(ASSOCIATIONS))))
            continue
        row: list[Cell] = [name]
        for associations in ASSOCIATIONS:
            case = Case(kind, associations, own)
            ours, other = rates[OURS, case], rates[name, case]
            row += [median(other), rounded(median(other) * megabytes_each)]
            row.append(None if name == OURS else median([a / b for a, b in zip(ours, other, strict=True)]))
        rows.append(tuple(row))
    columns = [f"{what}, {count} assoc." for count in ASSOCIATIONS for what in ("objects/s", "MB/s", "ours ÷ this")]
    how = "one association per image" if own else "each association kept"
    count = setting.size.objects // (LARGE_SHARE if kind == "large" else 1)
    samples = {
        f"{name}, {case.associations} assoc.": v
        for (name, case), v in rates.items()
        if (case.kind, case.own) == (kind, own)
    }
    return Table(
        f"ingest-{kind}-{'own' if own else 'kept'}",
        f"C-STORE ingest, {how}: {KINDS[kind]}, {megabytes_each * 1000:,.0f} kB each, {setting.images.source}",
        ("receiver", *columns),
        tuple(rows),
        f"Medians of {setting.size.repeats} runs in turns, {count} objects each, storescu of dcmtk as "
        "the sender, its start included. Ours answers after fsync, database commit, audit leaf and durable queue "
        "entry. Above 1 in “ours ÷ this” (one listener process, analysis elsewhere): ours is ahead.",
        samples,
    )
