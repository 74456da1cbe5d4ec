"""Is this picture fit for analysis? Image statistics before the network, lesion and embedding after it.

*Faults* say that the picture is no dermoscopic photograph at all (black frame, noise, document): what the network
answers then means nothing. *Doubts* say that a real picture is poor or the lesion does not sit well in it. Both make
the image unusable; only doubts leave a melanoma warning standing (see `models.triage`).

The limits are conservative: they are set outside the range seen on HAM10000 and ISIC 2018 Task 1 (docs/analysis.md),
so that an ordinary dermoscopic image is never refused. A manifest may override each by name in ``thresholds.quality``.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from dermoscopy.domain import Mask, Quality, Reason, RGBPixels
from dermoscopy.errors import Misconfigured
from models.measure import Region, frame_contact

DEFAULTS: Mapping[str, float] = {
    "shorter_side_min": 96.0,
    "sharpness_min": 0.0012,
    "busyness_max": 40_000.0,
    "detail_min": 2.0,
    "brightness_min": 35.0,
    "brightness_max": 240.0,
    "highlight_min": 60.0,
    "contrast_min": 2.5,
    "glare_max": 0.30,
    "chroma_min": 1.5,
    "skin_min": 0.0005,
    "frame_contact_max": 0.50,
    "coverage_min": 0.0005,
    "coverage_max": 0.95,
    "embedding_distance_factor": 1.5,
    "novelty_max": 1.0,
    "outline_certainty_min": 0.9,
}
"""Limits of the scores below; ``…_min`` and ``…_max`` bound the score of that name."""
_WORKING_SIDE = 384
_SUREST = 0.005


@dataclass(frozen=True, slots=True)
class Assessment:
    """What was found wrong so far. ``scores`` holds every statistic by name, whether or not it crossed its limit."""

    faults: tuple[Reason, ...]
    doubts: tuple[Reason, ...]
    scores: Mapping[str, float]

    def joined(self, other: Assessment) -> Assessment:
        """Both assessments as one."""
        return Assessment(self.faults + other.faults, self.doubts + other.doubts, {**self.scores, **other.scores})

    @property
    def quality(self) -> Quality:
        """As the domain says it: usable when nothing is wrong."""
        reasons = tuple(reason.words for reason in self.faults + self.doubts)
        return Quality(usable=not reasons, reasons=reasons, scores=self.scores)


def limits(overrides: Mapping[str, float]) -> dict[str, float]:
    """The defaults with a manifest's ``thresholds.quality`` over them. Raises `Misconfigured` on an unknown name."""
    unknown = sorted(set(overrides) - set(DEFAULTS))
    if unknown:
        raise Misconfigured(
            f"thresholds.quality: unknown limit {', '.join(unknown)}; there is: {', '.join(sorted(DEFAULTS))}"
        )
    return {**DEFAULTS, **{name: float(value) for name, value in overrides.items()}}


def assess_image(pixels: RGBPixels, limit: Mapping[str, float]) -> Assessment:
    """Statistics of uint8 RGB ``pixels`` [rows, columns, 3], shrunk to at most 384 pixels so that size matters little.

    ``detail`` is the variance of the Laplacian of the grey image (Pech-Pacheco et al., ICPR 2000); ``sharpness`` is
    that over the variance of the grey image, which does not change with exposure or contrast. White noise has a
    sharpness of 20, dermoscopy 0.003…1.4. Their product, ``busyness``, tells noise and text from skin: a plain patch
    with a little sensor noise has a high sharpness and little detail, a hairy lesion the other way round. It is taken
    at the centre in full resolution as well, because shrinking averages noise away.
    """
    scores = _statistics(pixels)
    faults: list[Reason] = []
    doubts: list[Reason] = []
    if scores["shorter_side"] < limit["shorter_side_min"]:
        faults.append(Reason("too_small", f"the image is too small (shorter side {scores['shorter_side']:.0f} pixels)"))
    if scores["highlight"] < limit["highlight_min"]:
        faults.append(Reason("not_dermoscopy", "the frame is black or nearly black"))
    elif scores["contrast"] < limit["contrast_min"]:
        faults.append(Reason("not_dermoscopy", "the frame is nearly uniform"))
    else:
        if scores["busyness"] > limit["busyness_max"]:
            faults.append(Reason("not_dermoscopy", "the frame holds noise or text, not a photograph of skin"))
        if scores["sharpness"] < limit["sharpness_min"] or scores["detail"] < limit["detail_min"]:
            doubts.append(Reason("blur", "the image is blurred"))
        if scores["brightness"] < limit["brightness_min"]:
            doubts.append(Reason("exposure", "the image is underexposed"))
        elif scores["brightness"] > limit["brightness_max"]:
            doubts.append(Reason("exposure", "the image is overexposed"))
        elif scores["chroma"] < limit["chroma_min"]:  # colour can be judged only where the exposure leaves some
            faults.append(Reason("not_dermoscopy", "the frame has no colour"))
        elif scores["skin"] < limit["skin_min"]:
            faults.append(Reason("not_dermoscopy", "the colours are not those of skin"))
        elif scores["glare"] > limit["glare_max"]:
            doubts.append(Reason("glare", "glare covers much of the image"))
    return Assessment(tuple(faults), tuple(doubts), scores)


def assess_lesion(region: Region | None, rows: int, columns: int, limit: Mapping[str, float]) -> Assessment:
    """How the lesion sits in the frame: found at all, cut off by the edge, filling everything."""
    if region is None:
        return Assessment((), (Reason("no_lesion", "no lesion found"),), {"coverage": 0.0, "frame_contact": 0.0})
    coverage = float(np.count_nonzero(region.mask)) / (rows * columns)
    contact = frame_contact(region, rows, columns)
    doubts: list[Reason] = []
    if coverage > limit["coverage_max"]:
        doubts.append(Reason("lesion_cut_off", "the lesion fills the frame, so its border cannot be seen"))
    elif contact > limit["frame_contact_max"]:
        doubts.append(Reason("lesion_cut_off", "the lesion is cut off by the edge of the frame"))
    return Assessment((), tuple(doubts), {"coverage": coverage, "frame_contact": contact})


def assess_outline(mask_logits: npt.NDArray[np.float32], limit: Mapping[str, float]) -> Assessment:
    """How sure the network is of its surest pixels: mean probability of the top 0.5 % of ``mask_logits`` [h, w].

    A lesion has a middle that is lesion beyond doubt. On skin without one the network, which never saw such an image in
    training, still draws something, but is nowhere sure of it.
    """
    count = max(1, round(_SUREST * mask_logits.size))
    surest = np.partition(mask_logits.ravel(), -count)[-count:].astype(np.float64)
    certainty = float(np.mean(1.0 / (1.0 + np.exp(-np.clip(surest, -30.0, 30.0)))))
    unsure = certainty < limit["outline_certainty_min"]
    doubts = (Reason("no_lesion", "no lesion stands out from the skin"),) if unsure else ()
    return Assessment((), doubts, {"outline_certainty": certainty})


def assess_hair(hair: Mask) -> Assessment:
    """The share of the frame under ``hair`` [rows, columns]. It is recorded and said, and is no reason to abstain."""
    return Assessment((), (), {"hair": float(hair.mean())})


@dataclass(frozen=True, slots=True)
class EmbeddingReferenceStatistics:
    """Class means and shared precision of the training embeddings after a PCA.

    ``mean`` [D] and ``components`` [K, D] project an embedding; ``class_means`` [C, K]; ``precision`` [K, K].
    ``leading`` [L, D] spans what training images differ in most, and ``scaling`` [2, 2] (offset, spread) brings the
    logarithms of distance and residual to one scale; packages before 1.1 have neither.
    """

    mean: npt.NDArray[np.float64]
    components: npt.NDArray[np.float64]
    class_means: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64]
    leading: npt.NDArray[np.float64] | None = None
    scaling: npt.NDArray[np.float64] | None = None

    @classmethod
    def load(cls, data: bytes) -> EmbeddingReferenceStatistics:
        """Read the ``.npz`` that training wrote. Raises `Misconfigured` if arrays are absent or do not fit together."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                known = set(arrays.files)
                wanted = [name for name in cls.__slots__ if name in known or name not in ("leading", "scaling")]
                read = {name: np.asarray(arrays[name], np.float64) for name in wanted}
        except (KeyError, ValueError, OSError) as error:
            raise Misconfigured(f"embedding reference cannot be read: {error}") from error
        k, d = read["components"].shape
        fits = (
            read["mean"].shape == (d,) and read["class_means"].shape[1:] == (k,) and read["precision"].shape == (k, k)
        )
        fits = fits and read.get("leading", read["components"]).shape[1:] == (d,)
        if not fits or read.get("scaling", np.zeros((2, 2))).shape != (2, 2):
            shapes = ", ".join(f"{name} {values.shape}" for name, values in read.items())
            raise Misconfigured(f"embedding reference: shapes do not fit together: {shapes}")
        return cls(**read)

    def distance(self, embedding: npt.NDArray[np.float32]) -> float:
        """Mahalanobis distance of ``embedding`` [D] to the nearest class (Lee et al., NeurIPS 2018)."""
        point = self.components @ (np.asarray(embedding, np.float64) - self.mean)
        offsets = self.class_means - point
        squared = np.einsum("ck,kl,cl->c", offsets, self.precision, offsets)
        return float(np.sqrt(max(0.0, float(squared.min()))))

    def residual(self, embedding: npt.NDArray[np.float32]) -> float:
        """Share (0…1) of the length of ``embedding`` [D] that lies outside what training images differ in most.

        After Wang et al., "ViM: Out-Of-Distribution with Virtual-logit Matching", CVPR 2022. Raises `Misconfigured`
        where the reference has no leading directions.
        """
        if self.leading is None:
            raise Misconfigured("embedding reference: no leading directions, so there is no residual")
        values = np.asarray(embedding, np.float64)
        offset = values - self.mean
        outside = offset - self.leading.T @ (self.leading @ offset)
        return float(np.linalg.norm(outside) / max(float(np.linalg.norm(values)), 1e-12))

    def novelty(self, embedding: npt.NDArray[np.float32]) -> float | None:
        """Distance and residual as one figure, 1 at the limit chosen on the validation fold; ``None`` without them."""
        if self.leading is None or self.scaling is None:
            return None
        measured = np.log(np.maximum([self.distance(embedding), self.residual(embedding)], 1e-12))
        return float(((measured - self.scaling[:, 0]) / self.scaling[:, 1]).sum())


def assess_novelty(
    distance: float, distance_p99: float, limit: Mapping[str, float], novelty: float | None = None
) -> Assessment:
    """Out of distribution when ``novelty`` is beyond its limit or, in packages without it, when the embedding lies
    farther than ``embedding_distance_factor`` × the 99th percentile of known images.
    """
    novel = distance > limit["embedding_distance_factor"] * distance_p99
    if novelty is not None:
        novel = novelty > limit["novelty_max"]
    words = "the image is unlike everything the model was trained on"
    doubts = (Reason("unlike_training", words),) if novel else ()
    scores = {"embedding_distance": distance, "embedding_distance_relative": distance / distance_p99}
    if novelty is not None:
        scores["novelty"] = novelty
    return Assessment((), doubts, scores)


def _statistics(pixels: RGBPixels) -> dict[str, float]:
    rows, columns = int(pixels.shape[0]), int(pixels.shape[1])
    scale = min(1.0, _WORKING_SIDE / max(rows, columns))
    small = pixels
    if scale < 1.0:
        size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
        small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    contrast = float(grey.std())
    detail = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).reshape(-1, 3)
    a, b = lab[:, 1].astype(np.float32) - 128.0, lab[:, 2].astype(np.float32) - 128.0
    chroma = np.sqrt(a * a + b * b)
    lit = lab[:, 0] > 38
    # Hue between -40° (pink, purple) and 110° (yellow): half-planes instead of an arc tangent per pixel.
    warm = (a * 0.6428 + b * 0.7660 > 0.0) & (a * 0.9397 + b * 0.3420 > 0.0)
    return {
        "shorter_side": float(min(rows, columns)),
        "detail": detail,
        "sharpness": detail / max(contrast * contrast, 1e-6),
        "busyness": max(_busyness(grey), _busyness(_centre(pixels))),
        "brightness": float(grey.mean()),
        "highlight": float(np.percentile(grey, 95)),
        "contrast": contrast,
        "glare": float((small.min(axis=2) >= 250).mean()),
        "chroma": float(chroma.mean()),
        "skin": float(np.count_nonzero(warm & lit & (chroma > 4.0))) / max(1.0, float(np.count_nonzero(lit))),
    }


def _busyness(grey: npt.NDArray[np.uint8]) -> float:
    detail = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    return detail * detail / max(float(grey.var()), 1e-6)


def _centre(pixels: RGBPixels) -> npt.NDArray[np.uint8]:
    """Grey centre of at most 384 × 384 pixels, in full resolution."""
    top, left = (max(0, (int(side) - _WORKING_SIDE) // 2) for side in pixels.shape[:2])
    centre = np.ascontiguousarray(pixels[top : top + _WORKING_SIDE, left : left + _WORKING_SIDE])
    return np.asarray(cv2.cvtColor(centre, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
