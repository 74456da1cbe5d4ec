"""What all resources of one bundle share: who, when, which device, and the names of the others."""

from __future__ import annotations

from dataclasses import dataclass

from dermoscopy import codes
from dermoscopy.codes import Code
from dermoscopy.domain import Analysis, ArtifactKind, Finding, LesionClass, ReportStatus, Review, derive_uid
from dermoscopy.identifiers import device_urn, resource_urn
from dermoscopy.ports import RenderInput
from dermoscopy.reviews import Standing, standing
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
    def stands(self) -> Standing:
        """What clinicians' reviews together say of it."""
        return standing(self.what.reviews)

    @property
    def called(self) -> LesionClass | None:
        """The class that the report gives: a clinician's, else the algorithm's."""
        return self.stands.lesion_class or self.named

    @property
    def created(self) -> str:
        """When the algorithm answered."""
        return instant(self.analysis.created_at)

    @property
    def issued(self) -> str:
        """When this version of the report came about."""
        last = self.stands.last
        return instant(last.at) if last else self.created

    @property
    def reviewers(self) -> list[JsonObject]:
        """Everybody whose review changed the report, once each, in the order of their first."""
        named = {review.reviewer: reviewer(review) for review in self.what.reviews if review.changes_report}
        return list(named.values())

    def status(self, *, changed: bool) -> str:
        """Status of an Observation or document; ``changed`` says whether a clinician's correction shows in it."""
        found = self.stands.status
        if found is ReportStatus.AMENDED and not changed:
            return ReportStatus.FINAL.value  # looked at and left as it was
        return found.value

    @property
    def resited(self) -> bool:
        """Whether a clinician put the body site right, which shows in every Observation."""
        return bool(self.stands.body_site_code or self.stands.laterality)

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
    def _stated_site(self) -> str:
        return self.stands.body_site_code or self.analysis.header.body_site_code.strip()

    @property
    def site(self) -> Code | None:
        """Code of the body site that stands, if CID 4029 lists it."""
        return codes.SITES.get(self._stated_site)

    @property
    def side(self) -> Code | None:
        """Code of the laterality that stands, if it has one."""
        stated = self.stands.laterality or self.analysis.header.laterality
        return codes.LATERALITY.get(stated.strip().upper())

    @property
    def body_site(self) -> JsonObject | None:
        """Where the lesion is, coded only if CID 4029 lists the code; laterality stands in the text."""
        side, site = self.side, self.site
        named = site.display if site else self._stated_site
        text = ", ".join(part for part in (named, side.display.lower() if side else "") if part)
        if not text:
            return None
        if site is None:
            return {"text": text}
        return {"coding": [{"system": site.system, "code": site.code, "display": site.display}], "text": text}


def reviewer(review: Review) -> JsonObject:
    """Who reviewed, as a logical reference: how the addressee names them is unknown here."""
    return {"identifier": {"value": review.reviewer}, "display": review.reviewer_name or review.reviewer}
