"""SOP class × transfer syntax × colour model, sent by pynetdicom and by dcmtk to the real listener, and decoded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pynetdicom import AE, build_context

from dermoscopy.domain import SourceObject, derive_uid
from dermoscopy.phantoms import phantom
from dicom_listener.decode import decode
from dicom_listener.scp import ListenerSettings, StorageListener
from dicom_listener.syntaxes import IMAGE_CLASSES, NEGOTIATED_SYNTAXES
from tests.integration.dicom_listener.cells import MULTI_FRAME, Cell, Written, cells
from tests.peers.dcmtk import storescu
from tests.peers.dicom3tools import dciodvfy
from tests.peers.processes import wait_until
from tests.service import RunningService, running_service
from tests.unit.dicom_listener.samples import RECEIVED, dataset, part10

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300)]

CELLS = list(cells())
DCMTK_OPTIONS = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.5": "-xr",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
}
"""How storescu is told to send an encoding; it cannot send JPEG process 14 other than SV1, nor HTJ2K."""

Files = dict[str, dict[str, tuple[Path, Written]]]
Received = dict[tuple[str, str], SourceObject]
"""(calling AE title, SOP Instance UID) → what came in."""


def by_dcmtk(cell: Cell) -> list[str]:
    """The SOP classes in which dcmtk sends ``cell``: one, another for each cell; pynetdicom sends all."""
    classes = list(cell.classes())
    return [classes[CELLS.index(cell) % len(classes)]] if cell.syntax in DCMTK_OPTIONS else []


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("matrix")
    return {cell.id: cell.files(folder) for cell in CELLS}


@pytest.fixture(scope="module")
def received(files: Files) -> Iterator[Received]:
    """Everything sent once by each sender, on one association per class or encoding."""
    kept: Received = {}

    def accept(data, header, caller, route) -> None:
        kept[caller, header.sop_instance_uid] = SourceObject("x", data, header, RECEIVED)

    listener = StorageListener(ListenerSettings(port=0), accept, lambda *_: None)
    listener.start()
    try:
        for sop_class in IMAGE_CLASSES:
            paths = [of_class[sop_class][0] for of_class in files.values() if sop_class in of_class]
            sender = AE("PYNETDICOM")
            sender.acse_timeout = sender.dimse_timeout = sender.network_timeout = 120
            contexts = [build_context(sop_class, syntax) for syntax in NEGOTIATED_SYNTAXES]
            association = sender.associate("127.0.0.1", listener.port, contexts=contexts, ae_title="DERMCDS")
            assert association.is_established
            assert {association.send_c_store(path).Status for path in paths} == {0}
            association.release()
        for syntax, option in DCMTK_OPTIONS.items():
            paths = [files[cell.id][uid][0] for cell in CELLS if cell.syntax == syntax for uid in by_dcmtk(cell)]
            sent = storescu(listener.port, paths, called="DERMCDS", calling="DCMTK", options=[option])
            assert sent.ok, sent.output[-2000:]
        yield kept
    finally:
        listener.shutdown(grace=1)


def test_every_encoding_stands_in_the_matrix():
    assert {cell.syntax for cell in CELLS} == set(NEGOTIATED_SYNTAXES)
    assert len({cell.id for cell in CELLS}) == len(CELLS)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
def test_it_arrives_and_shows_the_picture(cell: Cell, files: Files, received: Received):
    for sop_class, (_, written) in files[cell.id].items():
        for sender in ("PYNETDICOM", *(["DCMTK"] if sop_class in by_dcmtk(cell) else [])):
            source = received[sender, derive_uid("matrix", cell.id, sop_class)]
            assert source.header.transfer_syntax_uid == cell.syntax, "kept in the encoding in which it came"
            assert source.header.sop_class_uid == sop_class
            seen = decode(source).pixels
            assert seen.shape == written.shows.shape
            difference = np.abs(seen.astype(int) - written.shows).mean()
            assert difference <= written.tolerance, (sender, IMAGE_CLASSES[sop_class])


# ------------------------------------------------------------------------------------------- through the whole service


def _skin_file(folder: Path, sop_class: str, number: int, frames: int = 1) -> Path:
    """A picture with a lesion in ``sop_class``: grey where the class holds only grey."""
    pixels = phantom(number, kind="melanoma-like").pixels
    if "Grayscale" in IMAGE_CLASSES[sop_class]:
        pixels = pixels[..., 1].copy() if "Byte" in IMAGE_CLASSES[sop_class] else pixels[..., 1].astype(np.uint16) << 8
    made = dataset(
        pixels, SOPClassUID=sop_class, SOPInstanceUID=derive_uid("matrix", "service", sop_class, str(frames))
    )
    if sop_class in MULTI_FRAME:
        made.NumberOfFrames = str(frames)
        made.PixelData = frames * pixels.tobytes()
    path = folder / f"{made.SOPInstanceUID}.dcm"
    path.write_bytes(part10(made))
    return path


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """One picture of each class and one object of several frames, sent to the service and analysed."""
    folder = tmp_path_factory.mktemp("service")
    with running_service(folder) as running:
        paths = [_skin_file(folder, sop_class, 2 + n) for n, sop_class in enumerate(IMAGE_CLASSES)]
        paths.append(_skin_file(folder, MULTI_FRAME[0], 1, frames=3))
        sent = storescu(running.dicom_port, paths, called="DERMCDS")
        assert sent.ok, sent.output
        wait_until(
            lambda: [one["state"] for one in running.analyses()] == ["complete"] * len(IMAGE_CLASSES),
            "results of every class",
            seconds=200,
        )
        yield running


@pytest.mark.slow
def test_results_of_every_class_are_valid(service: RunningService, tmp_path: Path):
    outputs = 0
    for item in service.analyses():
        answer = service.analysis(item["report_id"])
        assert len(answer["image"]["pixel_digest"]) == 64
        assert {remark["code"] for remark in answer["image"]["remarks"]} & {"profile_absent", "grey"}
        for name in ("seg", "sr", "secondary-capture"):
            if name in answer["links"]:
                path = tmp_path / f"{item['report_id']}-{name}.dcm"
                path.write_bytes(service.file(item["report_id"], name))
                assert dciodvfy(path) == []
                outputs += 1
    assert outputs >= 2 * len(IMAGE_CLASSES) + 4, "reports and captures of all, segmentations of the colour pictures"


@pytest.mark.slow
def test_several_frames_are_kept_and_wait_for_a_person(service: RunningService):
    (hold,) = service.client.get("/api/v1/holds").raise_for_status().json()["holds"]
    assert hold["kind"] == "several_frames"
    assert "image of its own" in hold["reason"]
