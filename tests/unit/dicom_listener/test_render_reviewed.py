"""Objects after a clinician's review: who said what, what replaces what, and what a viewer may no longer show."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from cds_service.rendering import draw
from dermoscopy.codes import CLASS_CODES
from dermoscopy.domain import Artifact, ArtifactKind, LesionClass, Review, Verdict, derive_uid
from dermoscopy.errors import AnalysisFailed
from dermoscopy.outline import outline_mask
from dermoscopy.ports import FormerOutput, Outlined, RenderInput
from dicom_listener.render import REJECTION, RENDERERS
from models.measure import measure_outline
from tests.peers.processes import program
from tests.unit.dicom_listener.samples import dataset, picture_source, render_input, source

NOON = datetime(2026, 3, 5, 12, 0, tzinfo=UTC)
SQUARE = ((10.0, 10.0), (50.0, 10.0), (50.0, 40.0), (10.0, 40.0))
EVERYTHING = {**RENDERERS, **REJECTION}
SR, SEG, SC, NOTE = (
    ArtifactKind.SR,
    ArtifactKind.SEG,
    ArtifactKind.SECONDARY_CAPTURE,
    ArtifactKind.REJECTION_NOTE,
)
CONFIRMED = {"verdict": Verdict.CONFIRMED}
CORRECTED = {
    "verdict": Verdict.CORRECTED,
    "lesion_class": LesionClass.NV,
    "outline": SQUARE,
    "body_site_code": "75093004",
    "laterality": "R",
    "comment": "known since childhood",
}
RECLASSIFIED = {"verdict": Verdict.CORRECTED, "lesion_class": LesionClass.BCC}
WITHDRAWN = {"verdict": Verdict.UNUSABLE, "comment": "another patient's image"}
COMMENTED = {"verdict": Verdict.COMMENTED, "comment": "hm"}


def reviewed(what: RenderInput, *said: dict[str, object]) -> RenderInput:
    """``what`` after these reviews, with everything that was drawn before as what it replaces."""
    for count, changes in enumerate(said, start=len(what.reviews) + 1):
        made = Review(
            id=f"review-{count}",
            analysis_id=what.analysis.id,
            revision=count,
            at=NOON + timedelta(hours=count),
            reviewer=f"https://login|doctor-{count}",
            reviewer_name=f"Dr Zoë Example {count}",
            **changes,  # type: ignore[arg-type]
        )
        gone = (FormerOutput(one.kind, one.uid, one.sop_class_uid) for one in drawn(what).values())
        former = (*what.former, *(one for one in gone if one.kind in (SR, SEG, SC)))
        outlined = what.outlined
        if made.outline:
            mask = outline_mask(made.outline, what.image.rows, what.image.columns)
            outlined = Outlined(mask, measure_outline(what.image, mask))
        what = replace(what, reviews=(*what.reviews, made), former=former, outlined=outlined)
    return what


def drawn(what: RenderInput) -> dict[ArtifactKind, Artifact]:
    return {one.kind: one for one in draw(EVERYTHING, what)}


def read(what: RenderInput, kind: ArtifactKind) -> Dataset:
    return dcmread(BytesIO(drawn(what)[kind].data))


def content(item: Dataset):
    for child in item.get("ContentSequence", []):
        yield child
        yield from content(child)


def coded_values(item: Dataset) -> list[tuple[str, str]]:
    return [
        (one.ConceptNameCodeSequence[0].CodeValue, one.ConceptCodeSequence[0].CodeValue)
        for one in content(item)
        if one.ValueType == "CODE"
    ]


def groups(made: Dataset) -> list[Dataset]:
    return [one for one in content(made) if one.ValueType == "CONTAINER" and _name(one) == "125007"]


def observer(group: Dataset) -> str:
    """Name of the person a group is the word of; empty for the algorithm's."""
    return next((str(one.PersonName) for one in group.ContentSequence if one.ValueType == "PNAME"), "")


def _name(item: Dataset) -> str:
    return item.ConceptNameCodeSequence[0].CodeValue


SCENES = {
    "confirmed": [CONFIRMED],
    "corrected": [CORRECTED],
    "class only": [RECLASSIFIED],
    "withdrawn": [WITHDRAWN],
    "corrected and confirmed": [CORRECTED, COMMENTED, CONFIRMED],
    "back again": [WITHDRAWN, CORRECTED],
}


def every_input():
    for name, said in SCENES.items():
        yield name, reviewed(render_input(), *said)
    calibrated = source(
        dataset(PixelSpacing=["0.1", "0.1"], InstitutionName="St. Example", TimezoneOffsetFromUTC="+0100")
    )
    yield "calibrated", reviewed(render_input(calibrated), CORRECTED)
    yield "picture", reviewed(render_input(picture_source()), CORRECTED)
    yield "drawn by hand", reviewed(render_input(measurements=None, mask=np.zeros((48, 64), bool)), CORRECTED)


@pytest.mark.parametrize(("name", "what"), list(every_input()))
@pytest.mark.peers
def test_dciodvfy_finds_no_error(name, what, tmp_path: Path):
    for kind, made in drawn(what).items():
        file = tmp_path / f"{kind.value}.dcm"
        file.write_bytes(made.data)
        checker = program("dciodvfy", package="dicom3tools")
        checked = subprocess.run([checker, "-new", str(file)], capture_output=True, text=True, check=False)
        errors = [line for line in (checked.stdout + checked.stderr).splitlines() if line.startswith("Error")]
        assert errors == [], kind


def test_the_same_reviews_give_the_same_bytes():
    assert drawn(reviewed(render_input(), CORRECTED, CONFIRMED)) == drawn(
        reviewed(render_input(), CORRECTED, CONFIRMED)
    )


def test_an_amended_object_is_a_new_one_in_the_same_series():
    before, after = render_input(), reviewed(render_input(), CORRECTED)
    for kind in (SEG, SR, SC):
        old, new = read(before, kind), read(after, kind)
        assert new.SOPInstanceUID == derive_uid(kind.value, "analysis-1", "1") != old.SOPInstanceUID
        for keyword in ("SeriesInstanceUID", "SeriesDate", "SeriesTime", "SeriesNumber", "SeriesDescription"):
            assert new[keyword].value == old[keyword].value
        assert (new.InstanceNumber, new.ContentDate, new.ContentTime) == (2, "20260305", "130000.000000")


def test_a_comment_changes_nothing():
    before, after = drawn(render_input()), drawn(replace(reviewed(render_input(), COMMENTED), former=()))
    assert before == after


def test_a_confirmation_moves_no_pixel():
    before, after = drawn(render_input()), drawn(reviewed(render_input(), CONFIRMED))
    assert after[SEG] == before[SEG]
    assert after[SR].uid != before[SR].uid
    assert after[SC].uid != before[SC].uid


# ------------------------------------------------------------------------------------------------------------------ SR


def test_a_reviewed_report_is_verified_and_names_what_it_replaces():
    before = render_input(source(dataset(InstitutionName="St. Example", TimezoneOffsetFromUTC="+0100")))
    made = read(reviewed(before, CORRECTED), SR)
    assert (made.VerificationFlag, made.CompletionFlag, made.PreliminaryFlag) == ("VERIFIED", "COMPLETE", "FINAL")
    (who,) = made.VerifyingObserverSequence
    assert (str(who.VerifyingObserverName), who.VerifyingOrganization) == ("Dr Zoë Example 1", "St. Example")
    assert who.VerificationDateTime == "20260305140000.000000+0100"
    (study,) = made.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert study.StudyInstanceUID == made.StudyInstanceUID
    assert series.SeriesInstanceUID == made.SeriesInstanceUID
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == drawn(before)[SR].uid


def test_the_clinicians_word_and_the_algorithms_are_told_apart():
    made = read(reviewed(render_input(), CORRECTED), SR)
    said = {observer(group): [] for group in groups(made)}
    for group in groups(made):
        said[observer(group)] += coded_values(group)
    assert ("clinician-class", CLASS_CODES[LesionClass.NV][0].code) in said["Dr Zoë Example 1"]
    assert ("review", "corrected") in said["Dr Zoë Example 1"]
    assert ("363698007", "75093004") in said["Dr Zoë Example 1"]
    assert ("classification", CLASS_CODES[LesionClass.MEL][0].code) in said[""]
    assert ("363698007", "66643007") in said[""], "what the algorithm was told of the site stays with its answer"
    assert not any(name == "clinician-class" for name, _ in said[""])


def test_both_outlines_are_measured_and_only_the_present_one_is_segmented():
    what = reviewed(render_input(), CORRECTED)
    made = hd.sr.srread(BytesIO(drawn(what)[SR].data))
    (segmented,) = made.content.get_planar_roi_measurement_groups()
    assert segmented.referenced_segmentation_frame.referenced_sop_instance_uid == drawn(what)[SEG].uid
    assert what.outlined is not None
    areas = {observer(group): _area(group) for group in groups(read(what, SR)) if _area(group)}
    assert areas == {"Dr Zoë Example 1": 1200.0, "": what.analysis.finding.measurements.area_px}
    texts = [one.TextValue for one in content(read(what, SR)) if one.ValueType == "TEXT"]
    assert "Measured by the algorithm in its own outline, which a clinician has replaced." in texts
    assert "Dr Zoë Example 1: known since childhood" in texts


def _area(group: Dataset) -> float:
    areas = [
        float(one.MeasuredValueSequence[0].NumericValue)
        for one in group.ContentSequence
        if one.ValueType == "NUM" and _name(one) == "42798000"
    ]
    return areas[0] if areas else 0.0


def test_who_confirms_a_correction_answers_for_the_report_and_not_for_the_outline():
    made = read(reviewed(render_input(), CORRECTED, CONFIRMED), SR)
    assert str(made.VerifyingObserverSequence[0].VerifyingObserverName) == "Dr Zoë Example 2"
    assert {observer(group) for group in groups(made)} == {"Dr Zoë Example 1", "Dr Zoë Example 2", ""}
    assert made.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[
        0
    ].ReferencedSOPInstanceUID == derive_uid("sr", "analysis-1", "1")


def test_a_withdrawn_report_has_no_numbers_and_nobody_stands_for_them():
    made = read(reviewed(render_input(), WITHDRAWN), SR)
    assert (made.VerificationFlag, "VerifyingObserverSequence" in made) == ("UNVERIFIED", False)
    assert "do not use" in made.CompletionFlagDescription
    assert not any(one.ValueType == "NUM" for one in content(made))
    names = [name for name, _ in coded_values(made)]
    assert "classification" not in names
    assert "clinician-class" not in names
    assert ("review", "withdrawn") in coded_values(made)


def test_an_abstention_that_is_confirmed_names_no_class():
    made = read(reviewed(render_input(primary=None, abstention="novel image"), CONFIRMED), SR)
    assert not any(name in ("classification", "clinician-class") for name, _ in coded_values(made))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Dr. A\\B^C=D", "Dr. A B C D"), ("", "https://login|doctor-1"), ("x" * 80, "x" * 64), ("\n", "unknown")],
)
def test_any_name_fits_a_person_name(name, expected):
    what = reviewed(render_input(), CONFIRMED)
    who = replace(what.reviews[0], reviewer_name=name, reviewer="" if name == "\n" else what.reviews[0].reviewer)
    made = read(replace(what, reviews=(who,)), SR)
    assert str(made.VerifyingObserverSequence[0].VerifyingObserverName) == expected


# ------------------------------------------------------------------------------------------------------- segmentation


def test_a_corrected_outline_is_the_segmentation():
    what = reviewed(render_input(), CORRECTED)
    made = read(what, SEG)
    assert what.outlined is not None
    assert np.array_equal(made.pixel_array.astype(bool), what.outlined.mask)
    (segment,) = made.SegmentSequence
    assert segment.SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert segment.AnatomicRegionSequence[0].CodeValue == "75093004"
    assert "corrected by a clinician" in segment.SegmentDescription
    assert str(made.ContentCreatorName) == "Dr Zoë Example 1"


def test_an_outline_where_the_algorithm_found_none_is_manual():
    what = reviewed(render_input(measurements=None, mask=np.zeros((48, 64), bool)), CORRECTED)
    (segment,) = read(what, SEG).SegmentSequence
    assert segment.SegmentAlgorithmType == "MANUAL"
    assert "SegmentAlgorithmName" not in segment


def test_a_withdrawn_result_has_no_segmentation_and_no_outline():
    before, after = render_input(), reviewed(render_input(), WITHDRAWN)
    assert SEG not in drawn(after)
    picture = read(after, SC)
    rows = before.image.rows
    assert np.array_equal(picture.pixel_array[:rows], before.image.pixels), "no contour is drawn"
    assert "withdrawn by clinician" in picture.DerivationDescription
    assert "corrected by clinician" in read(reviewed(before, CORRECTED), SC).DerivationDescription


# ------------------------------------------------------------------------------------------------------ rejection note


def named(note: Dataset) -> set[str]:
    return {
        one.ReferencedSOPInstanceUID
        for study in note.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }


def test_the_rejection_note_names_what_was_replaced_and_only_that():
    before, after = drawn(render_input()), reviewed(render_input(), CORRECTED)
    note = read(after, NOTE)
    assert named(note) == {before[kind].uid for kind in (SEG, SR, SC)}
    assert _name(note) == "113001"
    assert (note.Modality, note.SOPClassUID) == ("KO", "1.2.840.10008.5.1.4.1.1.88.59")
    assert named(note).isdisjoint(one.uid for one in drawn(after).values())


def test_what_stays_is_not_rejected():
    before, after = drawn(render_input()), reviewed(render_input(), CONFIRMED)
    assert named(read(after, NOTE)) == {before[SR].uid, before[SC].uid}


def test_a_withdrawn_result_is_rejected_for_safety():
    before, after = drawn(render_input()), reviewed(render_input(), WITHDRAWN)
    note = read(after, NOTE)
    assert named(note) == {before[kind].uid for kind in (SEG, SR, SC)}
    assert _name(note) == "113037"


def test_a_later_note_names_everything_so_that_none_can_be_missed():
    what = reviewed(render_input(), CONFIRMED, CORRECTED)
    assert named(read(what, NOTE)) == {
        *(derive_uid(kind.value, "analysis-1") for kind in (SEG, SR, SC)),
        *(derive_uid(kind.value, "analysis-1", "1") for kind in (SR, SC)),
    }


def test_a_segmentation_that_comes_back_is_a_new_one():
    what = reviewed(render_input(), WITHDRAWN, CONFIRMED)
    uid = drawn(what)[SEG].uid
    assert uid != derive_uid("seg", "analysis-1")
    assert uid not in named(read(what, NOTE))


def test_nothing_replaced_nothing_rejected():
    assert NOTE not in drawn(render_input())
    with pytest.raises(AnalysisFailed, match="nothing to reject"):
        REJECTION[NOTE](render_input())
