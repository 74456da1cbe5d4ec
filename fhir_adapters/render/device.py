"""Device: the algorithm that answered (https://hl7.org/fhir/R4/device.html, AI Device of AI Transparency on FHIR)."""

from __future__ import annotations

from dermoscopy import codes
from dermoscopy.identifiers import SYSTEM, digest_uri
from fhir_adapters.elements import JsonObject, concept, own_identifier
from fhir_adapters.render.draft import NOTICE, Draft


def device(draft: Draft) -> JsonObject:
    """Depends on the weights alone, so that every analysis by the same weights sends the same Device. No UDI."""
    model = draft.finding.model
    identifiers = [own_identifier(draft.device_urn)]
    try:
        identifiers.append({"system": SYSTEM, "value": digest_uri(model.digest)})
    except ValueError:
        pass  # not a SHA-256: the version entry below still carries it as text
    return {
        "resourceType": "Device",
        "identifier": identifiers,
        "status": "active",
        "deviceName": [{"name": model.name, "type": "model-name"}],
        "type": concept(codes.AI_DEVICE),
        "version": [
            {"type": {"text": "model version"}, "value": model.version},
            {"type": {"text": "SHA-256 of the weights"}, "value": model.digest},
        ],
        "note": [{"text": NOTICE}],
    }
