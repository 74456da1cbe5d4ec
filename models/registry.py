"""The one list of installed model packages, and which of them is champion.

A package is a folder ``<store>/<name>/<version>/`` with ``manifest.yaml`` and the files it names; to add a version is
to add a folder. The champion is named by an explicit ``name==version`` or by ``<store>/champion.yaml``
(``{name: …, version: …}``); it is never guessed. Importing this module loads no inference runtime: a process that only
needs to know *which* weights will answer (the DICOM listener) stays small.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import structlog
import yaml

from dermoscopy.domain import ModelReference
from dermoscopy.errors import Misconfigured, WeightsMismatch
from models.manifest import MANIFEST_NAME, Manifest, read_manifest

log = structlog.get_logger(__name__)

Precision = Literal["fp32", "fp16", "int8"]
FP32, FP16, INT8 = "fp32", "fp16", "int8"

CHAMPION_NAME = "champion.yaml"
_CHUNK = 1 << 20
_UNFINISHED = ".partial"


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """One installed model version: its folder, its checked manifest, and the form chosen. No weights are loaded."""

    folder: Path
    manifest: Manifest
    precision: Precision = "fp32"

    @property
    def reference(self) -> ModelReference:
        """Name, version and the stated digest of the form that answers; costs nothing."""
        return ModelReference(self.manifest.name, self.manifest.version, self._stated[1])

    @property
    def weights(self) -> Path:
        """Path of the ONNX file of this form."""
        return self.folder / self._stated[0]

    @property
    def precisions(self) -> tuple[str, ...]:
        """The forms that the package holds."""
        return (FP32, *sorted(self.manifest.forms))

    def in_form(self, precision: Precision) -> ModelPackage:
        """The same package, answering with another form of its weights. Raises `Misconfigured` if it has none."""
        if precision not in self.precisions:
            raise Misconfigured(
                f"model {self.manifest.name}=={self.manifest.version} has no {precision} form; "
                f"it has: {', '.join(self.precisions)}"
            )
        return replace(self, precision=precision)

    def verify(self) -> None:
        """Stream every file the manifest states a digest of through SHA-256. Raises `WeightsMismatch`."""
        _read(self.folder / self.manifest.file, self.manifest.sha256, keep=False)
        for form in self.manifest.forms.values():
            _read(self.folder / form.file, form.sha256, keep=False)
        embedding = self.manifest.thresholds.embedding
        if embedding is not None:
            _read(self.folder / embedding.file, embedding.sha256, keep=False)

    def read_weights(self) -> bytes:
        """The ONNX bytes, hashed while they are read: what was checked is what gets loaded.

        Raises `WeightsMismatch` if they are absent or are not what the manifest states.
        """
        return _read(self.weights, self._stated[1], keep=True)

    def read_embedding_reference(self) -> bytes | None:
        """The embedding statistics, checked like the weights, or ``None`` where the manifest names none."""
        embedding = self.manifest.thresholds.embedding
        return None if embedding is None else _read(self.folder / embedding.file, embedding.sha256, keep=True)

    @property
    def _stated(self) -> tuple[str, str]:
        """File and SHA-256 of the form chosen."""
        if self.precision == "fp32":
            return self.manifest.file, self.manifest.sha256
        form = self.manifest.forms[self.precision]
        return form.file, form.sha256


def open_package(store: Path, name: str, version: str) -> ModelPackage:
    """The package ``<store>/<name>/<version>``. Raises `Misconfigured` if it is absent or its manifest is wrong."""
    folder = store / name / version
    if not (folder / MANIFEST_NAME).is_file():
        installed = ", ".join(f"{n}=={v}" for n, v in _folders(store)) or "none"
        raise Misconfigured(f"model {name}=={version} is not installed in {store}; installed: {installed}")
    manifest = read_manifest(folder / MANIFEST_NAME)
    if (manifest.name, manifest.version) != (name, version):
        raise Misconfigured(
            f"{folder / MANIFEST_NAME}: name, version: says {manifest.name}=={manifest.version}, "
            f"but lies in the folder of {name}=={version}"
        )
    return ModelPackage(folder, manifest)


def installed(store: Path) -> tuple[ModelPackage, ...]:
    """Every package under ``store``, by name and then version (numeric parts compared as numbers).

    Raises `Misconfigured` at the first package whose manifest is wrong. A folder without a manifest, or whose
    name ends in ``.partial`` (training is still writing it), is no package.
    """
    return tuple(open_package(store, name, version) for name, version in _folders(store))


def champion(store: Path, choice: str | None = None) -> ModelPackage:
    """The package whose answers count: ``choice`` (``name==version``) if given, else what ``champion.yaml`` names.

    Raises `Misconfigured` if neither names an installed package.
    """
    if choice:
        name, separator, version = choice.partition("==")
        if not (separator and _is_folder_name(name) and _is_folder_name(version)):
            raise Misconfigured(f"model choice {choice!r} is not of the form name==version")
        return open_package(store, name, version)
    path = store / CHAMPION_NAME
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Misconfigured(
            f"{path}: no such file; say which model answers, there as {{name, version}} or as a setting name==version"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Misconfigured(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict) or set(document) != {"name", "version"}:
        raise Misconfigured(f"{path}: must hold exactly the fields name and version")
    for field in ("name", "version"):
        value = document[field]
        if not isinstance(value, str) or not _is_folder_name(value):
            raise Misconfigured(f"{path}: {field}: {value!r} is not a {field}; quote it if it looks like a number")
    return open_package(store, document["name"], document["version"])


def appoint_champion(store: Path, package: ModelPackage) -> None:
    """Make an installed ``package`` the champion: verify its files, then replace ``champion.yaml`` atomically.

    Raises `WeightsMismatch` and leaves the old champion in place if a file is not what the manifest says.
    """
    package.verify()
    text = yaml.safe_dump({"name": package.manifest.name, "version": package.manifest.version}, sort_keys=False)
    handle, temporary = tempfile.mkstemp(dir=store, prefix=f".{CHAMPION_NAME}.")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    Path(temporary).chmod(0o644)
    Path(temporary).replace(store / CHAMPION_NAME)
    log.info("model.champion_appointed", model=package.manifest.name, version=package.manifest.version)


def _folders(store: Path) -> list[tuple[str, str]]:
    folders = [path.parent for path in store.glob(f"*/*/{MANIFEST_NAME}")]
    found = [(folder.parent.name, folder.name) for folder in folders if folder.suffix != _UNFINISHED]
    return sorted(found, key=lambda pair: (pair[0], _version_key(pair[1])))


def _version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    parts = re.split(r"[.+-]", version)
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)


def _is_folder_name(text: str) -> bool:
    return re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._+-]*", text) is not None


def _read(path: Path, stated: str, *, keep: bool) -> bytes:
    digest = hashlib.sha256()
    data = bytearray()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                if keep:
                    data += chunk
    except FileNotFoundError as error:
        raise WeightsMismatch(f"{path}: absent, though the manifest states its SHA-256 {stated}") from error
    except OSError as error:
        raise WeightsMismatch(f"{path}: cannot be read, so its SHA-256 cannot be checked: {error}") from error
    if digest.hexdigest() != stated:
        raise WeightsMismatch(
            f"{path}: SHA-256 is {digest.hexdigest()}, the manifest states {stated}; refusing to load it"
        )
    return bytes(data)
