"""ImagingStudy: the DICOM study with the source image and what was made of it (https://hl7.org/fhir/R4/imagingstudy.html)."""

from __future__ import annotations

from dermoscopy import codes
from dermoscopy.codes import Code
from dermoscopy.domain import ArtifactKind
from dermoscopy.identifiers import dicom_urn, series_uid
from fhir_adapters.elements import JsonObject, coding, concept, dicom_identifier
from fhir_adapters.render.draft import Draft

DERMOSCOPIC_PHOTOGRAPHY = "1.2.840.10008.5.1.4.1.1.77.1.7"
_MODALITIES: dict[ArtifactKind, tuple[Code, str]] = {
    ArtifactKind.SEG: (codes.MODALITY_SEGMENTATION, "Segmentation"),
    ArtifactKind.SR: (codes.MODALITY_REPORT, "Measurement report"),
    ArtifactKind.SECONDARY_CAPTURE: (codes.MODALITY_OTHER, "Image with contour"),
}


def imaging_study(draft: Draft) -> JsonObject:
    """The study with the series that this service knows; `Draft.has_study` says whether there is one.

    It is created only where the addressee has none of this UID: a study belongs to its archive, and replacing it would
    drop the series that we do not know. Our objects are named by DocumentReference in any case.
    """
    header = draft.analysis.header
    dermoscopic = draft.source_class_uid == DERMOSCOPIC_PHOTOGRAPHY
    source: JsonObject = {
        "uid": draft.series_uid,
        "modality": coding(codes.MODALITY_DERMOSCOPY if dermoscopic else codes.MODALITY_EXTERNAL),
        "numberOfInstances": 1,
        "instance": [_instance(draft.source_uid, draft.source_class_uid, "Source image")],
    }
    site = draft.body_site
    if site and "coding" in site:
        source["bodySite"] = site["coding"][0]
        if side := draft.side:
            source["laterality"] = coding(side)
    series = [source]
    for kind, (modality, title) in _MODALITIES.items():
        artifact = draft.what.companions.get(kind)
        if artifact:
            series.append(
                {
                    "uid": series_uid(kind, draft.analysis.id),
                    "modality": coding(modality),
                    "description": title,
                    "numberOfInstances": 1,
                    "instance": [_instance(artifact.uid, artifact.sop_class_uid, title)],
                }
            )
    identifiers = [dicom_identifier(draft.study_uid)]
    if header.accession_number:
        identifiers.append({"type": concept(codes.ACCESSION_IDENTIFIER), "value": header.accession_number})
    return {
        "resourceType": "ImagingStudy",
        "identifier": identifiers,
        "status": "available",
        "modality": [entry["modality"] for entry in series],
        "subject": draft.subject,
        "procedureCode": [concept(codes.DERMATOSCOPY)],
        "numberOfSeries": len(series),
        "numberOfInstances": len(series),
        "series": series,
    }


def _instance(uid: str, sop_class_uid: str, title: str) -> JsonObject:
    return {"uid": uid, "sopClass": {"system": codes.URI, "code": dicom_urn(sop_class_uid)}, "title": title}
