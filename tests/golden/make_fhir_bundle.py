"""Write tests/golden/fhir_bundle.json anew (`make golden`); read the difference before you commit it."""

from __future__ import annotations

import json
from pathlib import Path

from dermoscopy.domain import ArtifactKind
from fhir_adapters.render import RENDERERS
from tests.unit.fhir_adapters.scenes import SCENES

GOLDEN = Path(__file__).with_name("fhir_bundle.json")
SCENE = "tier-urgent"


def golden_text() -> str:
    """The bundle of one scene, indented so that a change can be read."""
    artifact = RENDERERS[ArtifactKind.FHIR_BUNDLE](SCENES[SCENE])
    return json.dumps(json.loads(artifact.data), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    GOLDEN.write_text(golden_text(), encoding="utf-8")
