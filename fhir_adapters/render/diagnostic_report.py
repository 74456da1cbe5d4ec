"""DiagnosticReport: what a clinician reads (https://hl7.org/fhir/R4/diagnosticreport.html, US Core Report and Note)."""

from __future__ import annotations

import base64

from dermoscopy import codes
from dermoscopy.domain import ArtifactKind
from dermoscopy.wording import not_excluded
from fhir_adapters.elements import JsonObject, asserted, attachment, concept, narrative, own_identifier, sentence
from fhir_adapters.render.corrected import said as _by_whom
from fhir_adapters.render.draft import NOTICE, OBSERVATION_KINDS, Draft, reviewer
from fhir_adapters.render.media import PART
from fhir_adapters.render.media import TITLE as PICTURE
from fhir_adapters.render.preview import preview

TITLE = "Dermoscopy image analysis"


def diagnostic_report(draft: Draft) -> JsonObject:
    """Preliminary until a clinician confirms it. ``conclusionCode`` is left out when the algorithm abstained.

    A report that was withdrawn (``entered-in-error``) says so and carries neither conclusion code nor picture.
    """
    stands = draft.stands
    statements = _withdrawn(draft) if stands.withdrawn else _statements(draft)
    by = (codes.AI_ASSERTED, codes.CLINICIAN_ASSERTED) if stands.last else (codes.AI_ASSERTED,)
    kinds = [*OBSERVATION_KINDS, *(["algorithm-class"] if stands.lesion_class else [])]
    report: JsonObject = {
        "resourceType": "DiagnosticReport",
        "meta": asserted(*by),
        "text": narrative([TITLE, *statements]),
        "identifier": [own_identifier(draft.urn("report"))],
        "status": stands.status.value,
        "category": [concept(codes.DIAGNOSTIC_IMAGING_STUDY)],
        "code": concept(codes.DIAGNOSTIC_IMAGING_STUDY, text=TITLE),
        "subject": draft.subject,
        "effectiveDateTime": draft.created,
        "issued": draft.issued,
        "result": [draft.reference(f"observation/{kind}") for kind in kinds],
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
    if stands.last:
        report["performer"] = [reviewer(stands.last)]  # answers for the report as it is now
        report["resultsInterpreter"] = draft.reviewers
    if stands.withdrawn:
        return report
    if draft.called:
        report["conclusionCode"] = [concept(*codes.CLASS_CODES[draft.called])]
    if ArtifactKind.SECONDARY_CAPTURE in draft.what.companions:
        report["media"] = [{"comment": PICTURE, "link": draft.reference(PART)}]
    overlay = draft.what.companions.get(ArtifactKind.OVERLAY)
    if overlay is not None:
        data, media_type = preview(overlay.data, overlay.media_type)
        form = attachment(data, media_type, "Image with contour and legend", draft.created)
        report["presentedForm"] = [{**form, "data": base64.b64encode(data).decode("ascii")}]
    return report


def _withdrawn(draft: Draft) -> list[str]:
    last = draft.stands.last
    assert last is not None
    why = "This image or its result must not be used, and what was said of it before does not hold."
    return [NOTICE, f"Withdrawn. {_by_whom(last)}", why, *([sentence(last.comment)] if last.comment else [])]


def _reviewed(draft: Draft) -> list[str]:
    """What clinicians said, in words; empty before anybody did."""
    stands = draft.stands
    if stands.last is None:
        return []
    said = [_by_whom(review) for review in draft.what.reviews if review.changes_report]
    if stands.lesion_class:
        said.append(f"A clinician's class: {codes.CLASS_LOCAL[stands.lesion_class].display}.")
    if draft.resited and (site := draft.body_site):
        said.append(f"Body site corrected: {site['text']}.")
    if stands.outline:
        said.append("The outline was drawn anew; all measures are of the new one.")
    comments = [sentence(f"Comment: {r.comment}") for r in draft.what.reviews if r.changes_report and r.comment]
    return [*said, *comments, "What the algorithm said:"]


def _statements(draft: Draft) -> list[str]:
    finding = draft.finding
    triage = finding.triage
    said = [NOTICE, *_reviewed(draft), f"Triage: {codes.TRIAGE[triage.tier].display}."]
    said += [triage.reason, triage.recommendation]
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
    if finding.measurements is None and not draft.stands.outline:
        said.append("No lesion was found in the image.")
    if draft.what.change is not None:
        said.append(draft.what.change.summary)
    said.append(f"Algorithm: {finding.model.name} {finding.model.version}.")
    return [sentence(part) for part in said if part]
