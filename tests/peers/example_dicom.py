"""Example objects for trying the peers: a dermoscopic photograph and a segmentation of it. Synthetic, no patient."""

from __future__ import annotations

import numpy as np
from highdicom import (
    AlgorithmIdentificationSequence,
    PixelMeasuresSequence,
    PlaneOrientationSequence,
    PlanePositionSequence,
)
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import DermoscopicPhotographyImageStorage, ExplicitVRLittleEndian, generate_uid

DERMOSCOPIC_PHOTOGRAPHY = DermoscopicPhotographyImageStorage


def lesion_image(height: int = 300, width: int = 400, *, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """RGB picture of skin with one dark lesion, and the lesion's boolean mask (with a notch: not symmetric)."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    mask = ((rows - height * 0.45) / (height * 0.25)) ** 2 + ((columns - width * 0.55) / (width * 0.3)) ** 2 < 1
    mask &= ~((rows < height * 0.35) & (columns > width * 0.6))
    skin = np.array([224, 184, 160]) + random.normal(0, 4, (height, width, 1))
    lesion = np.array([96, 58, 44]) + random.normal(0, 8, (height, width, 1))
    picture = np.where(mask[..., None], lesion, skin)
    return picture.clip(0, 255).astype(np.uint8), mask


def dermoscopic_photograph(pixels: np.ndarray, *, patient_id: str = "TEST-1") -> FileDataset:
    """Dermoscopic Photography Image Storage around RGB pixels; no Frame of Reference, as the IOD has none."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DERMOSCOPIC_PHOTOGRAPHY
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID = DERMOSCOPIC_PHOTOGRAPHY
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID = generate_uid()
    image.SeriesInstanceUID = generate_uid()
    image.PatientID = patient_id
    image.PatientName = "Example^Derma"
    image.PatientBirthDate = "19700101"
    image.PatientSex = "F"
    image.StudyDate = image.SeriesDate = image.ContentDate = image.AcquisitionDate = "20260102"
    image.StudyTime = image.SeriesTime = image.ContentTime = image.AcquisitionTime = "101500"
    image.AcquisitionDateTime = "20260102101500"
    image.StudyID = "1"
    image.AccessionNumber = "A1"
    image.ReferringPhysicianName = ""
    image.SeriesNumber = 1
    image.Laterality = ""
    image.InstanceNumber = 1
    image.Modality = "DMS"
    image.Manufacturer = "Example"
    image.ManufacturerModelName = "Dermatoscope"
    image.DeviceSerialNumber = "1"
    image.SoftwareVersions = "1"
    image.ImageType = ["ORIGINAL", "PRIMARY"]
    image.PatientOrientation = ""
    image.LossyImageCompression = "00"
    image.BurnedInAnnotation = "NO"
    image.RecognizableVisualFeatures = "NO"
    image.LightSourcePolarization = ""
    image.EmitterColorTemperature = None
    image.ContactMethod = ""
    image.OpticalMagnificationFactor = None
    image.AcquisitionContextSequence = []
    image.SamplesPerPixel = 3
    image.PhotometricInterpretation = "RGB"
    image.PlanarConfiguration = 0
    image.Rows, image.Columns = pixels.shape[:2]
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit = 7
    image.PixelRepresentation = 0
    image.PixelData = np.ascontiguousarray(pixels).tobytes()
    if len(image.PixelData) % 2:
        image.PixelData += b"\0"
    return image


def segmentation_of(source: Dataset, mask: np.ndarray) -> Segmentation:
    """A BINARY segmentation of a whole single-frame image, with the plane geometry that readers ask for."""
    algorithm = AlgorithmIdentificationSequence(
        name="Example outline", family=codes.DCM.ArtificialIntelligence, version="1"
    )
    segment = SegmentDescription(
        segment_number=1,
        segment_label="Lesion",
        segmented_property_category=Code("49755003", "SCT", "Morphologically Abnormal Structure"),
        segmented_property_type=Code("52988006", "SCT", "Lesion"),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
    )
    segmentation = Segmentation(
        source_images=[source],
        pixel_array=mask.astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=[segment],
        series_instance_uid=generate_uid(),
        series_number=100,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Example",
        manufacturer_model_name="Example",
        software_versions="1",
        device_serial_number="1",
        series_description="Lesion outline",
    )
    segmentation.PatientOrientation = ""
    # highdicom refuses geometry for a source without Frame of Reference, so it is added here.
    segmentation.FrameOfReferenceUID = generate_uid()
    segmentation.PositionReferenceIndicator = ""
    (shared,) = segmentation.SharedFunctionalGroupsSequence
    shared.PixelMeasuresSequence = PixelMeasuresSequence(pixel_spacing=(1.0, 1.0), slice_thickness=1.0)
    shared.PlaneOrientationSequence = PlaneOrientationSequence("PATIENT", (1, 0, 0, 0, 1, 0))
    (frame,) = segmentation.PerFrameFunctionalGroupsSequence
    frame.PlanePositionSequence = PlanePositionSequence("PATIENT", (0.0, 0.0, 0.0))
    return segmentation
