"""Pixels to finding: the whole algorithm on one screen, calling the rooms in order.

preprocess → network → calibrate → outline → quality → measure → explain → triage → finding
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import structlog
from opentelemetry import trace

from dermoscopy.domain import (
    ClassProbability,
    DermoscopicImage,
    Finding,
    Inference,
    LesionClass,
    Mask,
    ModelReference,
    Reason,
)
from dermoscopy.errors import AnalysisFailed, DermoscopyError
from models import explain, hair, measure, preprocess, quality, scale
from models.manifest import Manifest
from models.quality import Assessment, EmbeddingReferenceStatistics
from models.registry import ModelPackage
from models.session import InferenceSession, NetworkOutput
from models.triage import NAMES, Risks, decision_note, triage
from models.uncertainty import LOWEST_CONFIDENCE, Prediction, Rule, doubts

log = structlog.get_logger(__name__)
tracer = trace.get_tracer(__name__)


class LesionAlgorithm:
    """The `Algorithm` port over one model package. Holds no state between images: safe to call from many threads."""

    def __init__(self, package: ModelPackage, session: InferenceSession, *, code_version: str) -> None:
        """``code_version`` names this program's revision in every inference record.

        Raises `Misconfigured` or `WeightsMismatch` if the package's thresholds or embedding statistics are wrong.
        """
        self._package = package
        self._session = session
        self._code_version = code_version
        self._rule = Rule.of(package.manifest)
        self._limits = quality.limits(package.manifest.thresholds.quality)
        reference = package.read_embedding_reference()
        self._novelty = None if reference is None else EmbeddingReferenceStatistics.load(reference)

    @property
    def reference(self) -> ModelReference:
        """Which weights answer."""
        return self._package.reference

    def analyze(self, image: DermoscopicImage) -> Finding:
        """Everything the algorithm says of one image (pixels uint8 [rows, columns, 3]).

        The mask of the finding is the measured region: the largest one, holes filled. Abstaining is a result:
        ``primary`` is then ``None`` and ``abstention`` says why; probabilities and triage stand all the same.

        Raises `AnalysisFailed` (a step broke; the cause is chained) or `ModelServerBusy`.
        """
        manifest, limit, clock = self._package.manifest, self._limits, _Clock()
        points = manifest.thresholds
        with tracer.start_as_current_span("analyze") as span, _translated(clock):
            span.set_attributes({"model.name": manifest.name, "model.version": manifest.version})
            with clock.step("quality"):
                seen = quality.assess_image(image.pixels, limit)
            with clock.step("hair"):
                hairs = hair.find_hair(image.pixels)
                seen = seen.joined(quality.assess_hair(hairs))
            with clock.step("scale"):
                # a ruler is read along one direction: without square pixels it says nothing of the other
                unread = image.spacing_mm is not None or image.aspect != 1.0
                ruler = None if unread else scale.read_ruler(image.pixels)
            with clock.step("preprocess"):
                prepared = preprocess.prepare(image.pixels, manifest.preprocessing, image.aspect)
            with clock.step("inference"):
                output = checked(self._session.run(prepared.tensor), manifest)
            with clock.step("calibrate"):
                prediction = self._rule.predict(output.class_logits[0])
            with clock.step("outline"):
                logits = prepared.placement.undo(output.mask_logits[0, 0])
                region = measure.largest_region(logits >= _logit(points.mask))
                if region is not None and np.count_nonzero(region.mask) < limit["coverage_min"] * logits.size:
                    region = None
                mask = _mask(region, image)
                seen = seen.joined(quality.assess_lesion(region, image.rows, image.columns, limit))
                if region is not None:
                    seen = seen.joined(quality.assess_outline(output.mask_logits[0, 0], limit))
            with clock.step("novelty"):
                seen = seen.joined(self._assess_novelty(output))
            with clock.step("measure"):
                measurements = None if region is None else measure.measure(image, region, hairs, ruler)

            risks = _risks(manifest, prediction)
            reasons = (*seen.faults, *seen.doubts, *self._doubts(prediction))
            abstention = "; ".join(reason.words for reason in reasons) or None
            with clock.step("explain"):
                warned = risks.melanoma >= points.melanoma.probability
                shown = manifest.classes.index(LesionClass.MEL) if warned else prediction.called
                heatmap = explain.evidence_map(output.activation_map[0], shown, prepared.placement)
                explanation = explain.describe(
                    measurements, seen.scores["frame_contact"], hair=seen.scores["hair"], ruler=ruler
                )
            with clock.step("triage"):
                faults = tuple(fault.words for fault in seen.faults)
                verdict = triage(risks, points.melanoma, points.malignancy, faults=faults, abstention=abstention)
            with clock.step("digest"):
                mask_digest = hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()
                heatmap_digest = hashlib.sha256(heatmap.astype("<f4").tobytes()).hexdigest()

            span.set_attributes({"triage.tier": verdict.tier.value, "abstained": abstention is not None})
            log.info(
                "analysis.done",
                tier=verdict.tier.value,
                abstention=[one.code for one in reasons],
                milliseconds=clock.total,
            )
            return Finding(
                model=self.reference,
                classes=tuple(
                    ClassProbability(label, float(logit), float(probability))
                    for label, logit, probability in zip(
                        manifest.classes, prediction.logits, prediction.probabilities, strict=True
                    )
                ),
                primary=manifest.classes[prediction.called] if abstention is None else None,
                confidence=float(prediction.probabilities[prediction.called]),
                melanoma_risk=risks.melanoma,
                malignancy_risk=risks.malignancy,
                quality=Assessment(
                    seen.faults,
                    seen.doubts,
                    {**seen.scores, "entropy": prediction.entropy, "margin": prediction.margin},
                ).quality,
                measurements=measurements,
                triage=verdict,
                abstention=abstention,
                explanation=explanation,
                inference=Inference(
                    execution_provider=self._session.execution_provider,
                    precision=self._session.precision,
                    preprocessing_digest=manifest.preprocessing_digest,
                    calibration=self._rule.record(),
                    thresholds=self._thresholds(),
                    code_version=self._code_version,
                    mask_digest=mask_digest,
                    heatmap_digest=heatmap_digest,
                    milliseconds=clock.milliseconds,
                ),
                mask=mask,
                heatmap=heatmap,
                embedding=output.embedding[0],
                abstention_reasons=reasons,
                prediction_set=tuple(manifest.classes[k] for k in prediction.kept),
                decision_note=self._decision_note(prediction) if abstention is None else "",
            )

    @property
    def _lowest_confidence(self) -> float:
        point = self._package.manifest.thresholds.confidence
        return LOWEST_CONFIDENCE if point is None else point.probability

    def _doubts(self, prediction: Prediction) -> tuple[Reason, ...]:
        names = [NAMES[label] for label in self._rule.classes]
        return doubts(prediction, self._lowest_confidence, self._rule.largest_set, names)

    def _decision_note(self, prediction: Prediction) -> str:
        decision, classes = self._package.manifest.decision, self._rule.classes
        if decision is None:
            return ""
        probability = dict(zip(classes, prediction.probabilities.tolist(), strict=True))
        return decision_note(classes[prediction.called], classes[prediction.best], probability, decision.weights)

    def _assess_novelty(self, output: NetworkOutput) -> Assessment:
        embedding = self._package.manifest.thresholds.embedding
        if embedding is None or self._novelty is None:
            return Assessment((), (), {})
        distance = self._novelty.distance(output.embedding[0])
        novelty = self._novelty.novelty(output.embedding[0])
        return quality.assess_novelty(distance, embedding.distance_p99, self._limits, novelty)

    def _thresholds(self) -> dict[str, float]:
        """Every limit that took part in the answer, flat, for the record."""
        manifest = self._package.manifest
        points, sets = manifest.thresholds, manifest.prediction_sets
        used = {
            "mask": points.mask,
            "melanoma": points.melanoma.probability,
            "malignancy": points.malignancy.probability,
            "confidence": self._lowest_confidence,
            **{f"quality.{name}": value for name, value in self._limits.items()},
        }
        if points.embedding is not None:
            used["embedding.distance_p99"] = points.embedding.distance_p99
        if manifest.decision is not None:
            used |= {f"decision.{label}": manifest.decision.weights[label] for label in manifest.classes}
        if sets is not None:
            used |= {f"set.{label}": sets.thresholds[label] for label in manifest.classes}
            used |= {"set.alpha": sets.alpha, "set.largest": float(sets.largest_set)}
        return used


class _Clock:
    """Names the step that runs, opens its span and keeps its milliseconds."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self.current = "start"

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self.current = name
        started = time.perf_counter()
        with tracer.start_as_current_span(f"analyze.{name}"):
            yield
        self.milliseconds[name] = round(1000.0 * (time.perf_counter() - started), 3)

    @property
    def total(self) -> float:
        return round(sum(self.milliseconds.values()), 3)


@contextmanager
def _translated(clock: _Clock) -> Iterator[None]:
    """This room's edge: whatever a step raises leaves as one of ours, with the step named and the cause chained."""
    try:
        yield
    except DermoscopyError:
        raise
    except Exception as error:
        raise AnalysisFailed(f"the analysis broke in step {clock.current}: {type(error).__name__}: {error}") from error


def checked(output: NetworkOutput, manifest: Manifest) -> NetworkOutput:
    """Refuse outputs of a wrong shape or with values that are not finite: they would turn into silent nonsense."""
    size, classes = manifest.input.size, len(manifest.classes)
    expected = {
        "mask_logits": (1, 1, size, size),
        "class_logits": (1, classes),
        "activation_map": (1, classes, *output.activation_map.shape[2:]),
        "embedding": (1, *output.embedding.shape[1:]),
    }
    for name, shape in expected.items():
        values = getattr(output, name)
        if values.shape != shape or len(shape) != {"activation_map": 4, "embedding": 2}.get(name, len(shape)):
            raise AnalysisFailed(f"the network's {name} has shape {values.shape}, expected {shape}")
        if not np.isfinite(values).all():
            raise AnalysisFailed(f"the network's {name} holds values that are not finite")
    return output


def _logit(probability: float) -> float:
    return math.log(probability / (1.0 - probability))


def _mask(region: measure.Region | None, image: DermoscopicImage) -> Mask:
    mask = np.zeros((image.rows, image.columns), dtype=bool)
    if region is not None:
        top, left, bottom, right = region.box
        mask[top:bottom, left:right] = region.mask
    return mask


def _risks(manifest: Manifest, prediction: Prediction) -> Risks:
    by_class = dict(zip(manifest.classes, prediction.probabilities.tolist(), strict=True))
    return Risks(
        melanoma=by_class[LesionClass.MEL],
        malignancy=min(1.0, sum(by_class[label] for label in manifest.thresholds.malignancy.classes)),
        best=manifest.classes[prediction.best],
        confidence=prediction.confidence,
        called=manifest.classes[prediction.called],
    )
