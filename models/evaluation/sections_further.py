"""Sections of what takes longer to measure: robustness, fairness, maps, gate; and what an answer costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.evaluation import charts, markup
from models.evaluation.markup import Safe, measured, number, percent

Report = Mapping[str, Any]


def distortions(report: Report) -> Safe:
    """The twelve distortions: melanoma sensitivity and accuracy under each, and what was lost."""
    found = report["distortions"]
    kinds = found["distortions"]
    rows = [
        (
            f"{name.replace('_', ' ')}: {one['words']}", measured(one["accuracy"]), _change(one["accuracy"]),
            measured(one["balanced_accuracy"]), measured(one["melanoma_sensitivity"]),
            _change(one["melanoma_sensitivity"]),
            measured(one["melanoma_specificity"]), measured(one["mean_jaccard"]),
        )
        for name, one in kinds.items()
    ]  # fmt: skip
    header = (
        "distortion", "accuracy", "change", "balanced accuracy", "melanoma sensitivity", "change",
        "melanoma specificity", "mean Jaccard",
    )  # fmt: skip
    shown = [
        charts.Row(name.replace("_", " "), one["balanced_accuracy"]["value"], *_limits(one["balanced_accuracy"]),
                   warned=_lost(one["balanced_accuracy"]))
        for name, one in kinds.items()
    ]  # fmt: skip
    clean = kinds["clean"]["balanced_accuracy"]["value"]
    return markup.joined(
        markup.paragraph(
            f"{found['images']} of {found['of']} images, evenly over the diagnoses and weighed back to their mix; "
            f"melanoma is "
            f"called at the manifest's threshold of {found['operating_point']:.4f}. Changes are against the same "
            f"images "
            "undistorted; red: the loss is more than chance."
        ),
        markup.figure(
            charts.intervals("Balanced accuracy under each distortion", shown, at=clean),
            "Balanced accuracy under each distortion; the dashed line is the undistorted one.",
        ),
        markup.table("Figures under each distortion (95 %)", header, rows),
    )


def subgroups(report: Report) -> Safe:
    """Sensitivity and specificity by group, and the gaps."""
    found = report["subgroups"]
    parts: list[str] = [
        markup.paragraph(
            f"At the manifest's operating points. A group enters a gap with {found['enough']} lesions or more on "
            f"that side. "
            "The equalised-odds gap is the larger of the gaps in sensitivity and in false positive rate; above "
            f"{100 * found['flagged_above']:.0f} points it is flagged. Confirmation type and size are kinds of "
            f"lesion, not "
            "of people."
        )
    ]
    if found["flags"]:
        parts.append(markup.bullets([markup.warned(flag) for flag in found["flags"]]))
    for trait in found["traits"].values():
        rows = [
            (
                name, one["images"], measured(one["melanoma"]["sensitivity"]),
                one["melanoma"]["sensitivity"]["lesions"],
                measured(one["melanoma"]["specificity"]), measured(one["malignancy"]["sensitivity"]),
                measured(one["malignancy"]["specificity"]), measured(one["balanced_accuracy"]),
            )
            for name, one in trait["groups"].items()
        ]  # fmt: skip
        header = (
            "group", "images", "melanoma sensitivity", "melanomas (lesions)", "melanoma specificity",
            "malignancy sensitivity", "malignancy specificity", "balanced accuracy",
        )  # fmt: skip
        gaps = [
            f"{point}: {gap['equalised_odds']['verdict' if gap['equalised_odds']['value'] is None else 'sentence']}"
            for point, gap in trait["gaps"].items()
        ]
        parts.append(Safe(f"<h3>By {markup.text(trait['words'])}</h3>"))
        parts.append(markup.table(f"By {trait['words']} (95 %)", header, rows))
        parts.append(markup.bullets(gaps))
    return markup.joined(*parts)


def faithfulness(report: Report) -> Safe:
    """Whether the map shows what the answer rests on."""
    found = report["faithfulness"]
    rows = [
        (
            name.replace("_", " "), one["images"], measured(one["top"]), measured(one["random"]),
            measured(one["difference"]), percent(one["beats"]["value"]), _p(one["wilcoxon"]), _p(one["sign"]),
        )
        for name, one in found["controls"].items()
    ]  # fmt: skip
    header = (
        "compared with", "images", "drop, top of the map", "drop, random", "difference", "map's is larger",
        "p (Wilcoxon)", "p (sign)",
    )  # fmt: skip
    return markup.joined(
        markup.paragraph(
            f"On {found['images']} lesions the {percent(found['share'], 0)} of the frame where the map is highest "
            f"are taken "
            f"away ({found['fill']}), and so are random regions of the same size. A faithful map makes the "
            f"probability of "
            "the explained class drop more."
        ),
        markup.table("Drop of the probability when a region is taken away (95 %)", header, rows),
    )


def gate(report: Report) -> Safe:
    """How well pictures that are no dermoscopy of a lesion are kept out, and how seldom good images are."""
    found = report["gate"]
    known = [
        (name, one["images"], percent(one["false_alarms"]), _reasons(one["by_reason"]))
        for name, one in found["known"].items()
    ]
    strangers = [
        (
            name.replace("_", " "), one["images"], percent(one["refused"]), percent(one["no_class_named"]),
            number(one["auroc"]), _reasons(one["by_reason"]),
        )
        for name, one in {**found["strangers"], "all together": found["all_strangers"]}.items()
    ]  # fmt: skip
    spoiled = [(name, one["images"], percent(one["named"])) for name, one in found["spoiled"].items()]
    return markup.joined(
        markup.paragraph(
            "Pictures that are no dermoscopy of a lesion must be turned away, and dermoscopic images must not. "
            "AUROC: how "
            "often a stranger is thought stranger than a dermoscopic image."
        ),
        markup.table(
            "Dermoscopic images that are turned away", ("images", "number", "turned away", "reasons"), known, words=(3,)
        ),
        markup.table(
            "Strangers",
            ("pictures", "number", "turned away", "no class named", "AUROC", "reasons"),
            strangers,
            words=(5,),
        ),
        markup.table("Spoiled images", ("spoiled by", "number", "fault named"), spoiled) if spoiled else "",
    )


def _reasons(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{code.replace('_', ' ')} {percent(share)}" for code, share in shares.items()) or markup.DASH


def cost(report: Report) -> Safe:
    """What an answer costs."""
    found = report["cost"]
    network, whole = found["network_milliseconds"], found.get("analysis_milliseconds") or {}
    parameters = (
        f"{found['parameters'] / 1e6:.2f} million" if found["parameters"] else "not counted (onnx is not installed)"
    )
    memory = f"{found['peak_memory_megabytes']:.0f} MB" if found["peak_memory_megabytes"] else markup.DASH
    rows = [
        ("model file", f"{found['file_megabytes']:.1f} MB"),
        ("parameters", parameters),
        ("preprocessing and network, one image", _times(network)),
        ("the whole algorithm, two images side by side", _times(whole)),
        ("memory of this process at its highest, data included", memory),
        ("machine", found["machine"]),
    ]
    return markup.table("Cost, decoding left out", ("what", "how much"), rows, words=(1,))


def _times(found: Mapping[str, Any]) -> str:
    if not found or found.get("median") is None:
        return markup.DASH
    return f"median {found['median']:.1f} ms, 95 % below {found['p95']:.1f} ms ({found['images']} images)"


def _change(figure: Mapping[str, Any]) -> Safe:
    """What was lost against the undistorted images; red where more than chance."""
    if figure["change"] is None:
        return Safe(markup.DASH)
    words = f"{figure['change']:+.3f}"
    return markup.warned(words) if _lost(figure) else markup.text(words)


def _lost(figure: Mapping[str, Any]) -> bool:
    interval = figure.get("change_interval")
    return interval is not None and interval[1] < 0


def _limits(figure: Mapping[str, Any]) -> tuple[float | None, float | None]:
    interval = figure.get("interval")
    return (interval[0], interval[1]) if interval else (None, None)


def _p(value: float | None) -> str:
    return markup.DASH if value is None else f"{value:.2g}"
