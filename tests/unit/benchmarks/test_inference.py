"""The inference benchmark's own parts, on a tiny network in this process."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks import inference, inference_case
from benchmarks.inference_case import ANALYZE, OURS, PLAIN, Case, ask, main, measure, peak_memory
from benchmarks.sample_files import SampleImages
from benchmarks.setting import Setting
from benchmarks.sizes import SIZES
from dermoscopy.overlay import encode_png
from dermoscopy.phantoms import phantom
from dermoscopy.settings import Settings

CHAMPION = Settings()
SIZE = replace(SIZES["small"], repeats=1, inferences=8, analyses=2)


@pytest.fixture
def setting(tmp_path):
    images = SampleImages("one phantom", (encode_png(phantom(1).pixels),))
    return Setting(SIZE, images, tmp_path, CHAMPION, lambda _: None)


def test_both_take_turns_as_often_as_asked():
    found = measure(Case((OURS, PLAIN), 2, batch=2), CHAMPION)
    assert {who: len(taken) for who, taken in found["milliseconds"].items()} == {OURS: 2, PLAIN: 2}
    assert all(value > 0 for taken in found["milliseconds"].values() for value in taken)
    assert found["peak_mb"] == pytest.approx(peak_memory(), rel=0.5)


def test_the_whole_algorithm_is_split_by_its_steps(setting):
    files = setting.images.write(setting.folder, 2, batch="x")
    found = measure(Case((ANALYZE,), 1, files=tuple(map(str, files))), CHAMPION)["milliseconds"]
    assert {"preprocess", "inference", "outline", "explain", "total"} <= set(found)
    assert {len(taken) for taken in found.values()} == {2}
    steps = sum(sum(taken) for name, taken in found.items() if name != "total")
    assert steps <= sum(found["total"]) * 1.01


def test_a_case_that_cannot_be_measured_says_why(capsys, monkeypatch):
    monkeypatch.setattr(inference_case, "configure_logging", lambda **_: None)
    *_, text = ask(Case((OURS,), 1, precision="int8", provider="cuda"))
    assert main(text) == inference.REFUSED
    assert "int8" in json.loads(capsys.readouterr().out)["refused"]


@pytest.fixture
def measured(monkeypatch):
    """Cases answered from a table of milliseconds instead of processes."""

    def answer(case):
        if case.who == (ANALYZE,):
            return {
                "milliseconds": {"preprocess": [1.0, 3.0], "inference": [6.0, 6.0], "total": [8.0, 10.0]},
                "peak_mb": 7.0,
            }
        if case.precision == "fp16":
            return {"refused": "no kernels"}
        taken = {OURS: [20.0 * case.batch] * case.runs, PLAIN: [10.0 * case.batch] * case.runs}
        return {"milliseconds": {who: taken[who] for who in case.who}, "peak_mb": 100.0 + len(case.who)}

    monkeypatch.setattr(inference, "_measured", answer)


def test_rows_say_what_was_measured_and_what_could_not_be(setting, measured, monkeypatch):
    package = inference.chosen_package(CHAMPION)
    forms = dict.fromkeys(("fp16", "int8"), None)
    other = type(package)(package.folder, package.manifest.model_copy(update={"forms": forms}))
    monkeypatch.setattr(inference, "chosen_package", lambda _: other)
    table, steps = inference.measure(setting)
    by_case = {(row[0], row[2]): row[3:] for row in table.rows if row[1] == "cpu"}
    assert by_case["fp32", 8] == (50.0, 20.0, 20.0, 100.0, 10.0, 10.0, 0.5, 101.0, 101.0)
    assert by_case["fp16", 1] == (None,) * 9
    assert ("int8", 32) in by_case and ("fp16", 8) not in by_case
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert "no kernels" in table.note
    assert len(table.samples["fp32, batch 1, cpu, ours"]) == 8
    assert ("inference", 6.0, 6.0, "67 %") in steps.rows
    assert "7 MB" in steps.note


def test_a_form_that_the_model_does_not_have_is_named(setting, measured):
    missing = {"fp16", "int8"} - set(inference.chosen_package(CHAMPION).precisions)
    table, _ = inference.measure(setting)
    assert all(f"no {precision} form" in table.note for precision in missing)
    assert {row[0] for row in table.rows} == set(inference.chosen_package(CHAMPION).precisions)
