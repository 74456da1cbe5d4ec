"""Skin tone from the picture: the individual typology angle (ITA) of the skin around the lesion.

ITA = atan((L* - 50) / b*) · 180/π in CIELAB under D65 (Chardon, Cretois, Hourseau, "Skin colour typology and suntanning
pathways", Int J Cosmet Sci 13:191, 1991), with the six categories of Del Bino and Bernerd (Br J Dermatol 169 Suppl
3:33, 2013): very light > 55° > light > 41° > intermediate > 28° > tan > 10° > brown > -30° > dark.

It is measured on a ring around the outline, on median L* and b* of the pixels within one robust deviation of the
median, as studies of dermoscopic images do (Kinyanjui et al., arXiv:1910.13268; Benčević et al., arXiv:2504.04494).

What it is not. A dermoscope has its own lamp, polariser and white balance, contact blanches the skin, and published
pictures have often been colour-corrected: the angle is that of the picture, good for asking whether a model does worse
on darker pictures of skin, not for saying what a patient's skin type is. It is neither the Fitzpatrick type (a history
of burning and tanning) nor ethnicity. Skin measured in neutral light is yellowish whosever it is (Xiao et al., Skin Res
Technol 23:21, 2017), but in a picture with a pink or blue cast b* goes to 0 and the angle to 90°, whatever the skin; an
orange cast makes light skin "tan". So `tone_of` gives no angle outside `LEAST_YELLOW` and `MOST_RED` (most of
HAM10000), and `balanced_tone_of` gives one for every picture from lightness alone, with the b* of skin in neutral light
put in: blind to the hue of the light, but at the mercy of its strength and of the exposure. The 50 darkest pictures of
HAM10000's test fold, looked at one by one, are light skin in orange, red or dim light: nothing measured there is
evidence about dark skin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from dermoscopy.domain import Mask, RGBPixels
from models.colour import SKIN_AB
from models.hair import find_hair

Float32 = npt.NDArray[np.float32]

CATEGORIES: Mapping[str, float] = {
    "very light": 55.0,
    "light": 41.0,
    "intermediate": 28.0,
    "tan": 10.0,
    "brown": -30.0,
    "dark": -math.inf,
}
"""Each category with the angle in degrees above which it begins."""
LEAST_YELLOW = 4.0
"""b* of the skin below which the white balance is taken to be off (this project's own limit): at the L* of light skin,
60 to 70, the angle is beyond 68° there and says nothing but that."""
MOST_RED = 28.0
"""a* of the skin above which the light is taken to be red or orange (this project's own limit)."""
_WORKING_SIDE = 256
_RING = (0.03, 0.25)
"""From where to where the ring reaches beyond the outline, in shares of the shorter side: past the lesion's halo."""
_EDGE = 0.02
_LEAST_SKIN = 0.015
_GLARE = 250
_VIGNETTE = 0.95


@dataclass(frozen=True, slots=True)
class Skin:
    """Median L* (0…100), a* and b* of the skin around a lesion, and the ``share`` of the frame that was seen of it."""

    lightness: float
    redness: float
    yellowness: float
    share: float


@dataclass(frozen=True, slots=True)
class SkinTone:
    """``angle`` (ITA) in degrees, -90…90, and its ``category``."""

    angle: float
    category: str


def typology_angle(lightness: float, yellowness: float) -> float:
    """ITA in degrees of L* (0…100) and b*. Raises `ValueError` where b* is not positive: skin is never blue."""
    if yellowness <= 0.0:
        raise ValueError(f"the angle is defined for a positive b* only, not {yellowness:.1f}")
    return math.degrees(math.atan((lightness - 50.0) / yellowness))


def category_of(angle: float) -> str:
    """Category of an ITA in degrees; a limit belongs to the darker side."""
    return next(name for name, above in CATEGORIES.items() if angle > above)


def skin_tone(pixels: RGBPixels, mask: Mask) -> SkinTone | None:
    """Tone of the skin around ``mask`` bool [rows, columns] of ``pixels`` uint8 RGB [rows, columns, 3].

    ``None`` where `skin_around` finds none, and where `tone_of` trusts its colour too little.
    """
    skin = skin_around(pixels, mask)
    return None if skin is None else tone_of(skin)


def tone_of(skin: Skin) -> SkinTone | None:
    """Tone of a skin's colour; ``None`` beyond `LEAST_YELLOW` or `MOST_RED`, where the white balance is off."""
    if skin.yellowness < LEAST_YELLOW or skin.redness > MOST_RED:
        return None
    angle = typology_angle(skin.lightness, skin.yellowness)
    return SkinTone(angle, category_of(angle))


def balanced_tone_of(skin: Skin) -> SkinTone:
    """Tone that a skin of this lightness has at the b* of skin in neutral light (`models.colour.SKIN_AB`)."""
    angle = typology_angle(skin.lightness, SKIN_AB[1])
    return SkinTone(angle, category_of(angle))


def skin_around(pixels: RGBPixels, mask: Mask) -> Skin | None:
    """Colour of the skin around ``mask`` bool [rows, columns] of ``pixels`` uint8 RGB [rows, columns, 3].

    Left out are the lesion's halo, hair and other thin lines (`models.hair`), glare, what lies outside the lens, the
    frame's edge and outermost corners, and then whatever is far from the median (marks, gel, a second lesion). ``None``
    when less than 1.5 % of the frame remains (the lesion fills it, or there is no mask to stay away from).
    """
    small, lesion = _shrunk(pixels, mask)
    if not lesion.any():
        return None
    usable = _ring(lesion) & _lens(small) & ~find_hair(small) & (small.min(axis=2) < _GLARE)
    if np.count_nonzero(usable) < _LEAST_SKIN * usable.size:
        return None
    scaled = small[usable][:, None].astype(np.float32) / np.float32(255.0)
    seen = np.asarray(cv2.cvtColor(scaled, cv2.COLOR_RGB2LAB), dtype=np.float32)[:, 0]
    lightness, redness, yellowness = (float(value) for value in np.median(_without_outliers(seen), axis=0))
    return Skin(lightness, redness, yellowness, float(usable.mean()))


def _shrunk(pixels: RGBPixels, mask: Mask) -> tuple[RGBPixels, Mask]:
    """At most 256 pixels on the shorter side: tone needs no more, and hair has a known width in pixels."""
    rows, columns = mask.shape
    scale = _WORKING_SIDE / min(rows, columns)
    if scale >= 1.0:
        return pixels, mask
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return small, np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST), dtype=bool)


def _ring(lesion: Mask) -> Mask:
    """Pixels near the lesion but beyond its halo, away from the frame's edge."""
    side = min(lesion.shape)
    distance = cv2.distanceTransform((~lesion).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    ring = (distance > _RING[0] * side) & (distance <= _RING[1] * side)
    edge = max(1, round(_EDGE * side))
    inner = np.zeros_like(ring)
    inner[edge:-edge, edge:-edge] = True
    return np.asarray(ring & inner, dtype=bool)


def _lens(pixels: RGBPixels) -> Mask:
    """What the lens lights: black surroundings and a margin around them are out, and so are the frame's outer corners.

    A vignette is dark towards the corners whatever the skin is, so beyond 95 % of the half diagonal nothing counts.
    """
    rows, columns = pixels.shape[:2]
    dark = (pixels.max(axis=2) < 30).astype(np.uint8)
    margin = 2 * max(1, round(0.02 * min(rows, columns))) + 1
    near_black = cv2.dilate(dark, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (margin, margin)))
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    radius = np.hypot((y - (rows - 1) / 2) / (rows / 2), (x - (columns - 1) / 2) / (columns / 2)) / math.sqrt(2.0)
    return np.asarray((near_black == 0) & (radius <= _VIGNETTE), dtype=bool)


def _without_outliers(lab: Float32) -> Float32:
    """Rows of ``lab`` [n, 3] whose L* and b* are within a robust deviation (1.4826 · MAD, at least 1) of the median."""
    middle = np.median(lab, axis=0)
    offsets = np.abs(lab - middle)
    deviation = np.maximum(1.4826 * np.median(offsets, axis=0), 1.0)
    return lab[(offsets[:, 0] <= deviation[0]) & (offsets[:, 2] <= deviation[2])]
