"""Contour, heat-map and legend drawn on an image, and lossless PNG both ways. Both standards' renderers use it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from dermoscopy.domain import (
    DermoscopicImage,
    Finding,
    HeatMap,
    LesionClass,
    LesionMeasurements,
    Mask,
    ReportStatus,
    RGBPixels,
    TriageTier,
)
from dermoscopy.errors import UnreadableObject
from dermoscopy.ports import Outlined
from dermoscopy.reviews import UNREVIEWED, Standing

NOTICE = "AI second opinion, not a diagnosis"
CLASS_TITLES = {
    LesionClass.AKIEC: "actinic keratosis / intraepithelial carcinoma",
    LesionClass.BCC: "basal cell carcinoma",
    LesionClass.BKL: "benign keratosis-like lesion",
    LesionClass.DF: "dermatofibroma",
    LesionClass.MEL: "melanoma",
    LesionClass.NV: "melanocytic nevus",
    LesionClass.VASC: "vascular lesion",
}
_TIER_COLOURS = {
    TriageTier.URGENT: (213, 43, 43),
    TriageTier.EXPEDITED: (230, 126, 20),
    TriageTier.UNDETERMINED: (128, 90, 190),
    TriageTier.ROUTINE: (35, 120, 200),
    TriageTier.MONITOR: (40, 150, 80),
}
_CLINICIAN = (80, 190, 255)
"""Colour of an outline that a clinician drew."""
_REVIEWED = {
    ReportStatus.FINAL: "CONFIRMED BY CLINICIAN",
    ReportStatus.AMENDED: "CORRECTED BY CLINICIAN",
    ReportStatus.ENTERED_IN_ERROR: "WITHDRAWN BY CLINICIAN: DO NOT USE",
}
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def encode_png(array: npt.NDArray[np.uint8]) -> bytes:
    """PNG of grey (rows, columns) or RGB (rows, columns, 3) pixels; the same pixels give the same bytes."""
    bgr = array if array.ndim == 2 else cv2.cvtColor(array, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".png", bgr)
    if not done:
        raise ValueError(f"cannot encode an array of shape {array.shape} as PNG")
    return bytes(data.tobytes())


def decode_grey_png(data: bytes) -> npt.NDArray[np.uint8]:
    """Grey pixels (rows, columns) of a PNG that this service wrote."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise UnreadableObject("not a PNG image")
    return np.asarray(pixels, np.uint8)


def encode_mask(mask: Mask) -> bytes:
    """Mask as a black and white PNG (0 and 255)."""
    return encode_png(mask.astype(np.uint8) * 255)


def encode_heatmap(heatmap: HeatMap) -> bytes:
    """Heat-map as a grey PNG, 0…1 mapped to 0…255."""
    return encode_png(np.rint(heatmap * 255).astype(np.uint8))


def draw_contour(pixels: RGBPixels, mask: Mask, colour: tuple[int, int, int] = (0, 255, 128)) -> RGBPixels:
    """``pixels`` with the outline of ``mask``, dark-edged so that it shows on any skin."""
    drawn = pixels.copy()
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    width = max(1, round(max(pixels.shape[:2]) / 400))
    cv2.drawContours(drawn, contours, -1, (0, 0, 0), width + 2, cv2.LINE_AA)
    cv2.drawContours(drawn, contours, -1, colour, width, cv2.LINE_AA)
    return drawn


def draw_heatmap(pixels: RGBPixels, heatmap: HeatMap, *, opacity: float = 0.45) -> RGBPixels:
    """``pixels`` under a colour map of ``heatmap``; where the map is 0 the picture stays as it is."""
    colours = cv2.applyColorMap(np.rint(heatmap * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    colours = cv2.cvtColor(colours, cv2.COLOR_BGR2RGB).astype(np.float32)
    weight = (heatmap * opacity)[..., None]
    return np.rint(pixels * (1 - weight) + colours * weight).astype(np.uint8)


def draw_overlay(
    image: DermoscopicImage, finding: Finding, reviewed: Standing = UNREVIEWED, outlined: Outlined | None = None
) -> RGBPixels:
    """The picture a clinician sees: contour on the image, with triage, class, scale and notice in a band below it.

    After a review the band begins with what the clinician said, and their outline stands beside the algorithm's; a
    withdrawn result shows no outline and no numbers.
    """
    pixels = image.pixels
    scale = max(0.4, min(2.5, image.columns / 700))
    outlines = finding.measurements is not None and not reviewed.withdrawn
    drawn = draw_contour(pixels, finding.mask) if outlines else pixels.copy()
    if outlined is not None and not reviewed.withdrawn:
        drawn = draw_contour(drawn, outlined.mask, _CLINICIAN)
    if image.spacing_mm is not None:
        _draw_scale_bar(drawn, image.spacing_mm[1], scale)
    lines = _legend(image, finding) if reviewed == UNREVIEWED else _reviewed_legend(image, finding, reviewed, outlined)
    step = int(26 * scale)
    band = np.full((step * len(lines) + step // 2, image.columns, 3), 18, np.uint8)
    band[:, : max(3, int(6 * scale))] = _TIER_COLOURS[finding.triage.tier]
    for number, line in enumerate(lines, start=1):
        size, _ = cv2.getTextSize(line, _FONT, 0.55 * scale, 1)
        fit = min(1.0, (image.columns - 24 * scale) / max(1, size[0]))
        origin = (int(14 * scale), int(step * number - 4 * scale))
        cv2.putText(band, line, origin, _FONT, 0.55 * scale * fit, (240, 240, 240), 1, cv2.LINE_AA)
    return np.vstack((drawn, band))


def _legend(image: DermoscopicImage, finding: Finding) -> list[str]:
    if finding.primary:
        title = CLASS_TITLES[finding.primary]
        named = f"most probable: {title}, {finding.confidence:.0%}"
        if finding.decision_note:
            likeliest = max(finding.classes, key=lambda one: one.probability)
            named = f"called: {title}, {finding.confidence:.0%}; more probable: "
            named += f"{CLASS_TITLES[likeliest.label]}, {likeliest.probability:.0%}"
    else:
        named = "no class named: the algorithm abstains"
    measured = finding.measurements
    size = "no lesion outlined" if measured is None else _size(measured)
    return [
        f"{finding.triage.tier.value.upper()}: melanoma risk {finding.melanoma_risk:.0%}",
        named,
        size,
        f"{NOTICE}. {finding.model.name} {finding.model.version}",
    ]


def _reviewed_legend(
    image: DermoscopicImage, finding: Finding, reviewed: Standing, outlined: Outlined | None
) -> list[str]:
    said = _REVIEWED.get(reviewed.status, "")
    if reviewed.last is not None:
        said += f" ({reviewed.last.at:%Y-%m-%d %H:%M} UTC)"
    own = _legend(image, finding)
    if reviewed.withdrawn:
        return [said, "no class and no measurement of this image may be used", own[-1]]
    lines = [said]
    if reviewed.lesion_class is not None:
        lines.append(f"clinician: {CLASS_TITLES[reviewed.lesion_class]}")
    if outlined is not None:
        lines.append(f"clinician's outline (blue): {_size(outlined.measurements)}")
    return [*lines, f"AI: {own[0]}", f"AI: {own[1]}", f"AI: {own[2]}", own[3]]


def _size(measured: LesionMeasurements) -> str:
    if measured.area_mm2 is not None and measured.equivalent_diameter_mm is not None:
        return f"area {measured.area_mm2:.1f} mm2, diameter {measured.equivalent_diameter_mm:.1f} mm"
    return f"area {measured.area_percent:.1f} % of the image, uncalibrated: no scale known"


def _draw_scale_bar(pixels: RGBPixels, column_spacing_mm: float, scale: float) -> None:
    """A 5 mm (or 1 mm, on small fields) bar in the lower right corner."""
    rows, columns = pixels.shape[:2]
    length_mm = next((mm for mm in (5.0, 2.0, 1.0, 0.5) if mm / column_spacing_mm < columns * 0.4), 0.0)
    if not length_mm:
        return
    right, bottom = int(columns - 14 * scale), int(rows - 14 * scale)
    left = int(right - length_mm / column_spacing_mm)
    for colour, width in (((0, 0, 0), 5), ((255, 255, 255), 2)):
        cv2.line(pixels, (left, bottom), (right, bottom), colour, max(1, int(width * scale)))
        cv2.putText(
            pixels, f"{length_mm:g} mm", (left, int(bottom - 6 * scale)), _FONT, 0.5 * scale, colour, width, cv2.LINE_AA
        )
