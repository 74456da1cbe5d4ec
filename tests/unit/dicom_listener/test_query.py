"""Identifiers of C-FIND and C-MOVE, whose an answer is, and what statuses mean."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import DestinationUnavailable, Rejected
from dicom_listener import query, retrieve
from dicom_listener.query import (
    Match,
    Wanted,
    check_patient,
    image_identifier,
    is_modality,
    is_of,
    series_identifier,
    study_identifier,
    text_of,
)
from dicom_listener.retrieve import Retrieved, identifiers

PATIENT = PatientIdentity("HOSPITAL-A", "4711")


def values(asked: Dataset) -> dict[str, object]:
    return {element.keyword: element.value for element in asked}


def test_study_level_asks_by_patient_id_and_has_the_issuer_returned() -> None:
    assert values(study_identifier(Wanted(PATIENT, since="20240102"))) == {
        "QueryRetrieveLevel": "STUDY",
        "PatientID": "4711",
        "IssuerOfPatientID": "",
        "StudyDate": "20240102-",
        "StudyInstanceUID": "",
    }
    assert study_identifier(Wanted(PATIENT)).StudyDate == ""


def test_lower_levels_carry_the_unique_keys_above_and_no_patient() -> None:
    assert values(series_identifier("2.25.1")) == {
        "QueryRetrieveLevel": "SERIES",
        "StudyInstanceUID": "2.25.1",
        "SeriesInstanceUID": "",
        "Modality": "",
    }
    assert values(image_identifier("2.25.1", "2.25.2")) == {
        "QueryRetrieveLevel": "IMAGE",
        "StudyInstanceUID": "2.25.1",
        "SeriesInstanceUID": "2.25.2",
        "SOPInstanceUID": "",
        "SOPClassUID": "",
    }


@pytest.mark.parametrize("identifier", ["", " ", "*", "47?1", "4711\\4712", "47\n11", "x" * 65])
def test_an_id_that_would_match_others_is_not_asked_for(identifier: str) -> None:
    with pytest.raises(Rejected) as caught:
        check_patient(PatientIdentity("HOSPITAL-A", identifier))
    assert identifier.strip() == "" or identifier == "*" or identifier not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ({"PatientID": "4711", "IssuerOfPatientID": "HOSPITAL-A"}, True),
        ({"PatientID": "4711 ", "IssuerOfPatientID": ""}, True),
        ({"PatientID": "4711"}, True),
        ({"PatientID": "4711", "IssuerOfPatientID": "HOSPITAL-B"}, False),
        ({"PatientID": "4712"}, False),
        ({"PatientID": "471"}, False),
        ({"PatientID": ["4711", "4712"]}, False),
        ({}, False),
    ],
)
def test_whose_an_answer_is(said: dict[str, object], right: bool) -> None:
    answer = Dataset()
    for keyword, value in said.items():
        setattr(answer, keyword, value)
    assert is_of(answer, PATIENT, lambda answered: answered == PATIENT) is right


def test_values_as_text() -> None:
    answer = Dataset()
    answer.Modality, answer.SeriesNumber = "DMS", 3
    assert (text_of(answer, "Modality"), text_of(answer, "SeriesNumber"), text_of(answer, "StudyDate")) == (
        "DMS",
        "",
        "",
    )


def test_modalities() -> None:
    assert is_modality("XC", ("DMS", "XC")) and is_modality("", ("DMS",)) and is_modality("CT", ())
    assert not is_modality("CT", ("DMS", "XC"))


def test_one_request_per_series_and_a_hundred_objects() -> None:
    of_one = [Match("2.25.1", "2.25.2", f"2.25.{n}") for n in range(100, 250)]
    of_other = [Match("2.25.1", "2.25.3", "2.25.900")]
    asked = list(identifiers([*of_one[:70], *of_other, *of_one[70:]]))
    assert [(one.SeriesInstanceUID, len(one.get_item("SOPInstanceUID").value)) for one in asked[:2]] == [
        ("2.25.2", 100),
        ("2.25.2", 50),
    ]
    assert values(asked[2]) == {
        "QueryRetrieveLevel": "IMAGE",
        "StudyInstanceUID": "2.25.1",
        "SeriesInstanceUID": "2.25.3",
        "SOPInstanceUID": "2.25.900",
    }


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (None, DestinationUnavailable),
        (0xFF00, DestinationUnavailable),
        (0xFE00, DestinationUnavailable),
        (0xA700, DestinationUnavailable),
        (0xA900, Rejected),
        (0xC123, Rejected),
        (0x0122, Rejected),
        (0x0124, Rejected),
    ],
)
def test_last_status_of_a_query(status: int | None, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        query.judge(status, "pacs")
    assert getattr(caught.value, "retry_after", 1)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (None, DestinationUnavailable),
        (0xFF00, DestinationUnavailable),
        (0xFE00, DestinationUnavailable),
        (0xA701, DestinationUnavailable),
        (0xA702, DestinationUnavailable),
        (0xA801, Rejected),
        (0xA900, Rejected),
        (0xC123, Rejected),
        (0x0122, Rejected),
    ],
)
def test_last_status_of_a_retrieval(status: int | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        retrieve.judge(status, "pacs", "C-MOVE")


def test_good_endings() -> None:
    query.judge(0x0000, "pacs")
    retrieve.judge(0x0000, "pacs", "C-GET")
    retrieve.judge(0xB000, "pacs", "C-GET")
    assert Retrieved(1, 2, 3) + Retrieved(10, 20, 30) == Retrieved(11, 22, 33)
