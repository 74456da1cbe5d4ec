"""Whether what a PACS sends is what was asked for."""

from __future__ import annotations

import pytest

from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import Rejected
from dermoscopy.patients import IssuerMap
from dermoscopy.routing import EVERYTHING, Action, Route
from dicom_listener.asked import OtherPatient, admit_fetched, admit_moved, message_id
from dicom_listener.header import read_header
from dicom_listener.status import status_of
from dicom_listener.syntaxes import EXPLICIT_LITTLE_ENDIAN
from tests.unit.dicom_listener.samples import dataset, encoded

PATIENT = PatientIdentity("HOSPITAL-A", "4711")
CANONICAL = IssuerMap({"HOSPITAL-A": "urn:oid:1.2.3"}, default_issuer="HOSPITAL-A").canonical


def header(**changes: object):
    return read_header(encoded(dataset(**changes)), EXPLICIT_LITTLE_ENDIAN)


@pytest.mark.parametrize("store_only", [False, True])
def test_message_ids_are_what_a_command_can_carry(store_only: bool) -> None:
    made = {message_id(PatientIdentity("A", str(n)), store_only=store_only) for n in range(500)}
    assert len(made) > 480 and all(0 <= one <= 0xFFFF for one in made)
    assert {one >> 15 for one in made} == {int(store_only)}


def test_issuer_and_id_do_not_run_together() -> None:
    ids = {message_id(PatientIdentity(*pair), store_only=False) for pair in (("A", "BC"), ("AB", "C"), ("ABC", ""))}
    assert len(ids) == 3


def test_a_moved_object_of_the_patient_passes_with_its_route() -> None:
    admit = admit_moved(message_id(PATIENT, store_only=False), CANONICAL)
    assert admit(header(), EVERYTHING) is EVERYTHING
    assert admit(header(IssuerOfPatientID=None), EVERYTHING) is EVERYTHING  # the default issuer
    assert admit(header(IssuerOfPatientID="urn:oid:1.2.3"), EVERYTHING) is EVERYTHING


MOVED = admit_moved(message_id(PATIENT, store_only=False), CANONICAL)
FETCHED = admit_fetched(PATIENT, CANONICAL, store_only=False)


@pytest.mark.parametrize("changes", [{"PatientID": "4712"}, {"IssuerOfPatientID": "HOSPITAL-B"}, {"PatientID": ""}])
@pytest.mark.parametrize("admit", [MOVED, FETCHED], ids=["moved", "fetched"])
def test_an_object_of_anybody_else_does_not(admit, changes) -> None:
    with pytest.raises(OtherPatient) as caught:
        admit(header(**changes), EVERYTHING)
    assert isinstance(caught.value, Rejected) and "47" not in str(caught.value)
    assert status_of(caught.value).code == 0xC140


@pytest.mark.parametrize(
    "admit",
    [admit_moved(message_id(PATIENT, store_only=True), CANONICAL), admit_fetched(PATIENT, CANONICAL, store_only=True)],
    ids=["moved", "fetched"],
)
def test_only_kept_where_that_was_wanted(admit) -> None:
    assert admit(header(), EVERYTHING).action is Action.STORE
    by_rule = Route(Action.STORE, "mine")
    assert admit(header(), by_rule) is by_rule
