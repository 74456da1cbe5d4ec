"""The benchmarks' own arithmetic and tables."""

from __future__ import annotations

import json

import pytest

from benchmarks.results import Table, markdown, median, on_screen, quantile, shown
from benchmarks.sample_files import JPEG_BYTES, SampleImages
from dermoscopy.overlay import encode_png
from dermoscopy.phantoms import phantom
from dicom_listener.header import read_header

TABLE = Table(
    "t", "Title", ("what", "ms", "share"), (("a | b", 1.23456, None), ("c", 1234.5, 7)), "A note.", {"a": [1.0]}
)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_quantile_is_a_sample(share, expected):
    assert quantile(list(range(100, 0, -1)), share) == expected


def test_the_median_of_an_even_number_lies_between():
    assert median([4, 1, 2, 3]) == 2.5


@pytest.mark.parametrize(("cell", "text"), [(None, "–"), (0.01234, "0.0123"), (1234.5, "1,234"), (7, "7"), ("x", "x")])
def test_cells_show_what_is_meant(cell, text):
    assert shown(cell) == text


def test_a_table_survives_json():
    assert Table.read(json.loads(json.dumps(TABLE.plain()))) == TABLE


def test_markdown_has_machine_and_rows():
    text = markdown({"processor": "abacus"}, [TABLE])
    assert "| processor | abacus |" in text
    assert "| a \\| b | 1.23 | – |" in text
    assert "### Title" in text and "A note." in text


def test_a_table_has_as_many_columns_on_screen():
    assert len(on_screen(TABLE).columns) == 3


@pytest.mark.parametrize(("kind", "least", "most"), [("rgb", 800_000, 830_000), ("jpeg", 5_000, JPEG_BYTES + 5_000)])
def test_sample_files_are_distinct_objects_that_intake_takes(tmp_path, kind, least, most):
    images = SampleImages("one phantom", (encode_png(phantom(1).pixels),))
    files = images.write(tmp_path, 3, kind=kind, batch="x")
    headers = [read_header(file.read_bytes(), None) for file in files]
    assert len({header.sop_instance_uid for header in headers}) == 3
    assert all(header.patient.patient_id.startswith("BENCH-x-") for header in headers)
    assert all(least <= file.stat().st_size <= most for file in files)
