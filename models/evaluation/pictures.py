"""Pictures of the worst outlines and of missed melanomas, for the person who has the images. Never for a repository."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from dermoscopy.domain import LesionClass, RGBPixels
from dermoscopy.overlay import draw_contour, draw_heatmap, encode_png
from models import explain
from models.evaluation.dataset import Case, Dataset
from models.evaluation.predict import Predictor
from models.registry import ModelPackage

REFERENCE, DRAWN = (255, 255, 255), (0, 255, 128)
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Worst cases</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;margin:24px;background:#fff;color:#1b2430}}
figure{{display:inline-block;margin:0 14px 18px 0;vertical-align:top;max-width:420px}}img{{max-width:100%}}
@media(prefers-color-scheme:dark){{body{{background:#12161c;color:#e6eaf0}}}}</style></head><body>
<h1>Worst cases</h1><p>White: reference outline. Green: the model's. These pictures are patients' images: keep them
where the images may be kept.</p>{body}</body></html>
"""


def draw_pictures(package: ModelPackage, dataset: Dataset, report: Mapping[str, Any], folder: Path) -> Path:
    """Draw the report's worst outlines and missed melanomas into ``folder``; returns its ``index.html``."""
    folder.mkdir(parents=True, exist_ok=True)
    predictor = Predictor(package)
    cases = {case.id: case for case in dataset.cases}
    body = []
    missed = report.get("missed_melanomas", {}).get("cases", [])
    for heading, kind, found in (
        ("Missed melanomas, with the map of evidence for melanoma", "melanoma", missed),
        ("Worst outlines", "outline", report.get("outline", {}).get("worst", [])),
    ):
        if found:
            body.append(f"<h2>{heading}</h2>")
        for number, one in enumerate(found, start=1):
            name = f"{kind}-{number:02d}.png"
            picture = _picture(predictor, cases[one["id"]], evidence=kind == "melanoma")
            (folder / name).write_bytes(encode_png(picture))
            words = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in one.items() if key != "id")
            body.append(
                f'<figure><img src="{name}" alt="{escape(one["id"])}"><figcaption>{escape(one["id"])}: {escape(words)}'
                "</figcaption></figure>"
            )
    page = folder / "index.html"
    page.write_text(_PAGE.format(body="\n".join(body)), encoding="utf-8")
    return page


def _picture(predictor: Predictor, case: Case, evidence: bool) -> RGBPixels:
    """The image with both outlines; beside it the map of evidence for melanoma where that is wanted."""
    pixels, mask = case.pixels(), case.mask()
    output, placement = predictor.network(pixels)
    drawn = draw_contour(pixels, predictor.outline(output.mask_logits[0, 0], placement), DRAWN)
    if mask is not None:
        top, left, bottom, right = case.window or (0, 0, *pixels.shape[:2])
        whole = np.zeros(pixels.shape[:2], dtype=bool)
        whole[top:bottom, left:right] = mask
        drawn = draw_contour(drawn, whole, REFERENCE)
    if not evidence:
        return drawn
    melanoma = predictor.manifest.classes.index(LesionClass.MEL)
    heatmap = explain.evidence_map(output.activation_map[0], melanoma, placement)
    return np.hstack((drawn, draw_heatmap(pixels, heatmap)))
