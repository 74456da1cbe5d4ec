"""The whole algorithm on labelled images: how often it abstains and why, and what its answers are then worth."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from dermoscopy.domain import TriageTier
from dermoscopy.errors import AnalysisFailed
from models.evaluation.dataset import Case
from models.evaluation.predict import Predictor, watched
from models.evaluation.resampling import Float64, balanced_accuracy, estimate, mean, rounded

_QUIET = frozenset({TriageTier.ROUTINE.value, TriageTier.MONITOR.value})


@dataclass(frozen=True)
class Served:
    """What the service said of one image. ``primary`` is empty where it abstained; ``failure`` where it broke."""

    id: str
    primary: str
    reasons: tuple[str, ...]
    tier: str
    milliseconds: float
    failure: str = ""


def serve(predictor: Predictor, cases: Iterable[Case], progress: str = "") -> tuple[Served, ...]:
    """Run the whole algorithm on every case, two at a time, in the order given."""

    def one(case: Case) -> Served:
        try:
            finding = predictor.analyze(case.pixels())
        except AnalysisFailed as error:
            return Served(case.id, "", (), "", math.nan, str(error))
        codes = tuple(reason.code for reason in finding.abstention_reasons) or (
            ("unnamed",) if finding.abstention else ()
        )
        primary = "" if finding.primary is None else finding.primary.value
        spent = sum(finding.inference.milliseconds.values())
        return Served(case.id, primary, codes, finding.triage.tier.value, spent)

    with ThreadPoolExecutor(2) as pool:
        return tuple(pool.map(one, watched(cases, progress)))


def abstention(
    served: Sequence[Served], diagnoses: Mapping[str, str], weights: Float64, classes: Sequence[str]
) -> dict[str, Any]:
    """Shares and reasons of abstention, by true class too, and accuracy where an answer was given.

    ``diagnoses``: true class by image, empty where it is not known. ``weights`` [R, N] in the order of ``served``.
    """
    silent = np.array([not one.primary for one in served])
    truth = np.array([diagnoses[one.id] for one in served], dtype=str)
    named = np.array([one.primary for one in served], dtype=str)
    answered = ~silent & (truth != "")
    right = (named == truth).astype(np.float64)
    target = np.array([classes.index(name) if name else -1 for name in truth], np.int64)
    reasons = Counter(code for one in served for code in one.reasons)
    return {
        "images": len(served),
        "failures": [{"id": one.id, "why": one.failure} for one in served if one.failure],
        "abstained": estimate(mean(silent.astype(np.float64), weights)),
        "reasons": {code: rounded(count / len(served)) for code, count in sorted(reasons.items())},
        "by_class": {
            name: {"images": int((truth == name).sum()), "abstained": rounded(float(silent[truth == name].mean()))}
            for name in classes
            if (truth == name).any()
        },
        "answered": {
            "images": int(answered.sum()),
            "accuracy": estimate(mean(right[answered], weights[:, answered])),
            "balanced_accuracy": estimate(balanced_accuracy(right[answered], target[answered], weights[:, answered])),
        },
    }


def triage(served: Sequence[Served], diagnoses: Mapping[str, str], malignant: Sequence[str]) -> dict[str, Any]:
    """How urgent the images of each true class were called, and the malignant ones that were called neither urgent nor
    unclear: those that nobody would look at sooner.
    """
    tiers = [tier.value for tier in TriageTier]
    known = [one for one in served if diagnoses[one.id] and one.tier]
    table = {
        name: {tier: sum(diagnoses[one.id] == name and one.tier == tier for one in known) for tier in tiers}
        for name in sorted({diagnoses[one.id] for one in known})
    }
    overlooked = {
        name: {
            "images": sum(table[name].values()),
            "not_flagged": sum(count for tier, count in table[name].items() if tier in _QUIET),
        }
        for name in malignant
        if name in table
    }
    return {"tiers": tiers, "table": table, "overlooked": overlooked}


def speed(served: Sequence[Served]) -> dict[str, Any]:
    """Median and 95th percentile of the milliseconds that an analysis took, two running side by side."""
    spent = np.array([one.milliseconds for one in served])
    spent = spent[np.isfinite(spent)]
    if not len(spent):
        return {"images": 0, "median": None, "p95": None}
    median, high = np.quantile(spent, (0.5, 0.95))
    return {"images": len(spent), "median": rounded(float(median), 1), "p95": rounded(float(high), 1)}
