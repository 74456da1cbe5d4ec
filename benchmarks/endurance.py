"""Memory of a listener that takes one object after the other for a long time."""

from __future__ import annotations

from itertools import count

from benchmarks.machine import children_of, proportional_set_mb
from benchmarks.results import NOT_INSTALLED, Cell, Table, rounded
from benchmarks.setting import AE_TITLE, Setting, database_of, send
from benchmarks.stored import instances
from tests.peers.processes import MissingPeer, program

STEPS = 10
"""How often memory is read."""
AT_ONCE = 4
BATCH = 500
"""Objects that are on the disk at a time."""


def measure(setting: Setting) -> list[Table]:
    """Send small objects in batches; none is analysed meanwhile, so that only what receiving costs is seen."""
    title = "Memory of the API and of one listener process over many objects, MB"
    try:
        program("storescu", package="dcmtk")
    except MissingPeer as missing:
        return [Table("endurance", title, ("",), ((NOT_INSTALLED,),), str(missing))]
    rows: list[tuple[Cell, ...]] = []
    wanted = setting.size.endurance
    sent = due = 0
    unlimited = {"backlog_watermark": 0, "worker_processes": 0}
    with setting.fresh_folder() as folder, setting.service(folder, **unlimited) as service:
        engine = database_of(service)
        for number in count():
            if sent >= due:
                api, listener = children_of(service.service.pid or 0)
                rows.append((sent, rounded(proportional_set_mb(api)), rounded(proportional_set_mb(listener))))
                due += max(wanted // STEPS, 1)
            if sent >= wanted:
                break
            setting.tell(f"endurance: {sent:,} of {wanted:,} objects")
            with setting.fresh_folder() as batch:
                files = setting.images.write(batch, min(BATCH, wanted - sent), kind="jpeg", batch=f"endurance{number}")
                send(service.dicom_port, AE_TITLE, files, compressed=True, associations=AT_ONCE)
            sent += len(files)
        if (held := instances(engine)) != sent:
            raise RuntimeError(f"the listener acknowledged {sent} objects and holds {held}")
        engine.dispose()
        service.service.kill()  # nothing of this is to be analysed
    note = (
        f"JPEG objects of about 40 kB over {AT_ONCE} associations at a time, each kept for {BATCH // AT_ONCE} objects."
    )
    return [Table("endurance", title, ("objects taken", "API", "listener"), tuple(rows), note)]
