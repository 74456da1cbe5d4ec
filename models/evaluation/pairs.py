"""Pictures of one lesion and of different ones: does registration tell them apart, and how far do measures scatter?

A collection must name the lesion of each image (HAM10000 does: ``lesion_id``). Two images of one lesion are a matching
pair; beside each stand pairs with other lesions of the same body site. The scatter of the measures between matching
pairs, through the whole algorithm, is the floor below which no change is called one (`thresholds.change` of the
manifest). It is measured on the folds that tuned the model and checked on the test fold, which did neither. Most pairs
of HAM10000 were taken at one visit, with another turn, zoom or light, so that little in them has really changed; how
often pictures taken months apart register is not known from them.

    python -m models.evaluation.pairs models/store/NAME/VERSION FOLDER --split models/training/splits/ham10000-v1.csv
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from dermoscopy.domain import DermoscopicImage, Finding
from models.compare import OVERLAP_LEAST
from models.evaluation.dataset import Case
from models.evaluation.labels import read_folds
from models.evaluation.layouts import open_dataset
from models.evaluation.predict import Predictor, watched
from models.register import REGISTERED, Registration, Structures, find_structures, overlap, register
from models.registry import open_package

SCHEMA = 1
FLOOR_FOLDS = ("validation", "calibration")
CHECK_FOLDS = ("test",)
QUANTILE = 0.95
MEASURES = (
    "area_log", "asymmetry", "border_irregularity", "colour_count", "colour_variety", "melanoma_risk",
    "malignancy_risk",
)  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """One image through the whole algorithm, with its local structures."""

    case: Case
    finding: Finding
    structures: Structures
    digest: str


def look(predictor: Predictor, cases: Iterable[Case]) -> dict[str, Seen]:
    """Each case through algorithm and feature search, by id."""
    found = {}
    for case in watched(cases, "looking at the images"):
        pixels = case.pixels()
        finding = predictor.analyze(pixels)
        image = DermoscopicImage(pixels, "")
        found[case.id] = Seen(case, finding, find_structures(image), str(hash(pixels.tobytes())))
    return found


def matching(seen: Mapping[str, Seen]) -> list[tuple[Seen, Seen]]:
    """One pair per lesion with several images, exact copies left out."""
    lesions: dict[str, list[Seen]] = {}
    for one in seen.values():
        lesions.setdefault(one.case.group, []).append(one)
    pairs = []
    for images in lesions.values():
        different = [pair for pair in combinations(images, 2) if pair[0].digest != pair[1].digest]
        pairs += different[:1]
    return pairs


def differing(seen: Mapping[str, Seen], each: int, seed: int = 0) -> list[tuple[Seen, Seen]]:
    """For the first image of each lesion ``each`` images of other lesions of the same body site."""
    first: dict[str, Seen] = {}
    for one in seen.values():
        first.setdefault(one.case.group, one)
    places: dict[str, list[Seen]] = {}
    for one in first.values():
        places.setdefault(one.case.attributes.get("localization", ""), []).append(one)
    draw = random.Random(seed)  # noqa: S311 - a sample, not a secret
    pairs = []
    for one in first.values():
        others = [other for other in places[one.case.attributes.get("localization", "")] if other is not one]
        pairs += [(one, other) for other in draw.sample(others, min(each, len(others)))]
    return pairs


def registered(pair: tuple[Seen, Seen]) -> tuple[Registration | None, float | None]:
    """How the second lies over the first, and how much of the outlines lies on each other."""
    lesions = pair[0].finding.mask, pair[1].finding.mask
    laid = register(pair[0].structures, pair[1].structures, lesions)
    if laid is None or not (lesions[0].any() and lesions[1].any()):
        return laid, None
    return laid, overlap(laid, *lesions)


def rates(seen: Mapping[str, Seen], each: int) -> dict[str, Any]:
    """Share of matching and of differing pairs that are called one lesion, with the scores behind it."""
    same, other = [registered(pair) for pair in matching(seen)], [registered(pair) for pair in differing(seen, each)]
    points = [[0 if laid is None else laid.points for laid, _ in pairs] for pairs in (same, other)]
    confirmed = [laid for laid, _ in same if laid is not None and laid.confirmed]
    called = [[_called(*pair) for pair in pairs] for pairs in (same, other)]
    return {
        "matching_pairs": len(same),
        "differing_pairs": len(other),
        "threshold_points": REGISTERED,
        "threshold_overlap": OVERLAP_LEAST,
        "matching_called": float(np.mean(called[0])),
        "differing_called": int(np.sum(called[1])),
        "differing_called_at_most": _upper(int(np.sum(called[1])), len(other)),
        "matching_points_5_25_50_75": np.percentile(points[0], [5, 25, 50, 75]).tolist(),
        "differing_points_99_and_most": [float(np.percentile(points[1], 99)), float(max(points[1]))],
        "scale_from_skin_beside": float(np.mean([one.beside >= REGISTERED for one in confirmed])),
    }


def _called(laid: Registration | None, share: float | None) -> bool:
    return laid is not None and laid.confirmed and (share is None or share >= OVERLAP_LEAST)


def _upper(events: int, count: int) -> float:
    """Upper end of the one-sided 95 % interval of a share (Clopper and Pearson; no event: 1 - 0.05^(1/n))."""
    if events == 0:
        return 1.0 - 0.05 ** (1.0 / count)
    low, high = events / count, 1.0
    for _ in range(60):
        middle = (low + high) / 2.0
        below = sum(math.comb(count, k) * middle**k * (1.0 - middle) ** (count - k) for k in range(events + 1))
        low, high = (middle, high) if below > 0.05 else (low, middle)
    return high


def differences(seen: Mapping[str, Seen]) -> dict[str, list[float]]:
    """How far each measure of `MEASURES` differs within the matching pairs that register, both images usable."""
    found: dict[str, list[float]] = {name: [] for name in MEASURES}
    for one, other in matching(seen):
        laid, share = registered((one, other))
        if laid is None or not _called(laid, share):
            continue
        old, new = one.finding, other.finding
        if old.measurements is None or new.measurements is None or not (old.quality.usable and new.quality.usable):
            continue
        found["area_log"].append(math.log(new.measurements.area_px / (old.measurements.area_px * laid.zoom**2)))
        for name in MEASURES[1:5]:
            found[name].append(float(getattr(new.measurements, name)) - float(getattr(old.measurements, name)))
        for name in MEASURES[5:]:
            found[name].append(float(getattr(new, name)) - float(getattr(old, name)))
    return found


def floor_of(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The value that 95 % of the differences do not pass, sign aside."""
    return {name: round(float(np.quantile(np.abs(values), QUANTILE)), 4) for name, values in found.items()}


def measure_pairs(predictor: Predictor, tuned: Sequence[Case], unseen: Sequence[Case], each: int) -> dict[str, Any]:
    """Floor on ``tuned``, registration on both, and how often unseen matching pairs pass the floor."""
    first, second = look(predictor, tuned), look(predictor, unseen)
    scatter, check = differences(first), differences(second)
    floor = floor_of(scatter)
    return {
        "floor": {"pairs": len(scatter["area_log"]), "quantile": QUANTILE, **floor},
        "check": {
            "pairs": len(check["area_log"]),
            "passed_by": {name: float(np.mean(np.abs(check[name]) > floor[name])) for name in MEASURES},
        },
        "registration": {"tuning folds": rates(first, each), "test fold": rates(second, each)},
    }


def several(cases: Iterable[Case], folds: Mapping[str, str], wanted: Sequence[str]) -> list[Case]:
    """Cases of ``wanted`` folds whose lesion has several images there."""
    chosen = [case for case in cases if folds.get(case.id.lower(), "") in wanted]
    count: dict[str, int] = {}
    for case in chosen:
        count[case.group] = count.get(case.group, 0) + 1
    kept: dict[str, list[Case]] = {}
    for case in chosen:
        if count[case.group] > 1 and len(kept.setdefault(case.group, [])) < 2:
            kept[case.group].append(case)
    return [case for images in kept.values() for case in images]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure matching and repeatability of a package on pairs; write ``evaluation/change.json``."""
    parser = argparse.ArgumentParser(prog="python -m models.evaluation.pairs", description=main.__doc__)
    parser.add_argument("package", type=Path, help="<store>/<name>/<version>")
    parser.add_argument("data", type=Path, help="a folder of labelled images that names lesions, or its CSV")
    parser.add_argument("--split", type=Path, required=True, help="CSV of folds")
    parser.add_argument("--each", type=int, default=10, help="differing pairs for each lesion")
    parser.add_argument("--limit", type=int, default=0, help="so many images of each group of folds; 0: all")
    parser.add_argument("--output", type=Path, help="default: PACKAGE/evaluation/change.json")
    given = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    folder: Path = given.package.resolve()
    predictor = Predictor(open_package(folder.parent.parent, folder.parent.name, folder.name))
    dataset = open_dataset(given.data, [label.value for label in predictor.manifest.classes])
    folds = read_folds(given.split)
    tuned, unseen = (several(dataset.cases, folds, wanted) for wanted in (FLOOR_FOLDS, CHECK_FOLDS))
    limit = given.limit or None
    found = {
        "schema": SCHEMA,
        "model": f"{predictor.manifest.name} {predictor.manifest.version}",
        "weights": predictor.manifest.sha256,
        "dataset": {"name": dataset.name, "digest": dataset.digest},
        **measure_pairs(predictor, tuned[:limit], unseen[:limit], given.each),
    }
    output: Path = given.output or folder / "evaluation" / "change.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(output)  # noqa: T201 - this is the command line
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
