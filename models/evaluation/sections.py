"""The sections of the page, each a function of the report alone; a section whose figures are absent is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from models.evaluation import charts, markup
from models.evaluation.markup import Safe, measured, number, percent
from models.evaluation.sections_further import distortions, faithfulness, gate, subgroups

Report = Mapping[str, Any]
GROUPS = {
    "akiec": "actinic keratosis and Bowen's disease (in situ carcinoma): a group",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis: seborrhoeic, solar lentigo, lichen-planus-like: a group",
    "df": "dermatofibroma",
    "mel": "melanoma, in situ and invasive",
    "nv": "melanocytic nevus",
    "vasc": "vascular lesions: angioma, angiokeratoma, pyogenic granuloma, haemorrhage: a group",
}  # fmt: skip
NAMES = {
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "macro_auc": "Macro AUC",
    "melanoma_auc": "Melanoma AUC",
    "expected_calibration_error": "Calibration error (ECE)",
    "brier": "Brier score",
    "negative_log_likelihood": "Negative log-likelihood",
    "mean_jaccard": "Mean Jaccard",
    "thresholded_jaccard": "Thresholded Jaccard (0.65)",
    "failed_outlines": "Failed outlines",
    "mean_dice": "Mean Dice",
}
REASONS = {
    "not_dermoscopy": "not a dermoscopic image",
    "too_small": "image too small",
    "blur": "blurred",
    "exposure": "under- or overexposed",
    "glare": "glare",
    "no_lesion": "no lesion found",
    "lesion_cut_off": "lesion cut off by the frame, or filling it",
    "unlike_training": "unlike the training images",
    "low_confidence": "no class likely enough",
    "ambiguous": "too many classes cannot be excluded",
}


def main_figures(report: Report) -> Safe:
    """Tiles, and the other data sets where there are reports on them."""
    figures = report["figures"]
    tiles = []
    for name, words in NAMES.items():
        if name in figures:
            tiles.append((words, *_tile(figures[name], shares=name == "failed_outlines")))
    point = report.get("operating_points", {}).get("melanoma")
    if point and point["sensitivity"]["value"] is not None:
        tiles.append(("Melanoma sensitivity, set point", *_tile(point["sensitivity"])))
        tiles.append(("Melanoma specificity, set point", *_tile(point["specificity"])))
    if "abstention" in report:
        share = report["abstention"]["abstained"]
        tiles.append(("Abstained", percent(share["value"]), "of all images, whole algorithm"))
    parts: list[str] = [markup.tiles(tiles)]
    if report["dataset"].get("seen_in_training"):
        parts.insert(0, markup.paragraph(markup.warned(report["dataset"]["notes"][0])))
    absent = sorted(set(report["model"]["classes"]) - set(report["dataset"]["classes"]))
    if report["dataset"]["classes"] and absent:
        parts.append(
            markup.paragraph(
                f"Not among these images: {', '.join(absent)}. Balanced accuracy and macro AUC are over the "
                "classes that are there."
            )
        )
    parts.append(
        markup.paragraph(
            "Intervals resample lesions (images of one lesion are alike). The calibration error's own noise is never "
            "negative, so its interval lies a little high."
        )
    )
    for other in report.get("others", ()):
        link = Safe(f'<a href="{markup.text(other["file"])}">{markup.text(other["name"])}</a>')
        rows = [
            (NAMES[name], measured(figure)) for name, figure in other["figures"].items() if figure["value"] is not None
        ]
        parts.append(Safe(f"<h3>Also measured on {link}</h3>"))
        parts.append(markup.table(f"Main figures on {other['name']}", ("figure", "value (95 %)"), rows))
    return markup.joined(*parts)


def _tile(figure: Mapping[str, Any], shares: bool = False) -> tuple[str, str]:
    """Value and interval as a tile shows them."""
    shown = percent if shares else number
    interval = figure["interval"]
    return shown(figure["value"]), f"95 %: {shown(interval[0])}–{shown(interval[1])}" if interval else "no interval"


def diagnosis(report: Report) -> Safe:
    """Confusion matrix and the table per class."""
    matrix, per_class = report["confusion_matrix"], report["per_class"]
    jaccard = report.get("outline", {}).get("by_class", {})
    rows = [
        (
            markup.code(name), GROUPS.get(name, ""), row["images"], measured(row["sensitivity"]),
            measured(row["specificity"]), measured(row["precision"]), measured(row["auc"]), number(jaccard.get(name)),
        )
        for name, row in per_class.items()
    ]  # fmt: skip
    chart = charts.confusion("Confusion matrix", matrix["classes"], matrix["counts"])
    header = ("class", "stands for", "images", "sensitivity", "specificity", "precision", "AUC", "mean Jaccard")
    return markup.joined(
        markup.figure(chart, "Rows are the true classes, columns what the model calls; shades are shares of a row."),
        markup.table("Each class against the rest (95 %, Wilson over lesions)", header, rows, words=(1,)),
    )


def melanoma(report: Report) -> Safe:
    """ROC curves and the operating points on them."""
    roc, points = report["roc"], report["operating_points"]
    lines, marks = [], []
    for name, style in (("melanoma", "line"), ("malignancy", "second")):
        if roc[name]["curve"]:
            lines.append(charts.Line(roc[name]["curve"], style))
            point = points[name]
            if point["sensitivity"]["value"] is not None and point["specificity"]["value"] is not None:
                words = f"{name} at {point['probability']:.3f}"
                marks.append(charts.Mark(1 - point["specificity"]["value"], point["sensitivity"]["value"], words))
    if not lines:
        return markup.paragraph("These images hold only melanomas, or none: there is no curve to draw.")
    chart = charts.line_chart(
        "ROC curves of melanoma and malignancy", "1 − specificity", "sensitivity", lines, marks, diagonal=True
    )
    rows = []
    for name, point in points.items():
        chosen = point["chosen"]
        there = f"{number(chosen.get('sensitivity'))} / {number(chosen.get('specificity'))}"
        rows.append(
            (
                name, " + ".join(f"P({c})" for c in point["classes"]), f"{point['probability']:.4f}", point["positive"],
                measured(point["sensitivity"]), measured(point["specificity"]), percent(point["called"]),
                f"{there} ({chosen.get('fold', 'unknown')} fold)" if len(chosen) else markup.DASH,
            )
        )  # fmt: skip
    read = [
        (
            f"{name}: {row['gives']} at {row['at']} {row['wanted']:.2f}",
            measured(row),
        )
        for name in ("melanoma", "malignancy")
        for row in roc[name]["read"]
    ]
    caption = "Melanoma (blue) and malignancy (violet) against the rest. Marks: " + "; ".join(
        f"{n} is {mark.words}" for n, mark in enumerate(marks, start=1)
    )
    return markup.joined(
        markup.figure(chart, caption),
        markup.table(
            "Operating points of the manifest: thresholds fixed before, on other images",
            ("finding", "counts when", "reaches", "images with it", "sensitivity", "specificity", "called", "promised"),
            rows,
            words=(1,),
        ),
        markup.table(
            "Read from the curves (thresholds chosen on these images: what is possible, not what is set)",
            ("figure", "value (95 %)"),
            read,
        ),
    )


def missed(report: Report) -> Safe:
    """The most confident missed melanomas."""
    found = report["missed_melanomas"]
    rows = [
        (
            one["id"], number(one["melanoma_probability"]), one["called"], number(one["probability"]),
            "yes" if one["flagged"] else markup.warned("no"),
        )
        for one in found["cases"]
    ]  # fmt: skip
    words = (
        f"Of {found['melanomas']} melanomas {found['called_otherwise']} are called another class; "
        f"{found['below_threshold']} lie below the melanoma threshold of {found['threshold']:.4f} and raise no "
        f"alarm. "
        "Those that were given the least probability come first. Pictures with the maps of evidence are drawn on "
        "your "
        "own machine by the same command with --pictures; the images are not part of this project."
    )
    header = ("image", "P(melanoma)", "called", "its probability", "alarm all the same")
    parts: list[str] = [markup.paragraph(words)]
    if rows:
        parts.append(markup.table("Most confident missed melanomas", header, rows, words=(2,)))
    return markup.joined(*parts)


def calibration(report: Report) -> Safe:
    """Reliability diagrams."""
    bins = report["reliability"]
    rows = [
        (f"{one['low']:.1f}–{one['high']:.1f}", one["images"], number(one["stated"]), number(one["observed"]))
        for one in bins["most_probable"]
    ]
    header = ("probability", "images", "stated, mean", "observed")
    return markup.joined(
        markup.side_by_side(
            markup.figure(
                charts.reliability("Reliability of the most probable class", bins["most_probable"]),
                "The most probable class: how often it is right, over how probable it was said to be. "
                "The area of a dot is the number of images.",
            ),
            markup.figure(
                charts.reliability("Reliability of the melanoma probability", bins["melanoma"]),
                "Melanoma: share of melanomas over the stated probability of melanoma.",
            ),
        ),
        markup.folded("The numbers", markup.table("Most probable class, by bin", header, rows)),
    )


def uncertainty(report: Report) -> Safe:
    """Risk against coverage, and prediction sets where the model has them."""
    found = report["selective"]
    best = found["scores"][found["best"]]
    chart = charts.line_chart(
        "Risk against coverage", "share of images answered, most certain first", "share wrong",
        [charts.Line(best["curve"])], top=_ceiling([y for _, y in best["curve"]]),
    )  # fmt: skip
    rows = [
        (
            percent(row["coverage"], 0), measured(row["accuracy"]), measured(row["balanced_accuracy"]),
            f"{row['missed']:g} of {row['melanomas']:g}",
        )
        for row in best["at"]
    ]  # fmt: skip
    caption = (
        f"Most certain by {found['best'].replace('_', ' ')}. Area under the curve (AURC) "
        f"{number(best['area']['value'])}; "
        f"a perfect order of the same answers would have {number(best['optimal'])}, no order "
        f"{number(best['random'])}."
    )
    areas = [
        (name.replace("_", " "), measured(one["area"]), measured(one["excess"]))
        for name, one in found["scores"].items()
    ]
    header = ("answered", "accuracy", "balanced accuracy", "melanomas without an alarm")
    parts: list[str] = [
        markup.side_by_side(
            markup.figure(chart, caption),
            markup.joined(
                markup.table("If only the most certain are answered", header, rows),
                markup.table("Scores of certainty", ("score", "AURC", "above a perfect order"), areas),
            ),
        )
    ]
    if report.get("prediction_sets"):
        parts.append(_sets(report["prediction_sets"]))
    return markup.joined(*parts)


def _sets(sets: Mapping[str, Any]) -> Safe:
    rows = [
        (
            markup.code(name), row["images"], measured({"value": row["coverage"], "interval": row["interval"]}),
            number(row["mean_size"], 2), "yes" if row["kept"] else markup.warned("no"),
        )
        for name, row in sets["by_class"].items()
    ]  # fmt: skip
    sizes = ", ".join(f"{size}: {count}" for size, count in sets["sizes"].items() if count)
    header = ("class", "images", "coverage (95 %)", "mean size", "promise kept")
    return markup.joined(
        Safe("<h3>Prediction sets</h3>"),
        markup.paragraph(
            f"Of each class, at least {percent(sets['promised'], 0)} of the images should have it in their set. In "
            f"all, "
            f"{percent(sets['coverage']['value'])} do; a set has {number(sets['mean_size'], 2)} classes on "
            f"average, and "
            f"more than {sets['largest_set']} are an abstention. Images by size of their set: {sizes}."
        ),
        markup.table("Coverage of the prediction sets by true class", header, rows, words=(4,)),
    )


def abstention(report: Report) -> Safe:
    """How often the whole algorithm abstains, why, and what its triage does."""
    found = report["abstention"]
    answered = found["answered"]
    parts: list[str] = [
        markup.paragraph(
            Safe(
                f"The whole algorithm, with its quality and novelty gates, abstains on "
                f"{percent(found['abstained']['value'])} of {found['images']} images. On the {answered['images']} "
                f"labelled images that it answers, its accuracy is {measured(answered['accuracy'])} and its "
                f"balanced accuracy {measured(answered['balanced_accuracy'])}."
            )
        )
    ]
    reasons = [
        (REASONS.get(code, code), percent(share))
        for code, share in sorted(found["reasons"].items(), key=lambda x: -x[1])
    ]
    by_class = [
        (markup.code(name), row["images"], percent(row["abstained"])) for name, row in found["by_class"].items()
    ]
    parts.append(
        markup.side_by_side(
            markup.table("Reasons (an image can have several)", ("reason", "share of all images"), reasons),
            markup.table("By true class", ("class", "images", "abstained"), by_class) if by_class else "",
        )
    )
    if found["failures"]:
        broken = [f"{one['id']}: {one['why']}" for one in found["failures"][:10]]
        parts.append(markup.paragraph(markup.warned(f"The analysis broke on {len(found['failures'])} images.")))
        parts.append(markup.bullets(broken))
    if report.get("triage"):
        parts.append(_triage(report["triage"]))
    return markup.joined(*parts)


def _triage(found: Mapping[str, Any]) -> Safe:
    rows = [(markup.code(name), *(counts[tier] for tier in found["tiers"])) for name, counts in found["table"].items()]
    lines = [
        f"{name}: {row['not_flagged']} of {row['images']} were called neither urgent, expedited nor undetermined"
        for name, row in found["overlooked"].items()
    ]
    return markup.joined(
        Safe("<h3>Triage</h3>"),
        markup.table("Images of each true class by the urgency they were given", ("class", *found["tiers"]), rows),
        markup.bullets(lines),
    )


def outline(report: Report) -> Safe:
    """Segmentation histogram, worst twenty, error by size."""
    found = report["outline"]
    counts = found["histogram"]["counts"]
    quantiles = found["histogram"]["quantiles"]
    chart = charts.histogram(
        "Overlap of the outlines with the reference", "Jaccard", counts, limit=0.65, words="failed below 0.65"
    )
    sizes = [
        (
            row["size"], row["images"], number(row["mean_jaccard"]), percent(row["failed_outlines"]), row["labelled"],
            percent(row["error"]),
        )
        for row in found["by_size"]
    ]  # fmt: skip
    worst = [
        (
            row["id"], number(row["jaccard"]), percent(row["reference_share"]), percent(row["drawn_share"]),
            row["diagnosis"] or markup.DASH,
        )
        for row in found["worst"]
    ]  # fmt: skip
    caption = (
        f"{found['images']} images. Median {number(quantiles.get('p50'))}, quarter below "
        f"{number(quantiles.get('p25'))}, one in twenty below {number(quantiles.get('p5'))}."
    )
    header = ("lesion's share of the frame", "images", "mean Jaccard", "failed", "labelled", "wrong class")
    return markup.joined(
        markup.figure(chart, caption),
        markup.table("Error by lesion size", header, sizes),
        markup.table(
            "The worst twenty outlines",
            ("image", "Jaccard", "reference covers", "drawn covers", "diagnosis"),
            worst,
            words=(4,),
        ),
    )


def _ceiling(values: list[float]) -> float:
    """The end of an axis that holds all values: a multiple of 0.1."""
    highest = max([*values, 0.05])
    return min(1.0, (int(highest * 10) + 1) / 10)


SECTIONS: Mapping[str, tuple[str, str, Callable[[Report], Safe]]] = {
    "figures": ("figures", "Main figures", main_figures),
    "diagnosis": ("confusion_matrix", "Diagnosis", diagnosis),
    "melanoma": ("roc", "Melanoma and malignancy", melanoma),
    "missed": ("missed_melanomas", "Missed melanomas", missed),
    "calibration": ("reliability", "Calibration", calibration),
    "uncertainty": ("selective", "Uncertainty", uncertainty),
    "abstention": ("abstention", "Abstention and triage", abstention),
    "outline": ("outline", "Outline", outline),
    "distortions": ("distortions", "Distortions", distortions),
    "subgroups": ("subgroups", "Subgroups", subgroups),
    "maps": ("faithfulness", "Maps", faithfulness),
    "gate": ("gate", "Gate", gate),
}
"""Anchor: the report's key that it needs, its heading, and what writes it; in the order of the page."""
