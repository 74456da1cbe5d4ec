"""What a model package says of itself: the typed reading of ``manifest.yaml``.

Everything an inference depends on besides the weights stands there (preprocessing, calibration, thresholds), versioned
with the weights. A wrong manifest stops the service with the file and the field named; nothing falls back to a default
that could change an answer silently.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dermoscopy.domain import LesionClass
from dermoscopy.errors import Misconfigured

MANIFEST_NAME = "manifest.yaml"

Probability = Annotated[float, Field(gt=0.0, lt=1.0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Channels = tuple[float, float, float]
Byte = Annotated[int, Field(ge=0, le=255)]
Positive = Annotated[float, Field(gt=0.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class _Open(BaseModel):
    """Known fields are typed; a trainer may state more beside them (intervals, counts)."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, protected_namespaces=())


class Letterbox(_Strict):
    """Resize so that the longer side is ``size`` pixels, centred on a square filled with ``fill`` (RGB, 0…255)."""

    step: Literal["letterbox"]
    size: Annotated[int, Field(ge=8, le=4096)]
    fill: tuple[Byte, Byte, Byte]


class Scale(_Strict):
    """Multiply every value by ``factor``."""

    step: Literal["scale"]
    factor: Positive


class Normalize(_Strict):
    """Subtract ``mean`` and divide by ``std``, one value per channel in RGB order."""

    step: Literal["normalize"]
    mean: Channels
    std: tuple[Positive, Positive, Positive]


Step = Annotated[Letterbox | Scale | Normalize, Field(discriminator="step")]


class Licence(_Strict):
    """Conditions of use of the weights and of the data behind them."""

    weights: str
    data: str
    attribution: str


class ModelInput(_Strict):
    """The one input tensor: float32 [N, 3, ``size``, ``size``], RGB."""

    name: str
    size: Annotated[int, Field(ge=8, le=4096)]
    layout: Literal["NCHW"]
    colour: Literal["RGB"]


class ModelOutputs(_Strict):
    """Names of the four output tensors in the ONNX graph."""

    mask: str
    classes: str
    activation_map: str
    embedding: str


class _Calibration(_Open):
    """``frequencies``: the class frequencies of the images that the probabilities answer for, where that is known."""

    fold: str
    frequencies: Mapping[LesionClass, Share] | None = None


class TemperatureCalibration(_Calibration):
    """softmax(logits / ``temperature``) (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017)."""

    method: Literal["temperature"]
    temperature: Positive


class VectorCalibration(_Calibration):
    """softmax(``scale`` · log p + ``bias``), p = softmax(logits): Dirichlet calibration with a diagonal matrix."""

    method: Literal["vector"]
    scale: Mapping[LesionClass, Positive]
    bias: Mapping[LesionClass, float]


class DirichletCalibration(_Calibration):
    """softmax(``weights`` log p + ``bias``), p = softmax(logits) (Kull et al., NeurIPS 2019, arXiv:1910.12656).

    ``weights`` holds one row per class whose probability it makes.
    """

    method: Literal["dirichlet"]
    weights: Mapping[LesionClass, Mapping[LesionClass, float]]
    bias: Mapping[LesionClass, float]


Calibration = Annotated[
    TemperatureCalibration | VectorCalibration | DirichletCalibration, Field(discriminator="method")
]


class Decision(_Open):
    """The class that is called has the highest probability × weight (Elkan, "The Foundations of Cost-Sensitive
    Learning", IJCAI 2001): a weight says how many times as bad it is to overlook that class.
    """

    weights: Mapping[LesionClass, Positive]


class PredictionSets(_Open):
    """Class-conditional conformal sets: a class is in the set when its probability reaches its threshold.

    Score 1 - p (Sadinle, Lei, Wasserman, JASA 2019), one quantile per class (Vovk, ACML 2012): of the images of each
    class all but ``alpha`` have it in their set. An answer with more than ``largest_set`` classes is an abstention.
    """

    method: Literal["mondrian-lac"]
    alpha: Probability
    thresholds: Mapping[LesionClass, Share]
    largest_set: Annotated[int, Field(ge=1)]


class OperatingPoint(_Open):
    """A probability at or above which a risk counts, and what that cost on the fold where it was chosen."""

    probability: Probability
    sensitivity: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    specificity: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    fold: str | None = None


class MalignancyPoint(OperatingPoint):
    """Operating point of the summed probability of ``classes``."""

    classes: Annotated[tuple[LesionClass, ...], Field(min_length=1)]


class EmbeddingReference(_Open):
    """File with the training embeddings' statistics; ``distance_p99`` is the 99th percentile in distribution."""

    file: str
    sha256: Digest
    distance_p99: Positive

    @field_validator("file")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        return _require_plain_name(value)


class ConfidencePoint(_Open):
    """Below ``probability`` of the most probable class the algorithm says that it does not know."""

    probability: Probability


class Repeatability(_Open):
    """What 95 % of real picture pairs of one lesion differ by at most, measured through the whole algorithm.

    ``area_log`` is the natural logarithm of the factor of areas on a common scale; risks are shares (0…1).
    """

    pairs: Annotated[int, Field(ge=20)]
    area_log: Annotated[float, Field(gt=0)]
    asymmetry: Annotated[float, Field(ge=0)]
    border_irregularity: Annotated[float, Field(ge=0)]
    colour_count: Annotated[float, Field(ge=0)]
    colour_variety: Annotated[float, Field(ge=0)]
    melanoma_risk: Probability
    malignancy_risk: Probability


class Thresholds(_Strict):
    """Decision thresholds. ``quality`` overrides single defaults of `models.quality` by name."""

    mask: Probability
    melanoma: OperatingPoint
    malignancy: MalignancyPoint
    confidence: ConfidencePoint | None = None
    quality: Mapping[str, float] = Field(default_factory=dict)
    embedding: EmbeddingReference | None = None
    change: Repeatability | None = None
    """Absent: of no difference between two pictures it is known whether it is more than noise."""


class Form(_Open):
    """The same network in another number format, a file of its own; ``parity`` says how far its answers move."""

    file: str
    sha256: Digest
    bytes: Annotated[int, Field(gt=0)]
    parity: Mapping[str, Any]

    @field_validator("file")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        return _require_plain_name(value)


class Manifest(_Strict):
    """One model package, schema 1."""

    schema_version: Literal[1] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    version: Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]*$")]
    title: str
    file: str
    sha256: Digest
    bytes: Annotated[int, Field(gt=0)]
    licence: Licence
    intended_use: str
    input: ModelInput
    outputs: ModelOutputs
    preprocessing: Annotated[tuple[Step, ...], Field(min_length=1)]
    preprocessing_digest: Digest
    classes: Annotated[tuple[LesionClass, ...], Field(min_length=2)]
    calibration: Calibration
    thresholds: Thresholds
    decision: Decision | None = None
    """Absent: the most probable class is called."""
    prediction_sets: PredictionSets | None = None
    forms: Mapping[Literal["fp16", "int8"], Form] = Field(default_factory=dict)
    """Further forms of the weights that may be used; ``file`` is the FP32 form."""
    metrics: Mapping[str, Any] = Field(default_factory=dict)
    data: Mapping[str, Any] = Field(default_factory=dict)
    training: Mapping[str, Any] = Field(default_factory=dict)

    @field_validator("file")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        return _require_plain_name(value)

    @field_validator("classes")
    @classmethod
    def _alphabetical(cls, value: tuple[LesionClass, ...]) -> tuple[LesionClass, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError("classes must be unique and in alphabetical order, as the class logits are")
        if LesionClass.MEL not in value:
            raise ValueError("a model that does not know melanoma (mel) cannot be used here")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        boxes = [step for step in self.preprocessing if isinstance(step, Letterbox)]
        if len(boxes) != 1 or self.preprocessing[0] is not boxes[0]:
            raise ValueError("preprocessing must start with its one letterbox step")
        if boxes[0].size != self.input.size:
            raise ValueError(f"preprocessing letterbox size {boxes[0].size} is not input.size {self.input.size}")
        absent = [label for label in self.thresholds.malignancy.classes if label not in self.classes]
        if absent:
            raise ValueError(f"thresholds.malignancy.classes names {', '.join(absent)}, which the model does not know")
        for name, mapping in self._per_class():
            if set(mapping) != set(self.classes):
                odd = ", ".join(sorted(set(mapping) ^ set(self.classes)))
                raise ValueError(f"{name} must name every class of the model once and no other; it differs in: {odd}")
        return self

    def _per_class(self) -> Iterator[tuple[str, Mapping[LesionClass, Any]]]:
        """Every mapping that must have exactly the model's classes as keys, with its place in the file."""
        fitted = self.calibration
        if fitted.frequencies is not None:
            yield "calibration.frequencies", fitted.frequencies
        if isinstance(fitted, VectorCalibration):
            yield "calibration.scale", fitted.scale
        if isinstance(fitted, DirichletCalibration):
            yield "calibration.weights", fitted.weights
            for label, row in fitted.weights.items():
                yield f"calibration.weights.{label}", row
        if not isinstance(fitted, TemperatureCalibration):
            yield "calibration.bias", fitted.bias
        if self.decision is not None:
            yield "decision.weights", self.decision.weights
        if self.prediction_sets is not None:
            yield "prediction_sets.thresholds", self.prediction_sets.thresholds

    @property
    def letterbox(self) -> Letterbox:
        """The one geometric step."""
        step = self.preprocessing[0]
        assert isinstance(step, Letterbox)
        return step


def preprocessing_digest(steps: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 of the canonical JSON (sorted keys, no spaces) of ``steps`` as they stand in the manifest."""
    canonical = json.dumps(list(steps), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def read_manifest(path: Path) -> Manifest:
    """Read and check one ``manifest.yaml``.

    Raises `Misconfigured` naming the file and every field that is wrong.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Misconfigured(f"{path}: no such file; a model package needs a {MANIFEST_NAME}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise Misconfigured(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise Misconfigured(f"{path}: must hold a mapping of fields, not {type(document).__name__}")
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(_describe(problem) for problem in error.errors(include_url=False))
        raise Misconfigured(f"{path}: {problems}") from error
    actual = preprocessing_digest(document["preprocessing"])
    if actual != manifest.preprocessing_digest:
        raise Misconfigured(
            f"{path}: preprocessing_digest: states {manifest.preprocessing_digest}, the steps have {actual}; "
            "the steps were edited after export"
        )
    return manifest


def _require_plain_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
        raise ValueError("must be a plain file name inside the package folder")
    return value


def _describe(problem: Mapping[str, Any]) -> str:
    """One pydantic problem as ``field.path: what is wrong``, with the nearest known name for a typo."""
    location = [str(part) for part in problem["loc"]]
    name = ".".join(location) or "manifest"
    if problem["type"] == "extra_forbidden" and location:
        near = difflib.get_close_matches(location[-1], _known_names(), n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        return f"{name}: unknown field{hint}"
    return f"{name}: {problem['msg']}"


def _known_names() -> list[str]:
    parts: tuple[type[BaseModel], ...] = (
        Manifest, Licence, ModelInput, ModelOutputs, Letterbox, Scale, Normalize, TemperatureCalibration,
        VectorCalibration, DirichletCalibration, Decision, PredictionSets, Thresholds, OperatingPoint, MalignancyPoint,
        EmbeddingReference, ConfidencePoint, Form,
    )  # fmt: skip
    return sorted({field.alias or name for part in parts for name, field in part.model_fields.items()})
