"""Do the measures measure? Lesions of known geometry are drawn, measured, and the errors stated.

Two questions are kept apart. *The measures*: shapes whose outline is exact (`by_mask`), so that what is left is the
error of the formulas on a pixel grid. *The service*: the same drawings through the whole algorithm (`by_service`),
clean, under hair, noise and blur, so that the network's outline is in the error; drawn lesions have clear borders, so
real ones will do worse. Beside them: what hair does to the colours, how much of it is found, and the scale read from
drawn rulers.

    python -m models.evaluation.measurement models/store/NAME/VERSION [--document docs/analysis.md]
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import structlog

from dermoscopy.domain import DermoscopicImage, LesionMeasurements, RGBPixels
from dermoscopy.phantoms import Geometry, Phantom, lesion_of, phantom, with_hair, with_ruler
from models.evaluation.dataset import Case
from models.evaluation.layouts import open_dataset
from models.evaluation.predict import Predictor
from models.hair import find_hair
from models.measure import largest_region, measure
from models.registry import open_package
from models.scale import read_ruler

Float64 = npt.NDArray[np.float64]
SCHEMA = 1
SIZES = (0.12, 0.2, 0.3)
"""Radius of the drawn lesion over the frame's shorter side."""
ANGLES = (0.0, 0.35, 0.9)
HAIRS = 12
CONDITIONS = ("clean", "hair", "light hair", "noise", "blur")
MEASURES = ("area, %", "equivalent diameter, %", "perimeter, %", "border irregularity", "asymmetry", "centroid, pixels")
_BEGIN, _END = "<!-- measured errors: begin -->", "<!-- measured errors: end -->"


def shapes() -> dict[str, Float64]:
    """Closed outlines of radius about 1, float64 [n, 2] of (row, column): round, long, half, notched, lobed."""
    turn = np.linspace(0.0, 2.0 * math.pi, 2000, endpoint=False)
    unit = np.stack([np.sin(turn), np.cos(turn)], axis=1)
    half = np.linspace(0.0, math.pi, 1000)
    straight = np.linspace(-1.0, 1.0, 600)[1:-1]
    half_moon = np.concatenate(
        [np.stack([np.sin(half), np.cos(half)], axis=1), np.stack([np.zeros_like(straight), straight], axis=1)]
    )
    notch = 1.0 - 0.55 * np.exp(-(((turn - 1.1) / 0.22) ** 2))
    lobes = 1.0 + 0.12 * np.cos(5 * turn) + 0.05 * np.sin(3 * turn + 0.4)
    return {
        "disc": unit,
        "ellipse 2 : 1": unit * (0.7, 1.4),
        "half-moon": half_moon - (0.42, 0.0),
        "notched": unit * notch[:, None],
        "lobed": unit * lobes[:, None],
    }


def drawn(rows: int = 450, columns: int = 600) -> Iterator[tuple[str, Phantom]]:
    """Every shape at every size and angle, at places off the pixel grid."""
    for number, (name, outline) in enumerate(shapes().items()):
        for size_number, size in enumerate(SIZES):
            for angle in ANGLES:
                cosine, sine = math.cos(angle), math.sin(angle)
                turned = outline @ np.array([[cosine, sine], [-sine, cosine]]) * size * min(rows, columns)
                seed = 100 * number + 10 * size_number + round(10 * angle)
                middle = (rows / 2 + 0.37 + seed % 7, columns / 2 + 0.21 - seed % 5)
                yield name, lesion_of(turned + middle, seed, rows=rows, columns=columns)


def spoiled(pixels: RGBPixels, condition: str, seed: int) -> RGBPixels:
    """``pixels`` under one of `CONDITIONS`. Raises `ValueError` for another."""
    if condition == "clean":
        return pixels
    if condition in ("hair", "light hair"):
        return with_hair(pixels, HAIRS, seed, light=condition == "light hair")[0]
    if condition == "noise":
        noise = np.random.default_rng([seed, 3]).normal(0.0, 12.0, pixels.shape)
        return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)
    if condition == "blur":
        return np.asarray(cv2.GaussianBlur(pixels, (0, 0), min(pixels.shape[:2]) / 200.0), np.uint8)
    raise ValueError(f"condition {condition!r} is unknown; there is: {', '.join(CONDITIONS)}")


def errors_of(found: LesionMeasurements, truth: Geometry) -> dict[str, float]:
    """Error of each of `MEASURES`."""
    irregularity = truth.perimeter_px**2 / (4.0 * math.pi * truth.area_px)
    values = (
        100.0 * (found.area_px / truth.area_px - 1.0),
        100.0 * (found.equivalent_diameter_px / truth.equivalent_diameter_px - 1.0),
        100.0 * (found.perimeter_px / truth.perimeter_px - 1.0),
        found.border_irregularity - irregularity,
        found.asymmetry - truth.asymmetry,
        float(np.hypot(*np.subtract(found.centroid, truth.centroid))),
    )
    return dict(zip(MEASURES, values, strict=True))


def summary(values: Iterable[float]) -> dict[str, float]:
    """Bias, 95 % limits of agreement (Bland and Altman, Lancet 327:307, 1986) and the largest error."""
    errors = np.array(list(values), np.float64)
    spread = 1.96 * float(errors.std(ddof=1)) if len(errors) > 1 else math.nan
    bias = float(errors.mean())
    return {
        "bias": bias, "lower": bias - spread, "upper": bias + spread, "largest": float(np.abs(errors).max()),
        "number": len(errors),
    }  # fmt: skip


def by_mask(rows: int = 450, columns: int = 600) -> dict[str, Any]:
    """Errors of the measures on exact outlines, over all shapes and for each."""
    gathered: dict[str, list[dict[str, float]]] = {}
    for name, made in drawn(rows, columns):
        region = largest_region(made.mask)
        if region is None:
            raise ValueError(f"{name}: nothing was drawn")
        found = measure(DermoscopicImage(made.pixels, ""), region)
        gathered.setdefault(name, []).append(errors_of(found, made.geometry))
    return _summaries(gathered)


def by_service(predictor: Predictor, conditions: Sequence[str] = CONDITIONS) -> dict[str, Any]:
    """Errors of the whole algorithm on the same drawings, by condition; ``missed`` are those without an outline."""
    figures: dict[str, Any] = {}
    pictures = list(drawn())
    for condition in conditions:
        gathered: dict[str, list[dict[str, float]]] = {}
        missed = 0
        for seed, (name, made) in enumerate(pictures):
            found = predictor.analyze(spoiled(made.pixels, condition, seed)).measurements
            if found is None:
                missed += 1
            else:
                gathered.setdefault(name, []).append(errors_of(found, made.geometry))
        figures[condition] = {**_summaries(gathered), "images": len(pictures), "missed": missed}
    return figures


def _summaries(gathered: Mapping[str, list[dict[str, float]]]) -> dict[str, Any]:
    every = [errors for found in gathered.values() for errors in found]
    return {
        "all": {name: summary(errors[name] for errors in every) for name in MEASURES} if every else {},
        "by_shape": {
            shape: {name: summary(errors[name] for errors in found) for name in MEASURES}
            for shape, found in gathered.items()
        },
    }


def hair_figures(images: int = 12) -> dict[str, Any]:
    """Share of drawn hair that is found, share of what is found that is hair (within three pixels of it), and the
    change of the colour shares that hair makes, without and with leaving it out.
    """
    figures: dict[str, Any] = {}
    for condition, light in (("dark", False), ("light", True)):
        recall, precision, kept, left_out = [], [], [], []
        for seed in range(images):
            made = phantom(seed, kind="melanoma-like" if seed % 2 else "nevus", vignette=False)
            pixels, hair = with_hair(made.pixels, 2 * HAIRS, seed, light=light)
            found = find_hair(pixels)
            near = cv2.dilate(hair.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
            recall.append(float(found[hair].mean()))
            precision.append(float(near[found].mean()) if found.any() else math.nan)
            region = largest_region(made.mask)
            if region is None:
                raise ValueError("nothing was drawn")
            clean = measure(DermoscopicImage(made.pixels, ""), region).colour_fractions
            kept.append(_change(clean, measure(DermoscopicImage(pixels, ""), region).colour_fractions))
            left_out.append(_change(clean, measure(DermoscopicImage(pixels, ""), region, found).colour_fractions))
        figures[condition] = {
            "images": images, "recall": float(np.mean(recall)), "precision": float(np.nanmean(precision)),
            "colour_change_with_hair": float(np.mean(kept)), "colour_change_hair_left_out": float(np.mean(left_out)),
        }  # fmt: skip
    without = [float(find_hair(phantom(seed, vignette=False).pixels).mean()) for seed in range(images)]
    return {**figures, "found_where_none_is": float(np.mean(without))}


def _change(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Half the sum of differences of shares: the part of the lesion that changed its colour."""
    return 0.5 * sum(abs(one[name] - other[name]) for name in one)


def ruler_figures(images: int = 24) -> dict[str, Any]:
    """Drawn rulers of random place, angle and scale on plain, hairy and noisy phantoms: how many are read, how well."""
    random = np.random.default_rng(5)
    errors, false = [], 0
    for seed in range(images):
        plain = phantom(seed, kind="nevus", rows=600, columns=800, hairs=seed % 4).pixels
        false += read_ruler(plain) is not None
        per_mm, angle = float(random.uniform(30.0, 55.0)), float(random.uniform(-0.5, 0.5))
        start = (float(random.uniform(430, 520)) - min(0.0, math.sin(angle)) * 60.0, float(random.uniform(40, 140)))
        ruled = with_ruler(plain, per_mm, start, angle)
        read = read_ruler(spoiled(ruled, ("clean", "noise", "clean", "hair")[seed % 4], seed))
        if read is not None:
            errors.append(100.0 * (read.pixels_per_mm / per_mm - 1.0))
    return {
        "images": images, "read": len(errors) / images, "read_where_none_is": false / images,
        "error_percent": summary(errors) if errors else None,
    }  # fmt: skip


def real_rulers(cases: Iterable[Case]) -> dict[str, Any]:
    """What is read from rulers in real images. Where few devices made them, true scales lie in few narrow groups."""
    read = [read_ruler(case.pixels()) for case in cases]
    rulers = [ruler for ruler in read if ruler is not None]
    scales = [ruler.pixels_per_mm for ruler in rulers]
    return {
        "images": len(read),
        "read": len(rulers),
        "pixels_per_mm": [float(v) for v in np.percentile(scales, (0, 5, 50, 95, 100))] if rulers else [],
        "largest_relative_error": max((ruler.relative_error for ruler in rulers), default=math.nan),
        "fewest_ticks": min((ruler.ticks for ruler in rulers), default=0),
    }


def measure_measurement(predictor: Predictor) -> dict[str, Any]:
    """Every figure of this file."""
    return {
        "measures": {"600 × 450": by_mask(), "300 × 225": by_mask(225, 300)},
        "service": by_service(predictor),
        "hair": hair_figures(),
        "ruler": ruler_figures(),
    }


def as_markdown(found: Mapping[str, Any]) -> str:
    """The tables of docs/analysis.md."""
    head = "| {} | measure | bias | 95 % limits | largest |\n|---|---|---|---|---|"
    lines = ["Measures on exact outlines:", "", head.format("frame")]
    lines += [line for name, part in found["measures"].items() for line in _rows(name, part["all"])]
    lines += [
        "",
        f"The whole algorithm, {found['model']}, on the same drawings at 600 × 450:",
        "",
        head.format("image"),
    ]
    for name, part in found["service"].items():
        lines += _rows(f"{name} ({part['images'] - part['missed']} of {part['images']} outlined)", part["all"])
    hair, ruler = found["hair"], found["ruler"]
    lines += [
        "",
        "| hair | found | of what is found, hair | colours changed | with hair left out |",
        "|---|---|---|---|---|",
    ]
    for name in ("dark", "light"):
        one = hair[name]
        parts = ("recall", "precision", "colour_change_with_hair", "colour_change_hair_left_out")
        lines.append(f"| {name} | " + " | ".join(f"{100 * one[part]:.1f} %" for part in parts) + " |")
    lines += ["", f"Called hair where none is drawn: {100 * hair['found_where_none_is']:.2f} % of the frame."]
    error = ruler["error_percent"]
    said = "" if error is None else f", largest error of the scale {error['largest']:.2f} %"
    lines += [
        f"Drawn rulers read: {100 * ruler['read']:.0f} % of {ruler['images']}{said}; "
        f"read where none is drawn: {100 * ruler['read_where_none_is']:.0f} %.",
    ]
    for name, one in found.get("real_rulers", {}).items():
        said = ", ".join(f"{value:.1f}" for value in one["pixels_per_mm"])
        lines += [
            "",
            f"Real images, {name}: {one['read']} rulers in {one['images']}; pixels per millimetre {said} (least,",
        ]
        lines += [f"5 %, median, 95 %, most), at least {one['fewest_ticks']} ticks."]
    return "\n".join(lines)


def _rows(name: str, part: Mapping[str, Mapping[str, float]]) -> list[str]:
    return [
        f"| {name} | {title} | {one['bias']:+.3f} | {one['lower']:+.3f} … {one['upper']:+.3f} | {one['largest']:.3f} |"
        for title, one in part.items()
    ]


def write_tables(document: Path, tables: str) -> None:
    """Put the tables between their two marks in a Markdown file. Raises `ValueError` where a mark is missing."""
    text = document.read_text(encoding="utf-8")
    if _BEGIN not in text or _END not in text:
        raise ValueError(f"{document}: the marks {_BEGIN} and {_END} are missing")
    before, after = text.split(_BEGIN)[0], text.split(_END)[1]
    document.write_text(f"{before}{_BEGIN}\n\n{tables}\n\n{_END}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a package on drawings of known geometry; write ``evaluation/measurement.json`` and the tables."""
    parser = argparse.ArgumentParser(prog="python -m models.evaluation.measurement", description=main.__doc__)
    parser.add_argument("package", type=Path, help="<store>/<name>/<version>")
    parser.add_argument("--output", type=Path, help="default: PACKAGE/evaluation/measurement.json")
    parser.add_argument("--rulers", type=Path, action="append", default=[], help="images or their CSV: read the rulers")
    parser.add_argument("--document", type=Path, help="Markdown file whose tables are written anew")
    given = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    folder: Path = given.package.resolve()
    predictor = Predictor(open_package(folder.parent.parent, folder.parent.name, folder.name))
    name = f"{predictor.manifest.name} {predictor.manifest.version}"
    found: dict[str, Any] = {
        "schema": SCHEMA, "model": name, "weights": predictor.manifest.sha256, **measure_measurement(predictor),
    }  # fmt: skip
    classes = [label.value for label in predictor.manifest.classes]
    if given.rulers:
        places: list[Path] = given.rulers
        found["real_rulers"] = {place.stem: real_rulers(open_dataset(place, classes).cases) for place in places}
    output: Path = given.output or folder / "evaluation" / "measurement.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if given.document is not None:
        write_tables(given.document, as_markdown(found))
    print(output)  # noqa: T201 - this is the command line
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
