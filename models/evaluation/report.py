"""The page: one self-contained HTML file made from the report's figures alone, without scripts and without images."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Any

from models.evaluation import markup
from models.evaluation.markup import Safe
from models.evaluation.sections import SECTIONS
from models.evaluation.sections_further import cost

NOTICE = (
    "Research use only. Not cleared or approved as a medical device, and no basis for a diagnosis. A figure holds for "
    "these images: other cameras, people and diseases must be expected to give others."
)


def render(report: Mapping[str, Any]) -> str:
    """HTML of one report."""
    model, dataset = report["model"], report["dataset"]
    parts = {
        **{anchor: (heading, write) for anchor, (key, heading, write) in SECTIONS.items() if report.get(key)},
        "cost": ("Cost", cost),
        "images": ("The images", _images),
        "provenance": ("Provenance", _provenance),
    }
    name = f"{model['name']} {model['version']}"
    templates = files("models.evaluation") / "templates"
    return Template((templates / "report.html").read_text(encoding="utf-8")).substitute(
        title=markup.text(f"{name} on {dataset['name']}"),
        style=(templates / "report.css").read_text(encoding="utf-8"),
        heading=markup.text(f"{name} on {dataset['name']}"),
        lead=markup.text(
            f"{dataset['images']} images of {dataset['lesions']} lesions, {dataset['labelled']} with a diagnosis. "
            f"{model['title']}."
        ),
        notice=markup.text(NOTICE),
        contents="\n".join(
            f'<li><a href="#{anchor}">{markup.text(heading)}</a></li>' for anchor, (heading, _) in parts.items()
        ),
        sections="\n".join(
            f'<section id="{anchor}" aria-labelledby="{anchor}-heading">\n'
            f'<h2 id="{anchor}-heading">{markup.text(heading)}</h2>\n{write(report)}\n</section>'
            for anchor, (heading, write) in parts.items()
        ),
        footer=markup.text(f"Data: {model['licence']['data']}. {model['licence']['attribution']}"),
    )


def _images(report: Mapping[str, Any]) -> Safe:
    """What was evaluated, and what was not."""
    dataset = report["dataset"]
    counts = [(markup.code(name), count) for name, count in dataset["classes"].items()]
    parts: list[str] = [markup.paragraph(f"{dataset['name']}: {dataset['layout']}.")]
    if counts:
        parts.append(markup.table("Images by diagnosis", ("class", "images"), counts))
    if dataset["notes"]:
        parts.append(markup.bullets(dataset["notes"]))
    left_out = dataset["left_out"]
    if left_out:
        shown = [f"{one['id']}: {one['why']}" for one in left_out[:50]]
        parts.append(markup.paragraph(markup.warned(f"{len(left_out)} images were left out:")))
        parts.append(markup.bullets(shown))
    return markup.joined(*parts)


def _provenance(report: Mapping[str, Any]) -> Safe:
    """How to get these figures again."""
    found = report["provenance"]
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    rows = [
        ("model file, SHA-256", markup.code(found["model_sha256"])),
        ("preprocessing, SHA-256", markup.code(found["preprocessing_sha256"])),
        ("images, masks and labels, SHA-256", markup.code(found["dataset_sha256"])),
        ("bootstrap", f"{found['draws']} draws of lesions, seed {found['seed']}"),
        ("date", found["date"]),
        ("duration", f"{found['seconds']:.0f} s"),
        ("versions", versions),
    ]
    command = Safe(f"<pre><code>{markup.text(found['command'])}</code></pre>") if found["command"] else Safe("")
    return markup.joined(command, markup.table("What was measured with what", ("what", "which"), rows, words=(1,)))
