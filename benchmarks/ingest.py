"""C-STORE: objects per second that a receiver acknowledges, beside its peers, from the same senders and files."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path

from benchmarks.receivers import OPENERS, OURS, UNTUNED, Receiver
from benchmarks.results import NOT_INSTALLED, Cell, Table, median, rounded
from benchmarks.sample_files import megabytes
from benchmarks.setting import Setting, send
from tests.peers.processes import MissingPeer, program

KINDS = {"rgb": "uncompressed RGB", "jpeg": "JPEG"}
ASSOCIATIONS = (1, 4)
SLOWER = 4
"""A receiver that waits for delayed acknowledgements gets so many times fewer objects, to be done in time."""
Case = tuple[str, int]
"""Kind of object, number of associations."""
CASES: tuple[Case, ...] = tuple((kind, associations) for kind in KINDS for associations in ASSOCIATIONS)


def measure(setting: Setting) -> list[Table]:
    """Every receiver takes every case, in turns."""
    try:
        program("storescu", package="dcmtk")
    except MissingPeer as missing:
        return [Table("ingest", "C-STORE ingest", ("",), ((NOT_INSTALLED,),), str(missing))]
    rates: dict[tuple[str, Case], list[float]] = defaultdict(list)
    missing_peers: dict[str, str] = {}
    with setting.fresh_folder() as folder:
        files = {
            (kind, associations): setting.images.write(
                folder / f"{kind}-{associations}", setting.size.objects, kind=kind, batch=f"{kind}{associations}"
            )
            for kind, associations in CASES
        }
        for number in range(setting.size.repeats):
            for name in OPENERS:
                setting.tell(f"C-STORE to {name}, {number + 1} of {setting.size.repeats}")
                try:
                    for case, rate in _round(setting, name, files).items():
                        rates[name, case].append(rate)
                except MissingPeer as missing:
                    missing_peers[name] = str(missing)
        sizes = {kind: megabytes(files[kind, 1]) / setting.size.objects for kind in KINDS}
    return [_table(setting, kind, sizes[kind], rates, missing_peers) for kind in KINDS]


def _round(setting: Setting, name: str, files: dict[Case, list[Path]]) -> dict[Case, float]:
    """Start one receiver, send it every case, and make sure that it holds all of it."""
    rates: dict[Case, float] = {}
    with setting.fresh_folder() as folder, OPENERS[name](setting, folder) as receiver:
        sent = 0
        for case in CASES:
            some = files[case][: len(files[case]) // SLOWER] if name == UNTUNED else files[case]
            rates[case] = _rate(receiver, some, case)
            sent += len(some)
            if (held := receiver.count()) != sent:
                raise RuntimeError(f"{name} acknowledged {sent} objects and holds {held}")
    return rates


def _rate(receiver: Receiver, files: list[Path], case: Case) -> float:
    kind, associations = case
    began = time.perf_counter()
    send(receiver.port, receiver.ae_title, files, compressed=kind == "jpeg", associations=associations)
    return len(files) / (time.perf_counter() - began)


def _table(
    setting: Setting,
    kind: str,
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
            own, other = rates[OURS, (kind, associations)], rates[name, (kind, associations)]
            row += [median(other), rounded(median(other) * megabytes_each)]
            row.append(None if name == OURS else median([a / b for a, b in zip(own, other, strict=True)]))
        rows.append(tuple(row))
    columns = [f"{what}, {count} assoc." for count in ASSOCIATIONS for what in ("objects/s", "MB/s", "ours ÷ this")]
    return Table(
        f"ingest-{kind}",
        f"C-STORE ingest: {KINDS[kind]}, {megabytes_each * 1000:,.0f} kB each, {setting.images.source}",
        ("receiver", *columns),
        tuple(rows),
        f"Medians of {setting.size.repeats} runs in turns, {setting.size.objects} objects each, storescu of dcmtk as "
        "the sender, its start included. Ours answers after fsync, database commit, audit leaf and durable queue "
        "entry. Above 1 in “ours ÷ this” (receiver without analysis): ours is ahead.",
        {f"{name}, {count} assoc.": v for (name, (k, count)), v in rates.items() if k == kind},
    )
