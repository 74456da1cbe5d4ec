"""How well the service keeps out what is no dermoscopy of a lesion, and how seldom it turns away what is.

Every picture goes through the whole algorithm as it is shipped, at the shipped limits. Three kinds of pictures:
labelled dermoscopy (each refusal is a false alarm), families of strangers, and good images spoiled in a known way. A
lesion that is cut off by the frame is a property of the picture and counts as neither; it is reported by itself.

    python -m models.evaluation.gate models/store/NAME/VERSION --known NAME PLACE SPLIT.csv FOLD [--known …]
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import structlog

from dermoscopy.domain import Finding, Mask, RGBPixels
from models.evaluation.dataset import Case
from models.evaluation.layouts import Choice, open_dataset
from models.evaluation.predict import Predictor
from models.evaluation.strangers import empty_crops, families, photographs
from models.registry import open_package

SCHEMA = 1
REFUSALS = ("not_dermoscopy", "too_small", "blur", "exposure", "glare", "no_lesion", "unlike_training")
"""Codes of reasons that the gate gives; doubt about the class (``low_confidence``, ``ambiguous``) is apart."""
CUT_OFF = "lesion_cut_off"
_SURE = 10.0
SPOILED: Mapping[str, tuple[str, ...]] = {
    "blur": ("blur",),
    "dark": ("exposure", "not_dermoscopy"),
    "bright": ("exposure",),
    "glare": ("glare",),
    "cut off": (CUT_OFF,),
}
"""How good images are spoiled, and the codes that should name it (a very dark frame counts as black)."""


@dataclass(frozen=True)
class Judged:
    """What the gate said of one picture. ``score`` is 1 at the nearest limit, more where it is refused."""

    score: float
    novelty: float
    certainty: float
    codes: tuple[str, ...]

    @property
    def refused(self) -> bool:
        return any(code in REFUSALS for code in self.codes)


def judge(finding: Finding) -> Judged:
    """The gate's part of a finding. Statistics that crossed a limit have no common scale: they count as far beyond."""
    scores, limits = finding.quality.scores, finding.inference.thresholds
    codes = tuple(reason.code for reason in finding.abstention_reasons)
    relative = scores.get("embedding_distance_relative", math.nan) / limits["quality.embedding_distance_factor"]
    novelty = scores.get("novelty", relative)
    certainty = scores.get("outline_certainty", 0.0)
    score = max(
        novelty if not math.isnan(novelty) else -_SURE,
        (1.0 - certainty) / max(1e-9, 1.0 - limits["quality.outline_certainty_min"]),
        _SURE if any(code in REFUSALS[:5] for code in codes) else -_SURE,
    )
    return Judged(score, novelty, certainty, codes)


def measure_gate(
    predictor: Predictor, known: Mapping[str, Sequence[Case]], *, count: int = 100, seed: int = 0
) -> dict[str, Any]:
    """False alarms on each collection of ``known`` dermoscopy, detection and AUROC on ``count`` strangers a family."""
    seen = {name: [judge(predictor.analyze(case.pixels())) for case in cases] for name, cases in known.items()}
    together = [one for judged in seen.values() for one in judged]
    strange = {
        name: [judge(predictor.analyze(pixels)) for pixels in pictures]
        for name, pictures in _strangers(known, count, seed).items()
    }
    spoiled = {name: [judge(predictor.analyze(one)) for one in _spoiled(known, name, count)] for name in SPOILED}
    every = [one for judged in strange.values() for one in judged]
    return {
        "known": {name: _false_alarms(judged) for name, judged in seen.items()},
        "strangers": {name: _detection(judged, together) for name, judged in strange.items() if judged},
        "all_strangers": _detection(every, together),
        "spoiled": {
            name: {
                "images": len(judged),
                "named": _share(any(code in one.codes for code in SPOILED[name]) for one in judged),
            }
            for name, judged in spoiled.items()
            if judged
        },
    }


def auroc(strangers: Iterable[float], known: Iterable[float]) -> float:
    """Probability that a stranger scores above a known image, ties counting half (Mann-Whitney)."""
    high, low = np.array(list(strangers), np.float64), np.sort(np.array(list(known), np.float64))
    if not len(high) or not len(low):
        return math.nan
    below, upto = np.searchsorted(low, high, "left"), np.searchsorted(low, high, "right")
    return float((below + upto).mean() / 2.0 / len(low))


def _false_alarms(judged: Sequence[Judged]) -> dict[str, Any]:
    reasons = Counter(code for one in judged for code in set(one.codes) if code in (*REFUSALS, CUT_OFF))
    return {
        "images": len(judged),
        "false_alarms": _share(one.refused for one in judged),
        "by_reason": {code: number / len(judged) for code, number in sorted(reasons.items())},
    }


def _detection(judged: Sequence[Judged], known: Sequence[Judged]) -> dict[str, Any]:
    reasons = Counter(code for one in judged for code in set(one.codes) if code in REFUSALS)
    return {
        "images": len(judged),
        "refused": _share(one.refused for one in judged),
        "no_class_named": _share(bool(one.codes) for one in judged),
        "auroc": auroc((one.score for one in judged), (one.score for one in known)),
        "auroc_novelty": auroc((one.novelty for one in judged), (one.novelty for one in known)),
        "by_reason": {code: number / len(judged) for code, number in sorted(reasons.items())},
    }


def _share(values: Iterable[bool]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else math.nan


def _strangers(known: Mapping[str, Sequence[Case]], count: int, seed: int) -> dict[str, Iterator[RGBPixels]]:
    drawn: dict[str, Iterator[RGBPixels]] = dict(families(count, seed))
    drawn["photograph"] = photographs(count, seed)
    for name, cases in known.items():
        drawn[f"empty skin of {name}"] = _first(empty_crops(_outlined(cases)), count)
    return drawn


def _outlined(cases: Iterable[Case]) -> Iterator[tuple[RGBPixels, Mask]]:
    for case in cases:
        mask = case.mask()
        if mask is not None and case.window is None:
            yield case.pixels(), mask


def _first(pictures: Iterator[RGBPixels], count: int) -> Iterator[RGBPixels]:
    return (picture for picture, _ in zip(pictures, range(count), strict=False))


def _spoiled(known: Mapping[str, Sequence[Case]], name: str, count: int) -> Iterator[RGBPixels]:
    """Good images, evenly from the collections, each spoiled beyond use."""
    change: dict[str, Callable[[RGBPixels, Mask], RGBPixels | None]] = {
        "blur": _blurred, "dark": _darkened, "bright": _brightened, "glare": _glaring, "cut off": _cut_off,
    }  # fmt: skip
    each = max(1, count // max(1, len(known)))
    for cases in known.values():
        spoiled = (change[name](pixels, mask) for pixels, mask in _outlined(cases))
        yield from _first((picture for picture in spoiled if picture is not None), each)


def _blurred(pixels: RGBPixels, _: Mask) -> RGBPixels:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), min(pixels.shape[:2]) / 20.0), np.uint8)


def _darkened(pixels: RGBPixels, _: Mask) -> RGBPixels:
    return np.asarray(pixels * 0.16, np.uint8)


def _brightened(pixels: RGBPixels, _: Mask) -> RGBPixels:
    return np.asarray(np.clip(pixels.astype(np.float32) * 0.2 + 215.0, 0, 255), np.uint8)


def _glaring(pixels: RGBPixels, _: Mask) -> RGBPixels:
    spoiled = pixels.copy()
    spoiled[:, : round(0.4 * pixels.shape[1])] = 255
    return spoiled


def _cut_off(pixels: RGBPixels, mask: Mask) -> RGBPixels | None:
    """The image cropped within a lesion that lay clear of the edges: its middle half is left, in both directions."""
    edge: npt.NDArray[np.bool_] = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if edge.any() or not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = int(rows[-1] - rows[0]), int(columns[-1] - columns[0])
    top, left = int(rows[0]) + height // 4, int(columns[0]) + width // 4
    crop = pixels[top : top + height // 2, left : left + width // 2]
    if min(crop.shape[:2]) < 48:
        return None
    return np.asarray(cv2.resize(crop, None, fx=3.0, fy=3.0, interpolation=cv2.INTER_CUBIC), np.uint8)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure an installed package's gate and write ``evaluation/gate.json`` into its folder."""
    parser = argparse.ArgumentParser(prog="python -m models.evaluation.gate", description=main.__doc__)
    parser.add_argument("package", type=Path, help="<store>/<name>/<version>")
    parser.add_argument("--known", action="append", nargs=4, required=True, metavar=("NAME", "PLACE", "SPLIT", "FOLD"))
    parser.add_argument("--count", type=int, default=100, help="strangers of each family")
    parser.add_argument("--limit", type=int, default=0, help="so many known images of each collection; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="default: PACKAGE/evaluation/gate.json")
    given = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    folder: Path = given.package.resolve()
    predictor = Predictor(open_package(folder.parent.parent, folder.parent.name, folder.name))
    classes = [label.value for label in predictor.manifest.classes]
    known = {
        name: open_dataset(Path(place), classes, Choice(split=Path(split), fold=fold, limit=given.limit)).cases
        for name, place, split, fold in given.known
    }
    found = {
        "schema": SCHEMA,
        "model": f"{predictor.manifest.name}=={predictor.manifest.version}",
        "weights": predictor.manifest.sha256,
        "folds": {name: f"{Path(split).name}: {fold}" for name, _, split, fold in given.known},
        "seed": given.seed,
        **measure_gate(predictor, known, count=given.count, seed=given.seed),
    }
    output: Path = given.output or folder / "evaluation" / "gate.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(output)  # noqa: T201 - this is the command line
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
