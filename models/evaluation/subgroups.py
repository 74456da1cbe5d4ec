"""Does the model do as well for everyone? Figures by age, sex, site, confirmation, size and skin tone, and their gaps.

The equalised-odds gap is the larger of two: the greatest difference in sensitivity and that in false positive rate
between any two groups (Hardt, Price, Srebro, "Equality of Opportunity in Supervised Learning", NeurIPS 2016). A gap
above 5 points is flagged, with what the interval says of it. The greatest of many noisy differences is large by chance
alone, so the interval is simultaneous over all pairs of groups: each difference has Newcombe's interval (Stat Med
17:873, 1998, method 10) at a level divided by the number of pairs (Bonferroni).

How to read it. Confirmation type and size are not populations: lesions that were followed up are nevi that did not
change, those that were excised looked suspicious, so a gap there says which lesions are hard, not who is served badly.
Gaps of age and site are partly such gaps, too, since the mix of diagnoses differs; and where a collection comes from
several clinics, the hue of the light goes with the clinic and the clinic with the cases, so a gap of skin tone may be
one of clinics. Images of one lesion are counted as one witness.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from dermoscopy.domain import LesionClass
from models.evaluation.dataset import Case
from models.evaluation.figures import Sample
from models.evaluation.predict import Predictor, watched
from models.evaluation.resampling import (
    DRAWS,
    LEVEL,
    Bools,
    Float64,
    balanced_accuracy,
    effective_number,
    estimate,
    lesion_weights,
    rounded,
    wilson,
)
from models.evaluation.skin_tone import CATEGORIES, balanced_tone_of, skin_around, tone_of
from models.manifest import Thresholds

FLAGGED = 0.05
"""Gap above which a grouping is flagged: 5 points."""
ENOUGH = 20
"""Lesions that a group needs on a side (with the disease for sensitivity, without it for false positives) to enter a
gap.

With 20 a sensitivity of 0.9 has an interval from 0.70 to 0.97: fewer can show nothing about 5 points."""
UNKNOWN = "unknown"
"""Group of the images for which the table, or the picture, does not say."""
AGES = (30, 45, 60, 75)
SIZES = (0.10, 0.25, 0.50)
TRAITS: Mapping[str, str] = {
    "age": "age group in years",
    "sex": "sex",
    "localization": "body site",
    "dx_type": "how the diagnosis was confirmed",
    "lesion_size": "share of the frame that the lesion covers",
    "skin_tone": "skin tone by the individual typology angle, where the white balance allows",
    "skin_tone_balanced": "skin tone by lightness, with the white balance taken to be neutral",
    "fitzpatrick": "Fitzpatrick skin type as labelled",
}
"""What images are grouped by, in the order of a report. Fitzpatrick is left out where no image has it."""

Traits = Mapping[str, str]


def traits_of(case: Case, predictor: Predictor | None = None) -> dict[str, str]:
    """Group of one case for each of `TRAITS`; `UNKNOWN` where it cannot be told.

    Size and skin tone need an outline: the reference mask, or where there is none that of ``predictor``.
    Raises `UnreadableObject` where the image or its mask cannot be read.
    """
    pixels, mask = case.pixels(), case.mask()
    if mask is not None and case.window is not None:
        top, left, bottom, right = case.window
        pixels = pixels[top:bottom, left:right]
    if mask is None and predictor is not None:
        output, placement = predictor.network(pixels)
        mask = predictor.outline(output.mask_logits[0, 0], placement)
    skin = None if mask is None else skin_around(pixels, mask)
    tone = None if skin is None else tone_of(skin)
    said = {name: _said(case.attributes.get(name, "")) for name in ("sex", "localization", "dx_type", "fitzpatrick")}
    found = {
        **said,
        "age": _age_group(case.attributes.get("age", "")),
        "lesion_size": UNKNOWN if mask is None or not mask.any() else _size_group(float(mask.mean())),
        "skin_tone": UNKNOWN if tone is None else tone.category,
        "skin_tone_balanced": UNKNOWN if skin is None else balanced_tone_of(skin).category,
    }
    return {name: found[name] for name in TRAITS}


def measure_subgroups(
    predictor: Predictor,
    cases: Sequence[Case],
    sample: Sample,
    *,
    seed: int = 0,
    draws: int = DRAWS,
    progress: str = "",
) -> dict[str, Any]:
    """Figures of ``sample`` by subgroup; ``cases`` hold its images (others are left aside). See `subgroups`.

    Raises `UnreadableObject` where an image or its mask cannot be read.
    """
    wanted = frozenset(sample.ids)
    kept = [case for case in cases if case.id in wanted]
    traits = {case.id: traits_of(case, predictor) for case in watched(kept, progress)}
    return subgroups(sample, traits, predictor.manifest.thresholds, seed=seed, draws=draws)


def subgroups(
    sample: Sample, traits: Mapping[str, Traits], thresholds: Thresholds, *, seed: int = 0, draws: int = DRAWS
) -> dict[str, Any]:
    """Figures and gaps for every trait.

    Args:
        sample: the labelled images and their answers.
        traits: the groups of each image, by id, as `traits_of` gives them.
        thresholds: the manifest's operating points, of melanoma and of malignancy.
        seed, draws: of the bootstrap of balanced accuracy, which resamples lesions.

    Returns:
        ``enough`` (lesions needed to enter a gap), ``flagged_above``, ``flags`` (one sentence for each flagged gap) and
        ``traits``: by name ``words``, ``groups``, ``gaps`` and ``too_small``. A group has ``images``, ``lesions``, for
        ``melanoma`` and ``malignancy`` the ``sensitivity`` and ``specificity`` (``value``, Wilson ``interval``,
        ``images``, ``lesions``), and ``balanced_accuracy`` (bootstrap interval) over its ``classes``, those that occur
        in it. A gap has ``sensitivity``, ``false_positive_rate`` and ``equalised_odds`` (the larger), each with
        ``value``, ``interval``, ``highest`` and ``lowest`` group, ``flag`` and ``verdict``. ``too_small`` names the
        groups that entered no gap of sensitivity or of false positives, with their lesions on that side. `UNKNOWN` is
        listed, but never in a gap.
    """
    points = {
        "melanoma": ((LesionClass.MEL.value,), thresholds.melanoma.probability),
        "malignancy": (
            tuple(label.value for label in thresholds.malignancy.classes),
            thresholds.malignancy.probability,
        ),
    }
    weights = lesion_weights(sample.groups, draws, seed)
    table: dict[str, Any] = {}
    flags: list[str] = []
    for trait, words in TRAITS.items():
        values = np.array([traits[image][trait] for image in sample.ids], dtype=str)
        if trait == "fitzpatrick" and not (values != UNKNOWN).any():
            continue
        groups = {
            name: {
                "images": int((values == name).sum()),
                "lesions": _lesions(sample, values == name),
                **{point: _rates(sample, values == name, *rule) for point, rule in points.items()},
                "balanced_accuracy": _balanced(sample, values == name, weights),
            }
            for name in _ordered(trait, values)
        }
        gaps = {point: _gaps(groups, point) for point in points}
        flags += [
            f"{words}, {point}: {gap['sentence']}" for point in points if (gap := gaps[point]["equalised_odds"])["flag"]
        ]
        table[trait] = {
            "words": words,
            "groups": groups,
            "gaps": gaps,
            "too_small": {point: _too_small(groups, point) for point in points},
        }
    return {"enough": ENOUGH, "flagged_above": FLAGGED, "flags": flags, "traits": table}


def difference_interval(one: tuple[float, float], other: tuple[float, float], level: float) -> tuple[float, float]:
    """Newcombe's interval (method 10) of the difference of two shares, each given as (share, independent cases)."""
    (p, n), (q, m) = one, other
    (low_p, high_p), (low_q, high_q) = wilson(p, n, level), wilson(q, m, level)
    return (
        p - q - math.sqrt((p - low_p) ** 2 + (high_q - q) ** 2),
        p - q + math.sqrt((high_p - p) ** 2 + (q - low_q) ** 2),
    )


def gap(rates: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """Greatest difference between any two groups of ``rates`` (share, independent cases), with what can be said of it.

    ``None`` for ``value`` with fewer than two groups. The interval holds the true greatest difference with 95 %: it
    runs from the highest lower to the highest upper limit of all differences taken at once.
    """
    if len(rates) < 2:
        return {
            "value": None, "interval": None, "highest": None, "lowest": None, "flag": False,
            "verdict": "fewer than two groups are large enough", "sentence": "",
        }  # fmt: skip
    pairs = list(combinations(rates, 2))
    level = 1.0 - (1.0 - LEVEL) / len(pairs)
    limits = [difference_interval(rates[a], rates[b], level) for pair in pairs for a, b in (pair, pair[::-1])]
    low, high = max(0.0, *(limit[0] for limit in limits)), min(1.0, max(limit[1] for limit in limits))
    highest, lowest = max(rates, key=lambda name: rates[name][0]), min(rates, key=lambda name: rates[name][0])
    value = rates[highest][0] - rates[lowest][0]
    verdict = _verdict(value, low, high)
    return {
        "value": rounded(value),
        "interval": [rounded(low), rounded(high)],
        "highest": highest,
        "lowest": lowest,
        "flag": value > FLAGGED,
        "verdict": verdict,
        "sentence": f"{100 * value:.0f} points between {highest} and {lowest} "
        f"({100 * low:.0f} to {100 * high:.0f}): {verdict}",
    }


def _verdict(value: float, low: float, high: float) -> str:
    if low > FLAGGED:
        return "above 5 points, and the interval excludes 5 points or less"
    if value > FLAGGED:
        return "above 5 points as measured, but the interval does not exclude 5 points or less"
    if high <= FLAGGED:
        return "at most 5 points, and the interval excludes more"
    return "at most 5 points as measured, but the interval does not exclude more"


def _rates(sample: Sample, inside: Bools, classes: tuple[str, ...], threshold: float) -> dict[str, Any]:
    warned, positive = sample.score(classes) >= threshold, sample.positive(classes)
    return {
        "sensitivity": _share(sample, warned, inside & positive),
        "specificity": _share(sample, ~warned, inside & ~positive),
    }


def _share(sample: Sample, hit: Bools, among: Bools) -> dict[str, Any]:
    number = int(among.sum())
    share = float(hit[among].mean()) if number else math.nan
    independent = effective_number([sample.groups[row] for row in np.flatnonzero(among)])
    interval = [rounded(limit) for limit in wilson(share, independent)] if number else None
    return {
        "value": rounded(share),
        "interval": interval,
        "images": number,
        "lesions": _lesions(sample, among),
        "independent": rounded(independent, 1),
    }


def _lesions(sample: Sample, among: Bools) -> int:
    return len({sample.groups[row] for row in np.flatnonzero(among)})


def _balanced(sample: Sample, inside: Bools, weights: Float64) -> dict[str, Any]:
    target = sample.target[inside]
    return {
        **estimate(balanced_accuracy(sample.right[inside], target, weights[:, inside])),
        "classes": [sample.classes[k] for k in np.unique(target)],
    }


def _gaps(groups: Mapping[str, Any], point: str) -> dict[str, Any]:
    """The gaps of one operating point; equalised odds is the larger of the two that exist."""
    known = {name: group[point] for name, group in groups.items() if name != UNKNOWN}
    found = {
        "sensitivity": gap(
            {n: _pair(g["sensitivity"]) for n, g in known.items() if g["sensitivity"]["lesions"] >= ENOUGH}
        ),
        "false_positive_rate": gap(
            {
                n: (1.0 - _pair(g["specificity"])[0], _pair(g["specificity"])[1])
                for n, g in known.items()
                if g["specificity"]["lesions"] >= ENOUGH
            }
        ),
    }
    larger = max(found, key=lambda name: -1.0 if found[name]["value"] is None else found[name]["value"])
    worst = {**found[larger], "of": larger}
    worst["sentence"] = f"{larger.replace('_', ' ')}: {worst['sentence']}"
    return {**found, "equalised_odds": worst}


def _pair(rate: Mapping[str, Any]) -> tuple[float, float]:
    return float(rate["value"]), float(rate["independent"])


def _too_small(groups: Mapping[str, Any], point: str) -> dict[str, dict[str, int]]:
    return {
        side: {
            name: group[point][side]["lesions"]
            for name, group in groups.items()
            if name != UNKNOWN and group[point][side]["lesions"] < ENOUGH
        }
        for side in ("sensitivity", "specificity")
    }


def _ordered(trait: str, values: Any) -> list[str]:
    """The groups that occur: in their own order where they have one, else the largest first; unknown last."""
    names, counts = np.unique(values, return_counts=True)
    natural = _NATURAL.get(trait, [])
    return sorted(
        (str(name) for name in names),
        key=lambda name: (
            name == UNKNOWN,
            natural.index(name) if name in natural else len(natural),
            0 if natural else -int(counts[names == name][0]),
            name,
        ),
    )


def _said(text: str) -> str:
    return text.strip().lower() or UNKNOWN


def _age_group(text: str) -> str:
    try:
        age = float(text)
    except ValueError:
        return UNKNOWN
    return _band(age, AGES, _AGE_NAMES) if 0.0 <= age <= 130.0 else UNKNOWN


def _size_group(share: float) -> str:
    return _band(share, SIZES, _SIZE_NAMES)


def _band(value: float, limits: Sequence[float], names: Sequence[str]) -> str:
    """A limit belongs to the band above it."""
    return names[sum(value >= limit for limit in limits)]


_AGE_NAMES = ("under 30", "30 to 44", "45 to 59", "60 to 74", "75 and over")
_SIZE_NAMES = ("under 10 %", "10 to 25 %", "25 to 50 %", "50 % and over")
_TONES = list(CATEGORIES)
_NATURAL: Mapping[str, list[str]] = {
    "age": list(_AGE_NAMES),
    "lesion_size": list(_SIZE_NAMES),
    "skin_tone": _TONES,
    "skin_tone_balanced": _TONES,
    "fitzpatrick": ["1", "2", "3", "4", "5", "6", "i", "ii", "iii", "iv", "v", "vi"],
}
