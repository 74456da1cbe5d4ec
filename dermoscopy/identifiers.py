"""Business identifiers of what we send, derived so that sending anything twice changes nothing.

``urn:uuid:<UUIDv5>`` in the system ``urn:ietf:rfc:3986`` (`SYSTEM`) for what we make, ``urn:oid:<UID>`` in the system
``urn:dicom:uid`` for what DICOM names (https://hl7.org/fhir/R4/imagingstudy.html#notes), and ``ni:///sha-256;…``
(RFC 6920) for bytes that have no name but their digest.
"""

from __future__ import annotations

import base64

from dermoscopy.domain import ArtifactKind, ModelReference, derive_id, derive_uid

SYSTEM = "urn:ietf:rfc:3986"
DICOM_SYSTEM = "urn:dicom:uid"


def resource_urn(analysis_id: str, kind: str) -> str:
    """Identifier of the resource that plays the part ``kind`` in one analysis (``report``, ``observation/area`` …)."""
    return f"urn:uuid:{derive_id('fhir', kind, analysis_id)}"


def report_identifier(analysis_id: str) -> str:
    """Identifier value of the DiagnosticReport of an analysis; the same for every later amendment of it."""
    return resource_urn(analysis_id, "report")


def device_urn(model: ModelReference) -> str:
    """Identifier of the Device that stands for these weights; shared by all their analyses."""
    return f"urn:uuid:{derive_id('fhir', 'device', model.name, model.version, model.digest)}"


def series_uid(kind: ArtifactKind, analysis_id: str) -> str:
    """Series Instance UID of the DICOM object of this kind: each result object is alone in its series."""
    return derive_uid(f"series-{kind.value}", analysis_id)


def dicom_urn(uid: str) -> str:
    """A DICOM UID as FHIR carries it."""
    return f"urn:oid:{uid}"


def digest_uri(sha256_hex: str) -> str:
    """RFC 6920 name of bytes with this SHA-256. Raises `ValueError` if it is not 64 hexadecimal digits."""
    digest = bytes.fromhex(sha256_hex)
    if len(digest) != 32:
        raise ValueError("a SHA-256 digest has 64 hexadecimal digits")
    return f"ni:///sha-256;{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"
