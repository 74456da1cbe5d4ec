"""DocumentReference: where the SEG, SR and Secondary Capture are (https://hl7.org/fhir/R4/documentreference.html)."""

from __future__ import annotations

from dermoscopy import codes
from dermoscopy.codes import Code
from dermoscopy.domain import Artifact, ArtifactKind
from dermoscopy.identifiers import dicom_urn
from fhir_adapters.elements import JsonObject, ai_asserted, attachment, concept, dicom_identifier, own_identifier
from fhir_adapters.render.draft import Draft

SOP_CLASSES = "urn:oid:1.2.840.10008.2.6.1"
"""DICOM UIDs as a code system (DCMUID, PS3.16 table 8-1): says what is inside better than the media type."""

DOCUMENTS: dict[ArtifactKind, tuple[Code, str]] = {
    ArtifactKind.SEG: (codes.MODALITY_SEGMENTATION, "Lesion segmentation (DICOM SEG)"),
    ArtifactKind.SR: (codes.MODALITY_REPORT, "Measurement report (DICOM SR, TID 1500)"),
    ArtifactKind.SECONDARY_CAPTURE: (codes.MODALITY_OTHER, "Image with contour (DICOM Secondary Capture)"),
}


def document_references(draft: Draft) -> list[JsonObject]:
    """One for each DICOM object that was rendered before this bundle.

    Their address is the UID; `fhir_adapters.addressing` puts a DICOMweb address there where one is known.
    """
    return [
        _document(draft, kind, draft.what.companions[kind], modality, title)
        for kind, (modality, title) in DOCUMENTS.items()
        if kind in draft.what.companions
    ]


def _document(draft: Draft, kind: ArtifactKind, artifact: Artifact, modality: Code, title: str) -> JsonObject:
    content = attachment(artifact.data, artifact.media_type, title, draft.created)
    document: JsonObject = {
        "resourceType": "DocumentReference",
        "meta": ai_asserted(),
        "masterIdentifier": dicom_identifier(artifact.uid),
        "identifier": [own_identifier(draft.urn(f"document/{kind.value}"))],
        "status": "entered-in-error" if draft.stands.withdrawn else "current",
        "docStatus": draft.stands.status.value,
        "type": concept(modality, text=title),
        "category": [concept(codes.DIAGNOSTIC_IMAGING_STUDY)],
        "subject": draft.subject,
        "date": draft.created,
        "description": title,
        "content": [
            {
                "attachment": {**content, "url": dicom_urn(artifact.uid)},
                "format": {"system": SOP_CLASSES, "code": artifact.sop_class_uid},
            }
        ],
    }
    if draft.has_study:
        document["context"] = {"related": [draft.reference("imaging-study")]}
    return document
