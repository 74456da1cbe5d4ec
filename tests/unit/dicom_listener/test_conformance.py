"""The conformance statement against the code and the objects that it speaks of."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from dermoscopy.domain import ArtifactKind
from dermoscopy.settings import Settings
from dicom_listener.conformance import Deployment, statement
from dicom_listener.conformance.attributes import attributes, modules_of, used
from dicom_listener.conformance.configuration import DIMSE, GENERAL, WEB
from dicom_listener.conformance.document import Document, Section, Table
from dicom_listener.conformance.examples import examples
from dicom_listener.conformance.objects import TITLES, of_kind
from dicom_listener.render import RENDERERS
from dicom_listener.server import ListenerSettings
from dicom_listener.status import STATUS_BY_ERROR
from dicom_listener.syntaxes import IMAGE_CLASSES, NEGOTIATED_SYNTAXES
from tests.peers.dicom3tools import dciodvfy
from tests.unit.dicom_listener.samples import picture_source, render_input

KINDS = list(TITLES)


@pytest.fixture(scope="module")
def document() -> Document:
    return statement(Deployment("1.0", Settings(), ListenerSettings()))


def test_every_setting_of_the_wire_is_explained():
    spoken = {name for name in Settings.model_fields if name.startswith(("dicom", "pull_", "ae_title", "seg_"))}
    assert spoken <= {*GENERAL, *DIMSE, *WEB}


def test_everything_that_is_accepted_stands_in_the_statement(document):
    tables = document.tables()
    sets = {}
    for letter, _, _, uid in tables["transfer-syntax-sets"].rows:
        sets.setdefault(letter, []).append(uid)
    accepted = {uid: sets[letter] for _, uid, letter, _, _ in tables["accepted-contexts"].rows}
    assert all(accepted[uid] == list(NEGOTIATED_SYNTAXES) for uid in IMAGE_CLASSES)
    answered = {row[0] for row in tables["store-statuses"].rows}
    assert answered == {"0000", *(f"{code:04X}" for _, code, _ in STATUS_BY_ERROR)}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
def test_every_object_has_the_mandatory_modules_of_its_iod(kind):
    found = of_kind(examples(hair=True), kind)
    modules = modules_of(str(found[0].dataset.SOPClassUID))
    always = {module.key for module, presence in used(modules, found) if presence == "ALWAYS"}
    assert {module.key for module in modules if module.usage == "M"} <= always


@pytest.mark.parametrize("kind", list(RENDERERS), ids=lambda kind: kind.value)
def test_no_attribute_of_other_objects_is_missing(kind, document):
    """Objects of an analysis that the statement was not made from."""
    what = render_input(picture_source("JPEG")) if kind is ArtifactKind.SOURCE else render_input()
    made = dcmread(BytesIO(RENDERERS[kind](what).data))
    told = {row[0] for row in document.tables()[f"attributes-{kind.value}"].rows}
    assert {element.name for element in made if element.keyword != "ContentSequence"} <= told


def test_presence_and_source_are_those_of_the_objects():
    known = {one.path: one for one in attributes(of_kind(examples(hair=False), ArtifactKind.SEG))}
    for path, presence, source in (
        (("SOPClassUID",), "ALWAYS", "AUTO: 1.2.840.10008.5.1.4.1.1.66.4"),
        (("PatientID",), "ALWAYS", "COPY"),
        (("PatientName",), "VNAP", "COPY"),
        (("StudyDescription",), "ANAP", "COPY"),
        (("PatientOrientation",), "EMPTY", ""),
        (("SeriesInstanceUID",), "ALWAYS", "AUTO"),
        (("SegmentSequence", "SegmentLabel"), "ALWAYS", "AUTO: Lesion"),
        (("SegmentSequence", "AnatomicRegionSequence"), "ANAP", "AUTO"),
    ):
        assert (known[path].presence, known[path].source) == (presence, source), path


@pytest.mark.peers
def test_dciodvfy_finds_no_error_in_the_objects_that_the_statement_is_made_from(tmp_path: Path):
    for one in examples(hair=True):
        file = tmp_path / f"{one.case}-{one.kind.value}.dcm"
        one.dataset.save_as(file)
        assert dciodvfy(file) == [], file.name


def test_no_object_holds_private_attributes():
    assert not [e for one in examples(hair=True) for e in one.dataset.iterall() if e.tag.is_private]


def test_the_report_has_its_templates(document):
    concepts = [row[0].lstrip(">") for row in document.tables()["content-sr"].rows]
    assert concepts[0] == '(126000, DCM, "Imaging Measurement Report") TID 1500'
    for group in ("1410", "1501"):
        assert f'(125007, DCM, "Measurement Group") TID {group}' in concepts
    assert '(111001, DCM, "Algorithm Name")' in concepts


def test_tables_say_when_they_are_empty_and_cells_cannot_break_them():
    one = Table("one", "First", ("A", "B"), (("x|y", "z\nw"),))
    text = Document("T", ("p",), (Section("1", "S", (one, Table("two", "Second", ("A",), ()))),)).to_markdown()
    assert "| x\\|y | z w |" in text
    assert "**Second:** none." in text
    with pytest.raises(ValueError, match="a row of 1"):
        Table("bad", "Bad", ("A", "B"), (("x",),))
    with pytest.raises(ValueError, match="two tables"):
        Document("T", (), (Section("1", "S", (one,)), Section("2", "S", (Table("one", "F", ("A",), ()),)))).tables()
