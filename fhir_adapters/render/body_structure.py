"""BodyStructure: the lesion that all Observations are about (https://hl7.org/fhir/R4/bodystructure.html)."""

from __future__ import annotations

from dermoscopy import codes
from dermoscopy.domain import derive_uid
from dermoscopy.identifiers import resource_urn
from fhir_adapters.elements import JsonObject, concept, dicom_identifier, entry_url, own_identifier
from fhir_adapters.render.draft import Draft


def lesion_urn(draft: Draft) -> str:
    """Identifier of the lesion in this image; whoever analyses the image again means the same lesion."""
    return resource_urn(draft.analysis.instance_id, "lesion")


def lesion_reference(draft: Draft) -> JsonObject:
    """For ``Observation.focus``, which R4 allows for "a body structure such as a tumor"."""
    return {"reference": entry_url(lesion_urn(draft))}


def body_structure(draft: Draft) -> JsonObject:
    """Morphology, site and side; ``location`` is left out where nobody stated the site.

    The second identifier is the Tracking UID that segmentation and measurement report derive for the lesion.
    """
    found: JsonObject = {
        "resourceType": "BodyStructure",
        "identifier": [
            own_identifier(lesion_urn(draft)),
            dicom_identifier(derive_uid("lesion", draft.analysis.instance_id)),
        ],
        "active": not draft.stands.withdrawn,
        "morphology": concept(codes.SEGMENT_TYPE),
        "patient": draft.subject,
    }
    if place := draft.body_site:
        found["location"] = place
        found["description"] = f"Skin lesion: {place['text']}"
    if side := draft.side:
        found["locationQualifier"] = [concept(side)]
    return found
