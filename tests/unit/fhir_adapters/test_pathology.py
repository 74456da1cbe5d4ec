"""What each resource kind and code says; what says nothing is passed over or left to a person."""

from __future__ import annotations

import copy
from datetime import UTC, datetime

import pytest

from dermoscopy.domain import LesionClass
from dermoscopy.errors import Rejected
from dermoscopy.outcomes import Certainty, OutcomeStatus
from fhir_adapters.pathology import Passed, Told, read_outcomes
from tests.pathology import ICDO3, MELANOMA, NAEVUS, SNOMED, bundle, concept, condition, observation, report

HL7 = "http://terminology.hl7.org/CodeSystem"
VERIFIED = f"{HL7}/condition-ver-status"


def only(body):
    (found,) = read_outcomes(body)
    assert isinstance(found, Told)
    return found


def test_a_report_with_a_conclusion_code():
    told = only(report(MELANOMA))
    (part,) = told.parts
    assert (part.outcome.lesion_class, part.outcome.malignant) == (LesionClass.MEL, True)
    assert part.outcome.certainty is Certainty.HISTOPATHOLOGY
    assert (told.identifiers, told.version, told.status) == ((("urn:oid:2.25.299792458", "TEST-0042"),), "1", "final")
    assert part.outcome.diagnosed_at == datetime(2026, 11, 20, tzinfo=UTC)
    assert not part.outcome.timed
    assert "ACC-7" in part.outcome.references


@pytest.mark.parametrize(
    ("system", "code", "label", "malignant"),
    [
        (SNOMED, "2092003", LesionClass.MEL, True),
        (SNOMED, "77986002", LesionClass.MEL, True),
        (SNOMED, "254701007", LesionClass.BCC, True),
        (SNOMED, "25499005", LesionClass.BKL, False),
        (SNOMED, "254651007", None, True),
        (ICDO3, "8720/3", LesionClass.MEL, True),
        (ICDO3, "8097/3", LesionClass.BCC, True),
        (ICDO3, "8081/2", LesionClass.AKIEC, True),
        (ICDO3, "8832/0", LesionClass.DF, False),
        (ICDO3, "9120/0", LesionClass.VASC, False),
        ("http://hl7.org/fhir/sid/icd-10", "C43.5", LesionClass.MEL, True),
        ("http://hl7.org/fhir/sid/icd-10", "C44.5", None, True),
        ("http://hl7.org/fhir/sid/icd-10", "L57.0", LesionClass.AKIEC, True),
        ("http://hl7.org/fhir/sid/icd-10-cm", "C44.511", LesionClass.BCC, True),
        ("http://hl7.org/fhir/sid/icd-10-cm", "C44.529", None, True),
        ("http://hl7.org/fhir/sid/icd-10-cm", "D22.5", LesionClass.NV, False),
    ],
)
def test_each_code_system(system, code, label, malignant):
    outcome = only(observation(concept(system, code))).parts[0].outcome
    assert (outcome.lesion_class, outcome.malignant, outcome.diagnosis_code) == (label, malignant, code)
    assert outcome.diagnosis


@pytest.mark.parametrize(
    ("system", "code"),
    [
        (SNOMED, "372158004"),  # metastasis of a melanoma
        (ICDO3, "8720/6"),
        (ICDO3, "8720/0"),
        ("http://hl7.org/fhir/sid/icd-10", "C430"),
        ("http://hl7.org/fhir/sid/icd-10", "L57.1"),
        ("", "2092003"),
    ],
)
def test_an_unknown_code_is_told_and_never_guessed(system, code):
    outcome = only(report(concept(system, code, text="Malignant melanoma"))).parts[0].outcome
    assert (outcome.lesion_class, outcome.malignant) == (None, None)
    assert code in outcome.doubt


def test_words_alone_are_no_diagnosis():
    outcome = only({**report(None), "conclusion": "Malignant melanoma, Breslow 0.8 mm"}).parts[0].outcome
    assert outcome.malignant is None
    assert outcome.doubt == "it states no coded diagnosis"


def test_several_diagnoses_are_left_to_a_person():
    both = {**report(None), "conclusionCode": [MELANOMA, NAEVUS]}
    assert "several diagnoses" in only(both).parts[0].outcome.doubt
    translated = {"coding": [*MELANOMA["coding"], {"system": "urn:lab", "code": "MM"}]}
    assert only(report(translated)).parts[0].outcome.lesion_class is LesionClass.MEL


def test_what_is_unknown_beside_a_harmless_diagnosis_could_be_graver():
    beside = {**report(None), "conclusionCode": [NAEVUS, concept("urn:lab", "X1")]}
    assert only(beside).parts[0].outcome.malignant is None
    grave = {**report(None), "conclusionCode": [MELANOMA, concept("urn:lab", "X1")]}
    assert only(grave).parts[0].outcome.lesion_class is LesionClass.MEL


def test_contained_observations_are_read_with_their_report():
    contained = {**observation(MELANOMA), "id": "o1"}
    told = only({**report(None), "contained": [contained], "result": [{"reference": "#o1"}]})
    assert told.parts[0].outcome.lesion_class is LesionClass.MEL


def test_a_report_of_two_specimens_is_two_outcomes():
    one = {**observation(MELANOMA), "id": "a", "specimen": {"reference": "Specimen/s1"}}
    other = {**observation(NAEVUS), "id": "b", "specimen": {"reference": "Specimen/s2"}}
    whole = {**report(MELANOMA), "result": [{"reference": "Observation/a"}, {"reference": "Observation/b"}]}
    told = only(bundle(whole, one, other))
    assert {part.key: part.outcome.lesion_class for part in told.parts} == {
        "Specimen/s1": LesionClass.MEL,
        "Specimen/s2": LesionClass.NV,
    }


def test_one_diagnosis_of_several_specimens_is_left_to_a_person():
    both = {**report(MELANOMA), "specimen": [{"reference": "Specimen/s1"}, {"reference": "Specimen/s2"}]}
    outcome = only(both).parts[0].outcome
    assert (outcome.malignant, outcome.alone) == (None, False)
    assert "several specimens" in outcome.doubt


def test_specimen_and_order_say_where_when_and_by_which_number():
    specimen = {
        "resourceType": "Specimen",
        "id": "s1",
        "accessionIdentifier": {"value": "P26-1"},
        "collection": {
            "collectedDateTime": "2026-11-18T09:30:00+01:00",
            "bodySite": concept(SNOMED, "66643007", text="Skin of back, left"),
        },
    }
    order = {"resourceType": "ServiceRequest", "id": "r1", "identifier": [{"value": "ACC-9"}]}
    whole = {
        **report(MELANOMA),
        "specimen": [{"reference": "Specimen/s1"}],
        "basedOn": [{"reference": "ServiceRequest/r1"}],
    }
    outcome = only(bundle(whole, specimen, order)).parts[0].outcome
    assert outcome.diagnosed_at == datetime(2026, 11, 18, 8, 30, tzinfo=UTC)
    assert (outcome.body_site_code, outcome.laterality) == ("66643007", "L")
    assert {"P26-1", "ACC-9"} <= set(outcome.references)


def test_a_condition_is_a_clinicians_word_unless_its_evidence_is_pathology():
    told = only(condition(MELANOMA))
    assert told.parts[0].outcome.certainty is Certainty.FOLLOW_UP
    evidenced = {**condition(MELANOMA), "evidence": [{"detail": [{"reference": "DiagnosticReport/path-1"}]}]}
    found = {one.resource_type: one for one in read_outcomes(bundle(evidenced, report(MELANOMA)))}
    assert found["Condition"].parts[0].outcome.certainty is Certainty.HISTOPATHOLOGY


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({**report(MELANOMA), "status": "preliminary"}, "not_final"),
        ({**report(MELANOMA), "status": "nonsense"}, "not_final"),
        ({**report(MELANOMA), "category": [concept(f"{HL7}/v2-0074", "IMG")]}, "not_pathology"),
        ({**observation(MELANOMA), "code": {"text": "?"}}, "not_pathology"),
        ({**condition(MELANOMA), "verificationStatus": {}}, "unconfirmed"),
        ({**condition(MELANOMA), "verificationStatus": concept(VERIFIED, "differential")}, "unconfirmed"),
    ],
)
def test_what_tells_no_outcome_is_passed_over(body, code):
    (found,) = read_outcomes(body)
    assert isinstance(found, Passed)
    assert found.code == code


@pytest.mark.parametrize(
    ("stated", "status"),
    [("corrected", "amended"), ("entered-in-error", "entered-in-error"), ("cancelled", "entered-in-error")],
)
def test_status(stated, status):
    told = only({**report(MELANOMA), "status": stated})
    assert told.status == OutcomeStatus(status)
    assert bool(told.parts) == (status == "amended")


def test_a_reference_to_another_server_is_not_what_stands_under_the_same_id_here():
    patient = {"resourceType": "Patient", "id": "1", "identifier": [{"system": "urn:mrn", "value": "X"}]}
    elsewhere = {**report(MELANOMA), "subject": {"reference": "https://other.example.org/fhir/Patient/1"}}
    (told,) = read_outcomes(elsewhere, [patient], "https://here.example.org/fhir")
    assert told.identifiers == ()
    (told,) = read_outcomes(
        {**elsewhere, "subject": {"reference": "Patient/1"}}, [patient], "https://here.example.org/fhir"
    )
    assert told.identifiers == (("urn:mrn", "X"),)


@pytest.mark.parametrize("body", [{}, {"resourceType": "Patient"}, {"resourceType": "Bundle", "entry": "no"}])
def test_other_resources_are_refused(body):
    with pytest.raises(Rejected):
        read_outcomes(body)


def test_odd_shapes_do_not_break_it():
    for name in (
        "subject",
        "conclusionCode",
        "specimen",
        "result",
        "basedOn",
        "meta",
        "effectiveDateTime",
        "identifier",
    ):
        for odd in (None, [], {}, "x", 7, [["x"]], [{"coding": "no"}], {"coding": [None]}):
            read_outcomes({**copy.deepcopy(report(MELANOMA)), name: odd})
