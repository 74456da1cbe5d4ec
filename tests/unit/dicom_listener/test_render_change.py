"""The structured report says what changed of the lesion, and stays valid."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from dermoscopy import codes
from dermoscopy.domain import ArtifactKind
from dicom_listener.render import RENDERERS
from tests.changes import GREW, make_change
from tests.peers.dicom3tools import dciodvfy
from tests.unit.dicom_listener.samples import render_input


def texts(data: bytes, code: str) -> list[str]:
    """Values of every text item of this concept."""
    found: list[str] = []

    def walk(item: pydicom.Dataset) -> None:
        if item.get("ValueType") == "TEXT" and item.ConceptNameCodeSequence[0].CodeValue == code:
            found.append(str(item.TextValue))
        for child in item.get("ContentSequence", []):
            walk(child)

    walk(pydicom.dcmread(io.BytesIO(data)))
    return found


def test_the_change_is_a_text_of_its_own_and_absent_without_one() -> None:
    report = RENDERERS[ArtifactKind.SR](replace(render_input(), change=make_change()))
    (said,) = texts(report.data, codes.CHANGE.code)
    assert said.startswith("Compared with the image of 2025-12-14")
    assert GREW in said
    assert texts(RENDERERS[ArtifactKind.SR](render_input()).data, codes.CHANGE.code) == []


@pytest.mark.peers
def test_dciodvfy_finds_no_error(tmp_path: Path) -> None:
    file = tmp_path / "sr.dcm"
    file.write_bytes(RENDERERS[ArtifactKind.SR](replace(render_input(), change=make_change())).data)
    assert dciodvfy(file) == []
