"""What codes and words say of site, side and kind."""

from __future__ import annotations

import pytest

from fhir_adapters.concepts import codings, says_dermoscopy, side_of, site_codes, site_in_words

SCT = "http://snomed.info/sct"


def concept(*pairs, text=""):
    return {"coding": [{"system": system, "code": code} for system, code in pairs], "text": text}


@pytest.mark.parametrize(
    ("said", "side"),
    [
        (concept((SCT, "7771000")), "L"),
        (concept((SCT, "24028007"), text="left"), "R"),  # the code counts
        (concept(text="Right forearm"), "R"),
        (concept(text="both cheeks"), "B"),
        (concept(text="left and right"), ""),
        (concept((SCT, "7771000"), (SCT, "24028007")), ""),
        (concept(text="leftover"), ""),
        ([concept((SCT, "66643007")), concept((SCT, "7771000"))], "L"),
        (None, ""),
        ("left", "L"),
    ],
)
def test_sides(said, side):
    assert side_of(said) == side


def test_sites_leave_sides_and_nonsense_out():
    said = [concept((SCT, "66643007"), (SCT, "7771000"), (SCT, "x'; drop"), ("urn:own", "66643007"))]
    assert site_codes(said) == ["66643007"]


@pytest.mark.parametrize(
    ("said", "found"),
    [("Left CHEEK.", {"36141000"}), ("back", {"66643007"}), ("backpack", set()), ("", set()), ("scalp", set())],
)
def test_sites_in_words(said, found):
    assert site_in_words(said, {"36141000", "66643007", "999"}) == found


@pytest.mark.parametrize(
    ("said", "is_dermoscopy"),
    [
        (concept((SCT, "1237125003")), True), (concept(text="Dermatoscopic image"), True), ("dermoscopy", True),
        (concept((SCT, "1")), False), (concept(text="Dermatology letter"), False), (None, False), (7, False),
    ],
)  # fmt: skip
def test_what_calls_itself_dermoscopy(said, is_dermoscopy):
    assert says_dermoscopy(said) is is_dermoscopy


@pytest.mark.parametrize("nonsense", [None, 7, "x", [None], {"coding": "x"}, {"coding": [{"code": 7}]}, {"code": []}])
def test_nonsense_has_no_codes(nonsense):
    assert list(codings(nonsense)) == []
