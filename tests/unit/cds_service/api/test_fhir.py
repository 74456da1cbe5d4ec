"""The FHIR read side: what is promised is kept, what is not is refused, no patient in an address, every look noted."""

from __future__ import annotations

import json
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
import structlog
from sqlmodel import select

from audit.tables import AuditLeaf
from cds_service.api import fhir_stored
from cds_service.api.fhir_query import Asked, Place, next_page
from cds_service.authorization import Caller
from dermoscopy.domain import PatientIdentity, TriageTier, Verdict
from dermoscopy.identifiers import report_identifier
from dermoscopy.settings import Role
from dermoscopy.tables import AnalysisRow
from fhir_adapters.facade_types import RESULT_PARAMETERS, TYPES, Served
from tests.findings import ISSUER, PATIENT, SYSTEM, fail, stored_analysis, take_in
from tests.unit.cds_service.api.fhir_results import amended, reported

OTHER = PatientIdentity(ISSUER, "TEST-0077")
FHIR = "application/fhir+json"


def found(answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == FHIR
    return answer.json()


def matches(answer):
    return [e["resource"] for e in found(answer).get("entry", []) if e["search"]["mode"] == "match"]


def refused(answer, status, words=""):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == FHIR
    body = answer.json()
    assert body["resourceType"] == "OperationOutcome"
    assert words in json.dumps(body)
    return body


def walk(client, first, limit=50):
    """All matches, following the next links."""
    pages = [found(first)]
    while following := [one["url"] for one in pages[-1]["link"] if one["relation"] == "next"]:
        assert len(pages) < limit
        parts = urlsplit(following[0])
        pages.append(found(client.get(f"{parts.path}?{parts.query}")))
    return pages, [e["resource"] for p in pages for e in p.get("entry", []) if e["search"]["mode"] == "match"]


def leaves(node, action):
    with node.begin() as session:
        return list(session.execute(select(AuditLeaf).where(AuditLeaf.action == action)).scalars())


def by_patient(client, kind, patient=PATIENT, name="patient:identifier", **more):
    return client.post(f"/fhir/{kind}/_search", data={name: f"{SYSTEM}|{patient.patient_id}", **more})


def test_everything_that_the_capability_statement_names_is_served(client, node):
    analysis = reported(node)
    promised = found(client.get("/fhir/metadata"))
    assert {one["type"] for one in promised["rest"][0]["resource"]} == set(TYPES)
    for one in promised["rest"][0]["resource"]:
        kind = one["type"]
        page = matches(client.get(f"/fhir/{kind}"))
        assert page, kind
        resource = page[0]
        answer = client.get(f"/fhir/{kind}/{resource['id']}")
        assert found(answer) == resource
        assert answer.headers["ETag"] == f'W/"{resource["meta"]["versionId"]}"'
        codes = {code["code"] for code in one["interaction"]}
        history = client.get(f"/fhir/{kind}/{resource['id']}/_history/1")
        if "vread" in codes:
            assert found(history) == resource
        else:
            refused(history, 404)
        for parameter in one["searchParam"]:
            _exercise(client, kind, parameter["name"], resource, analysis)
        for include in one.get("searchInclude", ()):
            entries = found(client.get(f"/fhir/{kind}", params={"_include": include}))["entry"]
            assert "include" in {e["search"]["mode"] for e in entries}


def _exercise(client, kind, name, resource, analysis):
    served = TYPES[kind].parameters.get(name)
    if served is None:
        assert name in RESULT_PARAMETERS
        answer = client.get(f"/fhir/{kind}", params={name: {"_count": "1", "_summary": "count"}[name]})
        assert found(answer)["type"] == "searchset"
        return
    if served.served is Served.PATIENT:
        assert resource in matches(by_patient(client, kind, name=f"{name}:identifier"))
        assert not matches(by_patient(client, kind, OTHER, name=f"{name}.identifier"))
        refused(client.get(f"/fhir/{kind}", params={name: "Patient/1"}), 400, "logical references")
        return
    right, wrong = {
        Served.ID: (resource["id"], f"{'0' * 32}.{'0' * 24}"),
        Served.STUDY: (analysis.header.study_instance_uid, "1.2.3"),
        Served.MOMENT: (f"ge{analysis.created_at:%Y-%m-%d}", "lt2001"),
        Served.UPDATED: ("gt2020-01-01T00:00:00Z", "lt2001-02"),
        Served.IDENTIFIER: (_identifier(resource), "urn:uuid:00000000-0000-0000-0000-000000000000"),
        Served.TARGET: (resource.get("target", [{}])[-1].get("reference"), f"Media/{'0' * 32}.{'0' * 24}"),
        Served.CODED: (_code(resource.get(name)), "nothing-like-it"),
    }[served.served]
    assert resource in matches(client.get(f"/fhir/{kind}", params={name: right})), (kind, name)
    assert not matches(client.get(f"/fhir/{kind}", params={name: wrong})), (kind, name)


def _identifier(resource):
    one = (resource.get("identifier") or [{"system": "", "value": ""}])[0]
    return f"{one['system']}|{one['value']}"


def _code(value):
    return value["coding"][0]["code"] if isinstance(value, dict) and "coding" in value else value


def test_references_lead_to_resources_here_and_the_patient_stays_a_logical_one(client, node):
    reported(node)
    (report,) = matches(client.get("/fhir/DiagnosticReport"))
    places = [one["reference"] for one in (*report["result"], *report["imagingStudy"])]
    places.append(report["media"][0]["link"]["reference"])
    for place in places:
        resource = found(client.get(f"/fhir/{place}"))
        assert f"{resource['resourceType']}/{resource['id']}" == place
    observation = found(client.get(f"/fhir/{places[0]}"))
    assert found(client.get(f"/fhir/{observation['device']['reference']}"))["resourceType"] == "Device"
    assert found(client.get(f"/fhir/{observation['focus'][0]['reference']}"))["resourceType"] == "BodyStructure"
    assert report["subject"]["identifier"]["system"] == SYSTEM
    assert "reference" not in report["subject"]
    assert "urn:uuid:" not in json.dumps([report.get("result"), observation.get("derivedFrom")])


def test_a_patient_in_an_address_is_refused_and_never_repeated(client, node):
    reported(node)
    with structlog.testing.capture_logs() as logged:
        for name in ("patient:identifier", "subject.identifier"):
            answer = client.get("/fhir/DiagnosticReport", params={name: f"{SYSTEM}|TEST-0042"})
            assert "TEST-0042" not in json.dumps(refused(answer, 400, "POST"))
        body = client.post(f"/fhir/Observation/_search?patient:identifier={SYSTEM}|TEST-0042", data={"_count": "1"})
        refused(body, 400, "POST")
        pages, _ = walk(client, by_patient(client, "Observation", _count="3"))
    assert len(pages) > 2
    assert "TEST-0042" not in json.dumps([page["link"] for page in pages])
    assert "TEST-0042" not in str(logged)


def test_pages_of_a_patient_hold_everything_once_while_new_reports_come(client, node):
    mine = [reported(node, name=str(n)) for n in range(3)]
    reported(node, patient=OTHER)
    first = by_patient(client, "Observation", _count="4")
    reported(node, name="later")
    _, shown = walk(client, first)
    ids = [one["id"] for one in shown]
    assert len(ids) == len(set(ids)) == 30
    assert {fhir_stored.analysis_of(one) for one in ids} == {one.id for one in mine}
    assert {one["subject"]["identifier"]["value"] for one in shown} == {"TEST-0042"}


def test_a_page_that_read_enough_says_so_and_goes_on(client, node, monkeypatch):
    wanted = reported(node, TriageTier.MONITOR, name="old")
    amended(node, wanted, Verdict.CONFIRMED)
    for number in range(5):
        reported(node, name=str(number))
    monkeypatch.setattr(fhir_stored, "MOST_READ", 2)
    first = client.get("/fhir/Observation", params={"status": "final", "_count": "100"})
    (outcome,) = [e["resource"] for e in found(first)["entry"]]
    assert outcome["issue"][0]["code"] == "incomplete"
    _, shown = walk(client, first)
    assert {fhir_stored.analysis_of(one["id"]) for one in shown} == {wanted.id}
    assert len(shown) == 10
    refused(client.get("/fhir/Observation", params={"_summary": "count"}), 400, "narrow the search")


def test_an_amended_report_is_a_new_version_and_the_first_one_stays(client, node):
    analysis = reported(node)
    (before,) = matches(client.get("/fhir/DiagnosticReport"))
    where = f"/fhir/DiagnosticReport/{before['id']}"
    tag = client.get(where).headers["ETag"]
    assert client.get(where, headers={"If-None-Match": tag}).status_code == 304
    amended(node, analysis, Verdict.CORRECTED)
    answer = client.get(where, headers={"If-None-Match": tag})
    after = found(answer)
    assert (after["status"], after["meta"]["versionId"], answer.headers["ETag"]) == ("amended", "2", 'W/"2"')
    assert after["meta"]["lastUpdated"] > before["meta"]["lastUpdated"]
    assert found(client.get(f"{where}/_history/1")) == before
    assert found(client.get(f"{where}/_history/2")) == after
    for absent in ("3", "0", "x", "9" * 40):
        refused(client.get(f"{where}/_history/{absent}"), 404)
    assert matches(client.get("/fhir/DiagnosticReport", params={"_lastUpdated": f"gt{before['meta']['lastUpdated']}"}))


def test_a_status_is_that_of_the_report_and_not_of_a_review_that_is_not_drawn_yet(client, node):
    analysis = reported(node)
    with node.begin() as session:
        row = session.get_one(AnalysisRow, analysis.id)
        row.reviews, row.report_status = 1, "final"
    assert matches(client.get("/fhir/DiagnosticReport", params={"status": "preliminary"}))
    assert not matches(client.get("/fhir/DiagnosticReport", params={"status": "final"}))


def test_a_withdrawn_report_is_entered_in_error(client, node):
    analysis = reported(node)
    amended(node, analysis, Verdict.UNUSABLE)
    (report,) = matches(by_patient(client, "DiagnosticReport"))
    assert report["status"] == "entered-in-error"
    assert "conclusionCode" not in report
    assert {one["status"] for one in matches(by_patient(client, "Observation"))} == {"entered-in-error"}
    assert not matches(client.get("/fhir/DiagnosticReport", params={"status": "preliminary,final,amended"}))


def test_what_is_under_way_or_failed_is_not_there(client, node):
    take_in(node, name="queued")
    fail(node, take_in(node, name="failed").analysis_id)
    assert found(client.get("/fhir/DiagnosticReport", params={"_summary": "count"}))["total"] == 0
    with node.begin() as session:
        for analysis_id in session.execute(select(AnalysisRow.id)).scalars():
            refused(client.get(f"/fhir/DiagnosticReport/{analysis_id.replace('-', '')}.{'0' * 24}"), 404)


def test_a_page_of_an_analysis_that_is_not_there_is_empty(client, node):
    reported(node)
    place = Place(2**52, "00000000-0000-0000-0000-000000000000", "~")
    forged = next_page(Asked(TYPES["Media"], patient_of="x"), place)
    assert not matches(client.get(f"/fhir/Media?{forged}"))


def test_counts_say_how_many_there_are(client, node):
    for number in range(3):
        reported(node, name=str(number))
    for params, total in (({}, 3), ({"date": "lt2000"}, 0), ({"status": "final"}, 0), ({"status": "preliminary"}, 3)):
        answer = found(client.get("/fhir/DiagnosticReport", params={**params, "_summary": "count"}))
        assert (answer["total"], "entry" in answer) == (total, False)
    assert found(client.get("/fhir/Observation?_count=0"))["total"] == 30
    assert found(client.get("/fhir/Device?_summary=count"))["total"] == 1


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/fhir/Patient", 404, "Served here"),
        ("GET", "/fhir/Patient/1", 404, "Served here"),
        ("GET", "/fhir/DiagnosticReport/1", 404, "no such resource"),
        ("GET", "/fhir/DiagnosticReport?based-on=1", 400, "based-on is not served"),
        ("GET", "/fhir/DiagnosticReport?code:text=x", 400, "in this form"),
        ("GET", "/fhir/DiagnosticReport?date=yesterday", 400, "write a date"),
        ("GET", "/fhir/DiagnosticReport?date=2026-13", 400, "calendar"),
        ("GET", "/fhir/DiagnosticReport?_count=-1", 400, "whole number"),
        ("GET", "/fhir/DiagnosticReport?_summary=text", 400, "no other summary"),
        ("GET", "/fhir/DiagnosticReport?_include=*", 400, "DiagnosticReport:result"),
        ("GET", "/fhir/DiagnosticReport?identifier=ACC-7", 400, "urn:uuid:"),
        ("GET", "/fhir/DiagnosticReport?study=ACC", 400, "Study Instance UID"),
        ("GET", "/fhir/DiagnosticReport?_page=e30", 400, "next link"),
        ("GET", "/fhir/DiagnosticReport?_page=W1tdLCIiLC0xLCIiLCIiXQ", 400, "next link"),
        ("GET", "/fhir/$export-status/x", 400, ""),
        ("GET", "/fhir/DiagnosticReport?_format=xml", 406, "fhir+json"),
        ("GET", "/fhir/metadata?_format=text/turtle", 406, "fhir+json"),
        ("GET", "/fhir/Provenance?target=Media/1", 400, "served here"),
        ("GET", "/fhir/a/b/c/d", 404, ""),
        ("POST", "/fhir/DiagnosticReport", 405, ""),
        ("PUT", "/fhir/DiagnosticReport/1", 405, ""),
        ("DELETE", "/fhir/DiagnosticReport/1", 405, ""),
    ],
)
def test_what_is_not_promised_is_refused_with_an_outcome(client, method, path, status, words):
    refused(client.request(method, path), status, words)


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/fhir+json", 200),
        ("application/fhir+json; fhirVersion=4.0", 200),
        ("application/fhir+json; fhirVersion=5.0", 406),
        ("application/fhir+xml", 406),
        ("application/fhir+xml, application/json;q=0.5", 200),
        ("application/json;q=0", 406),
        ("text/html,*/*;q=0.8", 200),
    ],
)
def test_the_accept_header_decides(client, accept, status):
    assert client.get("/fhir/metadata", headers={"Accept": accept}).status_code == status


def test_search_by_post_takes_a_form_alone(client):
    refused(client.post("/fhir/Media/_search", json={"_count": 1}), 415, "urlencoded")
    refused(client.post("/fhir/Media/_search", data={"patient:identifier": "TEST-0042"}), 400, "system|value")
    twice = {"patient:identifier": [f"{SYSTEM}|1", f"{SYSTEM}|2"]}
    refused(client.post("/fhir/Media/_search", data=twice), 400, "one patient")


def test_it_takes_a_token_and_notes_who_looked(open_client):
    token = {"name": "registry", "token": "registry-token-0123456789", "role": "read"}
    client = open_client(api_tokens=(token,))
    node = client.app.state.node
    analysis = reported(node)
    refused(client.get("/fhir/DiagnosticReport"), 401)
    assert client.get("/fhir/metadata").status_code == 200
    client.headers["Authorization"] = f"Bearer {token['token']}"
    (report,) = matches(by_patient(client, "DiagnosticReport"))
    found(client.get(f"/fhir/DiagnosticReport/{report['id']}"))
    (searched,) = leaves(node, "fhir.searched")
    assert (searched.actor, searched.patient_issuer, searched.patient_id) == ("registry", ISSUER, "TEST-0042")
    assert json.loads(searched.details)["analyses"] == [analysis.id]
    assert "TEST-0042" not in searched.details
    (read,) = leaves(node, "analysis.read")
    assert (read.subject_id, read.patient_id) == (analysis.id, "TEST-0042")


def test_a_login_of_the_pages_does_not_open_it(open_client):
    """A launched login may be for one patient; the read side has no such bound, so it takes tokens alone."""
    client = open_client(api_tokens=({"name": "registry", "token": "registry-token-0123456789", "role": "read"},))
    who = Caller("ehr|ada", Role.REVIEW, "", (OTHER,))
    client.cookies.set(client.app.state.login_cookie, client.app.state.sessions.start(who, how="launch"))
    assert client.get("/").status_code != 401
    answer = client.get("/fhir/DiagnosticReport")
    refused(answer, 401)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_bundle_that_the_store_lost_is_an_error_and_not_an_empty_answer(client, node):
    stored = stored_analysis(node)
    reported(node, name="2")
    for path in (node.settings.data_dir / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()
    refused(client.get("/fhir/DiagnosticReport"), 500)
    assert stored


def test_dates_select_by_when_the_image_came(client, node):
    analysis = reported(node)
    day = analysis.created_at
    cases = {
        f"eq{day:%Y-%m-%d}": 1,
        f"{day:%Y}": 1,
        f"ne{day:%Y-%m}": 0,
        f"gt{day:%Y-%m-%d}": 0,
        f"le{day:%Y-%m-%d}": 1,
        f"lt{day + timedelta(days=1):%Y-%m-%d}": 1,
        f"sa{day - timedelta(days=1):%Y-%m-%d}": 1,
    }
    for value, total in cases.items():
        assert len(matches(client.get("/fhir/DiagnosticReport", params={"date": value}))) == total, value
    (report,) = matches(client.get("/fhir/DiagnosticReport", params={"identifier": report_identifier(analysis.id)}))
    assert matches(client.get("/fhir/DiagnosticReport", params={"date": f"eq{report['effectiveDateTime']}"}))
