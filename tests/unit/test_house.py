"""The rules of the house that no tool checks by itself."""

import re
import subprocess
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("cds_service", "dicom_listener", "fhir_adapters", "models", "audit", "monitoring", "dermoscopy")
OURS = "dermoscopy-cds"

BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "core", "base", "manager", "misc", "process_data"}
SOURCE_SUFFIXES = {".py", ".js", ".css", ".html"}
LONGEST_FILE = 600

# Each foreign library has its rooms: nobody else imports it.
HOME_OF = {
    "pydicom": {"dicom_listener"},
    "pynetdicom": {"dicom_listener"},
    "highdicom": {"dicom_listener"},
    "fhir": {"fhir_adapters"},
    "fhirpathpy": {"fhir_adapters"},
    "onnxruntime": {"models"},
    "tritonclient": {"models"},
    "torch": {"models"},
    "fastapi": {"cds_service"},
    "starlette": {"cds_service"},
    "uvicorn": {"cds_service"},
    "jinja2": {"cds_service"},
    "typer": {"cds_service"},
    "authlib": {"cds_service"},
    "evidently": {"monitoring"},
    "pandas": {"monitoring"},
    "dbos": {"cds_service", "dermoscopy"},
    "obstore": {"dermoscopy"},
}

# Each lock and what it was resolved from.
LOCKS = {
    "serve.txt": ("serve.in", "cpu.in"),
    "serve-gpu.txt": ("serve.in", "gpu.in"),
    "drift.txt": ("drift.in",),
    "triton.txt": ("triton.in",),
    "test.txt": ("test.in",),
    "train.txt": ("train.in",),
    "uv.txt": ("uv.in",),
}
INPUTS = sorted({name for inputs in LOCKS.values() for name in inputs} | {"torch.in"})


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def source_files() -> list[Path]:
    """Our own source: what git knows or would add; every file below the rooms where there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        paths = [ROOT / line for line in listed.stdout.splitlines()]
    else:
        paths = [path for room in (*ROOMS, "tests", "benchmarks") for path in (ROOT / room).rglob("*")]
    foreign = {"vendor", "node_modules", "__pycache__"}
    return [p for p in paths if p.is_file() and p.suffix in SOURCE_SUFFIXES and not foreign & set(p.parts)]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.split("[")[0]).lower()


def pins(name: str) -> dict[str, str]:
    """The exact versions that an input file asks for."""
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    wanted = (line.split("#")[0].strip() for line in lines)
    return {canonical(package): version for package, _, version in (line.partition("==") for line in wanted if line)}


def locked(name: str) -> dict[str, set[str]]:
    """The versions in a lock; a package may stand there once per Python version."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    found: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([A-Za-z0-9][\w.\-\[\],]*)==([^\s;\\]+)", text, re.MULTILINE):
        found.setdefault(canonical(package), set()).add(version)
    return found


# -- names


@pytest.mark.parametrize("room", ROOMS)
def test_no_other_distribution_claims_our_top_level_names(room: str) -> None:
    claimed = set(packages_distributions().get(room, []))
    assert claimed <= {OURS}, f"{room} also comes from {claimed - {OURS}}: one of the two hides the other"


def test_no_module_has_a_name_that_says_nothing() -> None:
    found = []
    for path in source_files():
        if path.suffix != ".py":
            continue
        for part in path.relative_to(ROOT).with_suffix("").parts:
            if part in BANNED_NAMES or BANNED_NAMES & set(part.split("_")):
                found.append(str(path.relative_to(ROOT)))
    assert not found, f"name these for what they do: {found}"


def test_no_file_is_too_long_to_read() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in source_files()}
    too_long = {str(path.relative_to(ROOT)): length for path, length in lengths.items() if length > LONGEST_FILE}
    assert not too_long, f"split what has more than {LONGEST_FILE} lines: {too_long}"


# -- floors and rooms


def contracts(kind: str) -> list[dict[str, Any]]:
    return [contract for contract in project()["tool"]["importlinter"]["contracts"] if contract["type"] == kind]


def test_import_linter_knows_every_room() -> None:
    assert set(project()["tool"]["importlinter"]["root_packages"]) == set(ROOMS)
    (floors,) = contracts("layers")
    assert set(re.split(r"[\s|]+", " ".join(floors["layers"]))) == set(ROOMS)
    assert not any(contract.get("ignore_imports") for kind in ("layers", "forbidden") for contract in contracts(kind))


@pytest.mark.parametrize("library", HOME_OF)
def test_every_foreign_library_has_one_room(library: str) -> None:
    shut_out = {
        room
        for contract in contracts("forbidden")
        if library in contract["forbidden_modules"]
        for room in contract["source_modules"]
    }
    assert shut_out == set(ROOMS) - HOME_OF[library]


def test_ruff_bans_what_import_linter_cannot_name() -> None:
    banned = project()["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    assert {"torch", "opentelemetry.sdk"} <= set(banned)


# -- requirements


def test_every_requirement_file_is_known_here() -> None:
    folder = ROOT / "requirements"
    assert sorted(path.name for path in folder.glob("*.txt")) == sorted(LOCKS)
    assert sorted(path.name for path in folder.glob("*.in")) == INPUTS


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_requirement_carries_hashes(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8").replace("\\\n", " ")
    bare = [line.split()[0] for line in text.splitlines() if line.strip() and "--hash=sha256:" not in line]
    assert text.strip() and not bare


@pytest.mark.parametrize("name", [*LOCKS, *INPUTS])
def test_no_requirement_file_names_an_address(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    for forbidden in ("://", "--index", "--find-links", "--extra-index", " @ ", "file:"):
        assert forbidden not in text


@pytest.mark.parametrize("name", LOCKS)
def test_torch_is_in_no_lock(name: str) -> None:
    assert not {"torch", "torchvision", "triton"} & set(locked(name))


def test_the_two_inference_runtimes_exclude_each_other() -> None:
    assert "onnxruntime" in locked("serve.txt") and "onnxruntime-gpu" not in locked("serve.txt")
    assert "onnxruntime-gpu" in locked("serve-gpu.txt") and "onnxruntime" not in locked("serve-gpu.txt")


@pytest.mark.parametrize(("lock", "source"), [(lock, name) for lock, names in LOCKS.items() for name in names])
def test_what_is_asked_for_is_what_is_locked(lock: str, source: str) -> None:
    versions = locked(lock)
    for package, version in pins(source).items():
        assert version, f"{source}: pin {package} with =="
        assert versions.get(package) == {version}, f"{package}=={version} of {source} is not in {lock}: make lock"


def test_locks_that_are_installed_together_agree() -> None:
    together = ("serve.txt", "drift.txt", "triton.txt", "test.txt", "train.txt")
    versions: dict[str, set[frozenset[str]]] = {}
    for name in together:
        for package, found in locked(name).items():
            versions.setdefault(package, set()).add(frozenset(found))
    assert not {package: found for package, found in versions.items() if len(found) > 1}
