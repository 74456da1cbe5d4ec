"""The command line as a stranger meets it. Documents are checked against the real ``--help``."""

import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from cds_service import __main__ as command_line
from dermoscopy.errors import (
    AuditLogTampered,
    DermoscopyError,
    DestinationUnavailable,
    Misconfigured,
    Rejected,
    UnreadableObject,
)

REPOSITORY = Path(__file__).parents[3]
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
ROOT = get_command(command_line.app)


def commands(command: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    found = {path: command}
    for name, child in getattr(command, "commands", {}).items():
        found.update(commands(child, (*path, name)))
    return found


ALL = commands(ROOT)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(command_line.app, [*path, "--help"])
    assert result.exit_code == 0
    assert ALL[path].help, "no help text"
    for parameter in ALL[path].params:
        if parameter.name != "help":
            assert getattr(parameter, "help", ""), f"{parameter.name} has no help"


def test_the_promised_commands_are_there() -> None:
    promised = [
        "serve",
        "analyze",
        "demo",
        "train",
        "evaluate",
        "models list",
        "models show",
        "models verify",
        "audit verify",
        "drift",
    ]
    assert {tuple(p.split()) for p in promised} <= ALL.keys()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_documents_name_only_commands_and_options_that_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for line in re.findall(r"(?:^|`)cds ([a-z][^`\n]*)", text, flags=re.MULTILINE):
        words = line.split()
        choices = words[1].split("|") if len(words) > 1 and "|" in words[1] else [None]
        for choice in choices:
            path = tuple(words[:1] if choice is None else (words[0], choice))
            if choice is None and len(words) > 1 and (words[0], words[1]) in ALL:
                path = (words[0], words[1])
            if path == ("…",):
                continue
            assert path in ALL, f"{document.name}: cds {line}"
            options = {o for p in ALL[path].params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
            for option in re.findall(r"(--[a-z-]+)", line):
                assert option in options, f"{document.name}: cds {line}"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Rejected("x"), 1),
        (UnreadableObject("x"), 1),
        (Misconfigured("x"), 3),
        (DestinationUnavailable("x"), 4),
        (AuditLogTampered("x"), 5),
    ],
)
def test_exit_code_tells_the_kind_of_error(error: DermoscopyError, code: int) -> None:
    assert command_line.exit_code(error) == code


def test_wrong_configuration_is_one_plain_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CDS_PORT", "many")
    monkeypatch.setattr("sys.argv", ["cds", "models", "list"])
    with pytest.raises(SystemExit) as stopped:
        command_line.main()
    assert stopped.value.code == 3
    said = capsys.readouterr().err
    assert "port" in said
    assert "Traceback" not in said
