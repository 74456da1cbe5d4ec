"""De-identification of one object: nothing planted gets out, what must stand stands, and the table is whole."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import numpy as np
import pytest
from pydicom import config, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from dermoscopy.pseudonyms import Pseudonyms
from dicom_listener.deidentify import Deidentified, Identity, deidentify, moved_date
from dicom_listener.deidentify_table import Retained, action_for, claimed, read_actions
from dicom_listener.part10 import open_dataset
from dicom_listener.syntaxes import EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from tests.unit.dicom_listener.samples import dataset, encoded, picture

NAMES = Pseudonyms(b"k" * 32)
IDENTITY = Identity("PAAAABBBBCCCCDDDD", 100, NAMES.uid)
PLANTED = "ZZPLANTED"

TEXT_VRS = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
EVERY_VR: dict[str, tuple[int, Any]] = {
    "AE": (0x00020016, "ZZPLANTEDAE"),
    "AS": (0x00101010, "097Y"),
    "AT": (0x00280009, 0x00105A5A),
    "CS": (0x00180015, "ZZPLANTEDCS"),
    "DA": (0x00100030, "19120623"),
    "DS": (0x00101030, "81.73459"),
    "DT": (0x0040A13A, "19120623081530"),
    "FD": (0x00189073, 19120623.5),
    "FL": (0x00181271, 1912.0625),
    "IS": (0x00201002, "19120623"),
    "LO": (0x00101040, "ZZPLANTED Street 7"),
    "LT": (0x00204000, "ZZPLANTED comments"),
    "OB": (0x00420011, b"ZZPLANTEDOB1"),
    "OD": (0x00700302, b"ZZPLANTEDOD123456"[:16]),
    "OF": (0x00640009, b"ZZPLANTEDOF1"),
    "OL": (0x00660129, b"ZZPLANTEDOL1"),
    "OW": (0x60003000, b"ZZPLANTEDOW1"),
    "PN": (0x00081048, "ZZPLANTED^Physician"),
    "SH": (0x00080094, "ZZPLANTEDSH"),
    "SL": (0x00186020, 19120623),
    "SS": (0x00189219, 19120),
    "ST": (0x00080081, "ZZPLANTED Avenue"),
    "TM": (0x00321001, "081530"),
    "UC": (0x00080119, "ZZPLANTEDUC"),
    "UI": (0x00080014, "1.2.3.19120623.4711"),
    "UL": (0x00089162, 19120623),
    "UN": (0x00109999, b"ZZPLANTEDUN1"),
    "UR": (0x00081190, "https://zz.example/ZZPLANTEDUR"),
    "US": (0x00280006 + 0x0102, 19120),
    "UT": (0x00189424, "ZZPLANTEDUT"),
}


def put(target: Dataset, tag: int, vr: str, value: Any) -> None:
    target.add(DataElement(tag, vr, value, validation_mode=config.IGNORE))


def stuffed() -> Dataset:
    """Identity in every VR, known and unknown, nested, private, in overlays, curves and words of every sequence."""
    made = dataset()
    for vr, (tag, value) in EVERY_VR.items():
        if tag >> 16 != 2:
            put(made, tag, vr, value)
    inner = Dataset()
    for number, vr in enumerate(TEXT_VRS):
        put(inner, 0x00189000 + 2 * number, vr, f"ZZPLANTED{vr}")
    inner.ReferencedSOPClassUID, inner.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3.4711.9"
    inner.PatientName = "ZZPLANTED^Nested"
    middle = Dataset()
    middle.PurposeOfReferenceCodeSequence = [inner]
    middle.ReferencedSOPClassUID, middle.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3.4711.8"
    made.SourceImageSequence = [middle, inner]
    made.RequestAttributesSequence = [inner]
    made.AnatomicRegionSequence[0].CodeMeaning = "ZZPLANTED mole of Jane"
    made.AcquisitionContextSequence = [inner]
    block = made.private_block(0x0019, "ZZPLANTED CREATOR", create=True)
    block.add_new(1, "LO", "ZZPLANTED private")
    block.add_new(2, "SQ", [inner])
    put(made, 0x60024000, "LT", "ZZPLANTED overlay")
    put(made, 0x50103000, "OW", b"ZZPLANTEDcurve")
    put(made, 0x00130010, "LO", "ZZPLANTED odd")
    for keyword in ("Manufacturer", "ManufacturerModelName", "StationName", "DeviceSerialNumber", "SoftwareVersions"):
        setattr(made, keyword, f"ZZPLANTED{keyword}"[:16])
    for keyword in ("Modality", "ImageLaterality", "PatientSex", "BodyPartExamined", "ContactMethod"):
        put(made, tag_for_keyword(keyword) or 0, "CS", "ZZPLANTEDCS")
    made.ImageType = ["ORIGINAL", "PRIMARY", "ZZPLANTED"]
    made.PatientName, made.PatientID, made.IssuerOfPatientID = "ZZPLANTED^Jane", "ZZPLANTED4711", "ZZPLANTED"
    made.InstanceNumber = "19120623"
    made.StudyDescription = made.SeriesDescription = made.ImageComments = "ZZPLANTED of 19120623"
    made.ICCProfile = b"ZZPLANTEDprofile"
    return made


def read(done: Deidentified) -> Dataset:
    return dcmread(io.BytesIO(done.data))


def clean(source: Dataset, **changes: Any) -> Deidentified:
    return deidentify(source, picture(), IDENTITY, **{"retained": Retained(), **changes})


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN])
def test_nothing_planted_gets_out(syntax: str) -> None:
    source = open_dataset(encoded(stuffed(), syntax), syntax)
    done = clean(source, body_site_code="66643007")
    head = done.data[: -picture().nbytes]
    for word in ("PLANTED", "Jane", "4711", "19120623", "1912", "081530", "81.73", "097Y", "Street", "Müller"):
        assert word.encode() not in head, word
    for number in (19120623, 19120):
        assert number.to_bytes(4, "little") not in head
    assert np.float64(19120623.5).tobytes() not in head
    assert "PLANTED" not in repr(done.actions)
    assert "1912" not in repr(done.actions)


def test_the_stuffed_object_holds_what_is_searched_for() -> None:
    """Else the test above could not fail."""
    data = encoded(stuffed())
    assert data.count(b"PLANTED") > 40
    assert b"19120623" in data


def test_what_was_done_is_told_by_name() -> None:
    actions = clean(stuffed()).actions
    assert actions["PatientName", "replaced"] == 1
    assert actions["PatientBirthDate", "emptied"] == 1
    assert actions["StudyDate", "date moved"] == 1
    assert actions["SOPInstanceUID", "UID replaced"] == 1
    assert actions["StudyDescription", "removed (profile: C)"] == 1
    assert actions["(0019,1001)", "private, removed"] == 1
    assert actions["SourceImageSequence > PatientName", "removed (profile: Z)"] == 1
    assert actions["ImageComments", "removed (profile: C)"] == 1


def test_each_object_says_what_was_done_to_it() -> None:
    made = read(clean(dataset()))
    assert made.PatientIdentityRemoved == "YES"
    codes = [(item.CodeValue, item.CodingSchemeDesignator) for item in made.DeidentificationMethodCodeSequence]
    assert codes == [(code, "DCM") for code in ("113100", "113101", "113102", "113105", "113107")]
    assert made.LongitudinalTemporalInformationModified == "MODIFIED"
    assert (made.BurnedInAnnotation, made.RecognizableVisualFeatures) == ("NO", "NO")
    assert made.PatientID == IDENTITY.patient
    assert (made.pixel_array == picture()).all()


def test_what_a_study_needs_is_kept() -> None:
    made = read(clean(dataset(PixelSpacing=["0.05", "0.05"], ContactMethod="CONTACT"), body_site_code="66643007"))
    assert made.AnatomicRegionSequence[0].CodeValue == "66643007"
    assert (made.ImageLaterality, made.ContactMethod, made.Modality) == ("L", "CONTACT", "DMS")
    assert [float(one) for one in made.PixelSpacing] == [0.05, 0.05]


def test_pictures_of_one_study_stay_together_and_dates_keep_their_distance() -> None:
    first = read(clean(dataset(StudyDate="20260304")))
    second = read(clean(dataset(SOPInstanceUID="1.2.3", StudyDate="20260404")))
    assert first.StudyInstanceUID == second.StudyInstanceUID == NAMES.uid(dataset().StudyInstanceUID)
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert (first.StudyDate, second.StudyDate) == ("20251124", "20251225")


def test_sequences_are_walked_and_what_they_point_at_is_renamed() -> None:
    items = read(clean(stuffed())).SourceImageSequence
    assert [item.ReferencedSOPInstanceUID for item in items] == [NAMES.uid("1.2.3.4711.8"), NAMES.uid("1.2.3.4711.9")]
    assert {element.keyword for item in items for element in item} == {
        "ReferencedSOPClassUID",
        "ReferencedSOPInstanceUID",
    }


def test_patient_and_device_are_kept_only_where_asked_for() -> None:
    source = dataset(PatientAge="093Y", DeviceSerialNumber="SN-1", PatientWeight="71.5")
    assert "PatientAge" not in read(clean(source))
    assert read(clean(source)).DeviceSerialNumber == "REMOVED"
    made = read(clean(source, retained=Retained(patient=True, device=True)))
    assert (made.PatientAge, made.PatientSex, float(made.PatientWeight)) == ("090Y", "F", 71.5)
    assert (made.Manufacturer, made.DeviceSerialNumber) == ("Lens", "SN-1")
    assert {item.CodeValue for item in made.DeidentificationMethodCodeSequence} >= {"113108", "113109"}
    assert made.PatientBirthDate == ""


def test_altered_pixels_make_a_derived_image() -> None:
    source = dataset(ImageType=["ORIGINAL", "PRIMARY"])
    assert list(read(clean(source)).ImageType) == ["ORIGINAL", "PRIMARY"]
    assert list(read(clean(source, altered=True)).ImageType) == ["DERIVED", "PRIMARY"]


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("20260304", "20251124"),
        ("20260304101500.000000+0100", "20251124"),
        ("20260230", ""),
        ("Jane", ""),
        ("19000101", ""),
        ("", ""),
        ("2026", ""),
    ],
)
def test_dates_are_moved_or_nothing(text: str, moved: str) -> None:
    assert moved_date(text, 100) == moved


# ----------------------------------------------------------------------------------------------------- the table itself


def test_the_table_is_whole() -> None:
    table = read_actions()
    assert len(table) == 655
    assert Counter(row["basic"] for row in table.values()) == {
        "X": 415,
        "D": 93,
        "U": 55,
        "Z": 42,
        "X/D": 23,
        "X/Z": 11,
        "X/Z/D": 8,
        "Z/D": 6,
        "X/Z/U*": 2,
    }
    options = {column: sum(bool(row[column]) for row in table.values()) for column in next(iter(table.values()))}
    assert options["modified_dates"] == 165
    assert options["descriptors"] == 125
    assert options["device"] == 57
    assert options["patient"] == 14


@pytest.mark.parametrize(
    ("tag", "basic", "action"),
    [
        (0x00080050, "Z", "Z"),  # Accession Number
        (0x0008002A, "X/Z/D", "C"),  # Acquisition DateTime
        (0x00081030, "X", "C"),  # Study Description
        (0x00100010, "Z", "Z"),  # Patient's Name
        (0x00081140, "X/Z/U*", "X/Z/U*"),  # Referenced Image Sequence
        (0x00181000, "X/Z/D", "X/Z/D"),  # Device Serial Number
        (0x00080018, "U", "U"),  # SOP Instance UID
        (0x0016004D, "X", "X"),  # Camera Owner Name
    ],
)
def test_rows_as_the_standard_has_them(tag: int, basic: str, action: str) -> None:
    assert read_actions()[f"{tag:08x}"]["basic"] == basic
    assert action_for(tag, Retained()) == action


def test_repeating_groups_and_options() -> None:
    assert {action_for(tag, Retained()) for tag in (0x60003000, 0x601E4000, 0x50FF1234)} == {"X"}
    assert action_for(0x00280010, Retained()) == ""
    assert action_for(0x00100040, Retained(patient=True)) == "K"
    assert action_for(0x00181000, Retained(device=True)) == "K"
    assert claimed(Retained())[0].code == "113100"
