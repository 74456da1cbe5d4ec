"""Observations: what was computed, one per question (https://hl7.org/fhir/R4/observation.html).

A question without an answer is sent with ``dataAbsentReason``, so that silence is never taken for a benign result: the
algorithm abstained or the image states no scale (``unknown``), or there is no lesion to measure (``not-applicable``).
"""

from __future__ import annotations

from collections.abc import Sequence

from dermoscopy import codes
from dermoscopy.codes import Code
from dermoscopy.domain import LesionMeasurements
from fhir_adapters.elements import (
    JsonObject,
    absent,
    ai_asserted,
    asserted,
    concept,
    number,
    own_identifier,
    quantity,
    sentence,
)
from fhir_adapters.render.body_structure import lesion_reference
from fhir_adapters.render.corrected import reclassified, remeasured
from fhir_adapters.render.draft import OBSERVATION_KINDS, Draft

_SHAPE = ("area", "diameter", "asymmetry", "border", "colour")
NO_LESION = absent(codes.ABSENT_NOT_APPLICABLE, "No lesion was found in the image.")
NO_SCALE = absent(codes.ABSENT_UNKNOWN, "The image does not state its scale; see the value in pixels.")


def observations(draft: Draft) -> list[JsonObject]:
    """All of `OBSERVATION_KINDS`, in that order, whatever the algorithm could or could not say.

    Where a clinician corrected the class, the algorithm's own follows as one more.
    """
    outlined = draft.what.outlined
    answers = [
        _classification(draft),
        _risk(draft, "melanoma-risk", codes.MELANOMA_RISK, draft.finding.melanoma_risk),
        _risk(draft, "malignancy-risk", codes.MALIGNANCY_RISK, draft.finding.malignancy_risk),
        _triage(draft),
        *_measured(draft, outlined.measurements if outlined else draft.finding.measurements),
        _quality(draft),
    ]
    assert len(answers) == len(OBSERVATION_KINDS)
    reviewed = [_reviewed(draft, kind, found) for kind, found in zip(OBSERVATION_KINDS, answers, strict=True)]
    return [*reviewed, _algorithm_class(draft, answers[0])] if draft.stands.lesion_class else reviewed


def _reviewed(draft: Draft, kind: str, found: JsonObject) -> JsonObject:
    """``found`` after what clinicians said of it; the same object where nobody has."""
    stands = draft.stands
    if kind == "classification" and stands.lesion_class:
        return reclassified(draft, found)
    if kind in _SHAPE and stands.outline:
        return remeasured(draft, found)
    if kind == "classification" and stands.last and not stands.withdrawn:
        found["meta"] = asserted(codes.AI_ASSERTED, codes.CLINICIAN_ASSERTED)
    return found


def _algorithm_class(draft: Draft, found: JsonObject) -> JsonObject:
    """What the algorithm said, as it said it, for whoever compares; never the answer of the report."""
    return {
        **found,
        "identifier": [own_identifier(draft.urn("observation/algorithm-class"))],
        "status": draft.status(changed=False),
        "code": concept(codes.ALGORITHM_CLASS),
    }


def _observation(
    draft: Draft,
    kind: str,
    code: JsonObject,
    answer: JsonObject,
    *,
    components: Sequence[JsonObject] = (),
    notes: Sequence[str] = (),
) -> JsonObject:
    model = draft.finding.model
    found: JsonObject = {
        "resourceType": "Observation",
        "meta": ai_asserted(),
        "identifier": [own_identifier(draft.urn(f"observation/{kind}"))],
        "status": draft.status(changed=_changed(draft, kind)),
        "category": [concept(codes.CATEGORY_IMAGING)],
        "code": code,
        "subject": draft.subject,
        "effectiveDateTime": draft.created,
        "issued": draft.issued,
        **answer,
        "method": {"text": f"Image analysis, {model.name} {model.version}"},
        "device": draft.device,
    }
    if notes := [note for note in notes if note]:
        found["note"] = [{"text": note} for note in notes]
    if kind != "quality":  # that one is about the image
        found["focus"] = [lesion_reference(draft)]
    if site := draft.body_site:
        found["bodySite"] = site
    if draft.has_study:
        found["derivedFrom"] = [draft.reference("imaging-study")]
    if components:
        found["component"] = list(components)
    return found


def _changed(draft: Draft, kind: str) -> bool:
    """Whether a clinician's correction shows in this Observation."""
    stands = draft.stands
    return (
        draft.resited
        or (kind == "classification" and stands.lesion_class is not None)
        or (kind in _SHAPE and bool(stands.outline))
    )


def _component(code: Code, answer: JsonObject) -> JsonObject:
    return {"code": concept(code), **answer}


def _abstained(draft: Draft) -> JsonObject:
    why = draft.finding.abstention or "no class was named"
    causes = dict.fromkeys(codes.ABSTENTION_REASONS[reason.code] for reason in draft.finding.abstention_reasons)
    return absent(codes.ABSENT_UNKNOWN, sentence(f"The algorithm abstained: {why}"), *causes)


def _probability(draft: Draft, value: float) -> JsonObject:
    return quantity(value, codes.RATIO, 6) if draft.named else _abstained(draft)


def _classification(draft: Draft) -> JsonObject:
    finding = draft.finding
    found = _observation(
        draft,
        "classification",
        concept(codes.CLASSIFICATION),
        {"valueCodeableConcept": concept(*codes.CLASS_CODES[draft.named])} if draft.named else _abstained(draft),
        components=[
            _component(codes.CLASS_PROBABILITY[entry.label], _probability(draft, entry.probability))
            for entry in finding.classes
        ]
        + [
            _component(codes.PREDICTION_SET, {"valueCodeableConcept": concept(*codes.CLASS_CODES[label])})
            for label in finding.prediction_set
            if draft.named
        ],
        notes=(finding.decision_note, *finding.explanation),
    )
    confidence = number(finding.confidence, 6)
    if draft.named and confidence is not None:
        found["extension"] = [{"url": codes.AI_CONFIDENCE_URL, "valueDecimal": confidence}]
    return found


def _risk(draft: Draft, kind: str, code: Code, probability: float) -> JsonObject:
    return _observation(draft, kind, concept(code), _probability(draft, probability))


def _triage(draft: Draft) -> JsonObject:
    triage = draft.finding.triage
    tier = {"valueCodeableConcept": concept(codes.TRIAGE[triage.tier])}
    corrected = draft.stands.lesion_class is not None
    older = "The tier is the algorithm's: a clinician corrected the class." if corrected else ""
    notes = (older, triage.reason, triage.recommendation)
    return _observation(draft, "triage", concept(codes.TRIAGE_TIER), tier, notes=notes)


def _measured(draft: Draft, found: LesionMeasurements | None) -> list[JsonObject]:
    area, diameter = concept(codes.AREA), concept(codes.EQUIVALENT_DIAMETER, codes.DIAMETER)
    asymmetry, border, colour = (
        concept(code) for code in (codes.ASYMMETRY, codes.BORDER_IRREGULARITY, codes.COLOUR_COUNT)
    )
    if found is None:
        rows = (
            ("area", area),
            ("diameter", diameter),
            ("asymmetry", asymmetry),
            ("border", border),
            ("colour", colour),
        )
        return [_observation(draft, kind, code, NO_LESION) for kind, code in rows]
    return [
        _observation(
            draft,
            "area",
            area,
            _calibrated(found.area_mm2, codes.SQUARE_MILLIMETRE),
            components=[
                _component(codes.AREA_PIXELS, quantity(found.area_px, codes.PIXELS, 1)),
                _component(codes.AREA_PERCENT, quantity(found.area_percent, codes.PERCENT)),
            ],
        ),
        _observation(
            draft,
            "diameter",
            diameter,
            _calibrated(found.equivalent_diameter_mm, codes.MILLIMETRE),
            components=[
                _component(codes.EQUIVALENT_DIAMETER_PIXELS, quantity(found.equivalent_diameter_px, codes.PIXELS, 1)),
                _component(codes.PERIMETER, _calibrated(found.perimeter_mm, codes.MILLIMETRE)),
                _component(codes.PERIMETER_PIXELS, quantity(found.perimeter_px, codes.PIXELS, 1)),
            ],
        ),
        _observation(draft, "asymmetry", asymmetry, quantity(found.asymmetry, codes.RATIO)),
        _observation(
            draft,
            "border",
            border,
            quantity(found.border_irregularity, codes.RATIO),
            components=[
                _component(codes.CIRCULARITY, quantity(found.circularity, codes.RATIO)),
                _component(codes.SOLIDITY, quantity(found.solidity, codes.RATIO)),
                _component(codes.ECCENTRICITY, quantity(found.eccentricity, codes.RATIO)),
            ],
        ),
        _observation(
            draft,
            "colour",
            colour,
            quantity(found.colour_count, codes.RATIO),
            components=[
                _component(codes.COLOUR_VARIETY, quantity(found.colour_variety, codes.RATIO)),
                *(
                    _component(codes.colour_fraction(name), quantity(share, codes.RATIO))
                    for name, share in sorted(found.colour_fractions.items())
                ),
            ],
        ),
    ]


def _calibrated(value: float | None, unit: Code) -> JsonObject:
    return NO_SCALE if value is None else quantity(value, unit)


def _quality(draft: Draft) -> JsonObject:
    quality = draft.finding.quality
    verdict = codes.QUALITY_USABLE if quality.usable else codes.QUALITY_UNUSABLE
    return _observation(
        draft,
        "quality",
        concept(codes.IMAGE_QUALITY),
        {"valueCodeableConcept": concept(verdict)},
        components=[
            _component(codes.quality_score(name), quantity(score, codes.RATIO))
            for name, score in sorted(quality.scores.items())
        ],
        notes=quality.reasons,
    )
