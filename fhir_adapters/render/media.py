"""Media: the picture that goes with the report (https://hl7.org/fhir/R4/media.html), for ``DiagnosticReport.media``."""

from __future__ import annotations

from dermoscopy import codes
from dermoscopy.domain import ArtifactKind
from dermoscopy.identifiers import dicom_urn
from fhir_adapters.elements import JsonObject, ai_asserted, attachment, concept, dicom_identifier, own_identifier
from fhir_adapters.render.draft import Draft

TITLE = "Image with contour"
PART = "media/secondary_capture"


def media(draft: Draft) -> JsonObject | None:
    """The secondary capture by its UID, without its bytes; ``None`` if none was drawn."""
    drawn = draft.what.companions.get(ArtifactKind.SECONDARY_CAPTURE)
    if drawn is None:
        return None
    content = attachment(drawn.data, drawn.media_type, TITLE, draft.created)
    found: JsonObject = {
        "resourceType": "Media",
        "meta": ai_asserted(),
        "identifier": [own_identifier(draft.urn(PART)), dicom_identifier(drawn.uid)],
        "status": "entered-in-error" if draft.stands.withdrawn else "completed",
        "modality": concept(codes.MODALITY_OTHER),
        "subject": draft.subject,
        "createdDateTime": draft.created,
        "issued": draft.created,
        "device": draft.device,
        "content": {**content, "url": dicom_urn(drawn.uid)},
    }
    if site := draft.body_site:
        found["bodySite"] = site
    return found
