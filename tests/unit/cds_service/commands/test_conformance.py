"""``cds conformance``: the statement in the documents is that of the default configuration, and settings show in it."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cds_service.__main__ import app
from cds_service.commands.conformance import deployment
from dermoscopy.errors import Misconfigured
from dermoscopy.settings import Settings
from dicom_listener.conformance import Document, statement
from tests.unit.dicom_listener.certificates import Authority

REPOSITORY = Path(__file__).parents[4]
WRITTEN = REPOSITORY / "docs" / "conformance-statement.md"
VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
PACS = {"name": "pacs", "host": "pacs.example", "port": 104, "ae_title": "ARCHIVE"}


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CDS_") and name != "CDS_UPDATE_GOLDEN"]:
        monkeypatch.delenv(name)


def said(**settings: object) -> Document:
    return statement(deployment(Settings(**settings), VERSION))  # type: ignore[arg-type]


def row(document: Document, table: str, first: str) -> tuple[str, ...]:
    (found,) = [row for row in document.tables()[table].rows if row[0] == first]
    return found


@pytest.mark.golden
def test_the_document_is_the_statement_of_the_default_configuration() -> None:
    """Where this fails, read the difference; `cds conformance > docs/conformance-statement.md` writes it anew."""
    made = said().to_markdown()
    if os.environ.get("CDS_UPDATE_GOLDEN") == "1":
        WRITTEN.write_text(made, encoding="utf-8")
    written = WRITTEN.read_text(encoding="utf-8")
    difference = difflib.unified_diff(
        written.splitlines(), made.splitlines(), "the document", "the code", n=0, lineterm=""
    )
    told = "\n".join(list(difference)[:40])
    assert made == written, f"run: cds conformance > docs/conformance-statement.md (or make golden)\n{told}"


def test_the_command_says_the_same_in_both_forms() -> None:
    text = CliRunner().invoke(app, ["conformance"])
    made = CliRunner().invoke(app, ["conformance", "--format", "json"])
    assert (text.exit_code, made.exit_code) == (0, 0)
    assert text.stdout.startswith("# DICOM Conformance Statement")
    told = {table["table"]: len(table["rows"]) for table in _tables(json.loads(made.stdout)["sections"])}
    assert told == {key: len(table.rows) for key, table in said().tables().items()}


def _tables(sections):
    for section in sections:
        yield from (block for block in section["blocks"] if isinstance(block, dict))
        yield from _tables(section["sections"])


def test_a_called_ae_title_that_is_not_checked() -> None:
    assert "The called AE title must be `DERMCDS`." in said().to_markdown()
    assert "Any called AE title is accepted." in said(dicom_check_called_ae=False).to_markdown()


def test_tls_of_the_listener(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours = authority.issue("node")
    document = said(dicom_tls_certificate=ours.certificate, dicom_tls_key=ours.key, dicom_tls_ca=authority.path)
    assert row(said(), "tls", "Listener uses TLS")[1] == "no"
    assert row(document, "tls", "Listener uses TLS")[1] == "yes"
    assert row(document, "tls", "Sender must show a certificate (mutual)")[1] == "yes"
    assert document.tables()["ports"].rows[0][0] == "DICOM over TLS"
    assert str(tmp_path) not in document.to_markdown()


def test_a_pacs_that_is_sent_to_asked_for_commitment_and_queried() -> None:
    before, sent = said(), said(pacs=[PACS])
    every = said(pacs=[{**PACS, "commitment": True, "query": True, "retrieve": "get", "tls": True}])

    def users(document: Document) -> list[str]:
        return [scu for _, _, scu, _ in document.tables()["dimse-services"].rows][:6]

    assert users(before) == ["O"] * 6
    assert users(sent) == ["O", "Y", "O", "O", "O", "O"]
    assert users(every) == ["O", "Y", "Y", "Y", "O", "Y"]
    assert row(every, "remote-entities", "pacs")[1:6] == ("ARCHIVE", "pacs.example:104", "yes", "yes", "get")
    assert any(found[1:3] == ("out", "104") for found in every.tables()["ports"].rows)


def test_dicomweb_destinations_senders_and_hair() -> None:
    document = said(
        stow=[{"name": "vna", "base_url": "https://vna.example/dicom-web", "token": "a-secret-nobody-reads"}],
        dicom_peers=[{"ae_title": "CAMERA1", "addresses": ["10.1.2.0/24"], "objects_per_minute": 60}],
        seg_hair=True,
    )
    assert row(document, "web-services", "Studies: Store (STOW-RS)")[1] == "Y"
    assert row(document, "senders", "CAMERA1")[1:4] == ("10.1.2.0/24", "as all", "60")
    assert "Only the calling AE titles of 6.2 are accepted" in document.to_markdown()
    assert "secret" not in document.to_markdown()
    assert len(document.tables()["codes"].rows) > len(said().tables()["codes"].rows)


def test_a_configuration_that_does_not_start_has_no_statement(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured):
        said(dicom_tls_certificate=tmp_path / "absent.pem", dicom_tls_mutual=False)
