"""One segmentation, five readers: four agree on every pixel; the viewer draws it where it knows the image's class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import VLPhotographicImageStorage, generate_uid

from tests.peers.example_dicom import dermoscopic_photograph, lesion_image, segmentation_of
from tests.peers.orthanc import Orthanc
from tests.peers.seg_readers import READERS, UnreadableSegmentation
from tests.peers.seg_readers.ohif import Ohif, Shown, ohif

pytestmark = pytest.mark.peers


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


def _viewed(viewer: Ohif, pacs: Orthanc, files: tuple[Path, Path]) -> Shown:
    for path in files:
        pacs.upload(path)
    source, segmentation = (pydicom.dcmread(path) for path in files)
    return viewer.open_segmentation(source.StudyInstanceUID, source.SeriesInstanceUID, segmentation.SeriesInstanceUID)


def _agreement(drawn: np.ndarray | None, mask: np.ndarray) -> float:
    """Intersection over union of what changed on the screen and the mask, where the viewer writes no text of its own.

    The viewer puts captions into the corners of the picture when a segmentation is loaded.
    """
    assert drawn is not None
    inside = np.ones_like(mask)
    rows, columns = mask.shape
    for top in (slice(0, rows // 5), slice(rows - rows // 5, rows)):
        for left in (slice(0, columns // 3), slice(columns - columns // 3, columns)):
            inside[top, left] = False
    return float((drawn & mask & inside).sum() / ((drawn | mask) & inside).sum())


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_viewer_as_published_draws_over_a_colour_photograph_and_does_not_know_dermoscopic_ones(
    pacs: Orthanc, pair: tuple[Path, Path, np.ndarray], tmp_path: Path
) -> None:
    source, segmentation, mask = pair
    image = pydicom.dcmread(source)
    image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID = (generate_uid() for _ in range(3))
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = VLPhotographicImageStorage
    image.Modality = "XC"
    (tmp_path / "ordinary").mkdir()
    with ohif(pacs.dicomweb_url) as viewer:
        shown = _viewed(viewer, pacs, _written(image, mask, tmp_path / "ordinary"))
        assert shown.image_shown and shown.listed and shown.segments == ["Lesion"]
        assert np.array_equal(shown.label_map, mask)
        assert _agreement(shown.drawn, mask) > 0.95

        shown = _viewed(viewer, pacs, (source, segmentation))
        assert shown.listed
        assert not shown.image_shown and shown.label_map is None
        assert shown.errors  # it does not say so: its page falls over


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_viewer_that_knows_dermoscopic_photography_draws_it(pacs: Orthanc, pair: tuple[Path, Path, np.ndarray]) -> None:
    source, segmentation, mask = pair
    with ohif(pacs.dicomweb_url, knows_dermoscopic=True) as viewer:
        shown = _viewed(viewer, pacs, (source, segmentation))
    assert shown.image_shown and shown.segments == ["Lesion"]
    assert np.array_equal(shown.label_map, mask)
    assert _agreement(shown.drawn, mask) > 0.95
