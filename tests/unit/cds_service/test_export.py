"""De-identified export from the service's own store: what leaves, what stays, and that nobody can be found in it."""

from __future__ import annotations

import csv
import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import sqlalchemy as sa
from PIL import Image, PngImagePlugin
from pydicom import dcmread
from sqlmodel import select

from audit.tables import AuditLeaf
from cds_service.export import KEYS, RECORDS, Asked, Exported, export
from cds_service.export_gate import APPROVABLE, clean, doubts_of_object, may_show_face
from cds_service.node import Node
from dermoscopy.domain import LesionClass, PatientIdentity, Reason, Verdict, derive_id
from dermoscopy.errors import Misconfigured, Rejected
from dermoscopy.outcomes import Certainty, OutcomeState
from dermoscopy.tables import AnalysisRow, InstanceRow, OutcomeRow, ReviewRow
from dicom_listener.deidentify_source import open_photograph
from dicom_listener.deidentify_table import Retained
from dicom_listener.header import read_header, read_picture_header
from dicom_listener.syntaxes import EXPLICIT_LITTLE_ENDIAN, VL_PHOTOGRAPHIC
from models.training.layouts.table import list_table
from tests.findings import drawn_lesion, finish, make_finding, make_node
from tests.unit.dicom_listener.samples import as_file, encoded, source
from tests.unit.dicom_listener.samples import dataset as sample
from tests.unit.dicom_listener.test_deidentify import stuffed

NOW = datetime(2026, 4, 1, tzinfo=UTC)


@pytest.fixture
def node(engine: sa.Engine, tmp_path: Path) -> Node:
    return make_node(engine, tmp_path / "data")


def take(node: Node, made: Any = None, *, finding: Any = None, analysed: bool = True, **changes: Any) -> str:
    """An accepted and analysed DICOM image; its instance id."""
    made = made or sample(drawn_lesion().pixels, **changes)
    data = encoded(made)
    receipt = node.intake.accept(data, read_header(data, EXPLICIT_LITTLE_ENDIAN), source="test", caller="test")
    if analysed and receipt.analysis_id:
        finish(node, receipt.analysis_id, finding)
    return receipt.instance_id


def review(node: Node, instance_id: str, verdict: Verdict, **changes: Any) -> None:
    with node.begin() as session:
        row = session.execute(select(AnalysisRow).where(AnalysisRow.instance_id == instance_id)).scalar_one()
        session.add(
            ReviewRow(
                id=derive_id("review", row.id, "1"),
                analysis_id=row.id,
                revision=1,
                at=NOW,
                reviewer="issuer|ZZPLANTED",
                reviewer_name="Dr ZZPLANTED",
                verdict=verdict.value,
                comment="ZZPLANTED says",
                **changes,
            )
        )


def run(node: Node, folder: Path, **changes: Any) -> Exported:
    return export(node, Asked(folder, **changes), actor="tester")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def reasons(done: Exported) -> dict[str, str]:
    return {one.instance_id: one.reason for one in done.kept_back}


def test_nobody_is_found_in_any_file_or_name(node: Node, tmp_path: Path) -> None:
    made = stuffed()
    pixels = drawn_lesion().pixels
    made.Rows, made.Columns, made.PixelData = *pixels.shape[:2], pixels.tobytes()
    del made.ImageLaterality
    instance_id = take(node, made)
    review(node, instance_id, Verdict.CONFIRMED)
    target = tmp_path / "out"
    done = run(node, target, form="dicom", include=frozenset({instance_id}))
    files = [path for path in target.rglob("*") if path.is_file()]
    assert len(files) == 6
    wanted = ["PLANTED", "Jane", "19120623", instance_id, str(made.StudyInstanceUID), str(made.SOPInstanceUID)]
    with node.begin() as session:
        wanted += [row.id for row in session.execute(select(AnalysisRow)).scalars()]
    key = (node.settings.data_dir / KEYS / "default.key").read_text(encoding="ascii").strip()
    for path in files:
        data = path.read_bytes()
        for word in (*wanted, key):
            at = data.find(word.encode())
            assert at < 0, (path.name, word, data[max(0, at - 30) : at + 30])
            assert word not in str(path.relative_to(target))
    assert done.images == 1


def test_the_manifest_says_profile_options_and_every_file(node: Node, tmp_path: Path) -> None:
    take(node)
    done = run(node, tmp_path / "out", form="dicom", project="study-1")
    text = (tmp_path / "out" / "manifest.json").read_bytes()
    manifest = json.loads(text)
    assert hashlib.sha256(text).hexdigest() == done.digest
    assert [one["code"] for one in manifest["profile"]] == ["113100", "113101", "113102", "113105", "113107"]
    assert manifest["key_id"] == done.key_id
    there = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert there == {*manifest["files"], "manifest.json"}
    for path, digest in manifest["files"].items():
        assert hashlib.sha256((tmp_path / "out" / path).read_bytes()).hexdigest() == digest
    removed = json.loads((tmp_path / "out" / "removed.json").read_text(encoding="utf-8"))["actions"]
    assert {"name": "PatientName", "action": "replaced", "objects": 1} in removed


def test_the_audit_log_has_numbers_and_the_digest(node: Node, tmp_path: Path) -> None:
    take(node)
    done = run(node, tmp_path / "out")
    with node.begin() as session:
        leaf = session.execute(select(AuditLeaf).where(AuditLeaf.action == "export.deidentified")).scalar_one()
        actor, subject, details = leaf.actor, leaf.subject_id, json.loads(leaf.details)
    assert (actor, subject) == ("tester", done.digest)
    assert details["images"] == 1
    assert details["profile"][0] == "113100"
    record = json.loads((node.settings.data_dir / RECORDS / f"{done.digest[:16]}.json").read_text(encoding="utf-8"))
    assert list(record["images"].values()) == [path.stem for path in (tmp_path / "out" / "images").iterdir()]


def test_what_leaves_trains(node: Node, tmp_path: Path) -> None:
    confirmed, corrected, plain = (take(node, SOPInstanceUID=f"1.2.3.{n}") for n in range(3))
    review(node, confirmed, Verdict.CONFIRMED)
    square = "[[40, 40], [150, 40], [150, 150], [40, 150]]"
    review(node, corrected, Verdict.CORRECTED, lesion_class="bcc", outline=square, body_site_code="61248009")
    done = run(node, tmp_path / "out")
    assert (done.images, done.patients, done.labelled) == (3, 1, 2)
    listing = list_table(tmp_path / "out", "labels.csv")
    assert sorted(label.diagnosis for label in listing.labels) == ["bcc", "mel"]
    assert {label.outlined for label in listing.labels} == {True, False}
    assert len(list(listing.images.files())) == 2
    rows = rows_of(tmp_path / "out" / "labels.csv")
    assert {row["fold"] for row in rows} == {""}
    assert {row["localization"] for row in rows} == {"Skin of back", "Skin of anterior surface of thigh"}
    (unlabelled,) = rows_of(tmp_path / "out" / "unlabelled.csv")
    assert unlabelled["dx"] == unlabelled["age"] == ""
    assert unlabelled["patient_id"] == rows[0]["patient_id"]
    with Image.open(tmp_path / "out" / unlabelled["image"]) as picture:
        assert (np.asarray(picture) == drawn_lesion().pixels).all()
        assert not picture.info
    assert plain in json.dumps(reasons(run(node, tmp_path / "second", reviewed_only=True)))


def test_the_same_key_gives_the_same_export_and_another_key_another(node: Node, tmp_path: Path) -> None:
    take(node)
    take(node, SOPInstanceUID="1.2.3.9", StudyDate="20260311")
    first, again, other = (
        run(node, tmp_path / name, form="dicom", project=project)
        for name, project in (("a", "study"), ("b", "study"), ("c", "other"))
    )
    assert first.digest == again.digest
    assert other.digest != first.digest
    names = {
        name: {column: {row[column] for row in rows_of(tmp_path / name / "unlabelled.csv")} for column in KEYED}
        for name in ("a", "c")
    }
    assert all(names["a"][column].isdisjoint(names["c"][column]) for column in KEYED)
    objects = {name: [dcmread(path) for path in (tmp_path / name / "dicom").iterdir()] for name in ("a", "c")}
    for name, made in objects.items():
        days = sorted(datetime.strptime(one.StudyDate, "%Y%m%d").replace(tzinfo=UTC) for one in made)
        assert days[1] - days[0] == timedelta(days=7), name
        (patient,) = {one.PatientID for one in made}
        assert {patient} == {row["patient_id"] for row in rows_of(tmp_path / name / "unlabelled.csv")}
    assert {o.StudyInstanceUID for o in objects["a"]}.isdisjoint({o.StudyInstanceUID for o in objects["c"]})


KEYED = ("image_id", "lesion_id", "patient_id", "acquired")


def doubt(code: str) -> Any:
    return make_finding(abstention="x", primary=None, abstention_reasons=(Reason(code, "x"),))


def test_in_doubt_nothing_leaves(node: Node, tmp_path: Path) -> None:
    captioned = drawn_lesion().pixels.copy()
    cv2.putText(captioned, "DOE JANE", (5, 180), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
    kept = {
        take(node, SOPInstanceUID="1.2.1", finding=doubt("not_dermoscopy")): "not_dermoscopy",
        take(node, SOPInstanceUID="1.2.2", finding=doubt("unlike_training")): "unlike_training",
        take(node, SOPInstanceUID="1.2.3", analysed=False): "not_analysed",
        take(node, SOPInstanceUID="1.2.4", RecognizableVisualFeatures="YES"): "recognisable_features",
        take(node, SOPInstanceUID="1.2.5", BurnedInAnnotation="YES"): "burned_in_annotation",
        take(node, sample(captioned, SOPInstanceUID="1.2.6")): "writing",
        take(node, SOPInstanceUID="1.2.7", SOPClassUID=VL_PHOTOGRAPHIC, AnatomicRegionSequence=[]): "may_show_face",
        take(node, SOPInstanceUID="1.2.8", PatientID=None, IssuerOfPatientID=None): "held",
        take(node, SOPInstanceUID="1.2.9"): "withdrawn",
    }
    review(node, next(key for key, reason in kept.items() if reason == "withdrawn"), Verdict.UNUSABLE)
    with pytest.raises(Rejected, match=r"nothing to export: .* 1 writing") as refused:
        run(node, tmp_path / "none")
    assert all((key in str(refused.value)) is (reason in APPROVABLE) for key, reason in kept.items())
    assert not list(tmp_path.glob("*none*"))
    blurred = take(node, SOPInstanceUID="1.2.10", finding=doubt("blur"))
    done = run(node, tmp_path / "out")
    assert done.images == 1
    assert reasons(done) == kept
    assert blurred not in kept
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["kept_back"] == dict.fromkeys(kept.values(), 1)


def test_a_person_approves_doubts_by_name_and_nothing_else(node: Node, tmp_path: Path) -> None:
    strange = take(node, SOPInstanceUID="1.2.1", finding=doubt("unlike_training"))
    held = take(node, SOPInstanceUID="1.2.8", PatientID=None, IssuerOfPatientID=None)
    done = run(node, tmp_path / "out", include=frozenset({strange, held}))
    assert [(one.instance_id, one.reason) for one in done.approved] == [(strange, "unlike_training")]
    assert reasons(done) == {held: "held"}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert len(manifest["approved_by_name"]) == 1
    with pytest.raises(Rejected, match="no such image"):
        run(node, tmp_path / "other", include=frozenset({"nothing"}))


def test_writing_around_the_field_is_blacked_and_the_image_leaves(node: Node, tmp_path: Path) -> None:
    pixels = np.asarray(cv2.resize(drawn_lesion().pixels, (400, 400)), dtype=np.uint8)
    y, x = np.mgrid[0:400, 0:400]
    pixels[(y - 200) ** 2 + (x - 200) ** 2 > 185**2] = 0
    cv2.putText(pixels, "DOE J", (4, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    cleaned = clean(pixels)
    assert cleaned.written_around
    assert not cleaned.written_inside
    take(node, sample(pixels, BurnedInAnnotation="YES", ImageType=["ORIGINAL", "PRIMARY"]))
    run(node, tmp_path / "out", form="dicom")
    (path,) = (tmp_path / "out" / "dicom").iterdir()
    made = dcmread(path)
    assert not made.pixel_array[:26, :70].any()
    assert made.BurnedInAnnotation == "NO"
    assert list(made.ImageType) == ["DERIVED", "PRIMARY"]


def test_pictures_leave_without_what_their_files_say(node: Node, tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "ZZPLANTED Jane")
    data = as_file(drawn_lesion().pixels, "PNG", pnginfo=text)
    header = read_picture_header(data, PatientIdentity("HOSPITAL-A", "4711"))
    finish(node, node.intake.accept(data, header, source="test", caller="test").analysis_id)
    run(node, tmp_path / "out", form="dicom")
    for path in (tmp_path / "out").rglob("*.*"):
        assert b"ZZPLANTED" not in path.read_bytes()


def test_age_and_sex_only_where_asked_for(node: Node, tmp_path: Path) -> None:
    take(node, PatientAge="061Y")
    run(node, tmp_path / "plain")
    run(node, tmp_path / "asked", retained=Retained(patient=True))
    assert [(row["age"], row["sex"]) for row in rows_of(tmp_path / "plain" / "unlabelled.csv")] == [("", "")]
    assert [(row["age"], row["sex"]) for row in rows_of(tmp_path / "asked" / "unlabelled.csv")] == [("61", "female")]


def test_only_what_is_asked_for(node: Node, tmp_path: Path) -> None:
    old, young = take(node, SOPInstanceUID="1.2.1"), take(node, SOPInstanceUID="1.2.2", AnatomicRegionSequence=[])
    with node.begin() as session:
        session.get_one(InstanceRow, old).received_at = NOW - timedelta(days=400)
    assert run(node, tmp_path / "a").images == 2
    assert run(node, tmp_path / "b", since=NOW - timedelta(days=100)).images == 1
    assert run(node, tmp_path / "c", site="66643007").images == 1
    with pytest.raises(Rejected, match="no image matches"):
        run(node, tmp_path / "d", site="66643007", since=NOW - timedelta(days=100))
    with pytest.raises(Rejected, match="no such image"):
        run(node, tmp_path / "e", site="66643007", include=frozenset({young}))


def test_where_something_lies_already_nothing_is_written(node: Node, tmp_path: Path) -> None:
    take(node)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x", encoding="ascii")
    with pytest.raises(Misconfigured, match="not empty"):
        run(node, tmp_path / "full")
    for folder in (node.settings.data_dir, node.settings.data_dir / "blobs" / "x", tmp_path):
        with pytest.raises(Misconfigured, match="service's data"):
            run(node, folder)


def test_a_clinical_photograph_leaves_only_from_below_the_head() -> None:
    clinical = open_photograph(source(sample(SOPClassUID=VL_PHOTOGRAPHIC)))
    assert doubts_of_object(clinical, "61248009") == []
    assert doubts_of_object(clinical, "36141000") == ["may_show_face"]
    assert doubts_of_object(open_photograph(source()), "36141000") == []
    contact = open_photograph(source(sample(SOPClassUID=VL_PHOTOGRAPHIC, ContactMethod="CONTACT")))
    assert doubts_of_object(contact, "36141000") == []
    assert may_show_face("")
    assert may_show_face("39937001")


def test_the_class_is_what_a_clinician_gave(node: Node, tmp_path: Path) -> None:
    corrected = take(node, SOPInstanceUID="1.2.1")
    review(node, corrected, Verdict.CORRECTED, body_site_code="61248009")  # nothing said of the class
    run(node, tmp_path / "out")
    assert [row["dx"] for row in rows_of(tmp_path / "out" / "unlabelled.csv")] == [""]
    assert LesionClass.MEL.value not in (tmp_path / "out" / "labels.csv").read_text(encoding="utf-8")


def outcome(node: Node, instance_id: str, number: int, certainty: Certainty, label: str, doubt: str = "") -> None:
    with node.begin() as session:
        row = session.execute(select(AnalysisRow).where(AnalysisRow.instance_id == instance_id)).scalar_one()
        session.add(
            OutcomeRow(
                id=f"{row.id}-{number}",
                source_key="k",
                part="1",
                origin="ZZPLANTED",
                resource_type="DiagnosticReport",
                version="1",
                status="final",
                state=OutcomeState.MATCHED.value,
                analysis_id=row.id,
                certainty=certainty.value,
                lesion_class=label,
                diagnosis="ZZPLANTED words",
                doubt=doubt,
                received_at=NOW,
            )
        )


def test_what_was_found_out_goes_before_what_was_said(node: Node, tmp_path: Path) -> None:
    said, found, followed, unsure, torn = (take(node, SOPInstanceUID=f"1.2.{n}") for n in range(5))
    for one in (said, found, followed, unsure, torn):
        review(node, one, Verdict.CORRECTED, lesion_class="df")
    outcome(node, found, 1, Certainty.HISTOPATHOLOGY, "bcc")
    outcome(node, found, 2, Certainty.FOLLOW_UP, "nv")
    outcome(node, followed, 1, Certainty.FOLLOW_UP, "nv")
    outcome(node, unsure, 1, Certainty.HISTOPATHOLOGY, "mel", doubt="two diagnoses")
    outcome(node, torn, 1, Certainty.HISTOPATHOLOGY, "mel")
    outcome(node, torn, 2, Certainty.HISTOPATHOLOGY, "nv")
    run(node, tmp_path / "out", reviewed_only=True)
    labels = sorted((row["dx"], row["dx_type"]) for row in rows_of(tmp_path / "out" / "labels.csv"))
    assert labels == [("bcc", "histo"), ("df", "clinician"), ("nv", "follow_up")]
    assert len(rows_of(tmp_path / "out" / "unlabelled.csv")) == 2
