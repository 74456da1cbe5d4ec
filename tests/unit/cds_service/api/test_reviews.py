"""Reviews over HTTP: who may, what comes back, and where a result shows them."""

from __future__ import annotations

import pytest

from tests.findings import stored_analysis
from tests.unit.cds_service.test_reviews import SQUARE

TOKENS = [
    {"name": "reader", "token": "reader-token-0123456789", "role": "read"},
    {"name": "sender", "token": "sender-token-0123456789", "role": "submit"},
    {"name": "doctor", "token": "doctor-token-0123456789", "role": "review"},
]


@pytest.fixture
def report_id(node):
    return stored_analysis(node).id


def review(client, report_id, **body):
    return client.post(f"/api/v1/analyses/{report_id}/reviews", json={"seen": 0, "verdict": "confirmed", **body})


def test_a_review_stands_with_the_result(client, report_id):
    assert client.get(f"/api/v1/analyses/{report_id}").json()["report_status"] == "preliminary"
    made = review(client, report_id, verdict="corrected", lesion_class="nv", outline=SQUARE, comment="a nevus")
    assert made.status_code == 201
    shown = client.get(f"/api/v1/analyses/{report_id}").json()
    assert (shown["report_status"], shown["reviews"]) == ("amended", [made.json()])
    assert (made.json()["reviewer"], made.json()["outline"]) == ("local", [list(corner) for corner in SQUARE])
    assert shown["diagnosis"]["primary"] == "mel", "what the algorithm said stays"
    listed = client.get(f"/api/v1/analyses/{report_id}/reviews").json()
    assert listed == {"report_id": report_id, "report_status": "amended", "reviews": [made.json()]}


def test_two_at_once(client, report_id):
    assert review(client, report_id, comment="one").status_code == 201
    second = review(client, report_id, comment="two")
    assert second.status_code == 409
    assert second.json()["type"] == "/docs#review-conflict"
    assert "Open the result again" in second.json()["detail"]
    assert review(client, report_id, seen=1, comment="two").status_code == 201


def test_an_impossible_review_names_its_field(client, report_id):
    answer = review(client, report_id, verdict="corrected", outline=[[0, 0], [9, 9], [9, 0], [0, 9]])
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/outline")
    assert "crosses" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [{"seen": -1}, {"verdict": "maybe"}, {"outline": [[1, 2]]}, {"outline": []}, {"laterality": "X"}, {"who": "me"},
     {"seen": "0"}, {"comment": "x" * 2001}, {"body_site_code": "back"}],
)  # fmt: skip
def test_what_is_no_review_is_refused(client, report_id, body):
    assert review(client, report_id, **body).status_code == 422


def test_who_may_review(open_client):
    client = open_client(api_tokens=TOKENS)
    report_id = stored_analysis(client.app.state.node).id
    statuses = {}
    for token in TOKENS:
        client.headers["Authorization"] = f"Bearer {token['token']}"
        statuses[token["role"]] = review(client, report_id).status_code
        assert client.get(f"/api/v1/analyses/{report_id}/reviews").status_code == 200
    assert statuses == {"read": 403, "submit": 403, "review": 201}


def test_an_unknown_analysis(client):
    assert review(client, "00000000-0000-4000-8000-000000000000").status_code == 404
