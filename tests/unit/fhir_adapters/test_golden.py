"""A whole bundle, byte for byte: what changes on the wire is seen in the difference of a file."""

from __future__ import annotations

import os

import pytest

from tests.golden.make_fhir_bundle import GOLDEN, golden_text


@pytest.mark.golden
def test_the_bundle_is_the_golden_one():
    if os.environ.get("CDS_UPDATE_GOLDEN") == "1":
        GOLDEN.write_text(golden_text(), encoding="utf-8")
    assert golden_text() == GOLDEN.read_text(encoding="utf-8")
