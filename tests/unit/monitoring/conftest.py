"""An analysis to look at."""

from datetime import UTC, datetime

import numpy as np
import pytest

from dermoscopy.domain import (
    Acquisition,
    Analysis,
    ClassProbability,
    Finding,
    ImageHeader,
    Inference,
    LesionClass,
    LesionMeasurements,
    ModelReference,
    PatientIdentity,
    Quality,
    Triage,
    TriageTier,
)


def make_analysis(number=0, *, lesion=True, shift=0.0):
    """An analysis whose numbers vary a little with ``number``, and as a whole with ``shift``."""
    chance = np.random.default_rng(number)
    weights = chance.dirichlet(np.ones(len(LesionClass)))
    classes = tuple(
        ClassProbability(label, float(np.log(weight)), float(weight))
        for label, weight in zip(LesionClass, weights, strict=True)
    )
    measurements = LesionMeasurements(
        1000.0, 12.0 + chance.normal(), 120.0, 35.0, 0.8, 0.9, 0.4, 0.2 + 0.05 * chance.normal(), 1.3, 3, 0.4,
        {"brown": 1.0}, (10.0, 10.0), (0, 0, 20, 20),
    )  # fmt: skip
    finding = Finding(
        model=ModelReference("net", "1", "d" * 64),
        classes=classes,
        primary=classes[int(weights.argmax())].label,
        confidence=float(weights.max()),
        melanoma_risk=float(weights[4]),
        malignancy_risk=float(weights[0] + weights[1] + weights[4]),
        quality=Quality(True, (), {"brightness": 0.5 + 0.1 * chance.normal() + shift, "sharpness": chance.normal()}),
        measurements=measurements if lesion else None,
        triage=Triage(TriageTier.ROUTINE, "reason", "recommendation"),
        abstention=None if lesion else "no lesion found",
        explanation=(),
        inference=Inference("CPUExecutionProvider", "fp32", "p", {}, {}, "0", "m", "h", {}),
        mask=np.zeros((4, 4), bool),
        heatmap=np.zeros((4, 4), np.float32),
        embedding=chance.normal(size=32).astype(np.float32),
    )
    header = ImageHeader(
        "image/png", PatientIdentity("SECRETISSUER", "SECRETID"), 450, 600, accession_number="SECRETACC"
    )
    return Analysis(
        id=f"analysis-{number}",
        instance_id=f"instance-{number}",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        finding=finding,
        header=header,
        rows=450,
        columns=600,
        pixel_digest="x",
        spacing_mm=None,
        acquisition=Acquisition(contact=True, station="scope-1"),
    )


@pytest.fixture
def analysis():
    return make_analysis()
