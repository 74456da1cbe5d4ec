"""Several API processes behind one port: all answer, and the end of one is nobody's loss."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import httpx

from tests.service import RunningService, running_service


def test_two_api_processes_share_the_port_and_one_may_die(tmp_path: Path):
    with running_service(tmp_path, api_processes=2, dicom_processes=0, worker_processes=0) as service:
        assert len(children(service)) == 2
        assert sockets_listening_on(service.port) == 2
        for _ in range(10):
            assert fresh_answer(service) == httpx.codes.OK
        killed = children(service)[1]
        os.kill(killed, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while len(found := children(service)) != 2 or killed in found or sockets_listening_on(service.port) != 2:
            assert time.monotonic() < deadline, "the second process did not come back"
            time.sleep(0.1)
        for _ in range(10):
            assert fresh_answer(service) == httpx.codes.OK


def fresh_answer(service: RunningService) -> int:
    """Status over a connection of its own, which the kernel gives to one of the processes."""
    return httpx.get(f"{service.url}/health/live", trust_env=False, timeout=30).status_code


def children(service: RunningService) -> list[int]:
    supervisor = service.service.pid
    return sorted(map(int, Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()))


def sockets_listening_on(port: int) -> int:
    """Listening sockets of a loopback port, from the kernel's own table."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)
