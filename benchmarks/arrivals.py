"""Calls that arrive at a steady rate, each signed as an EHR signs it."""

from __future__ import annotations

import http.client
import json
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from tests.peers.processes import LOOPBACK

CONNECTIONS = 48
"""Most calls that may be under way at a time."""
_ISSUER = "https://ehr.example"


class Signer:
    """An EHR's key, whose public half lies in a file for the service to read."""

    def __init__(self, folder: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP384R1())
        public = jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        key_set = folder / "ehr-keys.json"
        key_set.parent.mkdir(parents=True, exist_ok=True)
        key_set.write_text(json.dumps({"keys": [{**public, "kid": "bench", "alg": "ES384", "use": "sig"}]}))
        self.client = {"name": "bench", "issuer": _ISSUER, "key_set": str(key_set)}

    def token(self, audience: str) -> str:
        """A token for one call (https://cds-hooks.hl7.org/2.0/#trusting-cds-clients)."""
        now = int(time.time())
        claims = {"iss": _ISSUER, "aud": audience, "iat": now, "exp": now + 1800, "jti": str(uuid.uuid4())}
        return jwt.encode(claims, self._key, "ES384", headers={"kid": "bench"})


def steady(port: int, path: str, calls: Sequence[tuple[bytes, str]], *, rate: float) -> list[float]:
    """Milliseconds of each (body, token) from the moment at which it was due; ``rate`` a second.

    Raises `RuntimeError` for an answer without a card.
    """
    own = local()

    def call(due: float, body: bytes, token: str) -> float:
        if not hasattr(own, "connection"):
            own.connection = http.client.HTTPConnection(LOOPBACK, port, timeout=60)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        own.connection.request("POST", path, body, headers)
        answer = own.connection.getresponse()
        text = answer.read()
        took = (time.perf_counter() - due) * 1000
        if answer.status != http.client.OK or not json.loads(text)["cards"]:
            raise RuntimeError(f"no card: {answer.status} {text[:300].decode(errors='replace')}")
        return took

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        began = time.perf_counter() + 0.1
        waiting = []
        for number, (body, token) in enumerate(calls):
            due = began + number / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            waiting.append(pool.submit(call, due, body, token))
        return [one.result() for one in waiting]
