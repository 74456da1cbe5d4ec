"""Links of cards that the EHR launches, for the EHRs that can."""

from __future__ import annotations

import json

import pytest

from tests.findings import fhir_patient, stored_analysis

EHR = "https://ehr.example/fhir"


def links(client, server):
    call = {
        "hook": "patient-view",
        "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
        "context": {"userId": "Practitioner/1", "patientId": "p1"},
        "prefetch": {"patient": fhir_patient()},
    }
    if server:
        call["fhirServer"] = server
    headers = {"Authorization": "Bearer a-token-of-the-ehr-0123"}
    answer = client.post("/cds-services/dermoscopy-triage", json=call, headers=headers)
    assert answer.status_code == 200, answer.text
    (card,) = answer.json()["cards"]
    return card["links"]


@pytest.fixture
def client(open_client):
    return open_client(
        api_tokens=({"name": "ehr", "token": "a-token-of-the-ehr-0123"},),
        hooks_fhir_servers=(EHR, "https://other.example/fhir"),
        smart_launch_servers=({"base_url": EHR, "client_id": "smart"},),
    )


@pytest.mark.parametrize("server", [EHR, EHR + "/"])
def test_an_ehr_that_may_launch_gets_a_link_to_launch(client, server):
    analysis = stored_analysis(client.app.state.node)
    (link,) = links(client, server)
    assert (link["type"], link["url"]) == ("smart", "http://127.0.0.1:8600/launch")
    assert json.loads(link["appContext"]) == {"analysis": analysis.id}


@pytest.mark.parametrize("server", [None, "https://other.example/fhir"])
def test_any_other_gets_the_address_of_the_page(client, server):
    analysis = stored_analysis(client.app.state.node)
    (link,) = links(client, server)
    assert (link["type"], link["url"]) == ("absolute", f"http://127.0.0.1:8600/analyses/{analysis.id}")
    assert "appContext" not in link
