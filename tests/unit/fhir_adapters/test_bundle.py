"""The bundle of every kind of analysis: complete, connected, repeatable, and silent where nothing is known."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from fhir.resources.R4B import get_fhir_model_class

from dermoscopy import codes
from dermoscopy.domain import Artifact, ArtifactKind, LesionClass, PatientIdentity, TriageTier
from dermoscopy.identifiers import report_identifier, resource_urn
from dermoscopy.overlay import encode_png
from fhir_adapters.elements import instant, number, quantity
from fhir_adapters.render import RENDERERS
from fhir_adapters.render.draft import NOTICE, OBSERVATION_KINDS
from tests.findings import NOTE, make_finding
from tests.unit.fhir_adapters import scenes
from tests.unit.fhir_adapters.scenes import SCENES

STATES = {  # required bindings that the library does not check
    "DiagnosticReport": "preliminary",
    "Observation": "preliminary",
    "ImagingStudy": "available",
    "Device": "active",
    "DocumentReference": "current",
}


def rendered(what):
    return RENDERERS[ArtifactKind.FHIR_BUNDLE](what)


def content(what):
    return json.loads(rendered(what).data)


def of_type(bundle, kind):
    return [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == kind]


def observation(bundle, kind, what):
    urn = resource_urn(what.analysis.id, f"observation/{kind}")
    return next(o for o in of_type(bundle, "Observation") if o["identifier"][0]["value"] == urn)


def component(found, code):
    return next(c for c in found["component"] if c["code"]["coding"][0]["code"] == code.code)


def walk(value) -> Iterator[dict]:
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from walk(item)


@pytest.mark.parametrize("name", SCENES)
def test_every_resource_is_valid_r4b_and_in_its_state(name):
    bundle = content(SCENES[name])
    assert bundle["type"] == "transaction"
    for entry in bundle["entry"]:
        resource = entry["resource"]
        get_fhir_model_class(resource["resourceType"]).model_validate(resource)
        if resource["resourceType"] in STATES and not SCENES[name].revision:
            assert resource["status"] == STATES[resource["resourceType"]]


@pytest.mark.parametrize("name", SCENES)
def test_references_stay_inside_or_are_logical(name):
    bundle = content(SCENES[name])
    urls = {entry["fullUrl"] for entry in bundle["entry"]}
    assert len(urls) == len(bundle["entry"])
    for element in walk(bundle):
        if "reference" in element:
            assert element["reference"] in urls


@pytest.mark.parametrize("name", SCENES)
def test_every_entry_is_conditional_on_what_it_carries(name):
    for entry in content(SCENES[name])["entry"]:
        resource, request = entry["resource"], entry["request"]
        condition = request.get("ifNoneExist") or request["url"].partition("?")[2]
        parameter, _, token = condition.partition("=")
        system, _, value = token.partition("|")
        if parameter == "identifier":
            assert {"system": system, "value": value} in resource["identifier"]
        else:
            assert parameter == "_tag"
            assert {"system": system, "code": value} in resource["meta"]["tag"]
        assert value != entry["fullUrl"]  # some servers rewrite the fullUrl wherever it stands


@pytest.mark.parametrize("name", SCENES)
def test_no_condition_names_the_patient(name):
    for entry in content(SCENES[name])["entry"]:
        assert scenes.PATIENT.patient_id not in json.dumps(entry["request"])


def test_only_the_study_is_left_alone_if_it_exists():
    entries = content(SCENES["tier-urgent"])["entry"]
    posted = [e["resource"]["resourceType"] for e in entries if e["request"]["method"] == "POST"]
    assert posted == ["ImagingStudy"]


@pytest.mark.parametrize("name", SCENES)
def test_the_same_input_gives_the_same_bytes(name):
    assert rendered(SCENES[name]) == rendered(SCENES[name])


def test_the_artifact_names_the_report():
    artifact = rendered(SCENES["tier-urgent"])
    assert artifact.kind is ArtifactKind.FHIR_BUNDLE
    assert artifact.media_type == "application/fhir+json"
    assert artifact.uid == report_identifier(SCENES["tier-urgent"].analysis.id)
    (report,) = of_type(json.loads(artifact.data), "DiagnosticReport")
    assert report["identifier"] == [{"system": "urn:ietf:rfc:3986", "value": artifact.uid}]


def test_an_amendment_keeps_identifiers_and_changes_the_digest():
    first, later = SCENES["tier-urgent"], SCENES["abstained"]
    before, after = content(first), content(later)
    assert [e["fullUrl"] for e in before["entry"]] == [e["fullUrl"] for e in after["entry"]]
    assert of_type(before, "DiagnosticReport")[0]["meta"]["tag"] != of_type(after, "DiagnosticReport")[0]["meta"]["tag"]


def test_another_analysis_of_an_image_shares_device_and_lesion():
    other = scenes.render_input(scenes.analysis(id="another"))
    before, after = content(SCENES["tier-urgent"]), content(other)
    shared = {e["fullUrl"] for e in before["entry"]} & {e["fullUrl"] for e in after["entry"]}
    assert len(shared) == 2
    assert of_type(before, "BodyStructure") == of_type(after, "BodyStructure")
    assert of_type(before, "Device") == of_type(after, "Device")


@pytest.mark.parametrize("tier", TriageTier)
def test_triage_is_coded_and_said(tier):
    what = SCENES[f"tier-{tier}"]
    bundle = content(what)
    triage = observation(bundle, "triage", what)
    assert triage["valueCodeableConcept"]["coding"][0]["code"] == codes.TRIAGE[tier].code
    assert [note["text"] for note in triage["note"]] == [f"Reason for {tier}.", f"What to do for {tier}."]
    (report,) = of_type(bundle, "DiagnosticReport")
    assert f"What to do for {tier}." in report["conclusion"]


@pytest.mark.parametrize("label", LesionClass)
def test_the_conclusion_carries_every_code_of_the_class_and_no_more(label):
    what = SCENES[f"class-{label}"]
    bundle = content(what)
    (report,) = of_type(bundle, "DiagnosticReport")
    (conclusion,) = report["conclusionCode"]
    expected = [(c.system, c.code) for c in codes.CLASS_CODES[label]]
    assert [(c["system"], c["code"]) for c in conclusion["coding"]] == expected
    assert observation(bundle, "classification", what)["valueCodeableConcept"] == conclusion


def test_probabilities_are_components_and_confidence_is_labelled():
    what = SCENES["tier-urgent"]
    classification = observation(content(what), "classification", what)
    for label, probability in scenes.PROBABILITIES.items():
        value = component(classification, codes.CLASS_PROBABILITY[label])["valueQuantity"]
        assert value == {"value": probability, "unit": "1", "system": codes.UCUM, "code": "1"}
    assert classification["extension"] == [{"url": codes.AI_CONFIDENCE_URL, "valueDecimal": 0.7}]


def test_abstention_is_never_an_answer():
    what = SCENES["abstained"]
    bundle = content(what)
    for kind in ("classification", "melanoma-risk", "malignancy-risk"):
        found = observation(bundle, kind, what)
        assert not any(key.startswith("value") for key in found)
        assert found["dataAbsentReason"]["coding"][0]["code"] == "unknown"
        assert "blurred" in found["dataAbsentReason"]["text"]
        for part in found.get("component", ()):
            assert "dataAbsentReason" in part
            assert "valueQuantity" not in part
    assert "extension" not in observation(bundle, "classification", what)
    (report,) = of_type(bundle, "DiagnosticReport")
    assert "conclusionCode" not in report
    assert "names no class" in report["conclusion"]
    quality = observation(bundle, "quality", what)
    assert quality["valueCodeableConcept"]["coding"][0]["code"] == "111235"


def test_no_lesion_means_not_applicable():
    what = SCENES["no-lesion"]
    bundle = content(what)
    for kind in ("area", "diameter", "asymmetry", "border", "colour"):
        found = observation(bundle, kind, what)
        assert found["dataAbsentReason"]["coding"][0]["code"] == "not-applicable"
        assert "component" not in found
    assert "No lesion was found" in of_type(bundle, "DiagnosticReport")[0]["conclusion"]


def test_no_scale_means_pixels_and_never_millimetres():
    what = SCENES["no-scale"]
    bundle = content(what)
    area = observation(bundle, "area", what)
    assert area["dataAbsentReason"]["coding"][0]["code"] == "unknown"
    assert component(area, codes.AREA_PIXELS)["valueQuantity"]["value"] == 1200
    units = {e["code"] for e in walk(bundle) if e.get("system") == codes.UCUM}
    assert units == {"1", "%", "{pixels}"}


def test_a_known_scale_gives_millimetres():
    what = SCENES["tier-urgent"]
    bundle = content(what)
    assert observation(bundle, "area", what)["valueQuantity"] == {
        "value": 3,
        "unit": "mm2",
        "system": codes.UCUM,
        "code": "mm2",
    }
    assert observation(bundle, "diameter", what)["valueQuantity"]["code"] == "mm"
    assert component(observation(bundle, "diameter", what), codes.PERIMETER)["valueQuantity"]["value"] == 6.525


@pytest.mark.parametrize("name", SCENES)
def test_a_component_never_has_the_code_of_its_observation(name):
    for found in of_type(content(SCENES[name]), "Observation"):
        own = {(c["system"], c["code"]) for c in found["code"]["coding"]}
        for part in found.get("component", ()):
            assert not own & {(c["system"], c["code"]) for c in part["code"]["coding"]}  # obs-7


@pytest.mark.parametrize("name", SCENES)
def test_every_result_is_labelled_and_says_what_it_is(name):
    bundle = content(SCENES[name])
    labels = {"AIAST", "CLINAST"} if SCENES[name].revision else {"AIAST"}
    for kind in ("DiagnosticReport", "Observation", "DocumentReference", "Media", "Provenance"):
        for resource in of_type(bundle, kind):
            assert {label["code"] for label in resource["meta"]["security"]} <= labels
    (report,) = of_type(bundle, "DiagnosticReport")
    assert report["conclusion"].startswith(NOTICE)
    assert len(OBSERVATION_KINDS) <= len(report["result"]) == len(of_type(bundle, "Observation"))
    assert report["category"]
    assert report["subject"]
    for found in of_type(bundle, "Observation"):
        assert found["category"][0]["coding"][0]["code"] == "imaging"
        assert found["subject"] == report["subject"]


def test_the_stored_patient_is_a_logical_reference():
    (report,) = of_type(content(SCENES["tier-urgent"]), "DiagnosticReport")
    assert report["subject"] == {
        "type": "Patient",
        "identifier": {"value": "TEST-0042", "assigner": {"display": "CLINIC_A"}},
    }


def test_a_patient_nobody_named_is_said_to_be_unnamed():
    (report,) = of_type(content(SCENES["no-patient"]), "DiagnosticReport")
    assert "identifier" not in report["subject"]
    assert report["subject"]["display"]


def test_the_overlay_is_presented():
    what = SCENES["tier-urgent"]
    (form,) = of_type(content(what), "DiagnosticReport")[0]["presentedForm"]
    assert form["contentType"] == "image/png"
    assert base64.b64decode(form["data"]) == what.companions[ArtifactKind.OVERLAY].data
    assert "presentedForm" not in of_type(content(SCENES["alone"]), "DiagnosticReport")[0]


def test_the_study_lists_the_source_and_what_was_made_of_it():
    what = SCENES["tier-urgent"]
    (study,) = of_type(content(what), "ImagingStudy")
    assert study["identifier"][0]["value"] == f"urn:oid:{scenes.HEADER.study_instance_uid}"
    assert study["identifier"][1]["value"] == "ACC-7"
    assert [s["modality"]["code"] for s in study["series"]] == ["DMS", "SEG", "SR", "OT"]
    assert study["numberOfSeries"] == study["numberOfInstances"] == 4
    assert study["series"][0]["laterality"]["code"] == "7771000"
    uids = {i["uid"] for s in study["series"] for i in s["instance"]}
    assert uids == {scenes.HEADER.sop_instance_uid} | {
        a.uid for k, a in what.companions.items() if k is not ArtifactKind.OVERLAY
    }


def test_other_photographs_are_not_called_dermoscopy():
    header = dataclasses.replace(scenes.HEADER, sop_class_uid="1.2.840.10008.5.1.4.1.1.77.1.4")
    (study,) = of_type(content(scenes.render_input(scenes.analysis(header=header))), "ImagingStudy")
    assert study["series"][0]["modality"]["code"] == "XC"


def test_a_picture_without_dicom_identity_names_its_bytes():
    bundle = content(SCENES["png"])
    assert of_type(bundle, "ImagingStudy") == []
    (provenance,) = of_type(bundle, "Provenance")
    assert provenance["entity"][0]["what"]["identifier"]["value"].startswith("ni:///sha-256;")


def test_a_wrapped_picture_has_a_study():
    (study,) = of_type(content(SCENES["png-wrapped"]), "ImagingStudy")
    wrapped = SCENES["png-wrapped"].companions[ArtifactKind.SOURCE]
    assert study["series"][0]["instance"][0]["uid"] == wrapped.uid


def test_accession_number_points_to_the_order():
    assert "basedOn" not in of_type(content(SCENES["no-accession"]), "DiagnosticReport")[0]
    (order,) = of_type(content(SCENES["tier-urgent"]), "DiagnosticReport")[0]["basedOn"]
    assert order["identifier"]["value"] == "ACC-7"


@pytest.mark.parametrize(
    ("name", "text", "coded"),
    [("tier-urgent", "Skin of back, left", True), ("foreign-site", "T-D4000, left", False), ("no-site", None, False)],
)
def test_only_known_sites_are_coded(name, text, coded):
    found = of_type(content(SCENES[name]), "Observation")[0].get("bodySite")
    assert (found or {}).get("text") == text
    assert bool(found and "coding" in found) is coded


def test_documents_name_the_dicom_objects():
    what = SCENES["tier-urgent"]
    documents = of_type(content(what), "DocumentReference")
    assert [d["masterIdentifier"]["value"] for d in documents] == [
        f"urn:oid:{what.companions[k].uid}" for k in (ArtifactKind.SEG, ArtifactKind.SR, ArtifactKind.SECONDARY_CAPTURE)
    ]
    assert all(d["content"][0]["attachment"]["contentType"] == "application/dicom" for d in documents)


def test_provenance_targets_all_results_and_names_the_device():
    bundle = content(SCENES["tier-urgent"])
    (provenance,) = of_type(bundle, "Provenance")
    kinds = {e["fullUrl"]: e["resource"]["resourceType"] for e in bundle["entry"]}
    assert sorted({kinds[t["reference"]] for t in provenance["target"]}) == [
        "DiagnosticReport",
        "DocumentReference",
        "Media",
        "Observation",
    ]
    assert kinds[provenance["agent"][0]["who"]["reference"]] == "Device"
    assert scenes.MODEL.digest in provenance["text"]["div"]


def test_device_carries_the_digest_even_if_it_is_none():
    bundle = content(SCENES["tier-urgent"])
    (device,) = of_type(bundle, "Device")
    assert device["identifier"][1]["value"].startswith("ni:///sha-256;")
    odd = dataclasses.replace(scenes.MODEL, digest="not hexadecimal")
    (device,) = of_type(content(scenes.render_input(scenes.analysis(scenes.finding(model=odd)))), "Device")
    assert len(device["identifier"]) == 1
    assert device["version"][1]["value"] == "not hexadecimal"


def test_narratives_escape_what_they_quote():
    found = scenes.finding(triage=dataclasses.replace(scenes.finding().triage, reason="<script>1 & 2</script>"))
    (report,) = of_type(content(scenes.render_input(scenes.analysis(found))), "DiagnosticReport")
    assert "&lt;script&gt;1 &amp; 2&lt;/script&gt;" in report["text"]["div"]


def test_letters_beyond_ascii_survive():
    header = dataclasses.replace(scenes.HEADER, patient=PatientIdentity("KLINIK Ä", "Größe-7"))
    artifact = rendered(scenes.render_input(scenes.analysis(header=header)))
    assert "Größe-7".encode() in artifact.data


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 3, 14, 9, 26, 53, 589793, UTC), "2026-03-14T09:26:53.589Z"),
        (datetime(2026, 3, 14, 9, 26), "2026-03-14T09:26:00.000Z"),  # noqa: DTZ001 - databases may drop the zone
        (datetime(2026, 3, 14, 9, 26, tzinfo=timezone(timedelta(hours=2))), "2026-03-14T07:26:00.000Z"),
    ],
)
def test_instants_are_utc(moment, text):
    assert instant(moment) == text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_number_is_absent(value):
    assert number(value, 3) is None
    assert "dataAbsentReason" in quantity(value, codes.RATIO)


def test_a_large_picture_is_made_smaller():
    pixels = np.random.default_rng(1).integers(0, 255, (1200, 1700, 3), dtype=np.uint8)
    overlay = Artifact(ArtifactKind.OVERLAY, "image/png", encode_png(pixels), "")
    bundle = content(scenes.render_input(companions={ArtifactKind.OVERLAY: overlay}))
    (form,) = of_type(bundle, "DiagnosticReport")[0]["presentedForm"]
    assert form["contentType"] == "image/jpeg"
    assert form["size"] == len(base64.b64decode(form["data"])) < len(overlay.data)


@pytest.mark.parametrize("tier", TriageTier)
def test_conclusions_are_sentences(tier):
    found = make_finding(tier)
    (report,) = of_type(content(scenes.render_input(scenes.analysis(found))), "DiagnosticReport")
    assert f"{found.triage.reason}. {found.triage.recommendation}. " in report["conclusion"]
    assert ".." not in report["conclusion"]
    assert report["conclusion"].endswith("1.0.0.")


def test_urgency_stands_even_where_no_class_is_named():
    found = scenes.finding(primary=None, abstention="the picture is unlike those it was trained on")
    what = scenes.render_input(scenes.analysis(found))
    bundle = content(what)
    triage = observation(bundle, "triage", what)
    assert triage["valueCodeableConcept"]["coding"][0]["code"] == "urgent"
    assert "dataAbsentReason" in observation(bundle, "melanoma-risk", what)
    assert "unlike those" in of_type(bundle, "DiagnosticReport")[0]["conclusion"]


def test_a_class_called_although_another_is_more_probable_says_so_everywhere():
    what = SCENES["called-otherwise"]
    bundle = content(what)
    classification = observation(bundle, "classification", what)
    assert classification["valueCodeableConcept"]["coding"][0]["code"] == codes.class_code(LesionClass.BCC).code
    assert classification["extension"][0]["valueDecimal"] == 0.21
    assert classification["note"][0]["text"] == NOTE
    assert component(classification, codes.CLASS_PROBABILITY[LesionClass.NV])["valueQuantity"]["value"] == 0.55
    (report,) = of_type(bundle, "DiagnosticReport")
    assert "Class called: Basal cell carcinoma (calibrated probability 0.21)" in report["conclusion"]
    assert NOTE in report["conclusion"]
    assert "Most probable class" not in report["conclusion"]


def test_the_prediction_set_is_coded_and_said():
    what = SCENES["called-otherwise"]
    bundle = content(what)
    kept = [
        part["valueCodeableConcept"]["coding"][0]["code"]
        for part in observation(bundle, "classification", what)["component"]
        if part["code"]["coding"][0]["code"] == codes.PREDICTION_SET.code
    ]
    assert kept == [codes.class_code(label).code for label in what.analysis.finding.prediction_set]
    (report,) = of_type(bundle, "DiagnosticReport")
    assert "Cannot be excluded at an error rate of 10 %: melanocytic nevus, benign" in report["conclusion"]


def test_each_reason_of_an_abstention_is_coded():
    what = SCENES["abstained-coded"]
    coded = observation(content(what), "classification", what)["dataAbsentReason"]["coding"]
    assert [one["code"] for one in coded] == ["unknown", "blur", "ambiguous"]
