"""Do the images still look like the ones the model was watched on? An Evidently report of two windows of features.

Each feature is compared by the population stability index; above 0.25 it has drifted (below 0.1 is usually called
stable, between is worth a look). Small windows are noise: with 50 rows the index passes 0.25 by chance.

Images taken another way look different without anything being wrong, so the same is done once more within each way of
taking them (contact, polarisation, immersion, magnification, device) of which both windows have enough.
"""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

PSI_THRESHOLD = 0.25
SMALLEST_WINDOW = 200
"""Without any drift, 95 % of windows of this size stay below an index of 0.11 (against a reference of 500)."""
FALLEN_SILENT = 0.25
"""A feature whose share of missing values grew by so much is reported by itself."""

STRATA = (
    "stratum_contact",
    "stratum_polarised",
    "stratum_immersion",
    "stratum_magnification",
    "stratum_station",
)
"""How an image was taken: what is compared with its like."""

Row = Mapping[str, float | str | None]


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """One feature and its population stability index."""

    name: str
    score: float
    drifted: bool


@dataclass(frozen=True, slots=True)
class StratumDrift:
    """The images of one way of taking them, ``stratum`` = ``value``; the features that drifted among them."""

    stratum: str
    value: str
    reference_rows: int
    current_rows: int
    features: tuple[FeatureDrift, ...]


@dataclass(frozen=True, slots=True)
class DriftResult:
    """What the report says. ``insufficient``: too few rows to believe it, so ``drifted`` is never true then."""

    reference_rows: int
    current_rows: int
    features: tuple[FeatureDrift, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    insufficient: bool
    html: Path | None
    """None where there was nothing to compare."""
    json: Path
    strata: tuple[StratumDrift, ...] = ()
    """Those with at least `SMALLEST_WINDOW` rows in both windows, and among them only what drifted."""

    @property
    def drifted(self) -> bool:
        """Over all images, or among those taken the same way."""
        found = any(feature.drifted for feature in self.features) or any(stratum.features for stratum in self.strata)
        return not self.insufficient and found

    @property
    def drifted_features(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features if feature.drifted)


def report(
    reference: Iterable[Row], current: Iterable[Row], folder: Path, *, threshold: float = PSI_THRESHOLD
) -> DriftResult:
    """Compare two windows; writes ``drift.html`` (Evidently), ``evidently.json`` and ``drift.json`` into ``folder``.

    Imports pandas and Evidently (about four seconds), so it belongs into a command, not into a serving process.
    """
    before, now = list(reference), list(current)
    notes: list[str] = []
    smallest = min(len(before), len(now))
    if smallest < SMALLEST_WINDOW:
        notes.append(
            f"{len(now)} inferences against {len(before)}: fewer than {SMALLEST_WINDOW} in a window is noise, "
            "so this report is no evidence of drift or of its absence"
        )
    numeric, categorical, left_out = _columns(before, now)
    notes.extend(_fallen_silent(before, now))
    if left_out:
        notes.append(f"left out, because a window holds no value of them: {', '.join(left_out)}")
    folder.mkdir(parents=True, exist_ok=True)
    if not before or not now or not (numeric or categorical):
        result = DriftResult(
            len(before), len(now), (), tuple(left_out), tuple(notes), True, None, folder / "drift.json"
        )
        _write(result)
        return result
    scores = _evidently(before, now, numeric, categorical, folder, threshold)
    found = tuple(
        sorted(
            (FeatureDrift(name, score, score >= threshold) for name, score in scores.items()), key=lambda f: -f.score
        )
    )
    result = DriftResult(
        len(before), len(now), found, tuple(left_out), tuple(notes), smallest < SMALLEST_WINDOW,
        folder / "drift.html", folder / "drift.json", _within_strata(before, now, threshold),
    )  # fmt: skip
    _write(result)
    return result


def _within_strata(before: Sequence[Row], now: Sequence[Row], threshold: float) -> tuple[StratumDrift, ...]:
    """Numeric features among images taken the same way, where that is not all of them."""
    found: list[StratumDrift] = []
    for stratum in STRATA:
        for value in sorted({str(row[stratum]) for row in now if _present(row.get(stratum))}):
            then, present = ([row for row in rows if str(row.get(stratum)) == value] for rows in (before, now))
            whole = len(then) == len(before) and len(present) == len(now)
            if whole or min(len(then), len(present)) < SMALLEST_WINDOW:
                continue
            numeric, _, _ = _columns(then, present)
            scores = _evidently(then, present, numeric, [], None, threshold) if numeric else {}
            drifted = [FeatureDrift(name, score, True) for name, score in scores.items() if score >= threshold]
            drifted.sort(key=lambda feature: -feature.score)
            found.append(StratumDrift(stratum, value, len(then), len(present), tuple(drifted)))
    return tuple(found)


def _evidently(
    before: Sequence[Row],
    now: Sequence[Row],
    numeric: list[str],
    categorical: list[str],
    folder: Path | None,
    threshold: float,
) -> dict[str, float]:
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    definition = DataDefinition(numerical_columns=numeric, categorical_columns=categorical)
    columns = [*numeric, *categorical]
    datasets = [
        Dataset.from_pandas(_frame(rows, numeric, categorical), data_definition=definition) for rows in (now, before)
    ]
    metrics = [ValueDrift(column=name, method="psi", threshold=threshold) for name in columns]
    snapshot = Report(metrics, include_tests=True).run(*datasets)
    document = json.loads(snapshot.json())
    if folder is not None:
        snapshot.save_html(str(folder / "drift.html"))
        (folder / "evidently.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    return {name: float(metric["value"]) for name, metric in zip(columns, document["metrics"], strict=True)}


def _frame(rows: Sequence[Row], numeric: list[str], categorical: list[str]) -> pandas.DataFrame:
    import pandas

    table: dict[str, Any] = {name: [_number(row.get(name)) for row in rows] for name in numeric}
    table.update(
        {name: ["missing" if row.get(name) is None else str(row[name]) for row in rows] for name in categorical}
    )
    return pandas.DataFrame(table)


def _columns(before: Sequence[Row], now: Sequence[Row]) -> tuple[list[str], list[str], list[str]]:
    """Numeric features, categorical features, and those that one of the windows has no value of."""
    names = list(dict.fromkeys(name for row in (*before, *now) for name in row))
    numeric, categorical, left_out = [], [], []
    for name in names:
        values = [[row.get(name) for row in rows if _present(row.get(name))] for rows in (before, now)]
        if not values[0] or not values[1]:
            left_out.append(name)
        elif all(isinstance(value, numbers.Real) for value in (*values[0], *values[1])):
            numeric.append(name)
        else:
            categorical.append(name)
    return numeric, categorical, left_out


def _fallen_silent(before: Sequence[Row], now: Sequence[Row]) -> list[str]:
    """Features that are missing much more, or much less, often than before: a change that an index of values hides."""
    if not before or not now:
        return []
    notes = []
    for name in dict.fromkeys(name for row in (*before, *now) for name in row):
        shares = [sum(not _present(row.get(name)) for row in rows) / len(rows) for rows in (before, now)]
        if abs(shares[1] - shares[0]) >= FALLEN_SILENT:
            notes.append(f"{name}: missing in {shares[1]:.0%} of images now, in {shares[0]:.0%} before")
    return notes


def _present(value: float | str | None) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _number(value: float | str | None) -> float:
    return math.nan if value is None else float(value)


def _write(result: DriftResult) -> None:
    document = {**asdict(result), "drifted": result.drifted, "html": result.html.name if result.html else None}
    document["json"] = result.json.name
    result.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
