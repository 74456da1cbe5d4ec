"""Is the evidence map true? What it points at is taken away, and the class must lose more than by taking anything else.

The map shown with an answer claims "this is where the class comes from". Here the strongest ``share`` of it is replaced
by a blurred copy of itself, the network is asked again, and the drop in the class's probability is compared with that
after the same was done to random regions of the same area (occlusion: Zeiler and Fergus, ECCV 2014; deletion and
insertion curves: Petsiuk, Das, Saenko, "RISE", BMVC 2018, arXiv:1806.07421). There are two controls:

- ``anywhere``: the same region, mirrored and moved to a random place of the frame (what leaves it comes in again at the
  other side). A map that merely finds the lesion passes this one.
- ``lesion``: a region of the same area within the lesion's outline, from smoothed noise. It asks whether the map knows
  which part of the lesion matters.

One image per lesion is taken, so that the tests see independent pairs. Replacing pixels makes pictures that no lens
gives, which is part of any drop; both sides of a comparison have that part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from dermoscopy.domain import HeatMap, LesionClass, Mask, RGBPixels
from dermoscopy.errors import Misconfigured
from models import explain
from models.evaluation.dataset import Case
from models.evaluation.predict import Predictor, watched
from models.evaluation.resampling import Float64, estimate, lesion_weights, mean, rounded

Fill = Literal["blur", "mean"]
CONTROLS = ("anywhere", "lesion")
SHARE = 0.10
"""Part of the frame that is taken away."""
DRAWS = 5
"""Random regions per image and control."""
_BLUR = 1.0 / 12.0
"""σ of the blur that stands for "taken away", in shares of the shorter side: no structure of a lesion is left."""
_FEATHER = 1.0 / 96.0
_GRAIN = 1.0 / 8.0
_ROOM = 1.5
"""A lesion must have so many times the region's area, or it has no room for another region."""


@dataclass(frozen=True)
class Occlusion:
    """One image: drop in the probability of ``label`` (0…1, may be negative) when the ``top`` region is taken away, and
    for each control the mean drop over its draws (absent where the lesion is too small for it).

    ``deletion`` and ``insertion`` hold areas under the curves by ``map`` and ``random`` order; empty if not asked for.
    """

    id: str
    label: str
    probability: float
    top: float
    controls: Mapping[str, float]
    deletion: Mapping[str, float] = field(default_factory=dict)
    insertion: Mapping[str, float] = field(default_factory=dict)


def measure_faithfulness(
    predictor: Predictor,
    cases: Sequence[Case],
    *,
    share: float = SHARE,
    draws: int = DRAWS,
    fill: Fill = "blur",
    steps: int = 0,
    images: int | None = None,
    seed: int = 0,
    progress: str = "",
) -> dict[str, Any]:
    """The occlusion check over ``cases``.

    Args:
        predictor: the installed package; its network runs 2 + 2 · ``draws`` times per image, and 4 · ``steps`` more.
        cases: images, labelled or not; of each lesion the first is taken.
        share: part of the frame (0…1) that is taken away.
        draws: random regions per control.
        fill: what takes its place: a ``blur`` of the picture, or its ``mean`` colour.
        steps: of the deletion and insertion curves; 0 leaves them out.
        images: at most so many lesions, chosen at random; all if ``None``.
        seed: of the choice, the random regions and the bootstrap.
        progress: words beside a progress bar; none if empty.

    Returns:
        ``images``, ``no_evidence`` (the map is empty: left out), ``share``, ``fill``, ``draws``, ``probability`` (mean,
        before), ``top`` (mean drop) and ``controls``: for each of `CONTROLS` ``images``, ``top`` and ``random`` (mean
        drops on those images), ``difference``, ``beats`` (share of images where the top region's drop is the greater),
        all with intervals, and ``wilcoxon`` and ``sign`` (one-sided p). ``by_class``: images and mean drops by the
        class explained. ``curves``: mean areas of ``deletion`` (lower is better) and ``insertion`` (higher is better)
        by ``map`` and ``random`` order; ``None`` if not asked for.

    Raises `Misconfigured` for a share outside 0…0.5 or no draws, `UnreadableObject` for an image that cannot be read.
    """
    if not 0.0 < share <= 0.5:
        raise Misconfigured(f"the share of the frame to take away must be above 0 and at most 0.5, not {share}")
    if draws < 1:
        raise Misconfigured(f"the check needs one random region or more per image, not {draws}")
    generator = np.random.default_rng(seed)
    chosen = list({case.group: case for case in reversed(cases)}.values())[::-1]
    if images is not None and images < len(chosen):
        chosen = [chosen[row] for row in sorted(generator.choice(len(chosen), images, replace=False))]
    found: list[Occlusion] = []
    for number, case in enumerate(watched(chosen, progress)):
        random = np.random.default_rng([seed, number])
        checked = occlude(predictor, case.id, case.pixels(), share, draws, fill, steps, random)
        if checked is not None:
            found.append(checked)
    return {
        "images": len(found),
        "no_evidence": len(chosen) - len(found),
        "share": share,
        "fill": fill,
        "draws": draws,
        "seed": seed,
        **summary(found, seed),
    }


def occlude(
    predictor: Predictor,
    identity: str,
    pixels: RGBPixels,
    share: float,
    draws: int,
    fill: Fill,
    steps: int,
    random: np.random.Generator,
) -> Occlusion | None:
    """The check on one image, uint8 RGB [rows, columns, 3]; ``None`` where the map is empty.

    The class is the one that the service explains: melanoma where its probability reaches the operating point, else the
    class that is called.
    """
    pixels = _shrunk(pixels, 2 * predictor.manifest.input.size)
    output, placement = predictor.network(pixels)
    probability, called = predictor.calibrated(output.class_logits)
    classes = predictor.manifest.classes
    melanoma = classes.index(LesionClass.MEL)
    warned = probability[0, melanoma] >= predictor.manifest.thresholds.melanoma.probability
    label = melanoma if warned else int(called[0])
    heat = explain.evidence_map(output.activation_map[0], label, placement)
    area = min(round(share * heat.size), int(np.count_nonzero(heat)))
    if area == 0:
        return None
    before = float(probability[0, label])
    gone = _replacement(pixels, fill)

    def left(region: Mask) -> float:
        """Probability of the class without ``region``."""
        outputs, _ = predictor.network(_without(pixels, gone, region))
        return float(predictor.calibrated(outputs.class_logits)[0][0, label])

    lesion = predictor.outline(output.mask_logits[0, 0], placement)
    regions: dict[str, Callable[[], Mask]] = {"anywhere": lambda: highest(_moved(heat, random), area)}
    if np.count_nonzero(lesion) >= _ROOM * area:
        regions["lesion"] = lambda: highest(np.where(lesion, _noise(heat, random), -np.inf), area)
    controls = {
        name: before - float(np.mean([left(region()) for _ in range(draws)])) for name, region in regions.items()
    }
    orders = {"map": heat, "random": _moved(heat, random)} if steps else {}
    return Occlusion(
        identity,
        classes[label].value,
        before,
        before - left(highest(heat, area)),
        controls,
        {name: _curve_area(order, left, steps, False) for name, order in orders.items()},
        {name: _curve_area(order, left, steps, True) for name, order in orders.items()},
    )


def highest(values: npt.NDArray[np.floating[Any]], area: int) -> Mask:
    """The ``area`` pixels with the highest ``values`` [rows, columns], exactly; of equal ones the first."""
    order = np.argsort(-values, axis=None, kind="stable")[:area]
    region = np.zeros(values.size, dtype=bool)
    region[order] = True
    return region.reshape(values.shape)


def summary(found: Sequence[Occlusion], seed: int) -> dict[str, Any]:
    """Means, intervals and tests over independent images; keys as `measure_faithfulness` lists them."""
    by_class = {
        name: {
            "images": sum(one.label == name for one in found),
            "top": rounded(_mean(one.top for one in found if one.label == name)),
            **{
                control: rounded(
                    _mean(one.controls[control] for one in found if one.label == name and control in one.controls)
                )
                for control in CONTROLS
            },
        }
        for name in sorted({one.label for one in found})
    }
    curves = None
    if any(one.deletion for one in found):
        curves = {
            "deletion": {
                order: _estimated([one.deletion[order] for one in found], seed) for order in ("map", "random")
            },
            "insertion": {
                order: _estimated([one.insertion[order] for one in found], seed) for order in ("map", "random")
            },
        }
    return {
        "probability": _estimated([one.probability for one in found], seed),
        "top": _estimated([one.top for one in found], seed),
        "controls": {control: _against(found, control, seed) for control in CONTROLS},
        "by_class": by_class,
        "curves": curves,
    }


def _against(found: Sequence[Occlusion], control: str, seed: int) -> dict[str, Any]:
    pairs = [(one.top, one.controls[control]) for one in found if control in one.controls]
    top, random = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    return {
        "images": len(pairs),
        "top": _estimated(top, seed),
        "random": _estimated(random, seed),
        "difference": _estimated(top - random, seed),
        "beats": _estimated((top > random).astype(np.float64), seed),
        "wilcoxon": wilcoxon(top - random),
        "sign": sign_test(int((top > random).sum()), int((top < random).sum())),
    }


def _estimated(values: Sequence[float] | Float64, seed: int) -> dict[str, Any]:
    taken = np.asarray(values, dtype=np.float64)
    return estimate(mean(taken, lesion_weights([str(row) for row in range(len(taken))], seed=seed)))


def _mean(values: Iterable[float]) -> float:
    taken = list(values)
    return sum(taken) / len(taken) if taken else math.nan


def sign_test(wins: int, losses: int) -> float | None:
    """One-sided exact probability of so many ``wins`` or more among ``wins`` + ``losses`` tosses of a fair coin."""
    number = wins + losses
    if number == 0:
        return None
    tail = sum(math.comb(number, k) for k in range(wins, number + 1))
    return _significant(tail / 2**number)


def wilcoxon(differences: Float64) -> float | None:
    """One-sided p of Wilcoxon's signed-rank test that ``differences`` lie above 0.

    Zeros are left out, ties share their mean rank, and the sum of ranks is taken as normal with the variance corrected
    for ties and half a step of continuity (Hollander and Wolfe, Nonparametric Statistical Methods, 3.1). ``None`` with
    fewer
    than 10 differences: the normal is no good there, and `sign_test` is exact.
    """
    kept = differences[differences != 0.0]
    number = len(kept)
    if number < 10:
        return None
    _, group, counts = np.unique(np.abs(kept), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[group]
    positive = float(ranks[kept > 0.0].sum())
    expected = number * (number + 1) / 4.0
    variance = number * (number + 1) * (2 * number + 1) / 24.0 - float((counts**3 - counts).sum()) / 48.0
    z = (positive - expected - 0.5) / math.sqrt(variance)
    return _significant(0.5 * math.erfc(z / math.sqrt(2.0)))


def _significant(value: float) -> float:
    """Three digits, however small."""
    return float(f"{value:.3g}")


def _shrunk(pixels: RGBPixels, longest: int) -> RGBPixels:
    """At most ``longest`` pixels on the longer side: the network sees fewer, and blurring a large picture is slow."""
    rows, columns = pixels.shape[:2]
    scale = longest / max(rows, columns)
    if scale >= 1.0:
        return pixels
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _replacement(pixels: RGBPixels, fill: Fill) -> RGBPixels:
    if fill == "mean":
        return np.broadcast_to(np.rint(pixels.mean(axis=(0, 1))).astype(np.uint8), pixels.shape)
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), _BLUR * min(pixels.shape[:2])), dtype=np.uint8)


def _without(pixels: RGBPixels, gone: RGBPixels, region: Mask) -> RGBPixels:
    """``pixels`` with ``region`` taken from ``gone``, blended over a narrow border so that no new edge appears."""
    weight = cv2.GaussianBlur(region.astype(np.float32), (0, 0), _FEATHER * min(region.shape))[..., None]
    return np.rint(pixels + (gone.astype(np.float32) - pixels) * weight).astype(np.uint8)


def _moved(heat: HeatMap, random: np.random.Generator) -> HeatMap:
    """The map mirrored or not, in either direction, and rolled to a random place."""
    turned = heat[:: 1 if random.random() < 0.5 else -1, :: 1 if random.random() < 0.5 else -1]
    shift = (int(random.integers(heat.shape[0])), int(random.integers(heat.shape[1])))
    return np.roll(turned, shift, axis=(0, 1))


def _noise(heat: HeatMap, random: np.random.Generator) -> HeatMap:
    """Noise smoothed to about the grain of an evidence map, so that its highest values are one or two patches."""
    drawn = random.standard_normal(heat.shape).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(drawn, (0, 0), _GRAIN * min(heat.shape)), dtype=np.float32)


def _curve_area(order: HeatMap, left: Callable[[Mask], float], steps: int, inserting: bool) -> float:
    """Mean probability while the pixels are taken away, or put back, from the highest of ``order`` down."""
    shares = (np.arange(steps) + 0.5) / steps
    regions = (highest(order, round(float(share) * order.size)) for share in shares)
    return float(np.mean([left(~region if inserting else region) for region in regions]))
