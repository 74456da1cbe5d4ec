"""Twelve versions of every image: how much of the answer survives a poor photograph.

Each distortion is a function of the pixels and a seed, so that the same question always gets the same picture. Lengths
are shares of the image's shorter side (``side``), so that a distortion does to a phone's 4000 pixels what it does to a
256-pixel crop. JPEG is the exception: its blocks are 8 × 8 pixels of the file itself, as in life, and a large image
suffers less from it.

| name | what is done |
|---|---|
| ``clean`` | nothing |
| ``blur_light``, ``blur_heavy`` | Gaussian blur, σ = side / 256 and side / 64: slightly and clearly out of focus |
| ``noise`` | Gaussian noise, σ = 15 of 255, each channel by itself, in grains of side / 256: high ISO |
| ``dark``, ``bright`` | 1.5 stops less and 0.75 stops more light (in linear light, clipped as a sensor clips) |
| ``jpeg_light``, ``jpeg_heavy`` | JPEG at quality 50 and 10, chroma at half resolution (4:2:0) |
| ``rotation_15``, ``rotation_45`` | turned about the centre, counter-clockwise; the corners continue by reflection |
| ``colour_cast`` | white balance off: red × 1.25 and blue × 0.8 in linear light (warm), or the reverse (cool) |
| ``realistic_mix`` | a hurried photograph: all of the above, each less strong, drawn anew for every image |

The twelfth, ``colour_cast``, is here because every dermoscope has its own lamp and white balance, a change of device is
what a model meets first at a new site, and colour is what diagnosis leans on; unlike drawn hair it is exactly defined.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dermoscopy.domain import LesionClass, Mask, RGBPixels
from dermoscopy.errors import Misconfigured
from models.evaluation.dataset import Case
from models.evaluation.predict import Answers, Predictor
from models.evaluation.resampling import (
    DRAWS,
    Float64,
    area_under_curve,
    balanced_accuracy,
    estimate,
    lesion_weights,
    mean,
)

_BLUR_LIGHT, _BLUR_HEAVY = 1.0 / 256.0, 1.0 / 64.0
_NOISE, _GRAINS = 15.0, 256
_DARK, _BRIGHT = -1.5, 0.75
_WARM = (1.25, 1.0, 0.8)


@dataclass(frozen=True, slots=True)
class Distortion:
    """``words`` for a report; ``turn`` gives degrees counter-clockwise, ``appearance`` changes pixels in place of them.

    Geometry is kept apart, so that a mask can follow without its image.
    """

    words: str
    turn: Callable[[np.random.Generator], float] | None = None
    appearance: Callable[[RGBPixels, np.random.Generator], RGBPixels] | None = None


def distort(pixels: RGBPixels, name: str, seed: int = 0) -> RGBPixels:
    """``pixels`` uint8 RGB [rows, columns, 3], distorted; same shape. Raises `Misconfigured` for an unknown name."""
    distortion = _known(name)
    turned = _turned(pixels, _angle(name, seed), cv2.INTER_LINEAR)
    if distortion.appearance is None:
        return turned
    return distortion.appearance(turned, np.random.default_rng([seed, _number(name), 1]))


def distort_mask(mask: Mask, name: str, seed: int = 0) -> Mask:
    """``mask`` bool [rows, columns], turned as `distort` turns its image with the same ``name`` and ``seed``."""
    _known(name)
    turned = _turned(mask.astype(np.uint8), _angle(name, seed), cv2.INTER_NEAREST)
    return np.asarray(turned, dtype=bool)


def distorted(case: Case, name: str, seed: int = 0) -> Case:
    """The same case with distorted pixels and mask; its own seed comes from ``seed`` and its id.

    A case whose mask covers a part of the frame only (``window``) loses it when it is turned, since what a turned
    window uncovers was never outlined.
    """
    own = int.from_bytes(hashlib.sha256(f"{seed}\x1f{case.id}".encode()).digest()[:4], "big")

    def mask() -> Mask | None:
        drawn = case.mask()
        return None if drawn is None else distort_mask(drawn, name, own)

    changed = replace(case, pixels=lambda: distort(case.pixels(), name, own), mask=mask)
    if case.window is not None and _known(name).turn is not None:
        return replace(changed, mask=lambda: None, window=None)
    return changed


def stratified(diagnoses: Sequence[str], images: int, seed: int = 0) -> tuple[npt.NDArray[np.int64], Float64]:
    """About ``images`` positions, as even over the diagnoses as can be, and how many images each of them stands for.

    Rare classes come in whole, frequent ones are thinned. A weight is (images of that diagnosis) / (those taken), so
    that weighted figures estimate those of all images, with most of their certainty where the rare classes decide.
    """
    labels = np.asarray(diagnoses, dtype=str)
    generator = np.random.default_rng(seed)
    by_size = sorted((np.flatnonzero(labels == name) for name in np.unique(labels)), key=len)
    left, taken, weights = images, [], []
    for classes_left, members in zip(range(len(by_size), 0, -1), by_size, strict=True):
        number = min(len(members), max(1, left // classes_left))
        taken.append(generator.choice(members, number, replace=False))
        weights.append(np.full(number, len(members) / number))
        left -= number
    if not taken:
        return np.zeros(0, np.int64), np.zeros(0)
    positions, weight = np.concatenate(taken), np.concatenate(weights)
    order = np.argsort(positions)
    return positions[order].astype(np.int64), weight[order]


def measure_distortions(
    predictor: Predictor,
    cases: Sequence[Case],
    *,
    names: Sequence[str] | None = None,
    images: int | None = None,
    seed: int = 0,
    draws: int = DRAWS,
    progress: bool = False,
) -> dict[str, Any]:
    """Every figure under every distortion, with what it lost against ``clean`` on the same images.

    Args:
        predictor: the installed package.
        cases: labelled images; those without a diagnosis count for the outline only.
        names: distortions to try (``clean`` is always among them); all twelve if ``None``.
        images: take about so many, evenly over the diagnoses, and weigh them back to the mix of ``cases``; else all.
        seed: of the distortions, of the choice of images and of the bootstrap.
        draws: of the bootstrap, which resamples lesions, the same ones for every distortion.
        progress: show a bar for each distortion.

    Returns:
        ``images``, ``of`` (how many cases there were), ``lesions``, ``seed``, ``operating_point`` (melanoma probability
        of the manifest) and ``distortions``: by name ``words`` and, for each of ``accuracy``, ``balanced_accuracy``,
        ``melanoma_auc``, ``melanoma_sensitivity``, ``melanoma_specificity``, ``mean_jaccard``, a dict with ``value``,
        ``interval`` (95 %), ``change`` (value minus that of ``clean``) and ``change_interval``. ``None`` where a figure
        does not exist (no melanoma, no mask).

    Raises `Misconfigured` for an unknown name, and `UnreadableObject` for an image that cannot be read.
    """
    wanted = ["clean", *(name for name in (names or DISTORTIONS) if name != "clean")]
    for name in wanted:
        _known(name)
    if images is not None and images < len(cases):
        positions, weight = stratified([case.diagnosis for case in cases], images, seed)
        chosen = [cases[position] for position in positions]
    else:
        chosen, weight = list(cases), np.ones(len(cases))
    weights = lesion_weights([case.group for case in chosen], draws, seed) * weight
    figures: dict[str, dict[str, Float64]] = {}
    for name in wanted:
        changed = [distorted(case, name, seed) for case in chosen]
        answers = predictor.answers(changed, name.replace("_", " ") if progress else "")
        figures[name] = _figures(answers, [case.diagnosis for case in chosen], predictor, weights)
    return {
        "images": len(chosen),
        "of": len(cases),
        "lesions": len({case.group for case in chosen}),
        "seed": seed,
        "operating_point": predictor.manifest.thresholds.melanoma.probability,
        "distortions": {
            name: {"words": DISTORTIONS[name].words, **_compared(figures[name], figures["clean"])} for name in wanted
        },
    }


def _figures(answers: Answers, diagnoses: Sequence[str], predictor: Predictor, weights: Float64) -> dict[str, Float64]:
    """Each figure for each row of ``weights``."""
    classes = list(predictor.manifest.classes)
    target = np.array([classes.index(LesionClass(name)) if name in classes else -1 for name in diagnoses], np.int64)
    known, outlined = target >= 0, np.isfinite(answers.jaccard)
    melanoma = classes.index(LesionClass.MEL)
    risk = answers.probability[:, melanoma]
    warned = risk >= predictor.manifest.thresholds.melanoma.probability
    right = (answers.called == target).astype(np.float64)
    positive, negative = known & (target == melanoma), known & (target != melanoma)
    return {
        "accuracy": mean(right[known], weights[:, known]),
        "balanced_accuracy": balanced_accuracy(right[known], target[known], weights[:, known]),
        "melanoma_auc": area_under_curve(risk[known], positive[known], weights[:, known]),
        "melanoma_sensitivity": mean(warned[positive].astype(np.float64), weights[:, positive]),
        "melanoma_specificity": mean((~warned[negative]).astype(np.float64), weights[:, negative]),
        "mean_jaccard": mean(answers.jaccard[outlined], weights[:, outlined]),
    }


def _compared(figures: Mapping[str, Float64], clean: Mapping[str, Float64]) -> dict[str, dict[str, Any]]:
    compared: dict[str, dict[str, Any]] = {}
    for key, values in figures.items():
        change = estimate(values - clean[key])
        compared[key] = {**estimate(values), "change": change["value"], "change_interval": change["interval"]}
    return compared


def _known(name: str) -> Distortion:
    if name not in DISTORTIONS:
        raise Misconfigured(f"distortion {name!r} is unknown; there is: {', '.join(DISTORTIONS)}")
    return DISTORTIONS[name]


def _number(name: str) -> int:
    """A distortion's own number for its generator, the same whatever else is in the table."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def _angle(name: str, seed: int) -> float:
    turn = DISTORTIONS[name].turn
    return 0.0 if turn is None else turn(np.random.default_rng([seed, _number(name), 0]))


def _side(pixels: RGBPixels) -> int:
    return int(min(pixels.shape[:2]))


def _turned(values: npt.NDArray[np.uint8], degrees: float, how: int) -> npt.NDArray[np.uint8]:
    if degrees == 0.0:
        return values.copy()
    rows, columns = values.shape[:2]
    matrix = cv2.getRotationMatrix2D(((columns - 1) / 2.0, (rows - 1) / 2.0), degrees, 1.0)
    turned = cv2.warpAffine(values, matrix, (columns, rows), flags=how, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(turned, dtype=np.uint8)


def _blurred(pixels: RGBPixels, share: float) -> RGBPixels:
    """Gaussian blur with σ = ``share`` of the shorter side."""
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), share * _side(pixels)), dtype=np.uint8)


def _noisy(pixels: RGBPixels, deviation: float, random: np.random.Generator) -> RGBPixels:
    """Noise of ``deviation`` grey levels (of 255) on a grid of 256 grains per shorter side, or of single pixels."""
    rows, columns = pixels.shape[:2]
    scale = min(1.0, _GRAINS / _side(pixels))
    grid = (max(1, round(rows * scale)), max(1, round(columns * scale)), 3)
    grains = random.normal(0.0, deviation, grid).astype(np.float32)
    if grains.shape != pixels.shape:
        grains = np.asarray(cv2.resize(grains, (columns, rows), interpolation=cv2.INTER_NEAREST), dtype=np.float32)
    return np.clip(np.rint(pixels + grains), 0, 255).astype(np.uint8)


def _lit(pixels: RGBPixels, gains: Sequence[float]) -> RGBPixels:
    """Each channel's light multiplied by its gain: sRGB (IEC 61966-2-1) to linear and back, as one table of 256."""
    encoded = np.arange(256) / 255.0
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    light = np.clip(linear[:, None] * np.asarray(gains), 0.0, 1.0)
    table = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1.0 / 2.4) - 0.055)
    return np.asarray(cv2.LUT(pixels, np.rint(255.0 * table).astype(np.uint8)[None]), dtype=np.uint8)


def _exposed(pixels: RGBPixels, stops: float) -> RGBPixels:
    return _lit(pixels, (2.0**stops,) * 3)


def _cast(pixels: RGBPixels, strength: float) -> RGBPixels:
    """1: warm in full, -1: cool in full. Green stays, so that brightness stays about the same."""
    return _lit(pixels, [gain**strength for gain in _WARM])


def _compressed(pixels: RGBPixels, quality: int) -> RGBPixels:
    options = [
        cv2.IMWRITE_JPEG_QUALITY, quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    ]  # fmt: skip
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None, "what was encoded just now can be decoded"
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _mixed(pixels: RGBPixels, random: np.random.Generator) -> RGBPixels:
    """Lens, light, sensor, file, in this order."""
    pixels = _blurred(pixels, float(random.uniform(0.4, 1.2)) * _BLUR_LIGHT)
    pixels = _exposed(pixels, float(random.uniform(-0.6, 0.3)))
    pixels = _cast(pixels, float(random.uniform(-0.6, 0.6)))
    pixels = _noisy(pixels, float(random.uniform(2.0, 8.0)), random)
    return _compressed(pixels, int(random.integers(50, 91)))


DISTORTIONS: Mapping[str, Distortion] = {
    "clean": Distortion("as it is"),
    "blur_light": Distortion("slightly out of focus", None, lambda pixels, _: _blurred(pixels, _BLUR_LIGHT)),
    "blur_heavy": Distortion("clearly out of focus", None, lambda pixels, _: _blurred(pixels, _BLUR_HEAVY)),
    "noise": Distortion("sensor noise", None, lambda pixels, random: _noisy(pixels, _NOISE, random)),
    "dark": Distortion("1.5 stops underexposed", None, lambda pixels, _: _exposed(pixels, _DARK)),
    "bright": Distortion("0.75 stops overexposed", None, lambda pixels, _: _exposed(pixels, _BRIGHT)),
    "jpeg_light": Distortion("JPEG at quality 50", None, lambda pixels, _: _compressed(pixels, 50)),
    "jpeg_heavy": Distortion("JPEG at quality 10", None, lambda pixels, _: _compressed(pixels, 10)),
    "rotation_15": Distortion("turned by 15°", lambda _: 15.0),
    "rotation_45": Distortion("turned by 45°", lambda _: 45.0),
    "colour_cast": Distortion(
        "white balance too warm or too cool",
        None,
        lambda pixels, random: _cast(pixels, 1.0 if random.random() < 0.5 else -1.0),
    ),
    "realistic_mix": Distortion(
        "a hurried photograph: a bit of everything",
        lambda random: float(random.uniform(-20.0, 20.0)),
        _mixed,
    ),
}
"""The twelve by name, in the order of a report. The parameters stand in the module's table."""
