"""FHIR servers of the settings: who asks for tokens, and whose key the world may read."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cds_service.api.keys import PATH
from cds_service.fhir_servers import fhir_destination, public_keys
from dermoscopy.errors import Misconfigured
from dermoscopy.patients import IssuerMap
from dermoscopy.settings import FhirDestination, Settings


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    private = ec.generate_private_key(ec.SECP384R1())
    how = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private.private_bytes(*how))
    return path


def backend(key_file, **more):
    return FhirDestination(
        name="ehr", base_url="https://ehr.example/fhir", client_id="derm", private_key=key_file, **more
    )


def test_the_keys_of_all_servers_are_published_once(key_file):
    settings = Settings(
        fhir=(
            backend(key_file, key_id="a"),
            FhirDestination(name="b", base_url="https://b.example", client_id="d", private_key=key_file, key_id="a"),
            FhirDestination(name="c", base_url="https://c.example"),
        )
    )
    (key,) = public_keys(settings)["keys"]
    assert (key["kid"], key["kty"], key["crv"]) == ("a", "EC", "P-384")
    assert "d" not in key


def test_anybody_may_read_the_public_keys(open_client, key_file):
    client = open_client(fhir=[backend(key_file, key_id="a")], api_tokens=[{"name": "t", "token": "x" * 16}])
    answer = client.get(PATH)
    assert answer.status_code == 200
    (key,) = answer.json()["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "alg", "use"}


def test_without_keys_the_set_is_empty(client):
    assert client.get(PATH).json() == {"keys": []}


def test_a_key_that_cannot_be_used_stops_the_start(tmp_path):
    entry = backend(tmp_path / "none.pem")
    for use in (lambda: fhir_destination(entry, IssuerMap({})), lambda: public_keys(Settings(fhir=(entry,)))):
        with pytest.raises(Misconfigured, match=r"none\.pem"):
            use()
