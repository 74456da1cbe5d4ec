"""``cds pull``: whose images are wanted, and that no patient id is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import cds_service.pull
from cds_service import __main__ as command_line
from cds_service.commands.pull import read_patients
from cds_service.pull import Asked, Pulled


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Asked]:
    """What the command asks for; every pull finds two images, of which one fails for patient 13."""
    monkeypatch.setenv("CDS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CDS_DATABASE_URL", f"sqlite:///{tmp_path / 'cds.sqlite3'}")
    seen: list[Asked] = []

    def pull(node: object, one: Asked, *, actor: str) -> Pulled:
        seen.append(one)
        return Pulled(found=2, taken=1, failed=1) if one.patient.patient_id == "13" else Pulled(found=2, taken=2)

    monkeypatch.setattr(cds_service.pull, "pull", pull)
    return seen


def run(*arguments: str, text: str = ""):
    return CliRunner().invoke(command_line.app, ["pull", *arguments], input=text)


def test_one_patient_with_everything_that_can_be_said(asked) -> None:
    done = run(
        "--patient", "4711", "--issuer", "A", "--from", "pacs", "--since", "2024-01-02", "--dry-run", "--store-only"
    )
    assert done.exit_code == 0, done.output
    (one,) = asked
    assert (one.patient.issuer, one.patient.patient_id) == ("A", "4711")
    assert (one.source, one.since, one.dry_run, one.store_only) == ("pacs", "20240102", True, True)
    assert "4711" not in done.output and "1 of 1" in done.output


def test_patients_on_standard_input(asked) -> None:
    done = run("--patient", "-", "--issuer", "A", text="4711\n\n 4712 \tB\n")
    assert done.exit_code == 0, done.output
    assert [(one.patient.issuer, one.patient.patient_id) for one in asked] == [("A", "4711"), ("B", "4712")]
    assert "471" not in done.output


def test_patients_in_a_file_and_one_that_is_not_complete(asked, tmp_path) -> None:
    path = tmp_path / "wanted"
    path.write_text("13\n4711\n")
    done = run("--patients", str(path))
    assert done.exit_code == 1 and len(asked) == 2
    assert "Not everything came" in done.output


@pytest.mark.parametrize("arguments", [(), ("--patient", "1", "--patients", __file__), ("--patient", "-")])
def test_wrong_usage(asked, arguments) -> None:
    assert run(*arguments).exit_code == 2 and not asked


def test_lines_of_patients() -> None:
    assert list(read_patients("a\nb\tB\n\t\n", "A")) == [("a", "A"), ("b", "B")]
