"""The Makefile explains itself, and nobody names a target that it does not have."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PHONY = set(re.findall(r"^\.PHONY: ([a-z-]+)$", MAKEFILE, re.MULTILINE))
HELP = dict(re.findall(r"^([a-z-]+):[^\n]*?## (.+)$", MAKEFILE, re.MULTILINE))

PROMISED = {
    *("help", "setup", "demo", "run", "migrate"),
    *("test", "check", "unit", "integration", "acceptance", "crash", "fuzz", "bench", "docs"),
    *("format", "golden", "train", "evaluate", "lock", "clean"),
}

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["make", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def named_targets(path: Path) -> set[str]:
    """Targets that a file tells its reader, or a machine, to make."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        fenced = re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL)
        text = "\n".join([*fenced, *re.findall(r"`([^`\n]+)`", text)])
    text = re.sub(r"(^|\s)#.*", "", text)
    calls = re.findall(r"(?:^|[\s;&(])make((?:[ \t]+[A-Za-z_=./\"-]+)+)", text, re.MULTILINE)
    words = [word for call in calls for word in call.split()]
    return {word for word in words if re.fullmatch(r"[a-z][a-z-]*", word)}


def test_every_target_says_what_it_does() -> None:
    assert set(HELP) == PHONY
    assert PROMISED <= PHONY


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "docs/README.md", ".ci/run", "deploy/Containerfile", "deploy/compose.yaml"]
)
def test_only_existing_targets_are_named(name: str) -> None:
    path = ROOT / name
    if not path.exists():
        pytest.skip(f"{name} is not here")
    assert named_targets(path) <= PHONY


def test_continuous_integration_runs_what_people_run() -> None:
    assert named_targets(ROOT / ".ci/run") == {"test"}


@needs_make
def test_help_lists_every_target() -> None:
    shown = make("help").stdout
    assert all(f"make {target} " in shown for target in PHONY)
    assert make().stdout == shown


@needs_make
@pytest.mark.parametrize("target", sorted(PHONY - {"help"}))
def test_every_target_can_be_planned(target: str) -> None:
    planned = make("--dry-run", target, "CONFIG=some.yaml", "DATA=folder")
    assert planned.returncode == 0, planned.stderr


@pytest.mark.parametrize(("command", "status", "said"), [("true", 0, "fine"), ("false", 1, "FAILED")])
def test_a_step_says_how_it_went(command: str, status: int, said: str) -> None:
    step = subprocess.run([ROOT / ".ci/step", "What", command], capture_output=True, text=True, check=False)
    assert step.returncode == status
    assert said in step.stdout + step.stderr


def test_a_broken_link_between_documents_is_found(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/links.py", tmp_path / ".ci/links.py")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.md").write_text("# One thing\n[b](b.md) [one](#one-thing) [gone](gone.md) [none](#none)\n")
    (tmp_path / "docs/b.md").write_text("[a](a.md#one-thing)\n")
    found = subprocess.run(
        [sys.executable, tmp_path / ".ci/links.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert found.returncode == 1
    assert found.stdout.splitlines() == ["docs/a.md: gone.md does not exist", "docs/a.md: #none has no such heading"]
