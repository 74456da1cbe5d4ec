"""The picture after a review: the clinician's outline beside the algorithm's, and none at all once it is withdrawn."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from dermoscopy.domain import DermoscopicImage, LesionClass, ReportStatus, Review, Verdict
from dermoscopy.outline import outline_mask
from dermoscopy.overlay import _reviewed_legend, draw_overlay
from dermoscopy.ports import Outlined
from dermoscopy.reviews import Standing, standing
from tests.findings import drawn_lesion, make_finding

IMAGE = DermoscopicImage(drawn_lesion().pixels, "0" * 64)
FINDING = make_finding()
SQUARE = ((40.0, 40.0), (150.0, 40.0), (150.0, 150.0), (40.0, 150.0))
OUTLINED = Outlined(outline_mask(SQUARE, IMAGE.rows, IMAGE.columns), replace(FINDING.measurements, area_percent=33.3))


def after(verdict: Verdict, **said: object) -> Standing:
    at = datetime(2026, 3, 5, 12, 0, tzinfo=UTC)
    return standing([Review("r", "a", 1, at, "doctor", "Dr Ada", verdict, **said)])  # type: ignore[arg-type]


def test_unreviewed_it_is_the_picture_it_was():
    assert np.array_equal(draw_overlay(IMAGE, FINDING), draw_overlay(IMAGE, FINDING, standing([])))


@pytest.mark.parametrize(
    ("reviewed", "outlined", "first", "said"),
    [
        (after(Verdict.CONFIRMED), None, "CONFIRMED BY CLINICIAN (2026-03-05 12:00 UTC)", "AI: URGENT"),
        (after(Verdict.CORRECTED, lesion_class=LesionClass.NV), None, "CORRECTED", "clinician: melanocytic nevus"),
        (after(Verdict.CORRECTED, outline=SQUARE), OUTLINED, "CORRECTED", "clinician's outline (blue): area"),
        (after(Verdict.UNUSABLE), None, "WITHDRAWN BY CLINICIAN: DO NOT USE", "may be used"),
    ],
)
def test_the_band_begins_with_the_clinicians_word(reviewed, outlined, first, said):
    lines = _reviewed_legend(IMAGE, FINDING, reviewed, outlined)
    assert lines[0].startswith(first)
    assert any(said in line for line in lines)
    assert "not a diagnosis" in lines[-1]
    assert all(line.isascii() for line in lines), "the font has no other letters"


def test_a_withdrawn_picture_names_no_risk_and_draws_no_outline():
    reviewed = after(Verdict.UNUSABLE)
    assert reviewed.status is ReportStatus.ENTERED_IN_ERROR
    assert np.array_equal(draw_overlay(IMAGE, FINDING, reviewed, OUTLINED)[: IMAGE.rows], IMAGE.pixels)
    assert not any("risk" in line for line in _reviewed_legend(IMAGE, FINDING, reviewed, OUTLINED))


def test_both_outlines_are_drawn():
    drawn = draw_overlay(IMAGE, FINDING, after(Verdict.CORRECTED, outline=SQUARE), OUTLINED)[: IMAGE.rows]
    own = draw_overlay(IMAGE, FINDING)[: IMAGE.rows]
    changed = (drawn != own).any(axis=2)
    assert changed[40, 60:140].all(), "the clinician's upper side"
    assert not changed[IMAGE.rows // 2, IMAGE.columns // 2]
