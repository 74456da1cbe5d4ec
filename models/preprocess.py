"""Pixels to the network's input, and the network's maps back to source size.

The steps come from the manifest and run as written. The letterbox keeps the aspect ratio, so that asymmetry and shape
survive; its geometry is kept, and undoing it puts every map back on the source's own pixel grid. Pixels that are not
square on the skin are stretched to squares on the way in and back again on the way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from dermoscopy.domain import RGBPixels
from models.manifest import Letterbox, Normalize, Scale

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a source of ``source_rows`` × ``source_columns`` lies in the square of ``size`` pixels."""

    size: int
    source_rows: int
    source_columns: int
    top: int
    left: int
    rows: int
    columns: int

    @classmethod
    def fit(cls, source_rows: int, source_columns: int, size: int, aspect: float = 1.0) -> Placement:
        """The longer side becomes ``size``, the shorter is rounded (at least 1), the rest is split evenly.

        ``aspect`` is the height of a source pixel over its width.
        """
        height = source_rows * aspect
        longer = max(height, source_columns)
        rows = max(1, round(height * size / longer))
        columns = max(1, round(source_columns * size / longer))
        return cls(size, source_rows, source_columns, (size - rows) // 2, (size - columns) // 2, rows, columns)

    def apply(self, pixels: RGBPixels, fill: tuple[int, int, int]) -> RGBPixels:
        """uint8 [source rows, source columns, 3] to uint8 [size, size, 3]."""
        shrinking = self.rows < self.source_rows or self.columns < self.source_columns
        content = pixels
        if (self.rows, self.columns) != (self.source_rows, self.source_columns):
            how = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
            content = np.asarray(cv2.resize(pixels, (self.columns, self.rows), interpolation=how), dtype=np.uint8)
        square = np.empty((self.size, self.size, 3), dtype=np.uint8)
        square[:] = np.asarray(fill, dtype=np.uint8)
        square[self.top : self.top + self.rows, self.left : self.left + self.columns] = content
        return square

    def undo(self, values: Float32) -> Float32:
        """A map over the square, float32 [h, w] of any resolution, to [source rows, source columns], bilinear."""
        if values.shape != (self.size, self.size):
            values = _bilinear(values, self.size, self.size)
        content = values[self.top : self.top + self.rows, self.left : self.left + self.columns]
        if content.shape != (self.source_rows, self.source_columns):
            content = _bilinear(content, self.source_rows, self.source_columns)
        return np.ascontiguousarray(content, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Prepared:
    """``tensor`` [1, 3, S, S] float32, ready for the session, and the way back."""

    tensor: Float32
    placement: Placement


def prepare(pixels: RGBPixels, steps: Sequence[Letterbox | Scale | Normalize], aspect: float = 1.0) -> Prepared:
    """Run the manifest's ``steps`` over uint8 RGB ``pixels`` [rows, columns, 3]. The letterbox comes first.

    ``aspect`` is the height of a pixel over its width.
    """
    first, *rest = steps
    assert isinstance(first, Letterbox), "the manifest reader lets no other list pass"
    placement = Placement.fit(int(pixels.shape[0]), int(pixels.shape[1]), first.size, aspect)
    values: Float32 = placement.apply(pixels, first.fill).astype(np.float32)
    for step in rest:
        if isinstance(step, Scale):
            values = values * np.float32(step.factor)
        elif isinstance(step, Normalize):
            mean: Float32 = np.array(step.mean, dtype=np.float32)
            deviation: Float32 = np.array(step.std, dtype=np.float32)
            values = (values - mean) / deviation
    return Prepared(np.ascontiguousarray(values.transpose(2, 0, 1)[None]), placement)


def _bilinear(values: Float32, rows: int, columns: int) -> Float32:
    return np.asarray(cv2.resize(values, (columns, rows), interpolation=cv2.INTER_LINEAR), dtype=np.float32)
