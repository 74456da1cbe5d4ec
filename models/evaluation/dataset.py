"""Labelled images: one `Case` each, decoded only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from dermoscopy.domain import Mask, RGBPixels

Box = tuple[int, int, int, int]
"""Top row, left column, bottom row, right column of a part of an image; the last two exclusive."""


@dataclass(frozen=True)
class Case:
    """One image with what is known of it. Both callables decode anew each time; nothing is kept in memory."""

    id: str
    pixels: Callable[[], RGBPixels]
    """uint8 [rows, columns, 3] RGB. Raises `UnreadableObject` naming the file."""
    mask: Callable[[], Mask | None]
    """The reference outline, bool [rows, columns] (of ``window`` where one is given), or ``None``."""
    diagnosis: str
    """A class of the model (``mel``, ``nv`` …); empty where it is not known."""
    group: str
    """The lesion. Images of one lesion are alike, so intervals resample groups; the image's id where none is known."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """``age``, ``sex``, ``localization``, ``dx_type``, ``fitzpatrick`` as the table says; absent where it does not."""
    window: Box | None = None
    """The part of the image that the mask covers; ``None``: all of it."""


@dataclass(frozen=True)
class Dataset:
    """Cases with where they come from. ``left_out`` is what could not be used, by image, with the reason."""

    name: str
    layout: str
    """How the files were found, in words."""
    cases: tuple[Case, ...]
    digest: str
    """SHA-256 of ids, labels and the files' bytes: the same digest means the same images, masks and labels."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What a reader must know: rows without an image, images without a label, a selection."""

    @property
    def labelled(self) -> int:
        """Images with a diagnosis."""
        return sum(bool(case.diagnosis) for case in self.cases)


def case_of(
    identity: str,
    pixels: RGBPixels,
    mask: Mask | None = None,
    diagnosis: str = "",
    group: str = "",
    attributes: Mapping[str, str] | None = None,
) -> Case:
    """A case that is in memory already."""
    outline = None if mask is None else np.asarray(mask, dtype=bool)
    return Case(identity, lambda: pixels, lambda: outline, diagnosis, group or identity, attributes or {})


def jaccard(drawn: Mask, truth: Mask) -> float:
    """Intersection over union of two masks of one shape, 0…1; 1 when both are empty (ISIC 2018 Task 1)."""
    union = int(np.count_nonzero(drawn | truth))
    return float(np.count_nonzero(drawn & truth)) / union if union else 1.0
