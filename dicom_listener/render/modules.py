"""Modules that every object of ours shares: patient and study from the source, equipment, SOP common (PS3.3 C.7, C.12).

Everything comes from the analysis and its source, nothing from the clock: rendering twice gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from pydicom.dataset import Dataset

from dermoscopy.codes import LOCAL_UID, Code
from dermoscopy.domain import Artifact, ArtifactKind, PatientIdentity, derive_uid
from dermoscopy.ports import RenderInput
from dicom_listener.part10 import file_meta
from dicom_listener.render.attributes import Attributes, encode, put, tag_and_vr
from dicom_listener.syntaxes import EXPLICIT_LITTLE_ENDIAN

MANUFACTURER: Final = "Dermoscopy CDS"
DEVICE_NOTE: Final = "AI second opinion, not a diagnosis"
SERIES_NUMBERS: Final = {
    ArtifactKind.SOURCE: 1,
    ArtifactKind.SEG: 901,
    ArtifactKind.SR: 902,
    ArtifactKind.SECONDARY_CAPTURE: 903,
}

_IDENTITY: Final = ("PatientID", "IssuerOfPatientID")
_PERSON: Final = ("PatientName", "PatientBirthDate", "PatientSex", "PatientAge", "OtherPatientIDsSequence")
_QUALIFIERS: Final = "IssuerOfPatientIDQualifiersSequence"
_STUDY: Final = (
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "StudyDescription",
)
_TYPE_2: Final = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
"""Present even when the source leaves them out (type 2 of the Patient and General Study modules)."""


def code_item(code: Code) -> Attributes:
    """One item of a code sequence (PS3.3 8.8); a code longer than 16 characters becomes a Long Code Value."""
    return coded(code.code, code.scheme, code.display)


def coded(value: str, scheme: str, meaning: str) -> Attributes:
    """One item of a code sequence from its three parts (PS3.3 8.8)."""
    item = Attributes()
    if len(value) <= 16:
        put(item, CodeValue=value)
    put(item, CodingSchemeDesignator=scheme, CodeMeaning=(meaning or value)[:64])
    if len(value) > 16:
        put(item, LongCodeValue=value)
    return item


def items(*datasets: Attributes) -> list[Attributes]:
    """The items of a sequence."""
    return list(datasets)


def reference(sop_class_uid: str, sop_instance_uid: str) -> Attributes:
    """Item with Referenced SOP Class and Instance UID (PS3.3 Table 10-11)."""
    return put(Attributes(), ReferencedSOPClassUID=sop_class_uid, ReferencedSOPInstanceUID=sop_instance_uid)


def decimal(value: float) -> str:
    """``value`` as a Decimal String of at most 16 characters (PS3.5 6.2)."""
    text = repr(float(value))
    if len(text) <= 16:
        return text.removesuffix(".0")
    for digits in range(15, 0, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= 16:
            return text
    raise ValueError(f"{value!r} does not fit a Decimal String")


def result_uid(kind: ArtifactKind, what: RenderInput) -> str:
    """SOP Instance UID of our object of ``kind``: derived, so that a repeat is the same object."""
    return derive_uid(kind.value, what.analysis.id)


def local_time(moment: datetime, source: Dataset) -> datetime:
    """``moment`` in the source's Timezone Offset From UTC (0008,0201), or in UTC where it states none."""
    offset = str(source.get("TimezoneOffsetFromUTC") or "").strip()
    try:
        minutes = int(offset[:3]) * 60 + int(offset[0] + offset[3:5])
        return moment.astimezone(timezone(timedelta(minutes=minutes)))
    except (ValueError, IndexError):
        return moment.astimezone(UTC)


def result_dataset(what: RenderInput, source: Dataset, kind: ArtifactKind, sop_class_uid: str) -> Attributes:
    """A new object of ``kind`` in the source's study: SOP Common, Patient, General Study, Series and Equipment."""
    created = local_time(what.analysis.created_at, source)
    date, time = f"{created:%Y%m%d}", f"{created:%H%M%S.%f}"
    model, inference = what.analysis.finding.model, what.analysis.finding.inference
    result = Attributes()
    put(
        result,
        SpecificCharacterSet="ISO_IR 192",
        SOPClassUID=sop_class_uid,
        SOPInstanceUID=result_uid(kind, what),
        InstanceCreationDate=date,
        InstanceCreationTime=time,
        ContentDate=date,
        ContentTime=time,
        SeriesDate=date,
        SeriesTime=time,
        SeriesInstanceUID=derive_uid(f"series-{kind.value}", what.analysis.id),
        SeriesNumber=str(SERIES_NUMBERS[kind]),
        InstanceNumber="1",
        Manufacturer=MANUFACTURER,
        ManufacturerModelName=model.name[:64],
        DeviceSerialNumber=model.digest[:64],
        SoftwareVersions=[f"{model.name} {model.version}"[:64], inference.code_version[:64]],
    )
    if source.get("TimezoneOffsetFromUTC"):
        put(result, TimezoneOffsetFromUTC=str(source.TimezoneOffsetFromUTC))
    copy_patient_and_study(result, source, what.analysis.header.patient)
    return result


def copy_patient_and_study(result: Attributes, source: Dataset, patient: PatientIdentity) -> None:
    """Patient and General Study modules from ``source``, for ``patient``.

    Where a person assigned the image to another patient than the object names, name and birth date of the object
    belong to somebody else and are left out.
    """
    stated_id = str(source.get("PatientID") or "").strip()
    stated_issuer = str(source.get("IssuerOfPatientID") or "").strip()
    same = stated_id == patient.patient_id and stated_issuer in ("", patient.issuer)
    for keyword in (*_STUDY, *(_PERSON if same else ())):
        copy(result, source, keyword)
    put(result, StudyInstanceUID=str(source.StudyInstanceUID), PatientID=patient.patient_id)
    if same and _QUALIFIERS in source:
        copy(result, source, "IssuerOfPatientID")
        copy(result, source, _QUALIFIERS)
    elif patient.issuer:
        put(result, IssuerOfPatientID=patient.issuer[:64])
    for keyword in _TYPE_2:
        if tag_and_vr(keyword)[0] not in result:
            put(result, **{keyword: None})


def copy(result: Attributes, source: Dataset, keyword: str) -> None:
    """Copy one element, if the source has it, decoded from the source's character set (ours is UTF-8)."""
    if keyword not in source:
        return
    element = source[keyword]
    if element.VR == "SQ":
        put(result, **{keyword: [_copied(item) for item in element.value or ()]})
    elif element.VM > 1:
        put(result, **{keyword: [str(one) for one in element.value]})
    else:
        put(result, **{keyword: None if element.value is None else str(element.value)})


def _copied(item: Dataset) -> Attributes:
    copied = Attributes()
    for element in item:
        if element.keyword:
            copy(copied, item, element.keyword)
    return copied


def put_laterality(result: Attributes, laterality: str) -> None:
    """Image Laterality (0020,0062) where it is known, else an empty Laterality (0020,0060), type 2C of the series."""
    if laterality in ("R", "L", "U", "B"):
        put(result, ImageLaterality=laterality)
    else:
        put(result, Laterality=None)


def coding_schemes() -> list[Attributes]:
    """Coding Scheme Identification Sequence (0008,0110) naming our private scheme (PS3.3 C.12.1.1)."""
    return items(
        put(
            Attributes(),
            CodingSchemeDesignator="99DERMCDS",
            CodingSchemeUID=LOCAL_UID,
            CodingSchemeName="Dermoscopy CDS concepts",
        )
    )


def lossy_history(source: Dataset, transfer_syntax_uid: str) -> dict[str, Any]:
    """Lossy Image Compression elements for an object derived from ``source`` (PS3.3 C.7.6.1.1.5)."""
    lossy = str(source.get("LossyImageCompression") or "") == "01" or transfer_syntax_uid in _LOSSY
    if not lossy:
        return {"LossyImageCompression": "00"}
    history: dict[str, Any] = {"LossyImageCompression": "01"}
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if source.get(keyword) is not None:
            history[keyword] = source[keyword].value
    return history


_LOSSY: Final = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 81, 91, 203))


def site_items(what: RenderInput) -> Iterable[str]:
    """The stated body site code of the image, if any (SNOMED CT)."""
    return (what.analysis.header.body_site_code,) if what.analysis.header.body_site_code else ()


def artifact(kind: ArtifactKind, result: Attributes) -> Artifact:
    """``result`` as a Part 10 file in Explicit VR Little Endian, in an `Artifact`."""
    sop_class_uid, sop_instance_uid = (str(result[tag_and_vr(k)[0]][1]) for k in ("SOPClassUID", "SOPInstanceUID"))
    return Artifact(
        kind=kind,
        media_type="application/dicom",
        data=file_meta(sop_class_uid, sop_instance_uid, EXPLICIT_LITTLE_ENDIAN) + encode(result),
        uid=sop_instance_uid,
        sop_class_uid=sop_class_uid,
    )
