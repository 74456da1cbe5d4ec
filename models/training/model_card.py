"""The model card, written from the manifest, the measured figures and the evaluation reports; none typed by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from models.manifest import MANIFEST_NAME
from models.training.card_from_reports import report_sections

GROUPS = {
    "akiec": "actinic keratosis and Bowen's disease (in situ carcinoma): a group, not actinic keratosis alone",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis: seborrhoeic keratosis, solar lentigo and lichen-planus-like keratosis: a group",
    "df": "dermatofibroma",
    "mel": "melanoma, in situ and invasive",
    "nv": "melanocytic nevus",
    "vasc": "vascular lesions: angioma, angiokeratoma, pyogenic granuloma, haemorrhage: a group",
}  # fmt: skip
SETS = {
    "validation": "validation fold, 256 px centre crops (chose the epoch, the decision and the operating points)",
    "calibration": "calibration fold, 256 px centre crops (fitted the calibration)",
    "test": "test fold, 256 px centre crops (nothing was chosen on it)",
    "native_crops": "test images that are also there at published size, as 256 px centre crops",
    "native": "the same test images as full 600 × 450 frames, letterboxed as at run time",
}


def write_card(
    path: Path,
    manifest: dict[str, Any],
    metrics: dict[str, Any],
    reports: Mapping[str, Mapping[str, Any]] | None = None,
    forms: Mapping[str, Any] | None = None,
) -> None:
    """Write ``MODEL_CARD.md``; ``reports`` are those of ``evaluation/`` by file name, the main one first."""
    sections = [
        _head(manifest),
        _figures(metrics),
        _classes(metrics),
        _operating_points(manifest, metrics),
        *report_sections(reports or {}, forms),
        _limits(manifest, metrics),
        _making(manifest),
        _licence(manifest),
    ]
    path.write_text("\n\n".join(section for section in sections if section) + "\n", encoding="utf-8")


def rewrite_card(folder: Path) -> None:
    """Write a package's card anew from its manifest and from everything that lies in ``evaluation/``."""
    evaluation = folder / "evaluation"
    files = sorted(evaluation.glob("report*.json"), key=lambda path: (path.stem != "report", path.stem))
    forms = evaluation / "forms.json"
    write_card(
        folder / "MODEL_CARD.md",
        yaml.safe_load((folder / MANIFEST_NAME).read_text(encoding="utf-8")),
        json.loads((evaluation / "metrics.json").read_text(encoding="utf-8")),
        {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files},
        json.loads(forms.read_text(encoding="utf-8")) if forms.is_file() else None,
    )


def _table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _figure(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def _head(manifest: dict[str, Any]) -> str:
    """Name, intended use, what goes in and comes out."""
    return f"""# {manifest["name"]} {manifest["version"]}

{manifest["title"]}.

## Intended use

{manifest["intended_use"]}

It is not cleared or approved as a medical device anywhere. Software that analyses a medical
image is a device by the FDA's reading of section 520(o)(1)(E) of the FD&C Act: the exemption for clinical decision
support does not cover it. It must not be the basis of a diagnosis, of a decision to biopsy or of a decision not to.

## In and out

One RGB dermoscopic image, the full frame, letterboxed to {manifest["input"]["size"]} × {manifest["input"]["size"]}
pixels and normalised as `manifest.yaml` says. One pass gives the lesion's outline (`mask_logits`), the logits of seven
diagnostic groups (`class_logits`), a class activation map for each (`activation_map`) and the embedding that the
classifier reads (`embedding`). {_answering(manifest)}"""


def _answering(manifest: dict[str, Any]) -> str:
    """How logits become probabilities, and which class is called."""
    fitted, decision = manifest["calibration"], manifest.get("decision")
    formula = {
        "temperature": "`softmax(class_logits / temperature)`",
        "vector": "`softmax(scale × log p + bias)` with p = softmax(class_logits)",
        "dirichlet": "`softmax(weights · log p + bias)` with p = softmax(class_logits)",
    }[fitted["method"]]
    said = f"Probabilities are {formula}, with the numbers in `manifest.yaml`, fitted on the {fitted['fold']} fold."
    if decision is not None:
        weights = ", ".join(f"{name} {weight:.1f}" for name, weight in decision["weights"].items())
        said += f"""

The class that is called is the one of the highest probability × weight ({weights}); where that is not the most probable
class, every output says so. {100 * decision["changed"]:.0f} % of the {decision["fold"]} images are called otherwise
than by probability alone. The weights were chosen there, for balanced accuracy and macro F1 together."""
    return said


def _figures(metrics: dict[str, Any]) -> str:
    """One row per set of images."""
    rows = []
    for name, meaning in SETS.items():
        if name in metrics:
            m = metrics[name]
            low, high = m["balanced_accuracy_95"]
            rows.append(
                [
                    meaning, f"{m['images']} / {m['lesions']}",
                    f"{_figure(m['balanced_accuracy'])} ({_figure(low, 2)}–{_figure(high, 2)})",
                    _figure(m["accuracy"]), _figure(m["macro_f1"]), _figure(m["macro_auc"]),
                    _figure(m["melanoma_auc"]), _figure(m["expected_calibration_error"]),
                    _figure(m["mean_jaccard"]), _figure(m["thresholded_jaccard"]),
                ]
            )  # fmt: skip
    header = [
        "images", "images / lesions", "balanced accuracy (95 %)", "accuracy", "macro F1", "macro AUC", "melanoma AUC",
        "ECE", "mean Jaccard", "thresholded Jaccard",
    ]  # fmt: skip
    return f"""## Figures

Measured on this ONNX file with the run-time preprocessing; all of them, with confusion matrices, are in
`evaluation/metrics.json`. Intervals resample lesions. Thresholded Jaccard counts an outline below 0.65 as zero (ISIC
2018). Balanced accuracy is over the classes that occur in the set.

{_table(header, rows)}"""


def _classes(metrics: dict[str, Any]) -> str:
    """What each class stands for, with its figures on the test fold."""
    test = metrics["test"]["per_class"]
    rows = [
        [
            f"`{name}`", meaning, str(test[name]["images"]), _figure(test[name]["sensitivity"]),
            _figure(test[name]["specificity"]), _figure(test[name]["auc"]), _figure(test[name]["mean_jaccard"]),
        ]
        for name, meaning in GROUPS.items()
    ]  # fmt: skip
    header = ["class", "stands for", "test images", "sensitivity", "specificity", "AUC", "mean Jaccard"]
    return f"## Classes (test fold)\n\n{_table(header, rows)}"


def _operating_points(manifest: dict[str, Any], metrics: dict[str, Any]) -> str:
    """The thresholds, where they were chosen, and what they give on the test fold."""
    rows = []
    for name in ("melanoma", "malignancy"):
        chosen = manifest["thresholds"][name]
        classes = " + ".join(f"P({c})" for c in chosen.get("classes", ["mel"]))
        rows.append([name, classes, f"{chosen['probability']:.4f}"])
        for fold in ("validation", "test"):
            point = metrics[fold]["operating_points"][name]
            rows[-1] += [_figure(point["sensitivity"]), _figure(point["specificity"])]
    header = [
        "finding",
        "counts when",
        "reaches",
        "sensitivity, validation",
        "specificity",
        "sensitivity, test",
        "specificity",
    ]
    return f"""## Operating points

The highest threshold that finds the wanted share on the {manifest["thresholds"]["melanoma"]["fold"]} folds in four of
five resamples of the lesions; the test columns say what it does elsewhere.

{_table(header, rows)}"""  # fmt: skip


def _limits(manifest: dict[str, Any], metrics: dict[str, Any]) -> str:
    """What the figures do not show."""
    native = (
        f"Full frames were measured on only {metrics['native']['images']} images; take their figures as a sanity check."
        if "native" in metrics
        else "No full frame was measured."
    )
    return f"""## Limits

- {_collections(manifest)} Other cameras, skin tones, ages, body
  sites and disease frequencies are untested, and performance on them must be expected to be worse.
- The data are centre crops; full frames were imitated while training. {native}
- Class frequencies behind the logits: {manifest["calibration"]["class_prior"]}. {_answered_for(manifest)} No practice
  has those frequencies, so the probabilities rank and compare; they are not the risk of this patient.
- Seven groups only. A lesion of another kind (squamous cell carcinoma, Merkel cell carcinoma, an inflammatory disease)
  is given one of the seven. The embedding's distance to the training images is a hint of that, not a guarantee: the
  gate was measured on drawn pictures, photographs and skin without a lesion, never on other diseases. Distances of a
  few drawn pictures relative to the limit: {_strangers(metrics)}.
- Part of the labels is not histological (follow-up, consensus), and the reference outlines are generous on diffuse
  lesions.
- The activation map shows where a class's evidence lies at stride 32. It is no segmentation and no proof of reasoning.
- It sees one image: no history, no palpation, no change over time."""


def _collections(manifest: dict[str, Any]) -> str:
    """Where the images come from."""
    if not manifest["data"].get("further"):
        return "One collection (HAM10000: two clinics, Vienna and Queensland, mostly fair skin)."
    names = ", ".join(one["dataset"] for one in manifest["data"]["further"])
    return (
        f"HAM10000 (two clinics, Vienna and Queensland, mostly fair skin); for outlines and some diagnoses, {names}. "
        "On images of other clinics the figures are clearly lower: see the held-out images above."
    )


def _answered_for(manifest: dict[str, Any]) -> str:
    """Which class frequencies the probabilities presuppose."""
    fitted = manifest["calibration"]
    if "frequencies" not in fitted:
        return "The temperature was then fitted on the collection as it is."
    shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in fitted["frequencies"].items())
    return f"The probabilities answer for those of the {fitted['fold']} fold ({shares})."


def _strangers(metrics: dict[str, Any]) -> str:
    """How far drawn pictures lie, relative to the limit."""
    relative = metrics["embedding_distance"]["strangers_relative_to_limit"]
    return ", ".join(f"{name} {value:.2f}" for name, value in relative.items())


def _making(manifest: dict[str, Any]) -> str:
    """Data, split, command, seed and durations."""
    data, training = manifest["data"], manifest["training"]
    rows = [[fold, str(data["images"][fold]), str(data["lesions"][fold])] for fold in data["images"]]
    return f"""## How it was made

EfficientNet-Lite0 encoder with ImageNet weights, a light U-Net decoder and a linear head, in one network, trained
together. Split by lesion, never by image: `{data["split"]["file"]}` (SHA-256 `{data["split"]["sha256"]}`).

{_table(["fold", "images", "lesions"], rows)}

```
{training["command"]}
```

Configuration `{training["config"]}` (SHA-256 `{training["config_sha256"]}`), seed {training["seed"]},
{training["epochs"]} epochs of which {_kept(training)}, {training["wall_minutes"]:.0f} minutes of
training, code {training["code"]}. The file's answers differ from the torch network's by at most
{training["export_difference"]:.1e}. Weights: `{manifest["file"]}`, {manifest["bytes"]} bytes,
SHA-256 `{manifest["sha256"]}`.{" " + training["remarks"] if training["remarks"] else ""}"""


def _kept(training: dict[str, Any]) -> str:
    """Which weights of the run the file holds, in words."""
    best, last = training["best_epoch"], training["epochs"]
    if training["kept_weights"] == "mean":
        return f"the mean of epoch {best} (best on validation) and epoch {last} (the last) was kept"
    return f"epoch {best if training['kept_weights'] == 'best' else last} was kept"


def _licence(manifest: dict[str, Any]) -> str:
    """Terms and attribution."""
    licence = manifest["licence"]
    return f"""## Licence and attribution

Weights: {licence["weights"]}. Data: {licence["data"]}. **Non-commercial use only**, with attribution:

{licence["attribution"]}"""
