"""Modules that every object of ours shares: patient and study from the source, equipment, SOP common (PS3.3 C.7, C.12).

highdicom builds the objects; what it would take from the clock or from chance is given or replaced here, so that
rendering twice gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any, Final

from highdicom.sr import CodedConcept
from pydicom import config
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sr.coding import Code as DicomCode
from pydicom.valuerep import DSfloat

from dermoscopy.codes import Code
from dermoscopy.domain import Artifact, ArtifactKind, PatientIdentity
from dermoscopy.identifiers import series_uid
from dermoscopy.ports import RenderInput
from dicom_listener.identifiers import plain
from dicom_listener.part10 import MANUFACTURER, file_meta
from dicom_listener.render.revisions import made_at, result_uid, revision_of
from dicom_listener.syntaxes import EXPLICIT_LITTLE_ENDIAN

DEVICE_NOTE: Final = "AI second opinion, not a diagnosis"
CHARACTER_SET: Final = "ISO_IR 192"
SERIES_NUMBERS: Final = {
    ArtifactKind.SOURCE: 1,
    ArtifactKind.SEG: 901,
    ArtifactKind.SR: 902,
    ArtifactKind.SECONDARY_CAPTURE: 903,
    ArtifactKind.REJECTION_NOTE: 904,
}

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
_LOSSY: Final = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 81, 91, 203))


# ---------------------------------------------------------------------------------------------- small parts of datasets


def put(target: Dataset, **values: Any) -> Dataset:
    """Set attributes of ``target`` by keyword; ``None`` is an empty value."""
    for keyword, value in values.items():
        setattr(target, keyword, value)
    return target


@lru_cache(maxsize=1024)
def coded(code: Code) -> DicomCode:
    """A coded concept as highdicom takes it; one without a display of ours shows its code (PS3.3 8.8)."""
    return DicomCode(code.code, code.scheme, (code.display or code.code)[:64])


def code_item(code: DicomCode) -> Dataset:
    """One item of a code sequence (PS3.3 8.8); a code longer than 16 characters becomes a Long Code Value."""
    item: Dataset = CodedConcept.from_code(code)
    return item


def reference(source: Dataset) -> Dataset:
    """Item with Referenced SOP Class and Instance UID of ``source`` (PS3.3 Table 10-11)."""
    return put(
        Dataset(),
        ReferencedSOPClassUID=str(source.SOPClassUID),
        ReferencedSOPInstanceUID=str(source.SOPInstanceUID),
    )


def decimals(values: Iterable[float]) -> list[DSfloat]:
    """``values`` as Decimal Strings of at most 16 characters (PS3.5 6.2)."""
    return [DSfloat(value, auto_format=True) for value in values]


def put_laterality(result: Dataset, laterality: str) -> None:
    """Image Laterality (0020,0062) where it is known, else an empty Laterality (0020,0060), type 2C of the series."""
    if laterality in ("R", "L", "U", "B"):
        result.ImageLaterality = laterality
    else:
        result.Laterality = None


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


# --------------------------------------------------------------------------------------- what highdicom is given to use


def stand_in(source: Dataset) -> Dataset:
    """``source`` as highdicom needs it: its UIDs, and empty type 2 attributes.

    Patient and study follow in `complete`: highdicom refuses odd values of a source, which we pass on unchanged.
    """
    uids = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
    return put(Dataset(), **dict.fromkeys(_TYPE_2, ""), **{keyword: str(source[keyword].value) for keyword in uids})


def common(what: RenderInput, source: Dataset, kind: ArtifactKind) -> dict[str, Any]:
    """Arguments of every highdicom object: identity, series, equipment, times (PS3.3 C.7.3.1, C.7.5.1, C.12.1)."""
    created = local_time(what.analysis.created_at, source)
    date, time = _date_and_time(made_at(kind, what), source)
    model, inference = what.analysis.finding.model, what.analysis.finding.inference
    return {
        "sop_instance_uid": result_uid(kind, what),
        "instance_number": 1 + revision_of(kind, what),
        "series_instance_uid": series_uid(kind, what.analysis.id),
        "series_number": SERIES_NUMBERS[kind],
        "series_date": f"{created:%Y%m%d}",
        "series_time": f"{created:%H%M%S.%f}",
        "content_date": date,
        "content_time": time,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": model.name[:64],
        "device_serial_number": model.digest[:64],
        "software_versions": [f"{model.name} {model.version}"[:64], inference.code_version[:64]],
        "specific_character_set": CHARACTER_SET,
    }


def local_time(moment: datetime, source: Dataset) -> datetime:
    """``moment`` in the source's Timezone Offset From UTC (0008,0201), or in UTC where it states none."""
    offset = str(source.get("TimezoneOffsetFromUTC") or "").strip()
    try:
        minutes = int(offset[:3]) * 60 + int(offset[0] + offset[3:5])
        return moment.astimezone(timezone(timedelta(minutes=minutes)))
    except (ValueError, IndexError):
        return moment.astimezone(UTC)


def _date_and_time(moment: datetime, source: Dataset) -> tuple[str, str]:
    local = local_time(moment, source)
    return f"{local:%Y%m%d}", f"{local:%H%M%S.%f}"


# -------------------------------------------------------------------------------------------- what is put in afterwards


def complete(result: Dataset, what: RenderInput, source: Dataset, kind: ArtifactKind) -> None:
    """Patient and study of ``source`` into ``result``, and our times where highdicom took the clock's."""
    date, time = _date_and_time(made_at(kind, what), source)
    result.InstanceCreationDate, result.InstanceCreationTime = date, time
    for equipment in result.get("ContributingEquipmentSequence", []):
        equipment.ContributionDateTime = date + time
    if source.get("TimezoneOffsetFromUTC"):
        result.TimezoneOffsetFromUTC = str(source.TimezoneOffsetFromUTC)
    copy_patient_and_study(result, source, what.analysis.header.patient)


def copy_patient_and_study(result: Dataset, source: Dataset, patient: PatientIdentity) -> None:
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
        result.IssuerOfPatientID = patient.issuer[:64]


def copy(result: Dataset, source: Dataset, keyword: str) -> None:
    """Copy one element, if the source has it, unchanged but decoded from the source's character set (ours is UTF-8)."""
    tag = tag_for_keyword(keyword)
    if tag is None or tag not in source:
        return
    element = source[tag]
    value: Any
    if element.VR == "SQ":
        value = [_copied(item) for item in element.value or ()]
    elif element.VM > 1:
        value = [plain(str(one)) for one in element.value]
    else:
        raw = element.value
        value = raw if raw is None or isinstance(raw, bytes) else plain(str(raw))
    result.add(DataElement(tag, element.VR, value, validation_mode=config.IGNORE))


def _copied(item: Dataset) -> Dataset:
    copied = Dataset()
    for element in item:
        if element.keyword:
            copy(copied, item, element.keyword)
    return copied


def artifact(kind: ArtifactKind, result: Dataset) -> Artifact:
    """``result`` as a Part 10 file in Explicit VR Little Endian, in an `Artifact`."""
    sop_class_uid, sop_instance_uid = str(result.SOPClassUID), str(result.SOPInstanceUID)
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, result)
    return Artifact(
        kind=kind,
        media_type="application/dicom",
        data=file_meta(sop_class_uid, sop_instance_uid, EXPLICIT_LITTLE_ENDIAN) + buffer.getvalue(),
        uid=sop_instance_uid,
        sop_class_uid=sop_class_uid,
    )
