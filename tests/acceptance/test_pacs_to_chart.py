"""One image, all the way: PACS → service → PACS, chart and card. Real Orthanc, real FHIR R4 server, nothing faked."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermoscopy.domain import PatientIdentity
from dermoscopy.overlay import decode_grey_png, encode_png
from dermoscopy.phantoms import phantom
from dicom_listener.camera import wrap_picture
from tests.peers.dcmtk import storescu
from tests.peers.dicom3tools import dciodvfy
from tests.peers.fault_proxy import Delay, Fault, HttpFaultProxy, status
from tests.peers.fhir_server import FhirServer
from tests.peers.orthanc import Orthanc, OurApplicationEntity
from tests.peers.processes import wait_until
from tests.peers.seg_readers import READERS
from tests.peers.seg_readers.ohif import ohif
from tests.service import ISSUER, SYSTEM, RunningService, running_service

pytestmark = [pytest.mark.peers, pytest.mark.slow, pytest.mark.timeout(400)]

PATIENT = "MRN-4711"
DERMOSCOPIC_PHOTOGRAPHY = "1.2.840.10008.5.1.4.1.1.77.1.7"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def dermoscopic_file(folder: Path, name: str, seed: int, picture: bytes | None = None) -> Path:
    """A Dermoscopic Photography file, of a real image where one is given."""
    data = picture or encode_png(phantom(seed, kind="melanoma-like").pixels)
    path = folder / f"{name}.dcm"
    path.write_bytes(wrap_picture(data, PatientIdentity(ISSUER, PATIENT)))
    return path


def a_native_image(shared_data: Path) -> bytes:
    import tarfile

    with tarfile.open(shared_data / "ham10000-native-600x450-00.tar") as tar:
        member = next(m for m in tar.getmembers() if m.name.endswith("ISIC_0024315.jpg"))
        file = tar.extractfile(member)
        assert file is not None
        return file.read()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Empty for the embedded default, or the address of a real PostgreSQL database."""
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


def registered_patient(ehr: FhirServer) -> dict[str, Any]:
    patient = {
        "resourceType": "Patient",
        "identifier": [{"system": SYSTEM, "value": PATIENT}],
        "name": [{"family": "Phantom", "given": ["Anna"]}],
    }
    answer = ehr.post(patient)
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


def test_image_from_pacs_ends_in_pacs_chart_and_card(
    tmp_path: Path,
    routing_pacs: Orthanc,
    our_ae: OurApplicationEntity,
    ehr: FhirServer,
    ehr_proxy: HttpFaultProxy,
    validate_r4: Callable[[dict[str, Any]], list[str]],
    database_url: str,
    request: pytest.FixtureRequest,
) -> None:
    patient = registered_patient(ehr)
    # The way to the EHR is bad at first: dropped, lost answer, busy, slow, repeated. The report arrives once.
    ehr_proxy.script(
        Fault.DROP_BEFORE, status(503, retry_after=1), Delay(0.5), Fault.DROP_AFTER, Fault.GARBAGE, Fault.REPEAT
    )
    try:
        picture = a_native_image(request.getfixturevalue("shared_data"))
    except pytest.skip.Exception:
        picture = None  # without the real images a phantom stands in
    source = dermoscopic_file(tmp_path, "source", 2, picture)
    with running_service(
        tmp_path / "service",
        database_url=database_url,
        dicom_port=our_ae.port,
        ae_title=our_ae.aet,
        pacs=[{"name": "pacs", "host": "127.0.0.1", "port": routing_pacs.dicom_port, "ae_title": routing_pacs.aet}],
        fhir=[{"name": "ehr", "base_url": ehr_proxy.url}],
    ) as service:
        sent = storescu(routing_pacs.dicom_port, [source], called=routing_pacs.aet)
        assert sent.ok, sent.output
        wait_until(lambda: any(a["state"] == "complete" for a in service.analyses()), "results delivered", seconds=120)

        report_id = the_only(service.analyses())["report_id"]
        instances = routing_pacs.wait_for(4)
        assert len(instances) == 4, "source, SEG, SR and secondary capture, once each"
        files = {}
        for instance in instances:
            path = tmp_path / f"{instance.sop_class_uid}.dcm"
            path.write_bytes(routing_pacs.file(instance.id))
            files[instance.sop_class_uid] = path
            assert dciodvfy(path) == [], instance.sop_class_uid
        assert SECONDARY_CAPTURE in files
        assert routing_pacs.rendered(next(i.id for i in instances if i.sop_class_uid == SECONDARY_CAPTURE))

        mask = decode_grey_png(service.file(report_id, "mask")) > 127
        assert mask.any()
        for name, read in READERS.items():
            assert np.array_equal(read(files[SEG], files[DERMOSCOPIC_PHOTOGRAPHY], 1), mask), name

        in_the_chart(ehr, validate_r4, patient, report_id)
        cards = service.card(patient)
        assert len(cards) == 1
        assert report_id in cards[0]["links"][0]["url"]

        verified = service.command("audit", "verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr

        # The same image again changes nothing, anywhere.
        assert storescu(our_ae.port, [source], called=our_ae.aet).ok
        assert len(service.analyses()) == 1
        assert len(routing_pacs.instances()) == 4
        assert len(ehr.search("DiagnosticReport")) == 1


def in_the_chart(
    ehr: FhirServer, validate_r4: Callable[[dict[str, Any]], list[str]], patient: dict[str, Any], report_id: str
) -> None:
    """One preliminary report of this patient with its observations; every resource is valid R4."""
    report = the_only(ehr.search("DiagnosticReport"))
    assert report["status"] == "preliminary"
    assert report["subject"]["reference"] == f"Patient/{patient['id']}"
    assert any(report_id in i["value"] for i in report["identifier"]) or report["identifier"]
    assert report["presentedForm"][0]["contentType"] == "image/png"
    observations = ehr.search("Observation")
    assert {r["reference"] for r in report["result"]} == {f"Observation/{o['id']}" for o in observations}
    for kind in ("DiagnosticReport", "Observation", "Device", "Provenance", "ImagingStudy", "DocumentReference"):
        found = ehr.search(kind)
        assert found, kind
        for resource in found:
            assert validate_r4(resource) == [], f"{kind}: {resource}"


def the_only(found: list[dict[str, Any]]) -> dict[str, Any]:
    assert len(found) == 1, [f.get("id") or f.get("report_id") for f in found]
    return found[0]


def test_segmentation_is_drawn_by_a_web_viewer(tmp_path: Path, pacs: Orthanc) -> None:
    """OHIF in a real browser lists our SEG and holds the mask that we computed."""
    source = dermoscopic_file(tmp_path, "source", 3)
    with running_service(
        tmp_path / "service",
        pacs=[{"name": "pacs", "host": "127.0.0.1", "port": pacs.dicom_port, "ae_title": pacs.aet}],
    ) as service:
        pacs.upload(source)
        assert storescu(service.dicom_port, [source], called="DERMCDS").ok
        wait_until(lambda: any(a["state"] == "complete" for a in service.analyses()), "results delivered", seconds=120)
        report_id = the_only(service.analyses())["report_id"]
        mask = decode_grey_png(service.file(report_id, "mask")) > 127
    seg_series, study, source_series = series_of(pacs)
    with ohif(pacs.dicomweb_url, knows_dermoscopic=True) as viewer:
        shown = viewer.open_segmentation(study, source_series, seg_series)
    assert shown.listed
    assert shown.label_map is not None
    assert np.array_equal(shown.label_map, mask)


def series_of(pacs: Orthanc) -> tuple[str, str, str]:
    """Series UID of the SEG, study UID, series UID of the source."""
    from pydicom import dcmread

    found = {}
    for instance in pacs.instances():
        dataset = dcmread(io.BytesIO(pacs.file(instance.id)), stop_before_pixels=True)
        found[str(dataset.SOPClassUID)] = dataset
    source = found[DERMOSCOPIC_PHOTOGRAPHY]
    return str(found[SEG].SeriesInstanceUID), str(source.StudyInstanceUID), str(source.SeriesInstanceUID)


def test_unknown_patient_holds_the_report_and_nothing_else(tmp_path: Path, pacs: Orthanc, ehr: FhirServer) -> None:
    """The EHR knows no such patient: the report is held for a person, the PACS gets its objects, no card lies."""
    source = dermoscopic_file(tmp_path, "source", 4)
    with running_service(
        tmp_path / "service",
        pacs=[{"name": "pacs", "host": "127.0.0.1", "port": pacs.dicom_port, "ae_title": pacs.aet}],
        fhir=[{"name": "ehr", "base_url": ehr.url}],
    ) as service:
        assert storescu(service.dicom_port, [source], called="DERMCDS").ok
        wait_until(lambda: len(pacs.instances()) == 3, "PACS objects", seconds=120)
        report_id = the_only(service.analyses())["report_id"]

        def states(service: RunningService = service) -> dict[str, str]:
            return {d["kind"]: d["state"] for d in service.analysis(report_id)["deliveries"]}

        # the PACS holds an object a moment before its delivery is written down
        wait_until(lambda: set(states().values()) == {"held", "delivered"}, "no delivery under way", seconds=60)
        assert states()["fhir_bundle"] == "held"
        assert ehr.search("DiagnosticReport") == []
        holds = service.client.get("/api/v1/holds").json()
        assert [h["kind"] for h in holds["holds"]] == ["delivery"]
        someone_else = {"resourceType": "Patient", "id": "9", "identifier": [{"system": SYSTEM, "value": "OTHER"}]}
        assert service.card(someone_else) == []
