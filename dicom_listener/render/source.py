"""The object that results refer to: the DICOM source as it came, or a picture wrapped as Dermoscopic Photography."""

from __future__ import annotations

import warnings

from pydicom.dataset import Dataset

from dermoscopy.codes import SITE_SKIN, site
from dermoscopy.domain import Artifact, ArtifactKind, DermoscopicImage, SourceObject, derive_uid
from dermoscopy.errors import UnreadableObject
from dermoscopy.ports import RenderInput
from dicom_listener.part10 import MANUFACTURER, PARSE_ERRORS, open_dataset
from dicom_listener.render.modules import (
    CHARACTER_SET,
    SERIES_NUMBERS,
    artifact,
    code_item,
    coded,
    put,
    put_laterality,
)
from dicom_listener.syntaxes import DERMOSCOPIC_PHOTOGRAPHY


def source_dataset(source: SourceObject, image: DermoscopicImage) -> Dataset:
    """The dataset that results refer to, without its pixel data, whether ``source`` came as DICOM or as a picture.

    Raises `UnreadableObject` if a stored DICOM object cannot be parsed any more.
    """
    if source.header.media_type != "application/dicom":
        return _wrapped(source, image)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return open_dataset(source.data, source.header.transfer_syntax_uid, pixels=False)
    except PARSE_ERRORS as error:
        raise UnreadableObject("The stored DICOM object cannot be read.") from error


def render_source(what: RenderInput) -> Artifact:
    """A picture as a Dermoscopic Photography instance (PS3.3 A.32.11), pixels as analysed, uncompressed RGB.

    The picture's own metadata (position, camera owner) is not carried over; UIDs are derived from the instance.
    """
    return picture_instance(what.source, what.image)


def picture_instance(source: SourceObject, image: DermoscopicImage, *, manufacturer: str = MANUFACTURER) -> Artifact:
    """`render_source` for a picture that has no analysis (yet)."""
    wrapped = _wrapped(source, image)
    put(wrapped, Manufacturer=manufacturer, PixelData=image.pixels.tobytes())
    wrapped["PixelData"].VR = "OB"
    return artifact(ArtifactKind.SOURCE, wrapped)


def _wrapped(source: SourceObject, image: DermoscopicImage) -> Dataset:
    header = source.header
    identity = source.instance_id
    lossy = header.media_type == "image/jpeg"
    date, time = f"{source.received_at:%Y%m%d}", f"{source.received_at:%H%M%S.%f}"
    wrapped = put(
        Dataset(),
        SpecificCharacterSet=CHARACTER_SET,
        SOPClassUID=DERMOSCOPIC_PHOTOGRAPHY,
        SOPInstanceUID=header.sop_instance_uid or derive_uid("source", identity),
        SeriesInstanceUID=header.series_instance_uid or derive_uid("series-source", identity),
        ContentDate=date,
        ContentTime=time,
        AcquisitionDateTime=date + time,
        Modality="DMS",
        SeriesNumber=str(SERIES_NUMBERS[ArtifactKind.SOURCE]),
        SeriesDescription="Dermoscopy (picture received)",
        Manufacturer=MANUFACTURER,
        ManufacturerModelName="Picture import",
        DeviceSerialNumber="none",
        SoftwareVersions="1",
        InstanceNumber="1",
        ImageType=["DERIVED" if lossy else "ORIGINAL", "PRIMARY"],
        PatientOrientation=None,
        FrameOfReferenceUID=derive_uid("frame-of-reference", identity),
        PositionReferenceIndicator=None,
        AcquisitionContextSequence=[],
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
        Rows=image.rows,
        Columns=image.columns,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        LossyImageCompression="01" if lossy else "00",
        RecognizableVisualFeatures="NO",
        BurnedInAnnotation="NO",
        LightSourcePolarization=None,
        EmitterColorTemperature=None,
        ContactMethod=None,
        OpticalMagnificationFactor=None,
    )
    if lossy:
        ratio = image.pixels.size / max(1, len(source.data))
        put(
            wrapped,
            LossyImageCompressionRatio=f"{ratio:.2f}",
            LossyImageCompressionMethod="ISO_10918_1",
            DerivationDescription="Decoded from a JPEG picture",
        )
    put_laterality(wrapped, header.laterality)
    region = site(header.body_site_code) if header.body_site_code else SITE_SKIN
    put(
        wrapped,
        AnatomicRegionSequence=[code_item(coded(region))],
        PatientName=None,
        PatientID=header.patient.patient_id,
        PatientBirthDate=None,
        PatientSex=None,
        StudyInstanceUID=header.study_instance_uid or derive_uid("study", identity),
        StudyDate=date,
        StudyTime=time,
        StudyID=None,
        AccessionNumber=header.accession_number,
        ReferringPhysicianName=None,
    )
    if header.patient.issuer:
        put(wrapped, IssuerOfPatientID=header.patient.issuer[:64])
    return wrapped
