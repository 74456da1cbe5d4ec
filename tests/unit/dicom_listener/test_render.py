from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as sr_codes

from dermoscopy import codes
from dermoscopy.codes import LOCAL_UID
from dermoscopy.domain import (
    Artifact,
    ArtifactKind,
    LesionClass,
    PatientIdentity,
    Reason,
    Triage,
    TriageTier,
    derive_uid,
)
from dermoscopy.errors import AnalysisFailed
from dermoscopy.overlay import draw_overlay
from dicom_listener.header import read_header
from dicom_listener.part10 import IMPLEMENTATION_CLASS_UID
from dicom_listener.render import RENDERERS, source_dataset
from dicom_listener.syntaxes import IMAGE_CLASSES
from tests.peers.processes import program
from tests.unit.dicom_listener.samples import dataset, for_patient, picture, picture_source, render_input, source

RESULTS = [kind for kind in RENDERERS if kind is not ArtifactKind.SOURCE]
EVERY_REASON = tuple(Reason(code, "in words") for code in codes.ABSTENTION_REASONS)
CALIBRATED = {"PixelSpacing": ["0.1", "0.1"]}
LOSSY = {"LossyImageCompressionRatio": ["10", "2.5"], "LossyImageCompressionMethod": ["ISO_10918_1", "ISO_15444_1"]}


def render(kind: ArtifactKind, what=None) -> Dataset:
    return dcmread(BytesIO(RENDERERS[kind](what or render_input()).data))


def content(item: Dataset):
    """Every content item below ``item``."""
    for child in item.get("ContentSequence", []):
        yield child
        yield from content(child)


def meanings(item: Dataset) -> dict[str, Dataset]:
    return {c.ConceptNameCodeSequence[0].CodeMeaning: c for c in content(item) if "ConceptNameCodeSequence" in c}


def every_input():
    yield "dicom", render_input()
    yield "calibrated", render_input(source(dataset(**CALIBRATED)))
    yield "bare", render_input(source(dataset(StudyDate=None, StudyID=None, PatientName=None, ImageLaterality=None)))
    japanese = {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"}
    yield "iso 2022", render_input(source(dataset(**japanese)))
    yield "oblong pixels", render_input(source(dataset(PixelAspectRatio=["6", "5"])))
    yield "lossy", render_input(source(dataset(LossyImageCompression="01", **LOSSY)))
    for sop_class, name in IMAGE_CLASSES.items():
        if sop_class != dataset().SOPClassUID:
            yield name.lower(), render_input(source(dataset(SOPClassUID=sop_class)))
    yield "png", render_input(picture_source("PNG"))
    yield "jpeg", render_input(picture_source("JPEG"))
    yield "no lesion", render_input(measurements=None)
    abstained = Triage(TriageTier.UNDETERMINED, "out of distribution", "look yourself")
    yield "abstained", render_input(primary=None, abstention="novel image", triage=abstained)
    yield "coded", render_input(primary=None, abstention="all of them", abstention_reasons=EVERY_REASON)
    yield "called otherwise", render_input(prediction_set=tuple(LesionClass), decision_note="because it weighs more")


def every_object():
    """Each renderer with each input that the pipeline would give it: no lesion, no segmentation."""
    for name, what in every_input():
        for kind in RENDERERS:
            if kind is not ArtifactKind.SEG or what.analysis.finding.measurements is not None:
                yield pytest.param(kind, what, id=f"{name}-{kind.value}")


@pytest.mark.parametrize(("kind", "what"), list(every_object()))
@pytest.mark.peers
def test_dciodvfy_finds_no_error(kind, what, tmp_path: Path):
    file = tmp_path / "object.dcm"
    file.write_bytes(RENDERERS[kind](what).data)
    checked = subprocess.run(
        [program("dciodvfy", package="dicom3tools"), "-new", str(file)], capture_output=True, text=True, check=False
    )
    errors = [line for line in (checked.stdout + checked.stderr).splitlines() if line.startswith("Error")]
    assert errors == []


@pytest.mark.parametrize("kind", list(RENDERERS))
def test_rendering_twice_gives_the_same_bytes(kind):
    assert RENDERERS[kind](render_input()) == RENDERERS[kind](render_input())


def test_rendering_in_another_process_gives_the_same_bytes():
    program_text = (
        "import hashlib\n"
        "from dicom_listener.render import RENDERERS\n"
        "from tests.unit.dicom_listener.samples import render_input\n"
        "print(*(hashlib.sha256(r(render_input()).data).hexdigest() for r in RENDERERS.values()))\n"
    )
    other = subprocess.run([sys.executable, "-c", program_text], capture_output=True, text=True, check=True).stdout
    assert other.split() == [hashlib.sha256(r(render_input()).data).hexdigest() for r in RENDERERS.values()]


@pytest.mark.parametrize("kind", RESULTS)
def test_results_stand_in_the_sources_study_under_uids_of_their_own(kind):
    made, origin = render(kind), dataset()
    for keyword in ("StudyInstanceUID", "AccessionNumber", "StudyDate", "StudyID", "PatientID", "IssuerOfPatientID",
                    "PatientBirthDate", "PatientSex"):  # fmt: skip
        assert made.get(keyword) == origin.get(keyword), keyword
    assert made.SeriesInstanceUID != origin.SeriesInstanceUID
    assert made.SOPInstanceUID == derive_uid(kind.value, "analysis-1")
    assert (made.ContentDate, made.ContentTime) == ("20260304", "060708.090000")
    assert made.file_meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert "lite0 1.2.0" in made.SoftwareVersions


def test_series_are_distinct():
    assert len({render(kind).SeriesInstanceUID for kind in RESULTS}) == len(RESULTS)


def test_times_are_in_the_sources_zone():
    made = render(ArtifactKind.SR, render_input(source(dataset(TimezoneOffsetFromUTC="-0330"))))
    assert (made.ContentTime[:6], made.TimezoneOffsetFromUTC) == ("023708", "-0330")


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 192", "Nuñez^José"),
        ("ISO_IR 100", "Müller^Jürg"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("ISO_IR 144", "Люкceмбypг"),
    ],
)
@pytest.mark.parametrize("kind", RESULTS)
def test_names_survive_their_character_set(kind, charset, name):
    made = render(kind, render_input(source(dataset(SpecificCharacterSet=charset, PatientName=name))))
    assert str(made.PatientName) == name
    assert made.SpecificCharacterSet == "ISO_IR 192"


@pytest.mark.parametrize("kind", RESULTS)
def test_odd_values_of_the_source_are_passed_on_not_fatal(kind):
    stored = source()
    data = stored.data.replace(b"19700102", b"1970/1/2")
    assert data != stored.data
    made = render(kind, render_input(replace(stored, data=data, header=read_header(data, "1.2.840.10008.1.2.1"))))
    assert made.get_item("PatientBirthDate").value == b"1970/1/2"


@pytest.mark.parametrize(
    "odd",
    [
        {"SOPInstanceUID": "1.2.03.4"},
        {"StudyInstanceUID": "1.2.003"},
        {"TrackingID": "x" * 80, "TrackingUID": "not a uid"},
        {"PatientSex": "W", "PatientAge": "12", "StudyDate": "2026.13.45", "StudyTime": "25:61"},
        {"StudyDescription": "y" * 100, "PatientName": "A" * 80 + "^B=C=D=E"},
        {"TimezoneOffsetFromUTC": "here", "ImageLaterality": "X"},
    ],
    ids=lambda odd: next(iter(odd)),
)
@pytest.mark.filterwarnings("ignore")
def test_odd_headers_do_not_stop_a_result(odd):
    what = render_input(source(dataset(**odd)))
    for kind in RESULTS:
        made = render(kind, what)
        for keyword in {"StudyInstanceUID", "StudyDate", "StudyTime", "PatientSex", "StudyDescription"} & set(odd):
            assert made[keyword].value == odd[keyword]


@pytest.mark.parametrize("kind", RESULTS)
def test_a_reassigned_image_carries_no_name_of_the_other_patient(kind):
    made = render(kind, for_patient(render_input(), PatientIdentity("HOSPITAL-B", "9999")))
    assert (made.PatientID, made.IssuerOfPatientID) == ("9999", "HOSPITAL-B")
    assert not made.PatientName
    assert not made.PatientBirthDate


def test_an_issuer_that_the_site_fills_in_is_still_the_same_patient():
    what = render_input(source(dataset(IssuerOfPatientID=None)))
    made = render(ArtifactKind.SR, for_patient(what, PatientIdentity("SITE", "4711")))
    assert (made.IssuerOfPatientID, str(made.PatientName)) == ("SITE", "Müller^Jürg")


# ----------------------------------------------------------------------------------------------------------------- SEG


def test_the_mask_comes_back_from_a_reader():
    what = render_input()
    seg = hd.seg.segread(BytesIO(RENDERERS[ArtifactKind.SEG](what).data))
    frames = seg.get_pixels_by_source_instance([dataset().SOPInstanceUID], segment_numbers=[1])
    assert np.array_equal(frames[0, :, :, 0].astype(bool), what.analysis.finding.mask)
    description = seg.get_segment_description(1)
    assert description.segmented_property_type == sr_codes.SCT.Lesion
    assert description.algorithm_identification.name == "lite0"
    assert description.algorithm_identification.version == "1.2.0"


@pytest.mark.parametrize("shape", [(48, 64), (49, 65), (17, 19)])
def test_masks_of_every_size_are_packed_right(shape):
    what = render_input(source(dataset(picture(*shape))))
    assert np.array_equal(render(ArtifactKind.SEG, what).pixel_array.astype(bool), what.analysis.finding.mask)


def test_without_a_scale_nothing_is_claimed_in_millimetres():
    made = render(ArtifactKind.SEG)
    assert "uncalibrated" in made.SegmentSequence[0].SegmentDescription
    assert "uncalibrated" in made.SeriesDescription
    shared = made.SharedFunctionalGroupsSequence[0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [1, 1]


def test_with_a_scale_the_plane_has_it():
    made = render(ArtifactKind.SEG, render_input(source(dataset(**CALIBRATED))))
    assert made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing == [0.1, 0.1]
    assert "uncalibrated" not in made.SegmentSequence[0].SegmentDescription + made.SeriesDescription


def test_oblong_pixels_keep_their_shape_and_the_mask_its_size():
    what = render_input(source(dataset(picture(48, 64), PixelAspectRatio=["6", "5"])))
    made = render(ArtifactKind.SEG, what)
    assert (made.Rows, made.Columns) == (48, 64)
    assert made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing == [1.2, 1]
    assert "uncalibrated" in made.SeriesDescription
    assert list(render(ArtifactKind.SECONDARY_CAPTURE, what).PixelAspectRatio) == [1200, 1000]


@pytest.mark.parametrize("sop_class", IMAGE_CLASSES)
def test_the_segmentation_names_the_class_of_its_source(sop_class):
    made = render(ArtifactKind.SEG, render_input(source(dataset(SOPClassUID=sop_class))))
    named = {element.value for element in made.iterall() if element.keyword == "ReferencedSOPClassUID"}
    assert named == {sop_class}


def test_plane_geometry_is_always_there():
    made = render(ArtifactKind.SEG)
    assert made.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient == [
        1,
        0,
        0,
        0,
        1,
        0,
    ]
    assert made.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient == [0, 0, 0]
    assert made.FrameOfReferenceUID


def test_no_lesion_no_segmentation():
    with pytest.raises(AnalysisFailed, match="nothing to segment"):
        RENDERERS[ArtifactKind.SEG](render_input(measurements=None))


def test_a_mask_of_another_size_is_an_error():
    with pytest.raises(AnalysisFailed, match="does not fit"):
        RENDERERS[ArtifactKind.SEG](render_input(mask=np.ones((3, 3), bool)))


@pytest.mark.parametrize("kind", [ArtifactKind.SEG, ArtifactKind.SECONDARY_CAPTURE])
def test_a_lossy_source_makes_a_lossy_result(kind):
    assert render(kind).LossyImageCompression == "00"
    assert render(kind, render_input(picture_source("JPEG"))).LossyImageCompression == "01"
    made = render(kind, render_input(source(dataset(LossyImageCompression="01", **LOSSY))))
    assert [str(ratio) for ratio in made.LossyImageCompressionRatio] == LOSSY["LossyImageCompressionRatio"]
    assert list(made.LossyImageCompressionMethod) == LOSSY["LossyImageCompressionMethod"]


def test_the_frame_of_reference_is_the_sources_where_it_has_one():
    assert (
        render(ArtifactKind.SEG, render_input(source(dataset(FrameOfReferenceUID="1.2.9")))).FrameOfReferenceUID
        == "1.2.9"
    )
    what = render_input(picture_source())
    assert render(ArtifactKind.SEG, what).FrameOfReferenceUID == render(ArtifactKind.SOURCE, what).FrameOfReferenceUID


# ------------------------------------------------------------------------------------------------------------------ SR


def report(what=None) -> hd.sr.ComprehensiveSR:
    return hd.sr.srread(BytesIO(RENDERERS[ArtifactKind.SR](what or render_input()).data))


def test_highdicom_reads_the_report_as_tid_1500():
    what = render_input(source(dataset(**CALIBRATED)))
    groups = report(what).content.get_planar_roi_measurement_groups()
    assert len(groups) == 1
    group = groups[0]
    assert group.finding_type == sr_codes.SCT.Lesion
    assert group.finding_category == sr_codes.SCT.MorphologicallyAbnormalStructure
    assert [site.value.value for site in group.finding_sites] == ["66643007"]
    segment = group.referenced_segmentation_frame
    assert segment.referenced_sop_instance_uid == derive_uid("seg", "analysis-1")
    measured = {(m.name.meaning, m.unit.value): m.value for m in group.get_measurements()}
    assert measured[("Area", "mm2")] == pytest.approx(0.01 * what.analysis.finding.measurements.area_px)
    assert measured[("Area", "{pixels}")] == what.analysis.finding.measurements.area_px
    image = report(what).content.get_image_measurement_groups()
    assert len(image) == 1


def test_uncalibrated_measurements_are_in_pixels_and_say_so():
    made = render(ArtifactKind.SR)
    units = {
        item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue
        for item in content(made)
        if item.ValueType == "NUM"
    }
    assert not any(unit.startswith("mm") for unit in units)
    assert any("Uncalibrated" in item.TextValue for item in content(made) if item.ValueType == "TEXT")


def test_the_algorithm_is_identified_with_its_weights():
    texts = [
        (i.ConceptNameCodeSequence[0].CodeValue, i.TextValue)
        for i in content(render(ArtifactKind.SR))
        if i.ValueType == "TEXT"
    ]
    assert ("111001", "lite0") in texts
    assert ("111003", "1.2.0") in texts
    assert ("111002", "sha256=" + "ab" * 32) in texts
    assert ("111002", "threshold.melanoma=0.3") in texts


def test_probabilities_of_all_classes_in_percent():
    numbers = {
        i.ConceptNameCodeSequence[0].CodeValue: i.MeasuredValueSequence[0]
        for i in content(render(ArtifactKind.SR))
        if i.ValueType == "NUM"
    }
    assert float(numbers["p-mel"].NumericValue) == pytest.approx(100 / 7)
    assert numbers["p-mel"].MeasurementUnitsCodeSequence[0].CodeValue == "%"
    assert float(numbers["melanoma-risk"].NumericValue) == 75
    assert len([code for code in numbers if code.startswith("p-")]) == 7


def test_triage_and_the_class_are_coded():
    values = {
        i.ConceptNameCodeSequence[0].CodeValue: i.ConceptCodeSequence[0].CodeValue
        for i in content(render(ArtifactKind.SR))
        if i.ValueType == "CODE"
    }
    assert values["triage"] == "urgent"
    assert values["classification"] == "93655004"


@pytest.mark.parametrize("tier", list(TriageTier))
def test_every_tier_has_its_code(tier):
    found = meanings(render(ArtifactKind.SR, render_input(triage=Triage(tier, "a reason", "an advice"))))
    assert found["Triage tier by image analysis"].ConceptCodeSequence[0].CodeValue == tier.value


def test_an_abstention_names_no_class():
    what = render_input(primary=None, abstention="novel image")
    found = meanings(render(ArtifactKind.SR, what))
    assert "Lesion classification by image analysis" not in found
    assert found["Reason for which the algorithm abstained"].TextValue == "novel image"


def test_each_reason_and_each_class_that_is_left_is_coded():
    left = (LesionClass.NV, LesionClass.MEL)
    what = render_input(
        primary=None, abstention="…", abstention_reasons=EVERY_REASON, prediction_set=left, decision_note="weighs more"
    )
    made = render(ArtifactKind.SR, what)
    coded = [
        (i.ConceptNameCodeSequence[0].CodeValue, i.ConceptCodeSequence[0].CodeValue)
        for i in content(made)
        if i.ValueType == "CODE"
    ]
    assert [value for name, value in coded if name == "abstention"] == [
        code.code for code in codes.ABSTENTION_REASONS.values()
    ]
    assert [value for name, value in coded if name == "prediction-set"] == [codes.class_code(k).code for k in left]
    assert meanings(made)["Why the class called is not the most probable"].TextValue == "weighs more"


def test_without_a_lesion_the_report_refers_to_no_segmentation():
    made = render(ArtifactKind.SR, render_input(measurements=None))
    assert "Referenced Segmentation Frame" not in meanings(made)
    evidence = made.CurrentRequestedProcedureEvidenceSequence[0]
    assert len(evidence.ReferencedSeriesSequence) == 1


def test_the_private_coding_scheme_is_identified():
    (scheme,) = render(ArtifactKind.SR).CodingSchemeIdentificationSequence
    assert (scheme.CodingSchemeDesignator, scheme.CodingSchemeUID) == ("99DERMCDS", LOCAL_UID)


def test_the_report_is_preliminary_and_unverified():
    made = render(ArtifactKind.SR)
    assert (made.PreliminaryFlag, made.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")


def test_a_tracked_lesion_keeps_its_identity():
    tracked = render_input(source(dataset(TrackingID="mole 3", TrackingUID="1.2.3.4")))
    found = meanings(render(ArtifactKind.SR, tracked))
    assert render(ArtifactKind.SEG, tracked).SegmentSequence[0].TrackingUID == "1.2.3.4"
    assert any(i.get("UID") == "1.2.3.4" for i in content(render(ArtifactKind.SR, tracked)))
    assert "Tracking Identifier" in found


# -------------------------------------------------------------------------------------------- secondary capture, source


def test_the_secondary_capture_shows_the_overlay():
    what = render_input()
    made = render(ArtifactKind.SECONDARY_CAPTURE, what)
    assert np.array_equal(made.pixel_array, draw_overlay(what.image, what.analysis.finding))
    assert made.BurnedInAnnotation == "YES"
    assert "not a diagnosis" in made.SeriesDescription
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == dataset().SOPInstanceUID


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_picture_becomes_a_dermoscopic_photograph(form):
    what = render_input(picture_source(form))
    artifact = RENDERERS[ArtifactKind.SOURCE](what)
    made = dcmread(BytesIO(artifact.data))
    assert np.array_equal(made.pixel_array, what.image.pixels)
    assert made.SOPClassUID == artifact.sop_class_uid == "1.2.840.10008.5.1.4.1.1.77.1.7"
    assert (made.Modality, made.PatientID, made.IssuerOfPatientID) == ("DMS", "4711", "HOSPITAL-A")
    header = read_header(artifact.data, None)
    assert header.sop_instance_uid == artifact.uid
    referred = source_dataset(what.source, what.image)
    assert referred.SOPInstanceUID == artifact.uid
    assert render(ArtifactKind.SR, what).StudyInstanceUID == made.StudyInstanceUID


def test_a_wrapped_picture_is_the_same_whoever_analyses_it():
    what = render_input(picture_source())
    other = replace(what, analysis=replace(what.analysis, id="analysis-2"))
    assert RENDERERS[ArtifactKind.SOURCE](what).data == RENDERERS[ArtifactKind.SOURCE](other).data


def test_a_dicom_source_is_referred_to_as_it_came():
    what = render_input()
    assert source_dataset(what.source, what.image).SOPInstanceUID == dataset().SOPInstanceUID
    assert isinstance(RENDERERS[ArtifactKind.SR](what), Artifact)
