"""A listener process as in production, for the thrower outside: says its port, then answers what it holds.

``python -m tests.fuzz.listener FOLDER``: a line on standard input asks for open associations, file descriptors,
threads and memory; its end stops the listener.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cds_service.listening import open_listener
from monitoring.logs import configure_logging
from tests.fuzz.node import counted, fuzz_settings, half_stored, open_fresh, resources


def main(folder: Path, **changes: object) -> None:
    """Serve until standard input ends; then say what is half stored."""
    configure_logging(level="WARNING")
    node = open_fresh(fuzz_settings(folder, dicom_negotiation_seconds=10, dicom_idle_seconds=60, **changes))
    listener = open_listener(node)
    object.__setattr__(listener.settings, "port", 0)
    listener.start()
    _say({"port": listener.port})
    for _ in sys.stdin:
        _say({"associations": listener.associations, **resources()})
    listener.shutdown(5)
    _say({"wrong": half_stored(node), "audit": counted(node)})


def _say(what: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), **dict(pair.split("=", 1) for pair in sys.argv[2:]))
