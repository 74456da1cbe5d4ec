"""``python -m tests.fuzz``: throws broken objects and broken PDUs at a real node and says what came of them.

Every number makes the same object on each machine: ``--first`` and a count of one throw a single one again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.fuzz.inside import WRONG
from tests.fuzz.outside import hold_conversation, listening, throw, throw_object


def main() -> int:
    """Run what is asked for; exit status 1 when something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--objects", type=int, default=2000, help="mutated objects, through the doors of one process")
    parser.add_argument("--sent", type=int, help="mutated objects over associations (default: a tenth of --objects)")
    parser.add_argument("--pdus", type=int, default=500, help="conversations with mutated PDUs")
    parser.add_argument("--jobs", type=int, default=2, help="processes for --objects")
    parser.add_argument("--first", type=int, default=0, help="first number")
    parser.add_argument("--folder", type=Path, help="work here and keep it (default: a temporary folder)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cds-fuzz-") as temporary:
        folder = chosen.folder or Path(temporary)
        sent = chosen.objects // 10 if chosen.sent is None else chosen.sent
        wrong = 0
        if chosen.objects:
            wrong += _shared_out(folder / "inside", chosen.first, chosen.objects, chosen.jobs)
        for name, count, one in (("sent", sent, throw_object), ("pdus", chosen.pdus, hold_conversation)):
            if count:
                wrong += _outside(folder / name, name, chosen.first, count, one)
    _say(f"{wrong} faults found" if wrong else "no fault found")
    return 1 if wrong else 0


def _shared_out(folder: Path, first: int, count: int, jobs: int) -> int:
    """The objects shared out among processes, each with a node of its own."""
    share = -(-count // jobs)
    starts = range(first, first + count, share)
    with ThreadPoolExecutor(jobs) as pool:
        work = [pool.submit(_inside, folder / f"from-{at}", at, min(share, first + count - at)) for at in starts]
        return sum(one.result() for one in work)


def _inside(folder: Path, first: int, count: int) -> int:
    """The doors of one process. A process that dies is started again after the object that killed it."""
    wrong, left = 0, count
    part = 0
    while left > 0:
        part_folder = folder / str(part)
        part_folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.fuzz.inside", str(part_folder), str(first), str(left)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                _show("objects", json.loads(line))
        if process.returncode in (0, WRONG):
            return wrong + bool(process.returncode)
        seed = int((part_folder / "seed").read_text() or first)
        _say(f"objects: seed {seed} ended the process with {process.returncode}")
        wrong, part, left, first = wrong + 1, part + 1, left - (seed + 1 - first), seed + 1
    return wrong


def _outside(folder: Path, name: str, first: int, count: int, one: Any) -> int:
    with listening(folder) as listener:
        result = throw(listener, one, first, count, progress=lambda told: _show(name, told))
        ended = listener.stop()
    errors = listener.errors()
    result["wrong"] += ended["wrong"] + errors[:20]
    _show(name, {**result, "audit": ended["audit"], "unforeseen": len(errors)})
    return len(result["wrong"])


def _show(name: str, told: dict[str, Any]) -> None:
    _say(f"{time.strftime('%H:%M:%S')} {name}: {json.dumps(told, ensure_ascii=True)}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
