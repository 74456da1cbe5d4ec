"""Sections of the model card that come from the evaluation reports: certainty, robustness, fairness, gate, maps, forms.

A section appears where a report holds its figures, and no figure is typed by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Report = Mapping[str, Any]
REASONS = {
    "not_dermoscopy": "not dermoscopy", "too_small": "too small", "blur": "blurred", "exposure": "badly exposed",
    "glare": "glare", "no_lesion": "no lesion found", "lesion_cut_off": "lesion cut off",
    "unlike_training": "unlike the training images", "low_confidence": "no class likely enough",
    "ambiguous": "too many classes possible",
}  # fmt: skip


def report_sections(reports: Mapping[str, Report], forms: Mapping[str, Any] | None = None) -> list[str]:
    """Markdown of every section; ``reports`` by file name, the main one first, ``forms`` as in ``forms.json``."""
    if not reports:
        return []
    main = next(iter(reports.values()))
    found = [_held_out(reports), _melanoma(reports), _certainty(reports)]
    for key, write in (
        ("distortions", _robustness),
        ("subgroups", _fairness),
        ("gate", _gate),
        ("faithfulness", _maps),
    ):
        if main.get(key):
            found.append(write(main))
    found.append(_forms(main, forms or {}))
    return found


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def measured(figure: Mapping[str, Any] | None, digits: int = 3) -> str:
    """A figure with its interval, or a dash."""
    if figure is None or figure.get("value") is None:
        return "–"
    words = f"{figure['value']:.{digits}f}"
    interval = figure.get("interval")
    return f"{words} ({interval[0]:.2f}–{interval[1]:.2f})" if interval else words


def percent(share: float | None) -> str:
    """A share in percent, or a dash."""
    return "–" if share is None else f"{100 * share:.1f} %"


def _held_out(reports: Mapping[str, Report]) -> str:
    names = {
        "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1", "melanoma_auc": "melanoma AUC",
        "expected_calibration_error": "ECE", "mean_jaccard": "mean Jaccard",
        "thresholded_jaccard": "thresholded Jaccard",
    }  # fmt: skip
    rows = [
        [
            f"[{report['dataset']['name']}](evaluation/{file}.html)",
            f"{report['dataset']['images']} / {report['dataset']['lesions']}",
            *(measured(report["figures"].get(name)) for name in names),
        ]
        for file, report in reports.items()
    ]
    return f"""## Held-out images, whole service

Measured by `cds evaluate` on the installed package, outline and class as the service gives them; 95 % intervals
resample lesions. Each report holds confusion matrix, curves, worst cases and all that follows here.

{table(["images", "images / lesions", *names.values()], rows)}"""


def _melanoma(reports: Mapping[str, Report]) -> str:
    rows = []
    for report in reports.values():
        for name, point in report.get("operating_points", {}).items():
            rows.append(
                [
                    report["dataset"]["name"], name, f"{point['probability']:.4f}", str(point["positive"]),
                    measured(point["sensitivity"]), measured(point["specificity"]),
                ]
            )  # fmt: skip
        curve = report.get("roc", {}).get("melanoma", {})
        for row in curve.get("read", []):
            words = f"melanoma, {row['gives']} at {row['at']} {row['wanted']:.2f} (read from this curve)"
            value = measured(row)
            sides = [value, "–"] if row["gives"] == "sensitivity" else ["–", value]
            rows.append([report["dataset"]["name"], words, "–", str(curve["positive"]), *sides])
    header = ["images", "finding", "threshold", "with it", "sensitivity", "specificity"]
    missed = [
        f"Of {found['melanomas']} melanomas in {report['dataset']['name']}, {found['called_otherwise']} are called "
        f"another "
        f"class and {found['below_threshold']} raise no alarm."
        for report in reports.values()
        if (found := report.get("missed_melanomas"))
    ]
    return "## Melanoma on held-out images\n\n" + "\n\n".join([table(header, rows), *missed]) if rows else ""


def _certainty(reports: Mapping[str, Report]) -> str:
    lines = []
    for report in reports.values():
        found, name = report["abstention"], report["dataset"]["name"]
        reasons = ", ".join(
            f"{REASONS.get(code, code)} {percent(share)}"
            for code, share in sorted(found["reasons"].items(), key=lambda item: -item[1])
        )
        line = f"- {name}: the service abstains on {percent(found['abstained']['value'])} ({reasons or 'no reason'})."
        if found["answered"]["images"]:
            line += f" Balanced accuracy on what it answers: {measured(found['answered']['balanced_accuracy'])}."
        selective = report.get("selective", {})
        if selective.get("best"):
            best = selective["scores"][selective["best"]]
            line += f" Area under the risk-coverage curve {measured(best['area'])} (no order: {best['random']:.3f})."
        lines.append(line)
    parts = ["## Knowing when not to answer", "\n".join(lines)]
    sets = next((report["prediction_sets"] for report in reports.values() if report.get("prediction_sets")), None)
    if sets:
        rows = [
            [f"`{name}`", str(row["images"]), measured({"value": row["coverage"], "interval": row["interval"]}),
             f"{row['mean_size']:.2f}", "yes" if row["kept"] else "no"]
            for name, row in sets["by_class"].items()
        ]  # fmt: skip
        parts.append(
            f"Prediction sets promise that of each class at least {100 * sets['promised']:.0f} % have it in their "
            f"set; a set "
            f"of more than {sets['largest_set']} classes is an abstention. In all "
            f"{percent(sets['coverage']['value'])} do, "
            f"with {sets['mean_size']:.2f} classes on average."
        )
        parts.append(table(["class", "images", "coverage", "mean size", "promise kept"], rows))
    return "\n\n".join(parts)


def _robustness(report: Report) -> str:
    found = report["distortions"]
    rows = [
        [
            f"{name.replace('_', ' ')} ({one['words']})", measured(one["accuracy"]), measured(one["balanced_accuracy"]),
            measured(one["melanoma_sensitivity"]), measured(one["melanoma_specificity"]), measured(one["mean_jaccard"]),
        ]
        for name, one in found["distortions"].items()
    ]  # fmt: skip
    header = [
        "distortion", "accuracy", "balanced accuracy", "melanoma sensitivity", "melanoma specificity", "mean Jaccard",
    ]  # fmt: skip
    return f"""## Robustness

{found["images"]} images of {report["dataset"]["name"]}, each distorted in the same known ways
(`models/evaluation/distortions.py`).

{table(header, rows)}"""


def _fairness(report: Report) -> str:
    found = report["subgroups"]
    rows = [
        [
            trait["words"], *(measured(trait["gaps"][point]["equalised_odds"]) for point in ("melanoma", "malignancy")),
            trait["gaps"]["melanoma"]["equalised_odds"]["verdict"],
        ]
        for trait in found["traits"].values()
    ]  # fmt: skip
    flags = "\n".join(f"- {flag}." for flag in found["flags"]) or "No gap above 5 points was found."
    return f"""## Fairness

Equalised-odds gaps at the operating points on {report["dataset"]["name"]}: the larger of the greatest differences in
sensitivity and in false positive rate between any two groups with {found["enough"]} lesions or more. A gap
that is not found among few images is not shown to be absent; by confirmation type and size the kinds of lesion differ.

{table(["by", "gap, melanoma", "gap, malignancy", "verdict on melanoma"], rows)}

Flagged:

{flags}"""


def _gate(report: Report) -> str:
    found = report["gate"]
    known = ", ".join(
        f"{percent(one['false_alarms'])} of {one['images']} of {name}" for name, one in found["known"].items()
    )
    rows = [
        [name.replace("_", " "), str(one["images"]), percent(one["refused"]), percent(one["no_class_named"]),
         "–" if one["auroc"] is None else f"{one['auroc']:.3f}"]
        for name, one in {**found["strangers"], "all together": found["all_strangers"]}.items()
    ]  # fmt: skip
    return f"""## Gate

Pictures that are no dermoscopy of a lesion, and how many of them the service turns away. Of dermoscopic images it turns
away {known}.

{table(["pictures", "number", "turned away", "no class named", "AUROC"], rows)}"""


def _maps(report: Report) -> str:
    found = report["faithfulness"]
    lines = [
        f"- Against random regions {'within the lesion' if name == 'lesion' else 'anywhere'}: the probability "
        f"drops by "
        f"{measured(one['top'])} without the map's highest region, by {measured(one['random'])} without a random one "
        f"(difference {measured(one['difference'])}, {one['images']} lesions)."
        for name, one in found["controls"].items()
    ]
    return f"""## Are the maps faithful?

{100 * found["share"]:.0f} % of the frame are taken away.

""" + "\n".join(lines)


def _forms(report: Report, forms: Mapping[str, Any]) -> str:
    cost = report["cost"]
    network = cost["network_milliseconds"]
    rows = [["FP32", f"{cost['file_megabytes']:.1f} MB", "–", "–", "the reference"]]
    for name in ("fp16", "int8"):
        if name in forms:
            one = forms[name]
            compared = one["parity"].get(forms.get("tolerances", {}).get("fold", ""), {})
            difference = compared.get("probability_difference", {}).get("max")
            change = compared.get("change", {}).get("balanced_accuracy")
            rows.append(
                [
                    name.upper(), "–", "–" if difference is None else f"{difference:.4f}",
                    "–" if change is None else f"{change:+.4f}",
                    "offered" if one["offered"] else "refused: " + "; ".join(one["refused_because"]),
                ]
            )  # fmt: skip
    header = ["form", "size", "largest change of a probability", "change of balanced accuracy", "verdict"]
    parameters = f", {cost['parameters'] / 1e6:.2f} million parameters" if cost.get("parameters") else ""
    median = "–" if network["median"] is None else f"{network['median']:.0f}"
    return f"""## Cost and forms

{cost["file_megabytes"]:.1f} MB{parameters}; {median} ms per image for preprocessing and network when the report was
made ({cost["machine"]}). Careful timings are those of `make bench`.

{table(header, rows)}"""
