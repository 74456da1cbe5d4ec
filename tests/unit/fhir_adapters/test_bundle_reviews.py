"""What clinicians say shows in the bundle: status, values, labels, names and times; and the lesion and its picture."""

from __future__ import annotations

import pytest

from dermoscopy import codes
from dermoscopy.domain import ArtifactKind, LesionClass
from dermoscopy.identifiers import resource_urn
from tests.unit.fhir_adapters import scenes
from tests.unit.fhir_adapters.scenes import SCENES
from tests.unit.fhir_adapters.test_bundle import component, content, observation, of_type, rendered


def resource_of(bundle, kind, what):
    urn = resource_urn(what.analysis.id, kind)
    return next(e["resource"] for e in bundle["entry"] if e["resource"].get("identifier", [{}])[0].get("value") == urn)


def labels(resource):
    return [label["code"] for label in resource["meta"]["security"]]


@pytest.mark.parametrize(
    ("name", "report", "classification", "risk", "document"),
    [
        ("commented", "preliminary", "preliminary", "preliminary", "preliminary"),
        ("confirmed", "final", "final", "final", "final"),
        ("class-corrected", "amended", "amended", "final", "amended"),
        ("site-corrected", "amended", "amended", "amended", "amended"),
        ("withdrawn", "entered-in-error", "entered-in-error", "entered-in-error", "entered-in-error"),
    ],
)
def test_reviews_move_report_observations_and_documents_on(name, report, classification, risk, document):
    what = SCENES[name]
    bundle = content(what)
    assert of_type(bundle, "DiagnosticReport")[0]["status"] == report
    assert observation(bundle, "classification", what)["status"] == classification
    assert observation(bundle, "melanoma-risk", what)["status"] == risk
    assert {d["docStatus"] for d in of_type(bundle, "DocumentReference")} == {document}


def test_words_alone_change_nothing():
    assert rendered(SCENES["commented"]).data == rendered(scenes.render_input()).data


def test_a_correction_keeps_the_identity_of_everything_that_was_there():
    before, after = content(scenes.render_input()), content(SCENES["class-corrected"])
    urls = [e["fullUrl"] for e in after["entry"]]
    assert {e["fullUrl"] for e in before["entry"]} <= set(urls)
    new = [e["resource"] for e in after["entry"] if e["fullUrl"] not in {b["fullUrl"] for b in before["entry"]}]
    assert [r["resourceType"] for r in new] == ["Observation", "Provenance"]


def test_a_corrected_class_is_the_clinicians_beside_the_algorithms():
    what = SCENES["class-corrected"]
    bundle = content(what)
    theirs = observation(bundle, "classification", what)
    ours = resource_of(bundle, "observation/algorithm-class", what)
    nevus, melanoma = (codes.class_code(label).code for label in (LesionClass.NV, LesionClass.MEL))
    assert theirs["valueCodeableConcept"]["coding"][0]["code"] == nevus
    assert labels(theirs) == ["CLINAST"]
    assert theirs["performer"][0]["display"] == "Dr. Erika Beispiel"
    assert {"device", "method", "component", "extension"}.isdisjoint(theirs)
    assert ours["valueCodeableConcept"]["coding"][0]["code"] == melanoma
    assert labels(ours) == ["AIAST"]
    assert ours["extension"][0]["valueDecimal"] == 0.7
    assert theirs["derivedFrom"][0] == {"reference": entry_of(bundle, ours)}
    assert ours["code"]["coding"][0]["code"] != theirs["code"]["coding"][0]["code"]
    (report,) = of_type(bundle, "DiagnosticReport")
    assert report["conclusionCode"][0]["coding"][0]["code"] == nevus
    assert {"reference": entry_of(bundle, ours)} in report["result"]
    assert labels(report) == ["AIAST", "CLINAST"]
    assert "Corrected by Dr. Erika Beispiel on 2026-03-14 10:26 UTC." in report["conclusion"]
    assert "Comment: Globular pattern." in report["conclusion"]


def entry_of(bundle, resource):
    return next(e["fullUrl"] for e in bundle["entry"] if e["resource"] == resource)


def test_a_class_after_an_abstention_is_only_the_clinicians():
    what = SCENES["abstained-corrected"]
    bundle = content(what)
    assert "dataAbsentReason" not in observation(bundle, "classification", what)
    assert "dataAbsentReason" in resource_of(bundle, "observation/algorithm-class", what)
    assert "dataAbsentReason" in observation(bundle, "melanoma-risk", what)


def test_a_confirmation_invents_no_class():
    bundle = content(SCENES["abstained-confirmed"])
    assert "conclusionCode" not in of_type(bundle, "DiagnosticReport")[0]
    assert "dataAbsentReason" in observation(bundle, "classification", SCENES["abstained-confirmed"])


def test_reviewers_are_named_with_the_time_of_their_review():
    what = SCENES["withdrawn"]
    bundle = content(what)
    (report,) = of_type(bundle, "DiagnosticReport")
    assert [one["display"] for one in report["resultsInterpreter"]] == ["Dr. Erika Beispiel", "token-2"]
    assert report["resultsInterpreter"][1]["identifier"] == {"value": "token-2"}
    assert report["issued"] == "2026-03-14T13:26:53.589Z"
    assert report["effectiveDateTime"] == "2026-03-14T09:26:53.589Z"
    _, *reviewed = of_type(bundle, "Provenance")
    assert [p["recorded"] for p in reviewed] == [f"2026-03-14T{hour}:26:53.589Z" for hour in (10, 11, 13)]
    roles = [[a["type"]["coding"][0]["code"] for a in p["agent"]] for p in reviewed]
    assert roles == [["verifier", "author"], ["verifier", "author"], ["verifier"]]


def test_a_corrected_site_shows_everywhere():
    what = SCENES["site-corrected"]
    bundle = content(what)
    assert {o["bodySite"]["coding"][0]["code"] for o in of_type(bundle, "Observation")} == {"75093004"}
    (lesion,) = of_type(bundle, "BodyStructure")
    assert lesion["location"]["coding"][0]["code"] == "75093004"
    assert lesion["locationQualifier"][0]["coding"][0]["code"] == "24028007"
    said = of_type(bundle, "DiagnosticReport")[0]["conclusion"]
    assert f"Body site corrected: {lesion['location']['text']}." in said


def test_measures_are_those_of_the_outline_that_stands():
    what = SCENES["outline-corrected"]
    bundle = content(what)
    area = observation(bundle, "area", what)
    assert area["valueQuantity"]["value"] == 1
    assert component(area, codes.AREA_PIXELS)["valueQuantity"]["value"] == 400
    assert labels(area) == ["AIAST", "CLINAST"]
    assert area["status"] == "amended"
    assert observation(bundle, "triage", what)["status"] == "final"
    assert "Outline drawn by a clinician" in area["note"][0]["text"]
    found = observation(content(SCENES["no-lesion-outlined"]), "area", what)
    assert found["valueQuantity"]["value"] == 1


def test_an_outline_that_was_not_measured_leaves_no_old_number():
    what = SCENES["outline-unmeasured"]
    for kind in ("area", "diameter", "asymmetry", "border", "colour"):
        found = observation(content(what), kind, what)
        assert "valueQuantity" not in found
        assert "component" not in found
        assert found["dataAbsentReason"]["coding"][0]["code"] == "unknown"


def test_a_withdrawn_report_says_so_and_shows_nothing():
    bundle = content(SCENES["withdrawn"])
    (report,) = of_type(bundle, "DiagnosticReport")
    assert {"conclusionCode", "presentedForm", "media"}.isdisjoint(report)
    assert "must not be used" in report["conclusion"]
    assert "Another patient's arm." in report["conclusion"]
    assert "melanoma" not in report["conclusion"].lower()
    assert {o["status"] for o in of_type(bundle, "Observation")} == {"entered-in-error"}
    documents = of_type(bundle, "DocumentReference")
    assert len(documents) == 3
    assert {d["status"] for d in documents} == {"entered-in-error"}
    assert of_type(bundle, "Media")[0]["status"] == "entered-in-error"
    assert of_type(bundle, "BodyStructure")[0]["active"] is False


def test_the_lesion_is_one_body_structure_that_answers_are_about():
    what = SCENES["tier-urgent"]
    bundle = content(what)
    (lesion,) = of_type(bundle, "BodyStructure")
    assert lesion["identifier"][1]["value"].startswith("urn:oid:2.25.")
    assert lesion["morphology"]["coding"][0]["code"] == "52988006"
    about = [o.get("focus") for o in of_type(bundle, "Observation")]
    assert about.count(None) == 1
    assert observation(bundle, "quality", what) in [o for o in of_type(bundle, "Observation") if "focus" not in o]
    assert [{"reference": entry_of(bundle, lesion)}] in about
    assert "location" not in of_type(content(SCENES["no-site"]), "BodyStructure")[0]


def test_the_picture_is_a_key_image():
    what = SCENES["tier-urgent"]
    bundle = content(what)
    (picture,) = of_type(bundle, "Media")
    (report,) = of_type(bundle, "DiagnosticReport")
    assert report["media"][0]["link"] == {"reference": entry_of(bundle, picture)}
    drawn = what.companions[ArtifactKind.SECONDARY_CAPTURE]
    assert picture["content"]["url"] == f"urn:oid:{drawn.uid}"
    assert "data" not in picture["content"]
    assert of_type(content(SCENES["alone"]), "Media") == []
