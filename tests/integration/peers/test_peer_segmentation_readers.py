"""One segmentation, five readers: four agree on every pixel; the viewer draws it where it knows the image's class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.peers.example_dicom import dermoscopic_photograph, lesion_image, segmentation_of
from tests.peers.orthanc import Orthanc
from tests.peers.seg_readers import READERS, UnreadableSegmentation
from tests.peers.seg_readers.ohif import Shown, ohif

pytestmark = pytest.mark.peers

VL_PHOTOGRAPHIC = "1.2.840.10008.5.1.4.1.1.77.1.4"


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path, np.ndarray]:
    """Files of a photograph and its segmentation, and the mask."""
    pixels, mask = lesion_image()
    return *_written(dermoscopic_photograph(pixels), mask, tmp_path), mask


def _written(image: pydicom.FileDataset, mask: np.ndarray, folder: Path) -> tuple[Path, Path]:
    source, segmentation = folder / "source.dcm", folder / "segmentation.dcm"
    image.save_as(source, enforce_file_format=True)
    segmentation_of(image, mask).save_as(segmentation)
    return source, segmentation


@pytest.mark.parametrize("name", READERS)
def test_reader_sees_every_pixel(name: str, pair: tuple[Path, Path, np.ndarray]) -> None:
    source, segmentation, mask = pair
    assert np.array_equal(READERS[name](segmentation, source, 1), mask)


@pytest.mark.parametrize(
    ("name", "opens"), [("highdicom", True), ("dcmjs", True), ("pydicom-seg", False), ("dcmqi", False)]
)
def test_without_plane_geometry_two_readers_refuse_a_segmentation(
    name: str, opens: bool, pair: tuple[Path, Path, np.ndarray], tmp_path: Path
) -> None:
    source, segmentation, mask = pair
    bare = pydicom.dcmread(segmentation)
    del bare.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    del bare.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    del bare.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence
    del bare.FrameOfReferenceUID
    path = tmp_path / "bare.dcm"
    bare.save_as(path)
    if opens:
        assert np.array_equal(READERS[name](path, source, 1), mask)
    else:
        with pytest.raises(UnreadableSegmentation):
            READERS[name](path, source, 1)


def _viewed(pacs: Orthanc, files: tuple[Path, Path], *, knows_dermoscopic: bool = False) -> Shown:
    for path in files:
        pacs.upload(path)
    source, segmentation = (pydicom.dcmread(path) for path in files)
    with ohif(pacs.dicomweb_url, knows_dermoscopic=knows_dermoscopic) as viewer:
        return viewer.open_segmentation(
            source.StudyInstanceUID, source.SeriesInstanceUID, segmentation.SeriesInstanceUID
        )


def _agreement(drawn: np.ndarray | None, mask: np.ndarray) -> float:
    assert drawn is not None
    return float((drawn & mask).sum() / (drawn | mask).sum())


def test_viewer_draws_a_segmentation_over_a_colour_photograph(pacs: Orthanc, tmp_path: Path) -> None:
    pixels, mask = lesion_image()
    image = dermoscopic_photograph(pixels)
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = VL_PHOTOGRAPHIC
    image.Modality = "XC"
    shown = _viewed(pacs, _written(image, mask, tmp_path))
    assert shown.image_shown and shown.listed and shown.segments == ["Lesion"]
    assert np.array_equal(shown.label_map, mask)
    assert _agreement(shown.drawn, mask) > 0.95


def test_viewer_as_published_does_not_know_dermoscopic_photography(
    pacs: Orthanc, pair: tuple[Path, Path, np.ndarray]
) -> None:
    source, segmentation, _ = pair
    shown = _viewed(pacs, (source, segmentation))
    assert shown.listed
    assert not shown.image_shown and shown.label_map is None and shown.errors


def test_viewer_that_knows_dermoscopic_photography_draws_it(pacs: Orthanc, pair: tuple[Path, Path, np.ndarray]) -> None:
    source, segmentation, mask = pair
    shown = _viewed(pacs, (source, segmentation), knows_dermoscopic=True)
    assert shown.image_shown and shown.segments == ["Lesion"]
    assert np.array_equal(shown.label_map, mask)
    assert _agreement(shown.drawn, mask) > 0.95
