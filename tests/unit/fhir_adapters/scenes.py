"""Analyses that differ in what the algorithm could say, and the render inputs around them. Invented data only."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import numpy as np

from dermoscopy.domain import (
    Acquisition,
    Analysis,
    Artifact,
    ArtifactKind,
    ClassProbability,
    DermoscopicImage,
    Finding,
    ImageHeader,
    Inference,
    LesionClass,
    LesionMeasurements,
    ModelReference,
    PatientIdentity,
    Quality,
    Review,
    SourceObject,
    Triage,
    TriageTier,
    Verdict,
    derive_uid,
)
from dermoscopy.ports import FormerOutput, Outlined, RenderInput
from tests.findings import called_otherwise, not_answered

CREATED = datetime(2026, 3, 14, 9, 26, 53, 589000, tzinfo=UTC)
PATIENT = PatientIdentity("CLINIC_A", "TEST-0042")
SYSTEM = "https://clinic-a.example/mrn"
MODEL = ModelReference("dermoscopy-lite", "1.0.0", "ab" * 32)

HEADER = ImageHeader(
    media_type="application/dicom",
    patient=PATIENT,
    rows=60,
    columns=80,
    sop_class_uid="1.2.840.10008.5.1.4.1.1.77.1.7",
    sop_instance_uid=derive_uid("test", "instance"),
    study_instance_uid=derive_uid("test", "study"),
    series_instance_uid=derive_uid("test", "series"),
    accession_number="ACC-7",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    body_site_code="66643007",
    laterality="L",
)
MEASUREMENTS = LesionMeasurements(
    area_px=1200.0,
    area_percent=25.0,
    perimeter_px=130.5,
    equivalent_diameter_px=39.09,
    circularity=0.885,
    solidity=0.97,
    eccentricity=0.41,
    asymmetry=0.12,
    border_irregularity=1.13,
    colour_count=3,
    colour_variety=0.42,
    colour_fractions={"dark_brown": 0.6, "light_brown": 0.3, "black": 0.1},
    centroid=(30.0, 40.0),
    bounding_box=(10, 20, 50, 60),
    area_mm2=3.0,
    perimeter_mm=6.525,
    equivalent_diameter_mm=1.9545,
)
PROBABILITIES = {
    LesionClass.AKIEC: 0.02,
    LesionClass.BCC: 0.03,
    LesionClass.BKL: 0.05,
    LesionClass.DF: 0.01,
    LesionClass.MEL: 0.70,
    LesionClass.NV: 0.18,
    LesionClass.VASC: 0.01,
}


def finding(**changes) -> Finding:
    made = Finding(
        model=MODEL,
        classes=tuple(ClassProbability(label, float(np.log(p)), p) for label, p in PROBABILITIES.items()),
        primary=LesionClass.MEL,
        confidence=0.70,
        melanoma_risk=0.70,
        malignancy_risk=0.75,
        quality=Quality(True, (), {"sharpness": 0.8, "out_of_distribution": 0.1}),
        measurements=MEASUREMENTS,
        triage=Triage(TriageTier.URGENT, "Melanoma risk is above the urgent threshold.", "See within two weeks."),
        abstention=None,
        explanation=("Dark centre drives the class.",),
        inference=Inference(
            execution_provider="CPUExecutionProvider",
            precision="float32",
            preprocessing_digest="cd" * 32,
            calibration={"temperature": 1.3},
            thresholds={"urgent": 0.5, "expedited": 0.2},
            code_version="0.1.0",
            mask_digest="ef" * 32,
            heatmap_digest="01" * 32,
            milliseconds={"total": 50.0},
        ),
        mask=np.zeros((60, 80), bool),
        heatmap=np.zeros((60, 80), np.float32),
        embedding=np.zeros(4, np.float32),
    )
    return dataclasses.replace(made, **changes)


def analysis(found: Finding | None = None, header: ImageHeader = HEADER, **changes) -> Analysis:
    made = Analysis(
        id="8e9b5c1c-3c57-5d0f-9a63-0d0f5a1b2c3d",
        instance_id="instance-1",
        created_at=CREATED,
        finding=found or finding(),
        header=header,
        rows=60,
        columns=80,
        pixel_digest="23" * 32,
        spacing_mm=(0.05, 0.05),
        acquisition=Acquisition(),
    )
    return dataclasses.replace(made, **changes)


def companions() -> dict[ArtifactKind, Artifact]:
    classes = {
        ArtifactKind.SEG: "1.2.840.10008.5.1.4.1.1.66.4",
        ArtifactKind.SR: "1.2.840.10008.5.1.4.1.1.88.33",
        ArtifactKind.SECONDARY_CAPTURE: "1.2.840.10008.5.1.4.1.1.7",
    }
    made = {
        kind: Artifact(kind, "application/dicom", f"{kind} bytes".encode(), derive_uid("test", kind), sop_class)
        for kind, sop_class in classes.items()
    }
    made[ArtifactKind.OVERLAY] = Artifact(ArtifactKind.OVERLAY, "image/png", b"\x89PNG not really", "overlay")
    return made


def render_input(made: Analysis | None = None, **changes) -> RenderInput:
    made = made or analysis()
    pixels = np.zeros((60, 80, 3), np.uint8)
    what = RenderInput(
        analysis=made,
        image=DermoscopicImage(pixels, made.pixel_digest, made.spacing_mm),
        source=SourceObject("instance-1", b"source bytes", made.header, CREATED),
        companions=companions(),
    )
    return dataclasses.replace(what, **changes)


def without_scale() -> Finding:
    bare = dataclasses.replace(MEASUREMENTS, area_mm2=None, perimeter_mm=None, equivalent_diameter_mm=None)
    return finding(measurements=bare)


def abstained() -> Finding:
    return finding(
        primary=None,
        confidence=0.0,
        melanoma_risk=float("nan"),
        malignancy_risk=float("nan"),
        quality=Quality(False, ("The image is blurred.",), {"sharpness": 0.1}),
        triage=Triage(TriageTier.UNDETERMINED, "The image is not fit for analysis.", "Take the picture again."),
        abstention="the image is blurred",
        explanation=(),
    )


def without_lesion() -> Finding:
    return dataclasses.replace(abstained(), measurements=None, abstention="no lesion was found")


def tier(which: TriageTier) -> Finding:
    return finding(triage=Triage(which, f"Reason for {which}.", f"What to do for {which}."))


def review(revision: int, verdict: Verdict, **changes) -> Review:
    made = Review(
        id=f"review-{revision}",
        analysis_id="8e9b5c1c-3c57-5d0f-9a63-0d0f5a1b2c3d",
        revision=revision,
        at=CREATED + timedelta(hours=revision),
        reviewer="https://login.example|u-7",
        reviewer_name="Dr. Erika Beispiel",
        verdict=verdict,
    )
    return dataclasses.replace(made, **changes)


CONFIRMED = review(1, Verdict.CONFIRMED)
CLASS_CORRECTED = review(1, Verdict.CORRECTED, lesion_class=LesionClass.NV, comment="Globular pattern")
SITE_CORRECTED = review(2, Verdict.CORRECTED, body_site_code="75093004", laterality="R")
OUTLINE_CORRECTED = review(3, Verdict.CORRECTED, outline=((10.0, 10.0), (30.0, 10.0), (30.0, 30.0), (10.0, 30.0)))
OUTLINED = Outlined(
    np.pad(np.ones((20, 20), bool), ((10, 30), (10, 50))),
    dataclasses.replace(MEASUREMENTS, area_px=400.0, area_mm2=1.0, asymmetry=0.01),
)
UNUSABLE = review(4, Verdict.UNUSABLE, comment="Another patient's arm", reviewer="token-2", reviewer_name="")
COMMENTED = review(1, Verdict.COMMENTED, comment="Please look again")

PNG_HEADER = ImageHeader(media_type="image/png", patient=PATIENT, rows=60, columns=80)

SCENES: dict[str, RenderInput] = {
    **{f"tier-{which}": render_input(analysis(tier(which))) for which in TriageTier},
    **{f"class-{label}": render_input(analysis(finding(primary=label))) for label in LesionClass},
    "called-otherwise": render_input(analysis(called_otherwise())),
    "abstained": render_input(analysis(abstained())),
    "abstained-coded": render_input(analysis(not_answered())),
    "no-lesion": render_input(analysis(without_lesion())),
    "no-scale": render_input(analysis(without_scale(), spacing_mm=None)),
    "no-accession": render_input(analysis(header=dataclasses.replace(HEADER, accession_number=""))),
    "no-patient": render_input(analysis(header=dataclasses.replace(HEADER, patient=PatientIdentity("", "")))),
    "no-issuer": render_input(analysis(header=dataclasses.replace(HEADER, patient=PatientIdentity("", "TEST-0042")))),
    "no-site": render_input(analysis(header=dataclasses.replace(HEADER, body_site_code="", laterality=""))),
    "foreign-site": render_input(analysis(header=dataclasses.replace(HEADER, body_site_code="T-D4000"))),
    "png": render_input(analysis(header=PNG_HEADER)),
    "png-wrapped": render_input(
        analysis(header=PNG_HEADER),
        companions={
            **companions(),
            ArtifactKind.SOURCE: Artifact(
                ArtifactKind.SOURCE, "application/dicom", b"", derive_uid("test", "source"), HEADER.sop_class_uid
            ),
        },
    ),
    "alone": render_input(companions={}),
    "commented": render_input(reviews=(COMMENTED,)),
    "confirmed": render_input(reviews=(CONFIRMED,)),
    "abstained-confirmed": render_input(analysis(abstained()), reviews=(CONFIRMED,)),
    "class-corrected": render_input(reviews=(CLASS_CORRECTED,)),
    "abstained-corrected": render_input(analysis(abstained()), reviews=(CLASS_CORRECTED,)),
    "site-corrected": render_input(reviews=(SITE_CORRECTED,)),
    "outline-corrected": render_input(reviews=(OUTLINE_CORRECTED,), outlined=OUTLINED),
    "outline-unmeasured": render_input(reviews=(OUTLINE_CORRECTED,)),
    "no-lesion-outlined": render_input(analysis(without_lesion()), reviews=(OUTLINE_CORRECTED,), outlined=OUTLINED),
    "all-corrected": render_input(reviews=(CLASS_CORRECTED, SITE_CORRECTED, OUTLINE_CORRECTED), outlined=OUTLINED),
    "withdrawn": render_input(
        reviews=(CLASS_CORRECTED, SITE_CORRECTED, UNUSABLE),
        companions={kind: made for kind, made in companions().items() if kind is not ArtifactKind.SEG},
        former=(FormerOutput(ArtifactKind.SEG, derive_uid("test", "seg"), "1.2.840.10008.5.1.4.1.1.66.4"),),
    ),
}
