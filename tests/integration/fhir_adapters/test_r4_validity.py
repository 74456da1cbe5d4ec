"""Every kind of bundle, as stored and as sent, by three R4 4.0.1 validators of different makers."""

from __future__ import annotations

import json

import pytest

from dermoscopy.domain import ArtifactKind
from fhir_adapters.addressing import addressed
from fhir_adapters.render import RENDERERS
from tests.unit.fhir_adapters import scenes
from tests.unit.fhir_adapters.scenes import SCENES

pytestmark = pytest.mark.peers


@pytest.mark.parametrize("name", SCENES)
def test_bundle_and_each_resource_are_valid_r4(name, validate_r4):
    stored = json.loads(RENDERERS[ArtifactKind.FHIR_BUNDLE](SCENES[name]).data)
    assert validate_r4(stored) == []
    for entry in stored["entry"]:
        assert validate_r4(entry["resource"]) == []
    assert validate_r4(addressed(stored, "Patient/1", scenes.SYSTEM, "TEST-0042")) == []


def test_the_validators_do_mind(validate_r4):
    """A guard for the test above: a wrong state and a value beside its absence are noticed."""
    stored = json.loads(RENDERERS[ArtifactKind.FHIR_BUNDLE](SCENES["abstained"]).data)
    (risk,) = (e["resource"] for e in stored["entry"] if "melanoma-risk" in json.dumps(e["resource"].get("code", "")))
    assert validate_r4({**risk, "status": "bogus"})
    assert validate_r4({**risk, "valueBoolean": True})
