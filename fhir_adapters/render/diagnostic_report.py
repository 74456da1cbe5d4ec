"""DiagnosticReport: what a clinician reads (https://hl7.org/fhir/R4/diagnosticreport.html, US Core Report and Note)."""

from __future__ import annotations

import base64

from dermoscopy import codes
from dermoscopy.domain import ArtifactKind
from dermoscopy.wording import not_excluded
from fhir_adapters.elements import JsonObject, ai_asserted, attachment, concept, narrative, own_identifier, sentence
from fhir_adapters.render.draft import NOTICE, OBSERVATION_KINDS, Draft
from fhir_adapters.render.preview import preview

TITLE = "Dermoscopy image analysis"


def diagnostic_report(draft: Draft) -> JsonObject:
    """Preliminary until a clinician confirms it. ``conclusionCode`` is left out when the algorithm abstained."""
    statements = _statements(draft)
    report: JsonObject = {
        "resourceType": "DiagnosticReport",
        "meta": ai_asserted(),
        "text": narrative([TITLE, *statements]),
        "identifier": [own_identifier(draft.urn("report"))],
        "status": "preliminary",
        "category": [concept(codes.DIAGNOSTIC_IMAGING_STUDY)],
        "code": concept(codes.DIAGNOSTIC_IMAGING_STUDY, text=TITLE),
        "subject": draft.subject,
        "effectiveDateTime": draft.created,
        "issued": draft.created,
        "result": [draft.reference(f"observation/{kind}") for kind in OBSERVATION_KINDS],
        "conclusion": " ".join(statements),
    }
    accession = draft.analysis.header.accession_number
    if accession:
        report["basedOn"] = [
            {
                "type": "ServiceRequest",
                "identifier": {"type": concept(codes.ACCESSION_IDENTIFIER), "value": accession},
            }
        ]
    if draft.has_study:
        report["imagingStudy"] = [draft.reference("imaging-study")]
    if draft.named:
        report["conclusionCode"] = [concept(*codes.CLASS_CODES[draft.named])]
    overlay = draft.what.companions.get(ArtifactKind.OVERLAY)
    if overlay is not None:
        data, media_type = preview(overlay.data, overlay.media_type)
        form = attachment(data, media_type, "Image with contour and legend", draft.created)
        report["presentedForm"] = [{**form, "data": base64.b64encode(data).decode("ascii")}]
    return report


def _statements(draft: Draft) -> list[str]:
    finding = draft.finding
    triage = finding.triage
    said = [NOTICE, f"Triage: {codes.TRIAGE[triage.tier].display}.", triage.reason, triage.recommendation]
    if draft.named:
        title = codes.CLASS_LOCAL[draft.named].display
        role = "Class called" if finding.decision_note else "Most probable class"
        said.append(
            f"{role}: {title} (calibrated probability {finding.confidence:.2f}); "
            f"melanoma risk {finding.melanoma_risk:.2f}, malignancy risk {finding.malignancy_risk:.2f}."
        )
        said += [finding.decision_note, not_excluded(finding.prediction_set, finding.inference.thresholds)]
    else:
        said.append("The algorithm names no class.")
        if finding.abstention and finding.abstention not in triage.reason:
            said.append(f"It abstains: {finding.abstention}.")
    if finding.measurements is None:
        said.append("No lesion was found in the image.")
    said.append(f"Algorithm: {finding.model.name} {finding.model.version}.")
    return [sentence(part) for part in said if part]
