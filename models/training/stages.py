"""Stages that are done once: what each rested on, and whether what it wrote still stands."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from models.training.configuration import file_digest

logger = logging.getLogger("models.training")


class Stages:
    """The record of a run folder's stages, ``stages.json``: by stage a digest of its inputs and of each output.

    A stage is skipped when its inputs are what they were and its outputs are there, byte for byte. What a killed stage
    left behind is in no record, so it is done again.
    """

    def __init__(self, run: Path) -> None:
        """Open the record of a run folder; an unreadable one counts as empty."""
        self._path = run / "stages.json"
        self._done: dict[str, Any] = {}
        if self._path.is_file():
            try:
                self._done = json.loads(self._path.read_text(encoding="utf-8"))
            except json.JSONDecodeError:
                logger.warning("%s cannot be read: its stages are done again", self._path)

    def once(self, name: str, inputs: Iterable[str], outputs: Iterable[Path], work: Callable[[], None]) -> bool:
        """Do ``work`` unless it is done; returns whether it was. ``inputs`` are digests of all that it rests on."""
        key, files = hashlib.sha256("\n".join(inputs).encode()).hexdigest(), list(outputs)
        done = self._done.get(name, {})
        found = _digests(files)
        if done.get("inputs") == key and done.get("outputs") == found and len(found) == len(files):
            logger.info("skipping %s: %s stands", name, ", ".join(path.name for path in files))
            return False
        logger.info("%s", name)
        work()
        self._done[name] = {"inputs": key, "outputs": _digests(files)}
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self._done, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, self._path)
        return True


def _digests(files: list[Path]) -> dict[str, str]:
    """SHA-256 of each file that is there, by name."""
    return {path.name: file_digest(path) for path in files if path.is_file()}


def code_digest(*packages: str) -> str:
    """A digest of the source of some packages (``models/training``, …), so that changed code does its stage again."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted((root / package).glob("*")):
            if path.is_file() and path.suffix in (".py", ".html", ".css", ".js"):
                digest.update(f"{path.name} {file_digest(path)}\n".encode())
    return digest.hexdigest()
