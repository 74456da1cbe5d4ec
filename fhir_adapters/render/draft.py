"""What all resources of one bundle share: who, when, which device, and the names of the others."""

from __future__ import annotations

from dataclasses import dataclass

from dermoscopy import codes
from dermoscopy.domain import Analysis, ArtifactKind, Finding, LesionClass, derive_uid
from dermoscopy.identifiers import device_urn, resource_urn
from dermoscopy.ports import RenderInput
from fhir_adapters.elements import JsonObject, entry_url, instant

NOTICE = (
    "Research use only; not a diagnosis. Software that analyses medical images is a medical device: "
    "a clinician must look at the image and confirm or correct this result."
)
OBSERVATION_KINDS = (
    "classification",
    "melanoma-risk",
    "malignancy-risk",
    "triage",
    "area",
    "diameter",
    "asymmetry",
    "border",
    "colour",
    "quality",
)


@dataclass(frozen=True, slots=True)
class Draft:
    """One bundle in the making."""

    what: RenderInput

    @property
    def analysis(self) -> Analysis:
        return self.what.analysis

    @property
    def finding(self) -> Finding:
        return self.what.analysis.finding

    @property
    def named(self) -> LesionClass | None:
        """The class that the algorithm stands by; ``None`` when it abstains."""
        return self.finding.primary if self.finding.abstention is None else None

    @property
    def created(self) -> str:
        return instant(self.analysis.created_at)

    def urn(self, kind: str) -> str:
        """Derived identifier of the resource that plays this part."""
        return resource_urn(self.analysis.id, kind)

    def reference(self, kind: str) -> JsonObject:
        return {"reference": entry_url(self.urn(kind))}

    @property
    def device_urn(self) -> str:
        return device_urn(self.finding.model)

    @property
    def device(self) -> JsonObject:
        model = self.finding.model
        return {"reference": entry_url(self.device_urn), "display": f"{model.name} {model.version}"}

    @property
    def subject(self) -> JsonObject:
        """Logical reference to the patient (https://hl7.org/fhir/R4/references.html#logical).

        The identifier's system and the literal reference are filled in where the bundle is delivered: only there is it
        known how the addressee names issuers and patients.
        """
        patient = self.analysis.header.patient
        if not patient.known:
            return {"type": "Patient", "display": "Patient not stated by the sender"}
        identifier: JsonObject = {"value": patient.patient_id}
        if patient.issuer:
            identifier["assigner"] = {"display": patient.issuer}
        return {"type": "Patient", "identifier": identifier}

    @property
    def has_study(self) -> bool:
        """Whether there is a DICOM study: the sender's, or the one in which a received picture was wrapped."""
        return bool(self.study_uid and self.series_uid and self.source_uid)

    @property
    def study_uid(self) -> str:
        return self.analysis.header.study_instance_uid or self._wrapped("study")

    @property
    def series_uid(self) -> str:
        return self.analysis.header.series_instance_uid or self._wrapped("series-source")

    @property
    def source_uid(self) -> str:
        wrapped = self.what.companions.get(ArtifactKind.SOURCE)
        return self.analysis.header.sop_instance_uid or (wrapped.uid if wrapped else "")

    @property
    def source_class_uid(self) -> str:
        wrapped = self.what.companions.get(ArtifactKind.SOURCE)
        return self.analysis.header.sop_class_uid or (wrapped.sop_class_uid if wrapped else "")

    def _wrapped(self, kind: str) -> str:
        if ArtifactKind.SOURCE not in self.what.companions:
            return ""
        return derive_uid(kind, self.analysis.instance_id)

    @property
    def body_site(self) -> JsonObject | None:
        """Where the lesion is, coded only if CID 4029 lists the code; laterality stands in the text."""
        header = self.analysis.header
        side = codes.LATERALITY.get(header.laterality.strip().upper())
        site = codes.SITES.get(header.body_site_code.strip())
        named = site.display if site else header.body_site_code.strip()
        text = ", ".join(part for part in (named, side.display.lower() if side else "") if part)
        if not text:
            return None
        if site is None:
            return {"text": text}
        return {"coding": [{"system": site.system, "code": site.code, "display": site.display}], "text": text}
