"""Measurements stored by earlier versions, which said nothing of where the scale came from."""

from dataclasses import asdict

from dermoscopy.analyses import _measurements
from dermoscopy.domain import LesionMeasurements, ScaleSource


def stored(**changes):
    whole = LesionMeasurements(
        area_px=100.0, area_percent=1.0, perimeter_px=40.0, equivalent_diameter_px=11.3, circularity=0.8, solidity=0.9,
        eccentricity=0.4, asymmetry=0.1, border_irregularity=1.2, colour_count=2, colour_variety=0.3,
        colour_fractions={"black": 0.1}, centroid=(5.0, 5.0), bounding_box=(0, 0, 10, 10),
    )  # fmt: skip
    return {**asdict(whole), **changes}


def test_earlier_documents_load():
    older = stored(area_mm2=4.0)
    del older["scale_source"]
    assert _measurements(older).scale_source is ScaleSource.DICOM
    unscaled = stored()
    del unscaled["scale_source"]
    assert _measurements(unscaled).scale_source is ScaleSource.NONE
    assert _measurements(None) is None


def test_what_was_stored_stays():
    assert _measurements(stored(area_mm2=4.0, scale_source="ruler")).scale_source is ScaleSource.RULER
