"""The bundle and the DICOM objects name each other: same UIDs, whoever derives them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dermoscopy.domain import Artifact, ArtifactKind, DermoscopicImage
from dermoscopy.identifiers import series_uid
from dermoscopy.ports import RenderInput
from fhir_adapters.render import RENDERERS
from tests.unit.fhir_adapters import scenes


@pytest.fixture(scope="module")
def companions() -> dict[ArtifactKind, Artifact]:
    from dicom_listener.render import RENDERERS as DICOM

    made: dict[ArtifactKind, Artifact] = {}
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:60] = True
    finding = scenes.finding(mask=mask)
    analysis = scenes.analysis(finding, header=scenes.PNG_HEADER)
    image = DermoscopicImage(np.full((60, 80, 3), 120, np.uint8), analysis.pixel_digest, analysis.spacing_mm)
    source = scenes.render_input(analysis).source
    for kind, render in DICOM.items():
        made[kind] = render(RenderInput(analysis, image, source, dict(made)))
    return made


def test_study_series_and_instances_are_those_of_the_objects(companions):
    from pydicom import dcmread
    from pydicom.filebase import DicomBytesIO

    what = scenes.render_input(scenes.analysis(header=scenes.PNG_HEADER), companions=companions)
    bundle = json.loads(RENDERERS[ArtifactKind.FHIR_BUNDLE](what).data)
    (study,) = (e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "ImagingStudy")
    named = {i["uid"]: (s["uid"], i["sopClass"]["code"]) for s in study["series"] for i in s["instance"]}
    datasets = [
        dcmread(DicomBytesIO(a.data), force=True) for k, a in companions.items() if a.media_type == "application/dicom"
    ]
    assert len(datasets) == 4
    for dataset in datasets:
        assert named[dataset.SOPInstanceUID] == (dataset.SeriesInstanceUID, f"urn:oid:{dataset.SOPClassUID}")
        assert study["identifier"][0]["value"] == f"urn:oid:{dataset.StudyInstanceUID}"


@pytest.mark.parametrize("kind", [ArtifactKind.SEG, ArtifactKind.SR, ArtifactKind.SECONDARY_CAPTURE])
def test_the_series_is_derived_alike(kind, companions):
    from pydicom import dcmread
    from pydicom.filebase import DicomBytesIO

    dataset = dcmread(DicomBytesIO(companions[kind].data), force=True)
    assert dataset.SeriesInstanceUID == series_uid(kind, scenes.analysis().id)


def test_the_lesion_has_the_tracking_uid_of_the_segmentation(companions):
    from pydicom import dcmread
    from pydicom.filebase import DicomBytesIO

    what = scenes.render_input(scenes.analysis(header=scenes.PNG_HEADER), companions=companions)
    bundle = json.loads(RENDERERS[ArtifactKind.FHIR_BUNDLE](what).data)
    (lesion,) = (e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "BodyStructure")
    (segment,) = dcmread(DicomBytesIO(companions[ArtifactKind.SEG].data), force=True).SegmentSequence
    assert lesion["identifier"][1]["value"] == f"urn:oid:{segment.TrackingUID}"
