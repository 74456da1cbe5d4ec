"""A process that appends, and sequences now and then: `python appender.py URL KEY_FOLDER NAME COUNT`."""

import sys
import threading
from pathlib import Path

from audit.checkpoint import open_signer
from audit.log import MerkleAuditLog
from audit.sequencer import sequence
from dermoscopy.database import create_database_engine, unit_of_work
from dermoscopy.ports import AuditEntry

THREADS = 4


def append_many(url, keys, name, count):
    """Append ``count`` entries from each of four threads, and sequence beside it."""
    engine = create_database_engine(url)
    begin, log, signer = unit_of_work(engine), MerkleAuditLog(), open_signer(Path(keys))

    def work(thread):
        for number in range(count):
            with begin() as session:
                log.append(session, AuditEntry("test.appended", name, "test", f"{name}-{thread}-{number}"))
            if number % 10 == 0:
                sequence(engine, signer, witness=Path(keys) / "outside.jsonl")

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.dispose()


if __name__ == "__main__":
    append_many(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
