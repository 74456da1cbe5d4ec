"""Whose run a folder holds, and whose weights a version of the store has."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dermoscopy.errors import Misconfigured
from models.manifest import MANIFEST_NAME
from models.training.configuration import TrainingConfiguration, file_digest, section_of

#: Sections of the configuration that decide what the weights become; the rest acts after training.
DECIDING = ("seed", "architecture", "input", "data", "augmentation", "losses", "distillation", "optimisation")


class OtherRun(Misconfigured):
    """The output folder or the store holds what another run made."""


def begin_run(run: Path, configuration: TrainingConfiguration, facts: Mapping[str, Any]) -> str:
    """Claim a run folder for a configuration, or check that it is this one's; returns the code's commit.

    ``facts`` are what decides the weights beside the configuration: digests of the splits, images left out. One that
    the claim of an older run does not have is not compared.

    Settings count by what they differ from the defaults in, so an option that is new does not turn an old run away.

    Raises:
        OtherRun: the folder's checkpoints were made with other settings.
    """
    claim = run / "run.json"
    settings = _differing(configuration.model_dump(mode="json", include=set(DECIDING)))
    if claim.is_file():
        earlier = json.loads(claim.read_text(encoding="utf-8"))
        before = _differing({key: value for key, value in earlier["settings"].items() if key in DECIDING})
        changed = [key for key in DECIDING if settings.get(key) != before.get(key)]
        changed += [key for key, value in facts.items() if earlier["settings"].get(key, value) != value]
        if changed:
            raise OtherRun(
                f"{run} holds a run with other settings ({', '.join(sorted(changed))} changed): "
                "choose another output folder or version, or give --restart to throw it away"
            )
        return str(earlier["code"])
    code = _commit()
    digest = hashlib.sha256(json.dumps({**settings, **facts}, sort_keys=True).encode()).hexdigest()
    whole = configuration.model_dump(mode="json", include=set(DECIDING))
    claim.write_text(
        json.dumps({"digest": digest, "code": code, "settings": {**whole, **facts}}, indent=1), encoding="utf-8"
    )
    return code


def refuse_to_replace(package: Path, weights: Path) -> None:
    """A version means one set of weights for ever: what it once said must stay traceable.

    Raises:
        OtherRun: ``package`` exists, and its weights are not those that this run exported.
    """
    manifest = package / MANIFEST_NAME
    if not manifest.is_file():
        return
    installed = yaml.safe_load(manifest.read_text(encoding="utf-8"))["sha256"]
    if not weights.is_file() or file_digest(weights) != installed:
        raise OtherRun(
            f"{package} is there already, with the weights of another run: "
            "raise the configuration's version, or name another store"
        )


def _differing(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Each section without the fields that have their default value; as it is where the section is not known."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        section = section_of(TrainingConfiguration.model_fields[key].annotation)
        if section is None or value is None:
            found[key] = value
            continue
        try:
            found[key] = section.model_validate(value).model_dump(mode="json", exclude_defaults=True)
        except ValidationError:
            found[key] = value
    return found


def _commit() -> str:
    """The commit that the code stands at, where git knows one."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    answer = subprocess.run(  # noqa: S603 - a fixed command
        [git, "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return f"commit {answer.stdout.strip()}" if answer.returncode == 0 else "unknown"
