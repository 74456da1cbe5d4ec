"""Our segmentation as programs of other makers see it."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from dermoscopy.domain import ArtifactKind
from dicom_listener.render import RENDERERS
from tests.peers.dicom3tools import dciodvfy
from tests.peers.orthanc import Orthanc
from tests.peers.seg_readers import READERS
from tests.peers.seg_readers.ohif import ohif
from tests.unit.dicom_listener.samples import dataset, part10, picture_source, render_input, source


@pytest.mark.peers
@pytest.mark.parametrize("reader", list(READERS))
@pytest.mark.parametrize("scale", ["uncalibrated", "calibrated", "oblong"])
def test_every_reader_sees_the_mask_that_was_meant(reader, scale, tmp_path: Path):
    stated = {"calibrated": {"PixelSpacing": ["0.02", "0.02"]}, "oblong": {"PixelAspectRatio": ["6", "5"]}}
    made = dataset(**stated.get(scale, {}))
    what = render_input(source(made))
    origin, segmentation = tmp_path / "source.dcm", tmp_path / "seg.dcm"
    origin.write_bytes(part10(made))
    segmentation.write_bytes(RENDERERS[ArtifactKind.SEG](what).data)
    seen = READERS[reader](segmentation, origin, 1)
    assert np.array_equal(np.squeeze(seen), what.analysis.finding.mask)


@pytest.mark.peers
@pytest.mark.parametrize("reader", list(READERS))
def test_over_a_wrapped_picture_too(reader, tmp_path: Path):
    what = render_input(picture_source("PNG"))
    origin, segmentation = tmp_path / "source.dcm", tmp_path / "seg.dcm"
    origin.write_bytes(RENDERERS[ArtifactKind.SOURCE](what).data)
    segmentation.write_bytes(RENDERERS[ArtifactKind.SEG](what).data)
    seen = READERS[reader](segmentation, origin, 1)
    assert np.array_equal(np.squeeze(seen), what.analysis.finding.mask)


@pytest.mark.peers
@pytest.mark.parametrize("reader", list(READERS))
def test_hair_across_the_lesion_is_a_segment_of_its_own(reader, tmp_path: Path):
    made = dataset()
    what = render_input(source(made))
    hair = np.zeros_like(what.analysis.finding.mask)
    hair[5:45, 30:33] = True
    origin, segmentation = tmp_path / "source.dcm", tmp_path / "seg.dcm"
    origin.write_bytes(part10(made))
    segmentation.write_bytes(RENDERERS[ArtifactKind.SEG](replace(what, hair=hair)).data)
    assert dciodvfy(segmentation) == []
    assert np.array_equal(np.squeeze(READERS[reader](segmentation, origin, 1)), what.analysis.finding.mask)
    assert np.array_equal(np.squeeze(READERS[reader](segmentation, origin, 2)), hair)


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_web_viewer_lists_both_segments_and_keeps_the_lesion_whole(pacs: Orthanc):
    made = dataset()
    what = render_input(source(made))
    hair = np.zeros_like(what.analysis.finding.mask)
    hair[5:45, 30:33] = True
    segmentation = RENDERERS[ArtifactKind.SEG](replace(what, hair=hair)).data
    pacs.upload(part10(made))
    pacs.upload(segmentation)
    series = str(dcmread(BytesIO(segmentation)).SeriesInstanceUID)
    with ohif(pacs.dicomweb_url, knows_dermoscopic=True) as viewer:
        shown = viewer.open_segmentation(made.StudyInstanceUID, made.SeriesInstanceUID, series)
    assert shown.segments == ["Lesion", "Hair"]
    assert np.array_equal(shown.label_map, what.analysis.finding.mask)
