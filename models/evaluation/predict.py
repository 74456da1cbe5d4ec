"""What an installed package answers for labelled images: run-time preprocessing, ONNX on the CPU, its own calibration.

`Predictor.answers` is the network path (fast: classes, embedding, outline). `Predictor.analyze` is the whole algorithm,
with the quality and novelty gates, exactly as the service runs it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from dermoscopy.domain import DermoscopicImage, Finding, Mask, RGBPixels
from dermoscopy.errors import UnreadableObject
from models import measure, quality
from models.analyze import LesionAlgorithm
from models.evaluation.dataset import Case, jaccard
from models.manifest import Manifest
from models.preprocess import Placement, Prepared, prepare
from models.registry import ModelPackage
from models.session import NetworkOutput, OnnxSession
from models.uncertainty import Rule

BATCH = 16
CODE_VERSION = "evaluation"

#: Called with a case whose image or mask cannot be read; the case is then left out.
OnBad = Callable[[Case, UnreadableObject], None]


@dataclass(frozen=True)
class Answers:
    """N images, in the order given. ``jaccard`` is not a number where there is no reference mask."""

    ids: tuple[str, ...]
    logits: npt.NDArray[np.float32]
    """[N, C]"""
    probability: npt.NDArray[np.float64]
    """[N, C], calibrated as the manifest says"""
    called: npt.NDArray[np.int64]
    """[N] index of the class that the service would call (the manifest's decision rule), abstaining aside"""
    embedding: npt.NDArray[np.float32]
    """[N, D]"""
    jaccard: npt.NDArray[np.float64]
    """[N] of the service's outline at source size"""
    reference_share: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """[N] share of the frame (or of the mask's window) that the reference mask covers; not a number without one"""
    drawn_share: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """[N] the same for the service's outline; not a number where there is no reference"""


@dataclass(frozen=True)
class _Ready:
    """A decoded case, with the network's input."""

    case: Case
    prepared: Prepared
    mask: Mask | None


class Predictor:
    """One installed package on the CPU. Keeps no state between images."""

    def __init__(self, package: ModelPackage, threads: int = 2) -> None:
        """Check the digests and load the weights. Raises `Misconfigured` or `WeightsMismatch`."""
        self.package = package
        self.manifest: Manifest = package.manifest
        self._smallest = quality.limits(self.manifest.thresholds.quality)["coverage_min"]
        self._session = OnnxSession.open(package, threads=threads)
        self._algorithm = LesionAlgorithm(package, self._session, code_version=CODE_VERSION)

    def answers(self, cases: Iterable[Case], progress: str = "", bad: OnBad | None = None) -> Answers:
        """The network's answers for ``cases``; ``progress`` is the words beside a progress bar (none if empty).

        Raises `UnreadableObject` at the first image or mask that cannot be read, unless ``bad`` takes it.
        """
        ids: list[str] = []
        logits: list[npt.NDArray[np.float32]] = []
        embeddings: list[npt.NDArray[np.float32]] = []
        overlaps: list[tuple[float, float, float]] = []
        for ready in self._batches(watched(cases, progress), bad):
            output = self._session.run(np.concatenate([one.prepared.tensor for one in ready]))
            logits.append(output.class_logits)
            embeddings.append(output.embedding)
            for one, values in zip(ready, output.mask_logits, strict=True):
                ids.append(one.case.id)
                overlaps.append(self._overlap(one, values[0]))
        stacked = np.concatenate(logits) if logits else np.zeros((0, len(self.manifest.classes)), np.float32)
        probability, called = self.calibrated(stacked)
        measured = np.array(overlaps, np.float64).reshape(-1, 3)
        return Answers(
            tuple(ids),
            stacked,
            probability,
            called,
            np.concatenate(embeddings) if embeddings else np.zeros((0, 0), np.float32),
            *measured.T,
        )

    def calibrated(self, logits: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Calibrated probabilities [N, C] and the called class [N] of class ``logits`` [N, C]."""
        rule = Rule.of(self.manifest)
        probability = rule.probabilities(logits)
        return probability, rule.called(probability)

    def network(self, pixels: RGBPixels) -> tuple[NetworkOutput, Placement]:
        """The raw outputs for one image, uint8 [rows, columns, 3], and where it lies in the network's square."""
        prepared = prepare(pixels, self.manifest.preprocessing)
        return self._session.run(prepared.tensor), prepared.placement

    def outline(self, mask_logits: npt.NDArray[np.float32], placement: Placement) -> Mask:
        """The service's outline, bool [rows, columns]: the largest region of the mask at source size, holes filled.

        Empty where it is smaller than the package's ``coverage_min``: the service then says that it found none.
        """
        values = placement.undo(mask_logits)
        drawn = np.zeros(values.shape, dtype=bool)
        point = self.manifest.thresholds.mask
        region = measure.largest_region(values >= math.log(point / (1.0 - point)))
        if region is not None and np.count_nonzero(region.mask) >= self._smallest * values.size:
            top, left, bottom, right = region.box
            drawn[top:bottom, left:right] = region.mask
        return drawn

    def analyze(self, pixels: RGBPixels) -> Finding:
        """The whole algorithm on one image, uint8 [rows, columns, 3]. Raises `AnalysisFailed`."""
        digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
        return self._algorithm.analyze(DermoscopicImage(pixels, digest))

    def _batches(self, cases: Iterable[Case], bad: OnBad | None) -> Iterator[list[_Ready]]:
        """Decoded and preprocessed batches, decoding in two threads."""
        waiting = iter(cases)
        with ThreadPoolExecutor(2) as pool:
            while batch := list(islice(waiting, BATCH)):
                ready: list[_Ready] = []
                for case, result in zip(batch, [pool.submit(self._ready, case) for case in batch], strict=True):
                    try:
                        ready.append(result.result())
                    except UnreadableObject as error:
                        if bad is None:
                            raise
                        bad(case, error)
                if ready:
                    yield ready

    def _ready(self, case: Case) -> _Ready:
        pixels = case.pixels()
        mask = case.mask()
        top, left, bottom, right = case.window or (0, 0, *pixels.shape[:2])
        if mask is not None and mask.shape != (bottom - top, right - left):
            raise UnreadableObject(
                f"{case.id}: its mask has {mask.shape[1]} × {mask.shape[0]} pixels, "
                f"the image has {right - left} × {bottom - top}"
            )
        return _Ready(case, prepare(pixels, self.manifest.preprocessing), mask)

    def _overlap(self, one: _Ready, mask_logits: npt.NDArray[np.float32]) -> tuple[float, float, float]:
        """Jaccard, and the shares of the frame that the reference and the drawn outline cover."""
        if one.mask is None:
            return math.nan, math.nan, math.nan
        drawn = self.outline(mask_logits, one.prepared.placement)
        if one.case.window is not None:
            top, left, bottom, right = one.case.window
            drawn = drawn[top:bottom, left:right]
        return jaccard(drawn, one.mask), float(one.mask.mean()), float(drawn.mean())


def watched(cases: Iterable[Case], words: str) -> Iterable[Case]:
    """The same cases, with a progress bar on standard error; none where ``words`` is empty."""
    return track(cases, description=words, console=Console(stderr=True), transient=True) if words else cases
