"""Four readers that return the mask of one segment of a single-frame source, in the source's rows and columns."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom

from tests.peers.processes import PEERS, installed, program

HERE = Path(__file__).resolve().parent
Reader = Callable[[Path, Path, int], np.ndarray]


class UnreadableSegmentation(Exception):
    """A reader did not open the segmentation; the message holds what it said."""


def _in_program(command: list[str], segmentation: Path, source: Path, segment: int) -> np.ndarray:
    """Run a reader that writes a .npy file; its last arguments are segmentation, source, segment and that file."""
    with tempfile.TemporaryDirectory(prefix="test-seg-") as folder:
        target = Path(folder) / "mask.npy"
        done = subprocess.run(
            [*command, str(segmentation), str(source), str(segment), str(target)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )
        if done.returncode or not target.exists():
            raise UnreadableSegmentation(done.stdout.decode(errors="replace")[-2000:])
        return np.load(target, allow_pickle=False).astype(bool)


def highdicom(segmentation: Path, source: Path, segment: int = 1) -> np.ndarray:
    """highdicom, by the source instance that the segmentation refers to."""
    import highdicom as hd

    try:
        opened = hd.seg.segread(segmentation)
        masks = opened.get_pixels_by_source_instance(
            source_sop_instance_uids=[pydicom.dcmread(source, stop_before_pixels=True).SOPInstanceUID],
            segment_numbers=[segment],
            # A source without Frame of Reference has no geometry that a shared one would keep in step.
            ignore_spatial_locations=True,
        )
    except Exception as problem:
        raise UnreadableSegmentation(f"highdicom: {problem}") from problem
    return masks[0, :, :, 0].astype(bool)


def pydicom_seg(segmentation: Path, source: Path, segment: int = 1) -> np.ndarray:
    """pydicom-seg, in its own environment."""
    python = installed(PEERS / ".venvs" / "pydicom-seg" / "bin" / "python")
    return _in_program([str(python), str(HERE / "read_pydicom_seg.py")], segmentation, source, segment)


def dcmqi(segmentation: Path, source: Path, segment: int = 1) -> np.ndarray:
    """dcmqi's segimage2itkimage (C++), in its own environment."""
    python = installed(PEERS / ".venvs" / "dcmqi" / "bin" / "python")
    return _in_program([str(python), str(HERE / "read_dcmqi.py")], segmentation, source, segment)


def dcmjs(segmentation: Path, source: Path, segment: int = 1) -> np.ndarray:
    """dcmjs' Cornerstone adapter, which is what web viewers call."""
    node = program("node", package="nodejs 20 or newer")
    installed(PEERS / "node_modules" / "dcmjs")
    return _in_program([node, str(HERE / "read_dcmjs.mjs")], segmentation, source, segment)


READERS: dict[str, Reader] = {
    "highdicom": highdicom,
    "pydicom-seg": pydicom_seg,
    "dcmqi": dcmqi,
    "dcmjs": dcmjs,
}
