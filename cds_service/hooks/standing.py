"""What stands of each analysis of a patient: the algorithm's finding, as clinicians left it by their reviews."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session
from sqlmodel import col, or_, select

from cds_service.api.stored import READY
from cds_service.lesions import summaries_of
from cds_service.outcome_rows import gravest_of
from dermoscopy.analyses import AnalysisSummary, summaries_of_patients
from dermoscopy.domain import (
    MALIGNANT,
    LesionClass,
    PatientIdentity,
    ReportStatus,
    Review,
    TriageTier,
    report_status,
)
from dermoscopy.outcomes import Certainty
from dermoscopy.reviews import reviews_of
from dermoscopy.tables import InstanceRow

HIGH_RISK = (TriageTier.URGENT, TriageTier.EXPEDITED)
_URGENCY = {tier: rank for rank, tier in enumerate(TriageTier)}


@dataclass(frozen=True, slots=True)
class Standing:
    """One finished analysis with its reviews."""

    analysis: AnalysisSummary
    reviews: tuple[Review, ...]
    change: str = ""
    """What changed since an earlier image of the lesion, in words; empty where there is none."""
    harmless: bool = False
    """Whether histopathology of the lesion is known and found nothing malignant."""

    @property
    def status(self) -> ReportStatus:
        return report_status(self.reviews)

    @property
    def revision(self) -> int:
        """How many reviews changed the report."""
        return sum(review.changes_report for review in self.reviews)

    @property
    def corrected_class(self) -> LesionClass | None:
        """The class that a clinician gave, where one did."""
        return next((r.lesion_class for r in reversed(self.reviews) if r.lesion_class is not None), None)

    @property
    def lesion_class(self) -> LesionClass | None:
        primary = self.analysis.primary_class
        return self.corrected_class or (LesionClass(primary) if primary else None)

    @property
    def tier(self) -> TriageTier:
        """How urgent it is: a clinician's class decides where there is one, else the algorithm's triage."""
        corrected = self.corrected_class
        if corrected is None:
            return TriageTier(self.analysis.tier)
        if corrected is LesionClass.MEL:
            return TriageTier.URGENT
        return TriageTier.EXPEDITED if corrected in MALIGNANT else TriageTier.ROUTINE

    @property
    def open(self) -> bool:
        """A high risk that nobody set aside: as malignant it stays open, as benign (review, pathology) it does not."""
        if self.harmless:
            return False
        if self.tier not in HIGH_RISK or self.status is ReportStatus.ENTERED_IN_ERROR:
            return False
        agreed = self.status in (ReportStatus.FINAL, ReportStatus.AMENDED)
        return not (agreed and self.lesion_class is not None and self.lesion_class not in MALIGNANT)

    @property
    def body_site_code(self) -> str:
        corrected = next((r.body_site_code for r in reversed(self.reviews) if r.body_site_code), "")
        return corrected or self.analysis.body_site_code

    @property
    def laterality(self) -> str:
        corrected = next((r.laterality for r in reversed(self.reviews) if r.laterality), "")
        return corrected or self.analysis.laterality

    @property
    def state(self) -> str:
        """Changes when there is something new to tell of it."""
        said = f"{self.analysis.id} {self.revision} {self.status.value} {self.tier.value}"
        return f"{said} {self.change}" if self.change else said


@dataclass(frozen=True, slots=True)
class Records:
    """What is stored of a patient."""

    findings: tuple[Standing, ...]
    """One per image, the most urgent first: see `_stands`."""
    withdrawn: tuple[Standing, ...]
    """Results that a clinician marked as not to be used."""
    failed: tuple[AnalysisSummary, ...]
    under_way: tuple[AnalysisSummary, ...]
    held: tuple[str, ...]
    """Images that wait for a person's decision."""


def records_of(session: Session, patients: Sequence[PatientIdentity]) -> Records:
    """What is stored of ``patients``, all of them one person."""
    newest: dict[str, AnalysisSummary] = {}
    finished: dict[str, list[AnalysisSummary]] = {}
    for one in summaries_of_patients(session, patients):  # newest first
        newest.setdefault(one.instance_id, one)
        if one.state in READY:
            finished.setdefault(one.instance_id, []).append(one)
    told = [one for several in finished.values() for one in several if one is several[0] or one.reviews]
    changed = summaries_of(session, [one.id for one in told])
    harmless = _harmless(session, finished)
    of_image: dict[str, list[Standing]] = {}
    for one in told:
        said = reviews_of(session, one.id) if one.reviews else ()
        of_image.setdefault(one.instance_id, []).append(
            Standing(one, said, changed.get(one.id, ""), one.instance_id in harmless)
        )
    standing = [_stands(several) for several in of_image.values()]
    standing.sort(key=lambda s: (_URGENCY[s.tier], -s.analysis.created_at.timestamp()))
    failed = [a for a in newest.values() if a.state == "failed" and a.instance_id not in finished]
    return Records(
        findings=tuple(s for s in standing if s.status is not ReportStatus.ENTERED_IN_ERROR),
        withdrawn=tuple(s for s in standing if s.status is ReportStatus.ENTERED_IN_ERROR),
        failed=tuple(failed),
        under_way=tuple(a for a in newest.values() if a.state not in READY and a.state != "failed"),
        held=tuple(_held_instances(session, patients)),
    )


def _harmless(session: Session, finished: Mapping[str, Sequence[AnalysisSummary]]) -> set[str]:
    """Images whose lesion was examined, with nothing malignant found in any analysis's outcome."""
    image_of = {one.id: image for image, several in finished.items() for one in several}
    found = [(image_of[of], row) for of, row in gravest_of(session, list(image_of)).items()]
    sure = {image for image, row in found if row.certainty == Certainty.HISTOPATHOLOGY and row.malignant is False}
    return sure - {image for image, row in found if row.malignant is not False}


def _stands(several: Sequence[Standing]) -> Standing:
    """Which analysis of one image (the newest first) speaks for it: the newest that a clinician gave a word on.

    A newer one that nobody has looked at, of another model, takes its place only where it raises a high risk that is
    more urgent: what a clinician corrected or withdrew is not undone by a machine.
    """
    newest = several[0]
    reviewed = next((one for one in several if one.revision), newest)
    withdrawn = reviewed.status is ReportStatus.ENTERED_IN_ERROR
    raised = newest.open and (withdrawn or _URGENCY[newest.tier] < _URGENCY[reviewed.tier])
    return newest if raised else reviewed


def _held_instances(session: Session, patients: Sequence[PatientIdentity]) -> list[str]:
    if not patients:
        return []
    whose = or_(
        *((col(InstanceRow.issuer) == p.issuer) & (col(InstanceRow.patient_id) == p.patient_id) for p in patients)
    )
    return list(session.execute(select(InstanceRow.id).where(whose, InstanceRow.state == "held").limit(50)).scalars())
