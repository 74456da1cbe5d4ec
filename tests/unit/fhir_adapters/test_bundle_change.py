"""The report in the EHR says what changed of the lesion; nothing else in the bundle moves because of it."""

from __future__ import annotations

import dataclasses
import json

from dermoscopy.domain import ArtifactKind
from fhir_adapters.render import RENDERERS
from tests.changes import GREW, make_change
from tests.unit.fhir_adapters import scenes


def rendered(**changes):
    what = dataclasses.replace(scenes.render_input(), **changes)
    bundle = json.loads(RENDERERS[ArtifactKind.FHIR_BUNDLE](what).data)
    return {one["resource"]["resourceType"] + str(n): one["resource"] for n, one in enumerate(bundle["entry"])}


def test_the_conclusion_and_the_narrative_say_what_changed():
    (report,) = (one for one in rendered(change=make_change()).values() if one["resourceType"] == "DiagnosticReport")
    assert GREW in report["conclusion"]
    assert "Probably the same lesion" in report["conclusion"]
    assert "Area grew" in report["text"]["div"]


def test_only_the_report_differs():
    plain, told = rendered(), rendered(change=make_change())
    assert plain.keys() == told.keys()
    assert [name for name in plain if plain[name] != told[name]] == [
        name for name in plain if name.startswith("DiagnosticReport")
    ]
