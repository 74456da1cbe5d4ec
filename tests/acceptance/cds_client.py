"""An EHR that calls every CDS service it discovers, signed, with and without prefetch, and checks what comes back.

It shares no code with the service: standard library, PyJWT and cryptography only. It plays three parts at once: the
client that signs (ES384), the address of its public keys, and the FHIR server that the service may read from.

    python cds_client.py http://127.0.0.1:8600 --identifier urn:oid:2.25.1 4711 --port 8699 [--image lesion.png]

The service must name this client: issuer http://127.0.0.1:8699, jku http://127.0.0.1:8699/jwks.json, and the FHIR
server http://127.0.0.1:8699/fhir. Prints one line per call; ends with 1 and
the faults when a rule of CDS Hooks 2.0 is broken.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

ACCESS = "access-token-of-one-call"
SNOMED = "http://snomed.info/sct"


class Ehr:
    """Keys, FHIR server and charts of the client."""

    def __init__(self, port: int, system: str, value: str, image: bytes | None) -> None:
        self.key = ec.generate_private_key(ec.SECP384R1())
        self.kid = str(uuid.uuid4())
        self.address = f"http://127.0.0.1:{port}"
        self.asked: list[str] = []
        self.patient = {"resourceType": "Patient", "id": "p1", "identifier": [{"system": system, "value": value}]}
        self.media = {
            "resourceType": "Media",
            "id": "m1",
            "status": "completed",
            "subject": {"reference": "Patient/p1"},
            "content": {"contentType": "image/png", "url": "Binary/b1"},
        }
        self.image = image
        ehr = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, kind, body = ehr.answer(self.path, self.headers.get("Authorization", ""))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str, authorization: str) -> tuple[int, str, bytes]:
        """What the key address and the FHIR server say."""
        if path == "/jwks.json":
            public = {**ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True), "kid": self.kid, "alg": "ES384"}
            return 200, "application/json", json.dumps({"keys": [public]}).encode()
        self.asked.append(path)
        if authorization != f"Bearer {ACCESS}":
            return 401, "application/fhir+json", b'{"resourceType": "OperationOutcome"}'
        resource = path.removeprefix("/fhir/").partition("?")[0]
        if resource == "Patient/p1":
            return 200, "application/fhir+json", json.dumps(self.patient).encode()
        if resource in ("Media", "DocumentReference", "ImagingStudy"):
            return 200, "application/fhir+json", json.dumps(self.searchset(resource)).encode()
        if resource == "Binary/b1" and self.image:
            return 200, "image/png", self.image
        return 404, "application/fhir+json", b'{"resourceType": "OperationOutcome"}'

    def searchset(self, kind: str) -> dict[str, Any]:
        found = [{"resource": self.media}] if kind == "Media" and self.image else []
        return {"resourceType": "Bundle", "type": "searchset", "entry": found}

    def token(self, audience: str, **changes: Any) -> str:
        """A token for one call (https://cds-hooks.hl7.org/2.0/#trusting-cds-clients)."""
        now = int(time.time())
        claims = {"iss": self.address, "aud": audience, "iat": now, "exp": now + 120, "jti": str(uuid.uuid4())}
        headers = {"kid": self.kid, "jku": f"{self.address}/jwks.json", "typ": "JWT"}
        return jwt.encode({**claims, **changes}, self.key, algorithm="ES384", headers=headers)


class Client:
    """Calls one service provider and gathers what is wrong with its answers."""

    def __init__(self, base: str, ehr: Ehr) -> None:
        self.base = base.rstrip("/")
        self.ehr = ehr
        self.faults: list[str] = []

    def send(self, path: str, body: Any = None, token: str | None = "") -> tuple[int, Any]:
        """Status and JSON (or ``None``) of a call; ``token`` ``None`` sends none, empty signs a fresh one."""
        url = f"{self.base}{path}"
        request = urllib.request.Request(url, data=None if body is None else json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        if token is not None:
            request.add_header("Authorization", f"Bearer {token or self.ehr.token(url)}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, raw = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, raw = error.code, error.read()
        return status, json.loads(raw) if raw else None

    def expect(self, what: str, right: bool) -> None:
        if not right:
            self.faults.append(what)

    def request(self, hook: str, *, prefetch: bool, user: str) -> dict[str, Any]:
        """The body of a call, as the hook's definition wants it."""
        context: dict[str, Any] = {"userId": user, "patientId": "p1", "encounterId": f"e-{user.rpartition('/')[2]}"}
        if hook in ("order-select", "order-sign"):
            order = {
                "resourceType": "ServiceRequest",
                "id": "draft-1",
                "status": "draft",
                "intent": "order",
                "subject": {"reference": "Patient/p1"},
                "code": {"coding": [{"system": SNOMED, "code": "240977001", "display": "Biopsy of skin"}]},
            }
            bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": order}]}
            context["draftOrders"] = bundle
        if hook == "order-select":
            context["selections"] = ["ServiceRequest/draft-1"]
        access = {
            "access_token": ACCESS,
            "token_type": "Bearer",
            "expires_in": 300,
            "scope": "user/*.rs",
            "subject": "c",
        }
        body: dict[str, Any] = {
            "hook": hook,
            "hookInstance": str(uuid.uuid4()),
            "fhirServer": f"{self.ehr.address}/fhir",
            "fhirAuthorization": access,
            "context": context,
        }
        if prefetch:
            body["prefetch"] = {
                "patient": self.ehr.patient,
                "media": self.ehr.searchset("Media"),
                "documents": None,
                "studies": None,
            }
        return body

    def check_cards(self, what: str, answer: Any, sent: dict[str, Any]) -> None:
        """Rules of https://cds-hooks.hl7.org/2.0/#cds-service-response."""
        cards = answer.get("cards") if isinstance(answer, dict) else None
        self.expect(f"{what}: cards is a list", isinstance(cards, list))
        uuids = [card.get("uuid") for card in cards or []]
        self.expect(f"{what}: every card has a uuid of its own", len(set(uuids)) == len(uuids) and None not in uuids)
        for card in cards or []:
            self.expect(f"{what}: summary has 1 to 139 characters", 0 < len(card.get("summary", "")) < 140)
            self.expect(f"{what}: indicator", card.get("indicator") in ("info", "warning", "critical"))
            self.expect(f"{what}: source.label", bool(card.get("source", {}).get("label")))
            self.expect(f"{what}: nothing null or empty", not _empty(card))
            self.expect(
                f"{what}: reasons have a display", all(r.get("display") for r in card.get("overrideReasons", []))
            )
            for link in card.get("links", []):
                whole = bool(link.get("label")) and link.get("type") in ("absolute", "smart")
                self.expect(f"{what}: links are whole", whole and str(link.get("url", "")).startswith("http"))
            suggestions = card.get("suggestions", [])
            behaves = card.get("selectionBehavior") in ("at-most-one", "any")
            self.expect(f"{what}: suggestions need selectionBehavior", behaves or not suggestions)
            for suggestion in suggestions:
                self.expect(f"{what}: a suggestion has a label", bool(suggestion.get("label")))
                for action in suggestion.get("actions", []):
                    self.check_action(what, action, sent)

    def check_action(self, what: str, action: dict[str, Any], sent: dict[str, Any]) -> None:
        self.expect(f"{what}: action", action.get("type") in ("create", "update") and bool(action.get("description")))
        resource = action.get("resource") or {}
        self.expect(f"{what}: an action carries the resource", "resourceType" in resource)
        if action.get("type") == "update":
            drafts = [entry["resource"] for entry in sent["context"]["draftOrders"]["entry"]]
            before = [one for one in drafts if one["id"] == resource.get("id")]
            same = bool(before) and {**resource, "priority": None} == {**before[0], "priority": None}
            self.expect(f"{what}: an update changes the priority of an order that was sent, and nothing else", same)


def _empty(value: Any) -> bool:
    if isinstance(value, dict):
        return any(inner in (None, "", [], {}) or _empty(inner) for inner in value.values())
    return isinstance(value, list) and any(_empty(inner) for inner in value)


def run(client: Client) -> list[dict[str, Any]]:
    """Every service with and without prefetch, feedback twice, and the calls that must be refused."""
    done: list[dict[str, Any]] = []
    status, found = client.send("/cds-services")
    client.expect("discovery is 200 with services", status == 200 and bool(found.get("services")))
    for service in found.get("services", []):
        path, hook = f"/cds-services/{service['id']}", service["hook"]
        for prefetch in (True, False):
            what = f"{service['id']} {'with' if prefetch else 'without'} prefetch"
            sent = client.request(hook, prefetch=prefetch, user=f"Practitioner/{uuid.uuid4()}")
            status, answer = client.send(path, sent)
            client.expect(f"{what}: 200, got {status}", status == 200)
            client.check_cards(what, answer, sent)
            again = client.send(path, sent)
            client.expect(f"{what}: the same call gets the same cards", again == (status, answer))
            cards = (answer or {}).get("cards", [])
            done.append({"service": service["id"], "hook": hook, "prefetch": prefetch, "cards": cards})
            for card in cards:
                _give_feedback(client, path, card)
    _refusals(client, found["services"][0])
    return done


def _give_feedback(client: Client, path: str, card: dict[str, Any]) -> None:
    said: dict[str, Any] = {"card": card["uuid"], "outcomeTimestamp": datetime.now(UTC).isoformat()}
    if card.get("suggestions"):
        said |= {"outcome": "accepted", "acceptedSuggestions": [{"id": card["suggestions"][0]["uuid"]}]}
    else:
        reasons = card.get("overrideReasons", [])
        said |= {"outcome": "overridden", "overrideReason": {"reason": reasons[0]} if reasons else {}}
    for _ in range(2):
        status, _answer = client.send(f"{path}/feedback", {"feedback": [said]})
        client.expect(f"feedback is 200, got {status}", status == 200)


def _refusals(client: Client, service: dict[str, Any]) -> None:
    path, url = f"/cds-services/{service['id']}", f"{client.base}/cds-services/{service['id']}"
    body = client.request(service["hook"], prefetch=True, user="Practitioner/1")
    used = client.ehr.token(url)
    client.send(path, body, used)
    stranger = Ehr.token(_Stranger(client.ehr), url)  # type: ignore[arg-type]
    now = int(time.time())
    for what, token in (
        ("no token", None),
        ("a token used before", used),
        ("a token for another address", client.ehr.token(f"{client.base}/cds-services")),
        ("an expired token", client.ehr.token(url, iat=now - 900, exp=now - 600)),
        ("a token of a stranger", client.ehr.token(url, iss="https://stranger.example")),
        ("a token signed by another key", stranger),
    ):
        status, answer = client.send(path, body, token)
        client.expect(f"{what} is 401, got {status}", status == 401)
        client.expect(f"{what}: never says why", "token" not in json.dumps(answer).lower())
    other = {**body, "prefetch": {"patient": {**client.ehr.patient, "id": "p2"}}}
    outcome = {
        **body,
        "prefetch": {"patient": {"resourceType": "OperationOutcome"}},
        "fhirServer": "http://10.0.0.1/fhir",
    }
    for what, wrong, expected in (
        ("an unknown hook", {**body, "hook": "patient-sing"}, 400),
        ("a wrong hookInstance", {**body, "hookInstance": "7"}, 400),
        ("another patient", other, 412),
        ("an OperationOutcome and a server that is not listed", outcome, 412),
    ):
        status, answer = client.send(path, wrong)
        client.expect(f"{what} is {expected}, got {status}", status == expected)
        client.expect(f"{what}: an OperationOutcome says so", (answer or {}).get("resourceType") == "OperationOutcome")
    status, _ = client.send("/cds-services/no-such-service", body)
    client.expect(f"an unknown service is 404, got {status}", status == 404)


class _Stranger:
    """Claims to be the client, with a key of its own."""

    def __init__(self, ehr: Ehr) -> None:
        self.key, self.kid, self.address = ec.generate_private_key(ec.SECP384R1()), ehr.kid, ehr.address


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("service", help="address of the CDS service provider")
    parser.add_argument("--identifier", nargs=2, required=True, metavar=("SYSTEM", "VALUE"), help="of the patient")
    parser.add_argument("--port", type=int, default=8699, help="where keys and FHIR server of this client are")
    parser.add_argument("--image", type=Path, help="PNG that stands in the chart")
    chosen = parser.parse_args()
    image = chosen.image.read_bytes() if chosen.image else None
    system, value = chosen.identifier
    client = Client(chosen.service, Ehr(chosen.port, system, value, image))
    for call in run(client):
        shown = [f"{card['indicator']}: {card['summary']}" for card in call["cards"]]
        offered = sum(len(card.get("suggestions", [])) for card in call["cards"])
        print(json.dumps({**call, "cards": shown, "suggestions": offered}))
    for fault in client.faults:
        print(f"FAULT {fault}", file=sys.stderr)
    return 1 if client.faults else 0


if __name__ == "__main__":
    sys.exit(main())
