"""The code table: complete, unambiguous, within DICOM's lengths, and honest about groups."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from dermoscopy import codes
from dermoscopy.codes import Code, Verification
from dermoscopy.domain import LesionClass, LesionMeasurements, TriageTier


def every_code() -> list[Code]:
    found: list[Code] = []
    for value in vars(codes).values():
        if isinstance(value, Code):
            found.append(value)
        elif isinstance(value, tuple):
            found += [row.concept for row in value if isinstance(row, codes.MeasurementCode)]
            found += [row.unit for row in value if isinstance(row, codes.MeasurementCode)]
        elif hasattr(value, "values") and not isinstance(value, type):
            for entry in value.values():
                found += [c for c in (entry if isinstance(entry, tuple) else (entry,)) if isinstance(c, Code)]
    return found


def verhoeff_is_valid(number: str) -> bool:
    """SNOMED CT identifiers end in a Verhoeff check digit (SNOMED CT release file specification, 6.2)."""
    d = [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        [1, 2, 3, 4, 0, 6, 7, 8, 9, 5],
        [2, 3, 4, 0, 1, 7, 8, 9, 5, 6],
        [3, 4, 0, 1, 2, 8, 9, 5, 6, 7],
        [4, 0, 1, 2, 3, 9, 5, 6, 7, 8],
        [5, 9, 8, 7, 6, 0, 4, 3, 2, 1],
        [6, 5, 9, 8, 7, 1, 0, 4, 3, 2],
        [7, 6, 5, 9, 8, 2, 1, 0, 4, 3],
        [8, 7, 6, 5, 9, 3, 2, 1, 0, 4],
        [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
    ]
    p = [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]]
    for row in range(2, 8):
        p.append([p[row - 1][p[1][i]] for i in range(10)])
    check = 0
    for position, digit in enumerate(reversed(number)):
        check = d[check][p[position % 8][int(digit)]]
    return check == 0


@pytest.mark.parametrize("code", sorted({c.code for c in every_code() if c.system == codes.SNOMED}))
def test_snomed_codes_have_a_valid_check_digit(code):
    assert re.fullmatch(r"[1-9]\d{5,17}", code)
    assert verhoeff_is_valid(code)


def test_codes_are_unambiguous():
    displays: dict[tuple[str, str], set[str]] = {}
    for code in every_code():
        displays.setdefault((code.system, code.code), set()).add(code.display)
    assert {key: names for key, names in displays.items() if len(names) > 1} == {}


def test_codes_fit_into_dicom():
    for code in every_code():
        if code.system in codes.SCHEMES:
            assert len(code.code) <= 16, code  # Code Value is SH
            assert len(code.display) <= 64, code  # Code Meaning is LO


def test_local_codes_say_so_and_others_do_not():
    for code in every_code():
        assert (code.system == codes.LOCAL) == (code.verified is Verification.LOCAL), code


def test_every_class_and_tier_has_a_code():
    assert set(codes.CLASS_CODES) == set(codes.CLASS_PROBABILITY) == set(LesionClass)
    assert set(codes.TRIAGE) == set(TriageTier)
    for label in LesionClass:
        assert codes.CLASS_CODES[label][-1] == codes.CLASS_LOCAL[label]


@pytest.mark.parametrize("label", [LesionClass.AKIEC, LesionClass.BKL, LesionClass.VASC])
def test_a_group_never_carries_one_specific_diagnosis(label):
    assert {code.system for code in codes.CLASS_CODES[label]} == {codes.LOCAL}


def test_measurements_name_real_attributes_once():
    attributes = {f.name for f in dataclasses.fields(LesionMeasurements)}
    named = [row.attribute for row in codes.MEASUREMENTS]
    assert len(named) == len(set(named))
    assert set(named) <= attributes
    assert attributes - set(named) == {"colour_fractions", "centroid", "bounding_box", "scale_source"}


def test_the_local_system_is_one_identity_in_both_standards():
    assert f"urn:oid:{codes.LOCAL_UID}" == codes.LOCAL
    assert "2.25." + str(int(codes.LOCAL_UID.split(".")[2])) == codes.LOCAL_UID
    assert len(codes.LOCAL_UID) <= 64
    assert codes.SCHEMES[codes.LOCAL].startswith("99")


def test_units_are_ucum():
    assert {row.unit.system for row in codes.MEASUREMENTS} == {codes.UCUM}


def test_site_known_and_unknown():
    assert codes.site("66643007").display == "Skin of back"
    assert codes.site("66643007").verified is Verification.VERIFIED
    assert codes.site("368208006").verified is Verification.LOW
    assert codes.site("368208006").display == ""


def test_class_code_prefers_snomed():
    assert codes.class_code(LesionClass.MEL).scheme == "SCT"
    assert codes.class_code(LesionClass.DF).scheme == "99DERMCDS"


def test_a_system_without_a_dicom_scheme_is_an_error():
    with pytest.raises(KeyError):
        _ = codes.AI_ASSERTED.scheme


def test_every_reason_that_an_algorithm_gives_has_a_code():
    """Read from the source: a reason without a code would break the report of the image that needs it."""
    folder = Path(__file__).parents[3] / "models"
    given = {code for path in folder.glob("*.py") for code in re.findall(r'Reason\(\s*"(\w+)"', path.read_text())}
    assert {"blur", "ambiguous", "no_lesion"} <= given <= set(codes.ABSTENTION_REASONS)
    assert all(len(code.code) <= 16 for code in codes.ABSTENTION_REASONS.values())
