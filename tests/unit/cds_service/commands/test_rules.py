"""``cds rules test`` as a person sees it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cds_service.__main__ import app
from cds_service.listening import check
from dermoscopy.errors import Misconfigured
from dermoscopy.settings import Settings
from tests.unit.dicom_listener.samples import dataset, part10

CONFIGURATION = """
[[pacs]]
name = "pacs"
host = "h"
port = 104
ae_title = "P"

[[fhir]]
name = "ehr"
base_url = "http://ehr"

[[rules]]
name = "overviews"
description = "/overview/"
action = "store"

[[rules]]
name = "cameras"
calling_ae = "CAM*"
outputs = ["seg", "fhir_bundle"]
"""


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that runs the command on an object and returns what it prints."""

    def run(*options: str, **values) -> str:
        configuration, file = tmp_path / "cds.toml", tmp_path / "a.dcm"
        configuration.write_text(CONFIGURATION)
        file.write_bytes(part10(dataset(**values)))
        monkeypatch.setenv("CDS_CONFIG", str(configuration))
        monkeypatch.setenv("CDS_DATA_DIR", str(tmp_path / "data"))
        monkeypatch.setenv("COLUMNS", "200")
        result = CliRunner().invoke(app, ["rules", "test", str(file), *options])
        assert result.exit_code == 0, result.output
        assert not (tmp_path / "data").exists()
        return result.output

    return run


def test_a_rule_takes_it(said):
    text = said("--calling-ae", "CAMERA1")
    assert "passes on  overviews: description is absent, not '/overview/'" in text
    assert "takes it   cameras: calling_ae 'CAMERA1' matches 'CAM*'" in text
    assert "Action: analyse, by cameras" in text
    assert "PACS pacs gets: seg\n" in text
    assert "FHIR ehr gets: fhir_bundle\n" in text


def test_stored_only(said):
    text = said(StudyDescription="Total body overview")
    assert "Action: store, by overviews" in text
    assert "gets:" not in text


def test_no_rule(said):
    text = said()
    assert "by no rule" in text
    assert "PACS pacs gets: seg, sr, secondary_capture\n" in text


def test_nothing_of_the_patient_is_printed(said):
    assert "4711" not in said() and "Müller" not in said()


def test_a_wrong_rule_stops_the_service_before_it_starts(tmp_path):
    with pytest.raises(Misconfigured, match="rule 'a': destination 'pax' is not configured"):
        check(Settings(data_dir=tmp_path, rules=[{"name": "a", "modality": "DMS", "destinations": ["pax"]}]))
