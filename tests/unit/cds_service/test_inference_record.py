"""What the audit log is told of an inference."""

from __future__ import annotations

from dataclasses import replace

from cds_service.pipeline import _inference_details
from dermoscopy.domain import Remark
from tests.unit.monitoring.conftest import make_analysis


def test_the_record_names_the_pixels_and_how_they_came_about():
    analysis = replace(make_analysis(), pixel_digest="ab" * 32, remarks=(Remark("grey", "the picture is grey"),))
    record = _inference_details(analysis)
    assert record["pixel_digest"] == "ab" * 32
    assert record["decoding"] == ["grey"]
