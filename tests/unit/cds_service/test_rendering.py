"""What is drawn at all, and in which order."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from cds_service.rendering import draw, exists, with_hair
from dermoscopy.domain import Artifact, ArtifactKind, Review, Verdict
from dermoscopy.ports import FormerOutput, RenderInput
from models.hair import hair_over
from tests.unit.dicom_listener.samples import picture_source, render_input

SEG, SOURCE, NOTE = ArtifactKind.SEG, ArtifactKind.SOURCE, ArtifactKind.REJECTION_NOTE


def after(what: RenderInput, *verdicts: Verdict) -> RenderInput:
    noon = datetime(2026, 3, 5, 12, 0, tzinfo=UTC)
    said = tuple(Review(str(n), "analysis-1", n, noon, "doctor", "", v) for n, v in enumerate(verdicts, start=1))
    return replace(what, reviews=said)


@pytest.mark.parametrize(
    ("kind", "what", "there"),
    [
        (SEG, render_input(), True),
        (SEG, render_input(measurements=None), False),
        (SEG, after(render_input(), Verdict.UNUSABLE), False),
        (SEG, after(render_input(), Verdict.UNUSABLE, Verdict.CONFIRMED), True),
        (SOURCE, render_input(), False),
        (SOURCE, render_input(picture_source()), True),
        (NOTE, render_input(), False),
        (NOTE, replace(render_input(), former=(FormerOutput(SEG, "1.2", "1.3"),)), True),
        (ArtifactKind.SR, after(render_input(), Verdict.UNUSABLE), True),
    ],
)
def test_which_outputs_there_are(kind, what, there):
    assert exists(kind, what) is there


def test_each_may_look_at_the_ones_before_it():
    seen = {}

    def renderer(kind):
        def render(what):
            seen[kind] = list(what.companions)
            return Artifact(kind, "x/y", b"", kind.value)

        return render

    order = [ArtifactKind.OVERLAY, SEG, ArtifactKind.SR]
    made = draw({kind: renderer(kind) for kind in order}, render_input())
    assert [one.kind for one in made] == order
    assert seen == {ArtifactKind.OVERLAY: [], SEG: order[:1], ArtifactKind.SR: order[:2]}


def test_hair_is_looked_for_only_where_it_is_wanted():
    what = render_input()
    assert with_hair(what, None) is what
    found = with_hair(what, hair_over).hair
    assert found is not None
    assert found.shape == what.analysis.finding.mask.shape
    line = np.zeros_like(found)
    line[20] = True
    assert with_hair(what, lambda pixels, lesion: line).hair is line
