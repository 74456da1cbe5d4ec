"""Archives that answer with another patient's images, fail, break off or say nothing: told, and nothing misplaced."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cds_service.listening import open_listener
from cds_service.node import Node
from cds_service.priors import MAX_ATTEMPTS, PriorPulls
from cds_service.pull import Asked, Pulled, pull
from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import DestinationUnavailable, Rejected
from dermoscopy.tables import HoldRow, InstanceRow
from dermoscopy.workqueue import PULL
from dicom_listener import query
from dicom_listener.part10 import MANUFACTURER
from tests.findings import finish, make_node
from tests.integration.cds_service.scripted_archive import ScriptedArchive, scripted_archive
from tests.integration.cds_service.test_pull import ISSUER, PATIENT, image, leaves, of_study, stored
from tests.peers.processes import free_port
from tests.unit.dicom_listener.certificates import Authority

pytestmark = pytest.mark.timeout(60)

OURS = image(1, **of_study(1, "20230102"))
OTHER = image(2, PatientID="4712", **of_study(1, "20230102"))


@pytest.fixture(scope="module")
def running_archive() -> Iterator[ScriptedArchive]:
    with scripted_archive(free_port()) as made:
        yield made


@pytest.fixture
def archive(running_archive: ScriptedArchive) -> ScriptedArchive:
    """An archive that holds nothing and was told nothing yet."""
    running_archive.forget()
    return running_archive


@pytest.fixture
def pulling(archive: ScriptedArchive, engine: sa.Engine, tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """A function that makes a node that pulls from ``archive``, with its listener."""
    with ExitStack() as stack:

        def make(pacs: dict[str, Any] | None = None, listens: bool = True, **settings: Any) -> Node:
            entry = archive.settings(**(pacs or {}))
            node = make_node(engine, tmp_path, dicom_port=archive.listener, pacs=[entry], **settings)
            if listens:
                listener = open_listener(node)
                listener.start()
                stack.callback(listener.shutdown, 0)
            return node

        yield make


def test_studies_of_another_patient_in_the_answer_are_not_followed(archive, pulling) -> None:
    archive.studies = archive.sends = [image(2, PatientID="4712", **of_study(2, "20230102")), OURS]
    archive.sends = [OURS]
    done = pull(pulling(), Asked(PATIENT), actor="test")
    assert done == Pulled(found=1, taken=1, other_patient=1)
    assert not any(one.get("StudyInstanceUID") == "2.25.102" for one in archive.asked)


def test_a_study_without_its_uid_is_not_followed(archive, pulling) -> None:
    """An empty unique key in the next question would match the series of everybody (PS3.4 C.2.2.2.3)."""
    archive.studies = [OURS, image(2, **{**of_study(2, "20230102"), "StudyInstanceUID": ""})]
    archive.sends = [OURS]
    assert pull(pulling(), Asked(PATIENT), actor="test") == Pulled(found=1, taken=1, other_patient=1)
    below = [one for one in archive.asked if one.QueryRetrieveLevel != "STUDY"]
    assert below and all(one.StudyInstanceUID for one in below)


@pytest.mark.parametrize("way", ["move", "get"])
def test_an_object_of_another_patient_is_refused_at_the_door(archive, pulling, way) -> None:
    archive.studies, archive.sends = [OURS], [OURS, OTHER]
    node = pulling({"retrieve": way})
    pull(node, Asked(PATIENT), actor="test")
    assert stored(node) == {"2.25.1": (ISSUER, "4711", "accepted")}
    (refused,) = leaves(node, "instance.rejected")
    assert (refused["details"]["error"], refused["patient_id"]) == ("OtherPatient", "4712")
    assert "4712" not in str(refused["details"])


@pytest.mark.parametrize("way", ["move", "get"])
def test_an_object_that_was_found_but_is_of_another_patient(archive, pulling, way) -> None:
    archive.studies, archive.sends = [OURS], [image(1, PatientID="4712", **of_study(1, "20230102"))]
    node = pulling({"retrieve": way})
    assert pull(node, Asked(PATIENT), actor="test") == Pulled(found=1, failed=1)
    assert stored(node) == {}


@pytest.mark.parametrize("way", ["move", "get"])
def test_the_same_id_of_another_issuer_is_another_patient(archive, pulling, way) -> None:
    there = image(1, IssuerOfPatientID=None, **of_study(1, "20230102"))
    archive.studies = [there]  # an archive that tells no issuer
    archive.sends = [image(1, IssuerOfPatientID="HOSPITAL-B", **of_study(1, "20230102"))]
    node = pulling({"retrieve": way})
    assert pull(node, Asked(PATIENT), actor="test") == Pulled(found=1, failed=1)
    assert stored(node) == {}


def test_an_object_without_issuer_has_the_default_one(archive, pulling) -> None:
    archive.studies = archive.sends = [image(1, IssuerOfPatientID=None, **of_study(1, "20230102"))]
    node = pulling(default_issuer=ISSUER)
    assert pull(node, Asked(PatientIdentity("", "4711")), actor="test") == Pulled(found=1, taken=1)
    assert stored(node) == {"2.25.1": (ISSUER, "4711", "accepted")}


def test_without_move_originator_it_is_kept_under_its_own_patient_and_told(archive, pulling) -> None:
    archive.studies, archive.sends = [OURS], [image(1, PatientID="4712", **of_study(1, "20230102"))]
    archive.originator = None
    node = pulling()
    assert pull(node, Asked(PATIENT), actor="test") == Pulled(found=1, misfiled=1)
    assert stored(node) == {"2.25.1": (ISSUER, "4712", "accepted")}
    (completed,) = leaves(node, "pull.completed")
    assert completed["outcome"] == "failure"


def test_our_own_results_are_not_pulled(archive, pulling) -> None:
    node = pulling()
    archive.studies = archive.sends = [OURS]
    pull(node, Asked(PATIENT), actor="test")
    with node.begin() as session:
        analysis_id = node.queue.started[0][1]  # type: ignore[attr-defined]
        assert session.execute(sa.select(InstanceRow)).first()
    finish(node, analysis_id)
    with node.begin() as session:
        uid = session.execute(sa.text("SELECT uid FROM artifact WHERE kind = 'secondary_capture'")).scalar_one()
    result = image(9, **of_study(1, "20230102"))
    result.SOPInstanceUID = uid
    stray = image(10, Manufacturer=MANUFACTURER, **of_study(1, "20230102"))
    archive.studies = [result, stray]
    archive.sends = [stray]
    # both series are one: each of the two answers for a series finds both images
    done = pull(node, Asked(PATIENT), actor="test")
    assert done == Pulled(found=2, own=1, taken=1)
    assert stored(node)["2.25.10"] == (ISSUER, "4711", "stored")  # the loop guard: kept, never analysed


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (0xA700, DestinationUnavailable),
        (0xFE00, DestinationUnavailable),
        (0xA900, Rejected),
        (0xC001, Rejected),
        (0x0122, Rejected),
    ],
)
def test_statuses_of_the_query(archive, pulling, status, error) -> None:
    archive.find_status = status
    node = pulling(listens=False)
    with pytest.raises(error, match=f"{status:04X}"):
        pull(node, Asked(PATIENT), actor="test")
    assert [one["action"] for one in leaves(node, "pull.")] == ["pull.started", "pull.failed"]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (0xA701, DestinationUnavailable),
        (0xFE00, DestinationUnavailable),
        (0xA801, Rejected),
        (0xA900, Rejected),
        (0xC002, Rejected),
    ],
)
def test_statuses_of_the_retrieval(archive, pulling, status, error) -> None:
    archive.studies, archive.move_status = [OURS], status
    with pytest.raises(error, match=f"{status:04X}"):
        pull(pulling(), Asked(PATIENT), actor="test")  # the archive calls our listener before it answers


def test_failed_sub_operations_are_told(archive, pulling) -> None:
    """A rule refuses one of two: the PACS ends with B000, and the pull says that one is not here."""
    archive.counts = True
    second = image(3, StationName="BROKEN", **of_study(1, "20230102"))
    archive.studies = archive.sends = [OURS, second]
    node = pulling(rules=[{"name": "broken", "station": "BROKEN", "action": "refuse"}])
    assert pull(node, Asked(PATIENT), actor="test") == Pulled(found=2, taken=1, failed=1)
    (completed,) = leaves(node, "pull.completed")
    assert (completed["outcome"], completed["details"]["failed"]) == ("failure", 1)


def test_when_every_sub_operation_fails_the_numbers_tell(archive, pulling) -> None:
    """Many archives then end with A702, which is no failure of theirs."""
    archive.counts, archive.studies, archive.sends = True, [OURS], [OURS]
    node = pulling(rules=[{"name": "none", "modality": "*", "action": "refuse"}])
    assert pull(node, Asked(PATIENT), actor="test") == Pulled(found=1, failed=1)


def test_too_many_answers_are_cancelled(archive, pulling, monkeypatch) -> None:
    monkeypatch.setattr(query, "MAX_ANSWERS", 3)
    archive.studies = [image(n, **of_study(n, "20230102")) for n in range(1, 200)]
    with pytest.raises(Rejected, match="more than 3"):
        pull(pulling(listens=False), Asked(PATIENT), actor="test")


def test_a_pacs_with_tls_is_asked_by_tls_and_an_unknown_one_not_at_all(engine, tmp_path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    theirs = authority.issue("pacs")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(theirs.certificate, theirs.key)
    with scripted_archive(free_port(), context) as archive:
        archive.studies = archive.sends = [OURS]
        for trusted, expected in ((authority, Pulled(found=1, taken=1)), (stranger, None)):
            entry = archive.settings(tls=True, tls_ca=str(trusted.path), retrieve="get")
            node = make_node(engine, tmp_path, pacs=[entry])
            if expected is None:
                with pytest.raises(DestinationUnavailable, match="TLS"):
                    pull(node, Asked(PATIENT), actor="test")
            else:
                assert pull(node, Asked(PATIENT), actor="test") == expected


def test_priors_start_once_a_day_and_fetch(archive, pulling) -> None:
    node = pulling(pull_priors="pacs")
    archive.studies = archive.sends = [OURS]
    new = image(7, **of_study(7, "20260304"))
    later = image(8, **of_study(7, "20260304"))
    for one in (new, later):
        _send(archive.listener, one)
    (started,) = [entry for entry in node.queue.started if entry[0] == PULL]  # type: ignore[attr-defined]
    _, _, instance_id, pull_id, attempt = started
    PriorPulls(node).attempt(instance_id, pull_id, int(attempt))
    assert set(stored(node)) == {"2.25.1", "2.25.7", "2.25.8"}
    assert len([entry for entry in node.queue.started if entry[0] == PULL]) == 1  # type: ignore[attr-defined]


def test_priors_of_a_pacs_that_is_away_are_tried_again_and_then_held(archive, pulling) -> None:
    node = pulling(pull_priors="pacs")
    _send(archive.listener, image(7))
    archive.find_status = 0xA700
    _, _, instance_id, pull_id, _ = node.queue.started[-1]  # type: ignore[attr-defined]
    PriorPulls(node).attempt(instance_id, pull_id, 1)
    assert node.queue.started[-1] == (PULL, f"{pull_id}:2", instance_id, pull_id, "2")  # type: ignore[attr-defined]
    PriorPulls(node).attempt(instance_id, pull_id, MAX_ATTEMPTS)
    with node.begin() as session:
        (held,) = session.execute(sa.select(HoldRow)).scalars().all()
        assert (held.kind, held.subject_id) == ("priors_not_pulled", instance_id)


def test_no_priors_unless_asked_for(archive, pulling) -> None:
    node = pulling()
    _send(archive.listener, image(7))
    assert not [entry for entry in node.queue.started if entry[0] == PULL]  # type: ignore[attr-defined]


def _send(port: int, one: Any) -> None:
    from pynetdicom import AE

    from dicom_listener.syntaxes import DERMOSCOPIC_PHOTOGRAPHY, EXPLICIT_LITTLE_ENDIAN

    sender = AE("CAMERA")
    sender.add_requested_context(DERMOSCOPIC_PHOTOGRAPHY, EXPLICIT_LITTLE_ENDIAN)
    association = sender.associate("127.0.0.1", port, ae_title="DERMCDS")
    assert association.send_c_store(one).Status == 0
    association.release()


def test_an_image_is_taken_in_although_its_priors_cannot_be_started(archive, pulling, monkeypatch) -> None:
    node = pulling(pull_priors="pacs")
    begun = node.queue.start

    def fail_for_pulls(session: Any, workflow: str, *arguments: str, **options: float) -> None:
        if workflow == PULL:
            raise sa.exc.TimeoutError("no connection")
        begun(session, workflow, *arguments, **options)

    monkeypatch.setattr(node.queue, "start", fail_for_pulls)
    _send(archive.listener, image(7))
    assert set(stored(node)) == {"2.25.7"}
