"""Objects thrown at every door of one process: C-STORE handler, STOW-RS, upload; what is taken in is decoded as well.

Runs in a process of its own, so that a decoder that dies is noticed: the seed in hand stands in a file.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import time
import warnings
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from cds_service.node import Node
from cds_service.reading import read_object
from dermoscopy.domain import ImageHeader, PatientIdentity, SourceObject
from dermoscopy.errors import DermoscopyError, Rejected
from dermoscopy.routing import Route
from dicom_listener.decode import decode
from dicom_listener.dicomweb_store import Storage
from dicom_listener.handlers import StoreHandler, StoreRequest
from dicom_listener.part10 import file_meta
from dicom_listener.status import PROCESSING_FAILURE
from tests.fuzz.node import counted, fuzz_settings, half_stored, open_fresh, resources
from tests.fuzz.objects import Mutated, bits_flipped, mutated

HANG_SECONDS = 30
WRONG = 3
"""Exit status when something was wrong; a process that hung or died has another."""
_CHECK_EVERY = 1000


class Doors:
    """The three doors of a node, and what came of each object that went through them."""

    def __init__(self, node: Node, *, decoding: bool = True) -> None:
        self.node = node
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.slowest = 0.0
        self._decoding = decoding
        self._taken: tuple[bytes, ImageHeader] | None = None
        self._handler = StoreHandler(self._accept, self._reject)
        self._storage = Storage(self._accept_web, self._reject, lambda: None)

    def throw(self, what: Mutated) -> None:
        """One object through the door that its number chooses; what is taken in is decoded. Notes what is wrong."""
        began, self._taken = time.monotonic(), None
        door = ("cstore", "cstore", "cstore", "stow", "upload")[what.seed % 5]
        try:
            outcome = getattr(self, f"_{door}")(what)
        except Exception as error:  # noqa: BLE001 - what nobody foresaw is what is looked for
            outcome = f"raised {type(error).__name__}"
            self.wrong.append(f"seed {what.seed} {what.faults} by {door}: {type(error).__name__}: {error}"[:300])
        self.outcomes[f"{door} {outcome}"] += 1
        if self._taken is not None and self._decoding:
            self._decode(what, *self._taken)
        self.slowest = max(self.slowest, time.monotonic() - began)

    def _cstore(self, what: Mutated) -> str:
        status = self._handler(StoreRequest(what.sop_class_uid, what.sop_instance_uid, what.syntax, "FUZZ", what.data))
        if status.code == PROCESSING_FAILURE:
            self.wrong.append(f"seed {what.seed} {what.faults}: unexpected failure")
        return f"{status.code:04X}"

    def _stow(self, what: Mutated) -> str:
        outcome = self._storage.store(self._file(what), "fuzz")
        return f"{outcome.failure:04X}"

    def _upload(self, what: Mutated) -> str:
        try:
            data, header = read_object(self._file(what), PatientIdentity("", ""))
        except Rejected as error:
            return type(error).__name__
        self._accept(data, header, "fuzz", Route())
        return "taken"

    @staticmethod
    def _file(what: Mutated) -> bytes:
        meta = file_meta("1.2.3", "1.2.3", what.syntax)
        if what.seed % 3 == 0:
            import random

            meta = meta[:132] + bits_flipped(random.Random(what.seed), meta[132:])
        return meta + what.data

    def _decode(self, what: Mutated, data: bytes, header: ImageHeader) -> None:
        try:
            decode(SourceObject("fuzz", data, header, datetime.now(UTC)))
            self.outcomes["decoded"] += 1
        except DermoscopyError as error:
            self.outcomes[f"decode {type(error).__name__}"] += 1
        except Exception as error:  # noqa: BLE001 - what nobody foresaw is what is looked for
            self.wrong.append(f"seed {what.seed} {what.faults}: decode: {type(error).__name__}: {error}"[:300])

    def _accept(self, data: bytes, header: ImageHeader, caller: str, route: Route) -> None:
        self._check(header)
        self.node.intake.accept(data, header, source="fuzz", caller=caller, route=route)
        self._taken = (data, header)

    def _accept_web(self, data: bytes, header: ImageHeader, caller: str, route: Route) -> bool:
        self._check(header)
        self._taken = (data, header)
        return bool(self.node.intake.accept(data, header, source="fuzz", caller=caller, route=route).hold)

    def _check(self, header: ImageHeader) -> None:
        """What every header that comes in must be: UIDs that are UIDs, identifiers that can be stored and compared."""
        for uid in (
            header.sop_class_uid,
            header.sop_instance_uid,
            header.study_instance_uid,
            header.series_instance_uid,
        ):
            if not 0 < len(uid) <= 64 or set(uid) - set("0123456789."):
                self.wrong.append(f"a UID that is none came in: {uid[:80]!r}")
        for text in (header.patient.patient_id, header.patient.issuer, header.accession_number, header.body_site_code):
            if len(text) > 256 or not text.isprintable() or "�" in text:
                self.wrong.append(f"an identifier that cannot be trusted came in: {text[:80]!r}")

    def _reject(self, error: Rejected, header: ImageHeader | None, caller: str, digest: str) -> None:
        self.node.intake.reject(error, digest=digest, source="fuzz", caller=caller, header=header)


def run(folder: Path, first: int, count: int) -> int:
    """Throw the objects ``first`` and following at a node in ``folder``; progress and result as lines of JSON."""
    import structlog

    structlog.configure(processors=[_drop])
    warnings.simplefilter("ignore")
    node = open_fresh(fuzz_settings(folder))
    doors = Doors(node)
    hand = os.open(folder / "seed", os.O_CREAT | os.O_WRONLY)
    memory: list[int] = []
    before, told = resources(), 0
    for seed in range(first, first + count):
        os.pwrite(hand, f"{seed:012d}".encode(), 0)
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        doors.throw(mutated(seed))
        if (seed - first + 1) % _CHECK_EVERY == 0:
            memory.append(resources()["rss"])
            _say({"done": seed - first + 1, "rss": memory[-1], "wrong": doors.wrong[told:]})
            told = len(doors.wrong)
    faulthandler.cancel_dump_traceback_later()
    after = resources()
    doors.wrong += half_stored(node)
    if after["fds"] > before["fds"] + 8 or after["threads"] > before["threads"] + 2:
        doors.wrong.append(f"file descriptors or threads grew from {before} to {after}")
    _say(
        {
            "outcomes": dict(sorted(doors.outcomes.items())),
            "audit": counted(node),
            "slowest": round(doors.slowest, 3),
            "memory": memory,
            "wrong": doors.wrong[:50],
            "count": count,
        }
    )
    return WRONG if doors.wrong else 0


def _drop(*_: object) -> str:
    import structlog

    raise structlog.DropEvent


def _say(what: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
