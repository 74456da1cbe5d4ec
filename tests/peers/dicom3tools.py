"""dciodvfy: does a DICOM object follow its IOD?"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.peers.processes import program


def _report(path: Path) -> list[str]:
    done = subprocess.run(
        [program("dciodvfy", package="dicom3tools"), "-new", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    lines = [line for line in done.stdout.decode(errors="replace").splitlines() if line.strip()]
    if not lines:
        raise RuntimeError(f"dciodvfy said nothing about {path}")
    return lines


def dciodvfy(path: Path) -> list[str]:
    """Errors only; an empty list is a valid object. A file that is no DICOM has errors too."""
    return [line for line in _report(path) if line.startswith("Error")]


def dciodvfy_warnings(path: Path) -> list[str]:
    """Warnings, among them that this build does not know the modality DMS."""
    return [line for line in _report(path) if line.startswith("Warning")]
