"""A clinician corrects a result, the service is killed in the middle; then it is confirmed, and withdrawn at last.

Real Orthanc and FHIR server: the PACS ends with one current SEG, SR and picture and with notes that reject the others,
the chart with one report whose status follows.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.acceptance.test_pacs_to_chart import dermoscopic_file, registered_patient
from tests.peers.dcmtk import storescu
from tests.peers.dicom3tools import dciodvfy
from tests.peers.fhir_server import FhirServer
from tests.peers.orthanc import Orthanc, OurApplicationEntity
from tests.peers.processes import wait_until
from tests.service import RunningService, running_service

pytestmark = [pytest.mark.peers, pytest.mark.slow, pytest.mark.timeout(300)]

SEG, SR, SC, KO = (
    "1.2.840.10008.5.1.4.1.1.66.4",
    "1.2.840.10008.5.1.4.1.1.88.33",
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.88.59",
)


def review(service: RunningService, report_id: str, seen: int, **said: object) -> httpx.Response:
    return service.client.post(f"/api/v1/analyses/{report_id}/reviews", json={"seen": seen, **said})


def settled(service: RunningService, report_id: str, revision: int) -> None:
    """Wait until everything of this revision has arrived."""

    def arrived() -> bool:
        if dcmread(BytesIO(service.file(report_id, "sr"))).InstanceNumber != revision + 1:
            return False
        return bool(service.analysis(report_id)["state"] == "complete")

    wait_until(arrived, f"revision {revision} delivered", seconds=90)


def stored(pacs: Orthanc) -> dict[str, list[Dataset]]:
    """Our objects at the PACS by SOP class."""
    found: dict[str, list[Dataset]] = {SEG: [], SR: [], SC: [], KO: []}
    for one in pacs.instances():
        if one.sop_class_uid in found:
            found[one.sop_class_uid].append(dcmread(BytesIO(pacs.file(one.id))))
    return found


def rejected(notes: list[Dataset]) -> set[str]:
    return {
        str(one.ReferencedSOPInstanceUID)
        for note in notes
        for study in note.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }


def current(pacs: Orthanc) -> dict[str, list[str]]:
    """What a PACS that knows the profile goes on showing."""
    found = stored(pacs)
    gone = rejected(found.pop(KO))
    return {kind: [str(m.SOPInstanceUID) for m in made if m.SOPInstanceUID not in gone] for kind, made in found.items()}


def test_results_replace_each_other_and_never_pile_up(
    tmp_path: Path, routing_pacs: Orthanc, our_ae: OurApplicationEntity, ehr: FhirServer
) -> None:
    registered_patient(ehr)
    source = dermoscopic_file(tmp_path, "source", 2)
    with running_service(
        tmp_path / "service",
        dicom_port=our_ae.port,
        ae_title=our_ae.aet,
        pacs=[{"name": "pacs", "host": "127.0.0.1", "port": routing_pacs.dicom_port, "ae_title": routing_pacs.aet}],
        fhir=[{"name": "ehr", "base_url": ehr.url}],
    ) as service:
        assert storescu(routing_pacs.dicom_port, [source], called=routing_pacs.aet).ok
        wait_until(lambda: any(a["state"] == "complete" for a in service.analyses()), "results delivered", seconds=120)
        report_id = service.analyses()[0]["report_id"]
        first = current(routing_pacs)
        assert {kind: len(made) for kind, made in first.items()} == {SEG: 1, SR: 1, SC: 1}

        image = dcmread(source, stop_before_pixels=True)
        outline = [[0.3, 0.3], [0.7, 0.3], [0.7, 0.7], [0.3, 0.7]]
        corners = [[x * image.Columns, y * image.Rows] for x, y in outline]
        answer = review(service, report_id, 0, verdict="corrected", lesion_class="nv", outline=corners)
        assert answer.status_code == 201, answer.text
        service.service.kill()  # the review stands; what it started goes on by itself
        service.service.start()
        settled(service, report_id, 1)
        amended = current(routing_pacs)
        assert {kind: len(made) for kind, made in amended.items()} == {SEG: 1, SR: 1, SC: 1}
        assert all(amended[kind] != first[kind] for kind in first)
        (note,) = stored(routing_pacs)[KO]
        assert rejected([note]) == {uid for made in first.values() for uid in made}
        report: dict[str, Any] = the_report(ehr)
        assert report["status"] == "amended"

        assert review(service, report_id, 0, verdict="unusable").status_code == 409
        assert review(service, report_id, 1, verdict="confirmed").status_code == 201
        settled(service, report_id, 2)
        confirmed = current(routing_pacs)
        assert {kind: len(made) for kind, made in confirmed.items()} == {SEG: 1, SR: 1, SC: 1}
        assert confirmed[SEG] == amended[SEG], "a confirmation moves no pixel"
        (sr,) = (made for made in stored(routing_pacs)[SR] if [made.SOPInstanceUID] == confirmed[SR])
        assert sr.VerificationFlag == "VERIFIED"

        assert review(service, report_id, 2, verdict="unusable", comment="blurred").status_code == 201
        settled(service, report_id, 3)
        withdrawn = current(routing_pacs)
        assert {kind: len(made) for kind, made in withdrawn.items()} == {SEG: 0, SR: 1, SC: 1}
        assert the_report(ehr)["status"] == "entered-in-error"
        assert service.client.get(f"/api/v1/analyses/{report_id}/seg").status_code == 404

        for one in routing_pacs.instances():
            path = tmp_path / f"{one.id}.dcm"
            path.write_bytes(routing_pacs.file(one.id))
            assert dciodvfy(path) == [], one.sop_class_uid
        verified = service.command("audit", "verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr
        assert service.client.get("/api/v1/holds").json()["holds"] == []


def the_report(ehr: FhirServer) -> dict[str, Any]:
    (report,) = ehr.search("DiagnosticReport")
    return report
