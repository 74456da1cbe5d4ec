"""DocumentReference: where the SEG, SR and Secondary Capture are (https://hl7.org/fhir/R4/documentreference.html)."""

from __future__ import annotations

from dermoscopy import codes
from dermoscopy.codes import Code
from dermoscopy.domain import Artifact, ArtifactKind
from dermoscopy.identifiers import dicom_urn
from dermoscopy.ports import FormerOutput
from fhir_adapters.elements import JsonObject, ai_asserted, attachment, concept, dicom_identifier, own_identifier
from fhir_adapters.render.draft import Draft

SOP_CLASSES = "urn:oid:1.2.840.10008.2.6.1"
"""DICOM UIDs as a code system (DCMUID, PS3.16 table 8-1): says what is inside better than the media type."""

_WITHDRAWN = {"status": "entered-in-error", "docStatus": "entered-in-error"}
DOCUMENTS: dict[ArtifactKind, tuple[Code, str]] = {
    ArtifactKind.SEG: (codes.MODALITY_SEGMENTATION, "Lesion segmentation (DICOM SEG)"),
    ArtifactKind.SR: (codes.MODALITY_REPORT, "Measurement report (DICOM SR, TID 1500)"),
    ArtifactKind.SECONDARY_CAPTURE: (codes.MODALITY_OTHER, "Image with contour (DICOM Secondary Capture)"),
}


def document_references(draft: Draft) -> list[JsonObject]:
    """One for each DICOM object that was rendered before this bundle; one that was withdrawn since says so.

    Their address is the UID; `fhir_adapters.addressing` puts a DICOMweb address there where one is known.
    """
    former = {one.kind: one for one in draft.what.former}
    made = []
    for kind, (modality, title) in DOCUMENTS.items():
        if (artifact := draft.what.companions.get(kind)) is not None:
            content = attachment(artifact.data, artifact.media_type, title, draft.created)
            made.append(_document(draft, artifact, content, modality))
        elif (gone := former.get(kind)) is not None:
            content = {"contentType": "application/dicom", "title": title}
            made.append({**_document(draft, gone, content, modality), **_WITHDRAWN})
    return made


def _document(draft: Draft, artifact: Artifact | FormerOutput, content: JsonObject, modality: Code) -> JsonObject:
    kind, title = artifact.kind, content["title"]
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
