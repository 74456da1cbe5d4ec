"""Pseudonyms: the same with the same key, others with another, and nothing of what they stand for."""

from __future__ import annotations

import stat
from pathlib import Path
from uuid import UUID

import pytest

from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import Misconfigured
from dermoscopy.pseudonyms import MOST_DAYS, Pseudonyms, open_pseudonyms

JANE, JOHN = PatientIdentity("HOSPITAL-A", "4711"), PatientIdentity("HOSPITAL-A", "4712")
NOBODY = PatientIdentity("", "")
ONE, OTHER = Pseudonyms(b"1" * 32), Pseudonyms(b"2" * 32)


def everything(names: Pseudonyms, patient: PatientIdentity = JANE) -> tuple[object, ...]:
    return (
        names.patient(patient, instance_id="i"),
        names.days(patient, instance_id="i"),
        names.image("i"),
        names.lesion("site", "x"),
        names.uid("1.2.3"),
        names.key_id,
    )


def test_the_same_key_gives_the_same_names_and_another_key_gives_others() -> None:
    assert everything(ONE) == everything(Pseudonyms(b"1" * 32))
    for same, other in zip(everything(ONE), everything(OTHER), strict=True):
        assert same != other


def test_patients_are_told_apart_and_the_issuer_belongs_to_the_patient() -> None:
    names = {ONE.patient(patient, instance_id="i") for patient in (JANE, JOHN, PatientIdentity("HOSPITAL-B", "4711"))}
    assert len(names) == 3
    assert ONE.patient(JANE, instance_id="i") == ONE.patient(JANE, instance_id="j")


def test_parts_do_not_run_into_each_other() -> None:
    assert ONE.patient(PatientIdentity("A", "B1"), instance_id="i") != ONE.patient(
        PatientIdentity("AB", "1"), instance_id="i"
    )


def test_images_of_nobody_known_are_not_joined() -> None:
    assert ONE.patient(NOBODY, instance_id="i") != ONE.patient(NOBODY, instance_id="j")


def test_dates_move_by_one_day_to_ten_years() -> None:
    moved = {ONE.days(PatientIdentity("A", str(number)), instance_id="") for number in range(500)}
    assert min(moved) >= 1
    assert max(moved) <= MOST_DAYS
    assert len(moved) > 400


def test_uids_are_uuids_under_the_uuid_arc() -> None:
    uid = ONE.uid("1.2.840.1")
    assert uid.startswith("2.25.")
    made = UUID(int=int(uid[5:]))
    assert made.version == 8
    assert made.variant == "specified in RFC 4122"


def test_a_project_gets_a_key_once_that_nobody_else_may_read(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    first = open_pseudonyms(folder, "melanoma-2026")
    assert first == open_pseudonyms(folder, "melanoma-2026")
    assert first.key_id != open_pseudonyms(folder, "other").key_id
    assert stat.S_IMODE((folder / "melanoma-2026.key").stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["melanoma-2026.key", "other.key"]
    assert first.key.hex() not in repr(first)


def test_a_key_that_others_may_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    open_pseudonyms(tmp_path, "study")
    path = tmp_path / "study.key"
    path.chmod(0o644)
    with pytest.raises(Misconfigured, match="chmod 600"):
        open_pseudonyms(tmp_path, "study")
    path.chmod(0o600)
    path.write_text("abc", encoding="ascii")
    with pytest.raises(Misconfigured, match="restore it"):
        open_pseudonyms(tmp_path, "study")
    path.write_text("abcd", encoding="ascii")
    with pytest.raises(Misconfigured, match="32 bytes"):
        open_pseudonyms(tmp_path, "study")


@pytest.mark.parametrize("name", ["", "../key", "A", "a" * 65, "with space"])
def test_a_project_name_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(Misconfigured, match="project name"):
        open_pseudonyms(tmp_path, name)
