"""The whole service before a PACS that is away, slow, full and refuses one object: what it takes is kept there."""

from __future__ import annotations

from pathlib import Path

import pytest
from pynetdicom import AE, build_context

from dermoscopy.phantoms import phantom
from dicom_listener.syntaxes import (
    COMPREHENSIVE_SR,
    DERMOSCOPIC_PHOTOGRAPHY,
    EXPLICIT_LITTLE_ENDIAN,
    SECONDARY_CAPTURE,
    SEGMENTATION,
)
from tests.peers.committing_pacs import CommittingPacs
from tests.peers.processes import LOOPBACK, wait_until
from tests.service import RunningService, running_service
from tests.unit.dicom_listener.samples import dataset

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300)]
KEPT = ("delivered", "committed")


def send(service: RunningService, number: int) -> None:
    sender = AE("CAMERA")
    contexts = [build_context(DERMOSCOPIC_PHOTOGRAPHY, [EXPLICIT_LITTLE_ENDIAN])]
    association = sender.associate(LOOPBACK, service.dicom_port, contexts=contexts, ae_title="DERMCDS")
    pixels = phantom(number, kind="melanoma-like", rows=192, columns=192).pixels
    answer = association.send_c_store(dataset(pixels, SOPInstanceUID=f"2.25.{number}"))
    association.release()
    assert answer.Status == 0


def deliveries(service: RunningService, report_id: str) -> dict[str, tuple[str, str | None]]:
    """Output → (state, commitment)."""
    found = service.analysis(report_id)["deliveries"]
    return {one["kind"]: (one["state"], one["commitment"]) for one in found}


def test_a_pacs_in_trouble(tmp_path: Path) -> None:
    pacs = CommittingPacs((SEGMENTATION, COMPREHENSIVE_SR, SECONDARY_CAPTURE))
    to = {"name": "pacs", "host": LOOPBACK, "port": pacs.port, "ae_title": pacs.aet, "commitment": True}
    with running_service(tmp_path, dicom_processes=2, dicom_calling_ae_titles=["CAMERA", "PACS"], pacs=[to]) as service:
        send(service, 7)
        wait_until(lambda: [a["state"] for a in service.analyses()] == ["rendered"], "the results", seconds=120)
        (first,) = [a["report_id"] for a in service.analyses()]
        wait_until(
            lambda: set(deliveries(service, first).values()) == {("retrying", None)}, "attempts while it is away"
        )

        pacs.statuses = {SEGMENTATION: [0xA700, 0xA900], COMPREHENSIVE_SR: [0xA700, 0xA700]}
        pacs.delay, pacs.report_to = 0.5, service.dicom_port
        pacs.start()
        try:
            expected = {"seg": ("held", None), "sr": KEPT, "secondary_capture": KEPT}
            wait_until(lambda: deliveries(service, first) == expected, "all but the refused one", seconds=60)
            assert service.analysis(first)["state"] == "rendered"

            send(service, 8)
            wait_until(lambda: len(service.analyses()) == 2, "the second image")
            second = service.analyses()[0]["report_id"]
            wait_until(lambda: service.analysis(second)["state"] == "complete", "the second result", seconds=60)
            wait_until(lambda: set(deliveries(service, second).values()) == {KEPT}, "its commitment", seconds=60)
            assert deliveries(service, first) == expected

            said = service.command("holds", "send-again", "--destination", "pacs")
            assert "1 delivery is sent again" in said.stdout, said.stderr
            wait_until(lambda: set(deliveries(service, first).values()) == {KEPT}, "the refused one", seconds=60)
            assert service.analysis(first)["state"] == "complete"
            assert len(pacs.stored) == len(set(pacs.uids())) == 6
        finally:
            pacs.stop()
