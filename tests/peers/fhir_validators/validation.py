"""Validate resources as FHIR R4 4.0.1: JSON schema here, two JavaScript validators in one lasting node process."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator
from jsonschema.exceptions import best_match

from tests.peers.processes import PEERS, installed, program

Resource = dict[str, Any]
_SCHEMA = PEERS / "node_modules" / "@medplum" / "definitions" / "dist" / "fhir" / "r4" / "fhir.schema.json"


class _Schema:
    """HL7's own JSON schema. A resource within a resource is checked by its own type's definition.

    The schema says "one of 148 resources" there, which is slow and reports all 148 failures.
    """

    def __init__(self, path: Path) -> None:
        self._schema = json.loads(path.read_text())
        self._schema["definitions"]["ResourceList"] = {"type": "object", "required": ["resourceType"]}
        self._types = set(self._schema.pop("discriminator")["mapping"])
        self._schema.pop("oneOf")
        self._validators: dict[str, Draft7Validator] = {}

    def problems(self, resource: Resource, place: str = "") -> Iterator[str]:
        kind = resource.get("resourceType")
        if kind not in self._types:
            yield f"{place}: {kind!r} is no R4 resource type"
            return
        for error in self._validator(str(kind)).iter_errors(resource):
            reason = best_match([error]) or error
            where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in reason.absolute_path)
            yield f"{place}{kind}{where}: {reason.message[:300]}"
        yield from self._within(resource, f"{place}{kind}")

    def _within(self, value: Any, place: str) -> Iterator[str]:
        """Every resource below this one: contained, Bundle entries, Parameters."""
        if isinstance(value, dict):
            for name, item in value.items():
                if isinstance(item, dict) and "resourceType" in item:
                    yield from self.problems(item, f"{place}.{name} ")
                else:
                    yield from self._within(item, f"{place}.{name}")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, dict) and "resourceType" in item:
                    yield from self.problems(item, f"{place}[{index}] ")
                else:
                    yield from self._within(item, f"{place}[{index}]")

    def _validator(self, kind: str) -> Draft7Validator:
        if kind not in self._validators:
            self._validators[kind] = Draft7Validator(self._schema | {"$ref": f"#/definitions/{kind}"})
        return self._validators[kind]


def _empties(value: Any, place: str) -> Iterator[str]:
    """FHIR's JSON never holds an empty array, object or string (R4, 2.6.2); none of the validators minds all three."""
    if value == [] or value == {} or value == "":
        yield f"{place}: is empty"
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _empties(item, f"{place}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _empties(item, f"{place}[{index}]")


class R4Validators:
    """The three validators, ready for many resources; safe to share between threads."""

    def __init__(self) -> None:
        node = program("node", package="nodejs 20 or newer")
        installed(PEERS / "node_modules" / "fhir")
        self._schema = _Schema(installed(_SCHEMA))
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [node, str(PEERS / "fhir_validators" / "validators.mjs")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        if self._line() != "ready":
            raise RuntimeError("The FHIR validators did not start")

    def validate_r4(self, resource: Resource) -> list[str]:
        """All problems, each prefixed with who found it: "schema", "fhir", "medplum", or "json" for emptiness."""
        problems = [f"json: {problem}" for problem in _empties(resource, str(resource.get("resourceType")))]
        problems += [f"schema: {problem}" for problem in self._schema.problems(resource)]
        with self._lock:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(resource) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._line())
        return problems + [f"{name}: {problem}" for name in ("fhir", "medplum") for problem in answer[name]]

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"The FHIR validators ended with {self._process.wait(10)}")
        return line.rstrip("\n")

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._process.stdout.close()


@contextmanager
def r4_validators() -> Iterator[R4Validators]:
    """Validators for as long as the block lasts; starting them takes a second."""
    validators = R4Validators()
    try:
        yield validators
    finally:
        validators.close()
