"""The six colours of dermoscopy (the C of the ABCD rule) counted in CIELAB.

The ABCD rule of dermatoscopy scores white, red, light brown, dark brown, blue-grey and black, one point each (Stolz et
al., Eur J Dermatol 4:521, 1994; Nachbar et al., J Am Acad Dermatol 30:551, 1994). The rule names the colours and gives
no coordinates. `REFERENCES` are this project's own prototypes, chosen on the published HAM10000 images; a pixel takes
the nearest one by CIE 1976 ΔE*ab. Dermoscopes differ in the colour of their light, and the eye adapts to it: the a* and
b* of lesion and skin are first shifted so that the skin around has those of `SKIN_AB`. A pixel that is nearer to that
skin than to any prototype, or farther than `FARTHEST` from all, takes none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from dermoscopy.domain import Mask, RGBPixels

REFERENCES: Mapping[str, tuple[float, float, float]] = {
    "white": (88.0, 2.0, 2.0),
    "red": (45.0, 45.0, 22.0),
    "light brown": (56.0, 17.0, 27.0),
    "dark brown": (29.0, 16.0, 17.0),
    "blue-grey": (47.0, 0.0, -6.0),
    "black": (9.0, 3.0, 2.0),
}
"""CIELAB (D65, L* 0…100, a*, b*) of each colour's prototype."""
SKIN_AB = (14.0, 16.0)
"""a* and b* that the skin around the lesion is taken to have, so that a colour cast of the light drops out."""
LARGEST_CAST = 20.0
"""Cast in a* and b* that is corrected at most, each."""
PALEST_SKIN = 92.0
"""L* from which on no cast is corrected (in full from 15 below): skin that is near white is overexposed."""
FARTHEST = 32.0
"""ΔE*ab beyond which a pixel has none of the six colours."""
PRESENT = 0.05
"""Share of the lesion from which on a colour counts as present."""
_MOST_PIXELS = 16_000


@dataclass(frozen=True, slots=True)
class Colours:
    """``fractions``: share of lesion pixels near each reference (the rest has none); ``count``: how many reach 5 %;
    ``variety``: entropy of the shares among the six, divided by ln 6 (0: one colour, 1: all six alike).
    """

    fractions: Mapping[str, float]
    count: int
    variety: float


def colours_of(pixels: RGBPixels, mask: Mask, hidden: Mask | None = None) -> Colours:
    """Colours inside ``mask`` [rows, columns] of ``pixels`` [rows, columns, 3]; ``mask`` must not be empty.

    What is ``hidden`` (by hair) counts neither as lesion nor as skin, unless all of the lesion is. A large lesion is
    sampled on a regular grid of at most about 16,000 lesion pixels.
    """
    skin_mask = ~mask
    if hidden is not None and (mask & ~hidden).any():
        mask, skin_mask = mask & ~hidden, skin_mask & ~hidden
    step = max(1, int(np.ceil(np.sqrt(np.count_nonzero(mask) / _MOST_PIXELS))))
    if step > 1 and mask[::step, ::step].any():
        mask, skin_mask, pixels = mask[::step, ::step], skin_mask[::step, ::step], pixels[::step, ::step]
    lesion = _to_lab(pixels[mask])
    skin = _skin_colour(pixels, skin_mask)
    if skin is not None:
        trust = min(1.0, max(0.0, (PALEST_SKIN - skin[0]) / 15.0))
        cast = trust * np.clip(np.subtract(skin[1:], SKIN_AB), -LARGEST_CAST, LARGEST_CAST)
        lesion[:, 1:] -= cast.astype(np.float32)
        skin = (skin[0], skin[1] - float(cast[0]), skin[2] - float(cast[1]))
    names = list(REFERENCES)
    prototypes = np.array([*REFERENCES.values(), *([skin] if skin is not None else [])], dtype=np.float32)
    # |x - p|² = |x|² - 2 x·p + |p|²; the nearest needs only the last two terms.
    squared = (prototypes**2).sum(axis=1) - 2.0 * (lesion @ prototypes.T)
    nearest = squared.argmin(axis=1)
    distance = squared[np.arange(len(lesion)), nearest] + (lesion**2).sum(axis=1)
    counted = nearest[distance <= FARTHEST**2]
    shares = np.bincount(counted, minlength=len(prototypes))[: len(names)] / len(lesion)
    return Colours(
        fractions={name: float(share) for name, share in zip(names, shares, strict=True)},
        count=int((shares >= PRESENT).sum()),
        variety=_normalised_entropy(shares),
    )


def _to_lab(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """uint8 [n, 3] sRGB to float32 [n, 3] CIELAB."""
    scaled = pixels.reshape(-1, 1, 3).astype(np.float32) / np.float32(255.0)
    return np.asarray(cv2.cvtColor(scaled, cv2.COLOR_RGB2LAB), dtype=np.float32).reshape(-1, 3)


def _skin_colour(pixels: RGBPixels, skin: Mask) -> tuple[float, float, float] | None:
    """Median CIELAB of about 5,000 pixels of the ``skin``, or ``None`` when too little of it is in the frame."""
    outside = pixels[skin]
    if len(outside) < max(50, skin.size // 50):
        return None
    lightness, a, b = np.median(_to_lab(outside[:: max(1, len(outside) // 5_000)]), axis=0)
    return float(lightness), float(a), float(b)


def _normalised_entropy(shares: npt.NDArray[np.float64]) -> float:
    total = float(shares.sum())
    if total <= 0.0:
        return 0.0
    present = shares[shares > 0.0] / total
    return float(min(1.0, max(0.0, -(present * np.log(present)).sum() / np.log(len(shares)))))
