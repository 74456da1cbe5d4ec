"""The configuration of one training run: a YAML file, checked field by field before anything heavy starts."""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dermoscopy.errors import Misconfigured

#: The seven diagnostic groups of HAM10000, alphabetical: the order of ``class_logits`` everywhere.
CLASSES: tuple[str, ...] = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Colour = Annotated[tuple[int, int, int], Field(description="RGB, 0 to 255")]
#: How a collection lies on disk; one adapter each in :mod:`models.training.layouts`.
Layout = Literal[
    "ham10000-archives", "isic2018-task1-archives", "ham10000", "isic2018-task1", "isic2018-task3", "table"
]  # fmt: skip
#: What can be done to an image without changing its diagnosis; see :class:`models.training.export.AveragedViews`.
View = Literal["identity", "mirror", "flip", "turn"]
CollectionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class ConfigurationInvalid(Misconfigured):
    """The configuration file cannot be used; the message names each field and what is wrong with it."""


class Section(BaseModel):
    """A frozen part of the configuration that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Architecture(Section):
    """Which network of the zoo, and its options."""

    name: str
    pretrained: bool = True
    classes: int = len(CLASSES)
    decoder_width: Annotated[int, Field(ge=8)] = 96
    dropout: Fraction = 0.2
    frozen_blocks: Annotated[int, Field(ge=0)] = Field(3, description="encoder blocks that keep ImageNet weights")
    weights: str | None = Field(
        None, description="encoder weights to start from: a file, a folder or a hub id; needs ``pretrained``"
    )
    width: Positive = Field(1.0, description="factor on the encoder's channels")
    depth: Positive = Field(1.0, description="factor on the encoder's blocks per stage")

    @model_validator(mode="after")
    def weights_are_used(self) -> Architecture:
        """Weights that would not be loaded are a mistake."""
        if self.weights is not None and not self.pretrained:
            raise ValueError("weights are named but pretrained is false")
        return self


class Input(Section):
    """The frame that the network sees: letterboxed to ``size``, then normalised."""

    size: Annotated[int, Field(ge=64, multiple_of=32)] = 224
    fill: Colour
    mean: tuple[Positive, Positive, Positive]
    std: tuple[Positive, Positive, Positive]

    def preprocessing(self) -> list[dict[str, Any]]:
        """The steps of run-time preprocessing, in order, as the manifest lists them."""
        return [
            {"step": "letterbox", "size": self.size, "fill": list(self.fill)},
            {"step": "scale", "factor": 1 / 255},
            {"step": "normalize", "mean": list(self.mean), "std": list(self.std)},
        ]


class Collection(Section):
    """Where the images of one collection are, and which fold each belongs to."""

    folder: str = Field(".", description="below the folder that --data names")
    table: str = Field("images.csv", description="layout `table` only: the CSV file in that folder")
    split: str | None = Field(
        None,
        description="file name in models/training/splits, or a path; none: made by lesion when the run begins",
    )


class FurtherCollection(Collection):
    """A collection beside the first one that lends its outlines and, where it has them, its diagnoses."""

    collection: CollectionName
    layout: Layout = "isic2018-task1-archives"


class Data(Collection):
    """The collections, and how many images of each class one epoch draws."""

    dataset: CollectionName = "HAM10000"
    layout: Layout = "ham10000-archives"
    further: tuple[FurtherCollection, ...] = ()
    known_copies: str = Field(
        "known-copies.csv", description="near copies that were looked at; a file in models/training/splits, or a path"
    )
    sampling: Literal["per_class", "natural"] = Field(
        "per_class", description="per_class: `per_epoch` images of each; natural: every training image once an epoch"
    )
    undiagnosed_per_epoch: Annotated[int, Field(ge=0)] = Field(
        0, description="images with an outline and no diagnosis that one epoch draws"
    )
    per_epoch: dict[str, Annotated[int, Field(ge=1)]] = Field({}, description="images drawn per epoch, by class")

    @model_validator(mode="after")
    def every_class_is_drawn(self) -> Data:
        """A class that is never drawn cannot be learned; a class that does not exist is a typing error."""
        if self.sampling == "per_class" and set(self.per_epoch) != set(CLASSES):
            raise ValueError(f"per_epoch needs exactly the classes {', '.join(CLASSES)}")
        if self.sampling == "natural" and (self.per_epoch or self.undiagnosed_per_epoch):
            raise ValueError("sampling natural draws every image once: leave out per_epoch and undiagnosed_per_epoch")
        return self

    @model_validator(mode="after")
    def collections_have_names_of_their_own(self) -> Data:
        """Each collection has one folder in the cache."""
        names = [self.dataset.lower(), *(further.collection.lower() for further in self.further)]
        if len(set(names)) < len(names):
            raise ValueError(f"two collections of one name among {', '.join(names)}")
        return self


class Augmentation(Section):
    """How training images are varied; see :mod:`models.training.augmentation` for each step."""

    frame_probability: Fraction = Field(0.4, description="share shown as a wide or tall frame with letterbox bars")
    zoom: tuple[Positive, Positive] = (0.72, 1.3)
    rotation: bool = True
    brightness: Fraction = 0.1
    contrast: Fraction = 0.2
    saturation: Fraction = 0.15
    tint: Fraction = 0.06
    blur_probability: Fraction = 0.1
    jpeg_probability: Fraction = 0.1
    vignette_probability: Fraction = 0.15
    hair_probability: Fraction = 0.12
    ruler_probability: Fraction = 0.05
    gamma: Fraction = 0.0
    constancy_probability: Fraction = Field(0.0, description="share whose lamp colour is taken out (shades of grey)")
    bubble_probability: Fraction = Field(0.0, description="share with bubbles and reflections of contact gel")


class Losses(Section):
    """The terms by name and their weights; see :mod:`models.training.losses`."""

    diagnosis: Literal["adjusted_cross_entropy", "weighted_cross_entropy"] = "adjusted_cross_entropy"
    outline: Literal["dice_bce", "jaccard", "jaccard_bce"] = "dice_bce"
    label_smoothing: Fraction = 0.05
    melanoma_focal: Annotated[float, Field(ge=0.0)] = 0.3
    focal_gamma: Annotated[float, Field(ge=0.0)] = 2.0
    mask: Annotated[float, Field(ge=0.0)] = 1.0


class Optimisation(Section):
    """One-cycle AdamW with an exponential moving average of the weights."""

    start_from: str | None = Field(
        None, description="configuration beside this one whose run gives the first weights (trained first if need be)"
    )
    watch: Literal["balanced_accuracy", "macro_auc", "jaccard"] = Field(
        "balanced_accuracy", description="what the kept epoch is chosen by, beside the mean Jaccard"
    )
    patience: Annotated[int, Field(ge=1)] | None = Field(
        None, description="epochs without a better `watch` after which the run ends early; none: it does not"
    )
    thaw: dict[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=0)]] = Field(
        {}, description="gradual unfreezing: from epoch (counted from 1) on, so many encoder blocks are frozen"
    )
    device: Literal["cpu", "cuda"] = "cpu"

    epochs: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=2)] = 32
    encoder_rate: Positive = 4e-4
    fresh_rate: Positive = 2e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.02
    warmup: Fraction = 0.08
    average_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.998
    clip: Positive = 2.0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    threads: Annotated[int, Field(ge=1)] = 2
    watched_per_class: Annotated[int, Field(ge=1)] = Field(
        250, description="validation images per class that the best epoch is chosen by"
    )
    minutes: Positive | None = Field(
        None, description="budget of training time: the schedule ends there if the epochs have not"
    )

    @model_validator(mode="after")
    def half_precision_has_a_device(self) -> Optimisation:
        """float16 needs loss scaling and units that compute in it; the CPU has neither."""
        if self.precision == "float16" and self.device == "cpu":
            raise ValueError("precision float16 is for device cuda: on the CPU say bfloat16 or float32")
        return self


class Distillation(Section):
    """A teacher whose answers the network learns from, beside the labels; see :mod:`models.training.distillation`."""

    teacher: str = Field(description="configuration beside this one whose run is the teacher, or a package's folder")
    temperature: Positive = Field(3.0, description="softens both sides' class probabilities")
    diagnosis: Annotated[float, Field(ge=0.0)] = Field(0.5, description="weight of the soft class targets")
    outline: Annotated[float, Field(ge=0.0)] = Field(0.5, description="weight of the teacher's mask")


class Sanity(Section):
    """What a network must reach on the validation fold before it is exported, over what a constant answer gives."""

    balanced_accuracy: Annotated[float, Field(ge=-1.0, le=1.0)] = Field(
        0.1, description="margin over one divided by the number of classes that occur"
    )
    jaccard: Annotated[float, Field(ge=-1.0, le=1.0)] = Field(
        0.05, description="margin over the mean Jaccard of the best constant outline"
    )


class Export(Section):
    """Which weights the ONNX file holds, and what it computes beside the network itself."""

    weights: Literal["best", "last", "mean"] = Field(
        "best", description="the epoch that validation liked best, the last one, or the mean of both"
    )
    views: tuple[View, ...] = Field(("identity",), description="views of the image whose answers are averaged")

    @model_validator(mode="after")
    def views_differ(self) -> Export:
        """The same view twice costs time and changes nothing."""
        if not self.views or len(set(self.views)) < len(self.views):
            raise ValueError("views: name at least one, and each once")
        return self


class Calibration(Section):
    """What is fitted after training, on folds that no weight saw."""

    prior_strength: Fraction = Field(
        0.0, description="1: logits answer for the training fold's class frequencies; 0: for equal ones"
    )
    sensitivity: Fraction = Field(0.9, description="wanted of each operating point on the validation fold")
    malignant: tuple[str, ...] = ("akiec", "bcc", "mel")
    embedding_skipped: Annotated[int, Field(ge=0)] = 128
    embedding_dimensions: Annotated[int, Field(ge=2)] = 256
    novelty_factor: Positive = Field(
        1.1, description="an image is called unlike the training images beyond this many times the 99th percentile"
    )
    reference_per_class: Annotated[int, Field(ge=2)] = Field(
        500, description="training images per class behind the embedding reference"
    )


class Report(Section):
    """The evaluation report that a run writes into its package."""

    thorough: bool = Field(True, description="with what takes many times as long: distortions, faithfulness, gate")


class Licence(Section):
    """Under which terms the weights may be used."""

    weights: str
    data: str
    attribution: str


class TrainingConfiguration(Section):
    """Everything that decides what a run produces, apart from the data themselves."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    title: str
    intended_use: str
    licence: Licence
    remarks: str = Field("", description="for the model card: what a reader of the run should know")
    seed: int
    architecture: Architecture
    input: Input
    data: Data
    augmentation: Augmentation = Augmentation()
    losses: Losses = Losses()
    distillation: Distillation | None = None
    optimisation: Optimisation
    sanity: Sanity = Sanity()
    export: Export = Export()
    calibration: Calibration = Calibration()
    report: Report = Report()


def load_configuration(path: Path) -> TrainingConfiguration:
    """Read and check a configuration file.

    Raises:
        ConfigurationInvalid: the file cannot be read, or a field is unknown, missing or out of range.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationInvalid(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigurationInvalid(f"{path}: expected a mapping at the top")
    try:
        return TrainingConfiguration.model_validate(content)
    except ValidationError as error:
        lines = [_explain(item["loc"], item["type"], item["msg"]) for item in error.errors()]
        raise ConfigurationInvalid(f"{path}: " + "; ".join(lines)) from error


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _explain(location: tuple[int | str, ...], kind: str, message: str) -> str:
    """One line for one wrong field, with the nearest known name where the field is unknown."""
    where = ".".join(str(part) for part in location)
    if kind != "extra_forbidden":
        return f"{where}: {message[0].lower()}{message[1:]}"
    known = _fields_at(location[:-1])
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
    return f"{where}: no such field; {hint}"


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    """The field names of the section at a location; a place in a list leads to what the list holds."""
    section: type[BaseModel] = TrainingConfiguration
    for part in location:
        if isinstance(part, int):
            continue
        found = section_of(section.model_fields[part].annotation)
        if found is None:
            return []
        section = found
    return list(section.model_fields)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section behind an annotation such as ``Section``, ``Section | None`` or ``tuple[Section, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := section_of(part))), None)
