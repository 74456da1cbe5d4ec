"""Rows of ``labels.csv``: what is known of each exported image, in the layout that training and evaluation read.

The columns ``image``, ``image_id``, ``lesion_id``, ``dx``, ``dx_type``, ``mask``, ``localization``, ``age`` and ``sex``
are those of a hospital's table (docs/model-training.md). ``fold`` is empty: who trains splits, by lesion.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dermoscopy.codes import SITES
from dermoscopy.domain import LesionClass, Review, Verdict
from dermoscopy.outcomes import Certainty
from dermoscopy.pseudonyms import Pseudonyms
from dermoscopy.reviews import Standing, standing
from dermoscopy.tables import AnalysisRow, InstanceRow, OutcomeRow
from dicom_listener.deidentify_source import Photograph
from dicom_listener.deidentify_table import Retained

COLUMNS = (
    "image",
    "image_id",
    "lesion_id",
    "patient_id",
    "dx",
    "dx_type",
    "mask",
    "fold",
    "localization",
    "laterality",
    "acquired",
    "age",
    "sex",
    "object",
)
CLINICIAN = "clinician"
"""``dx_type`` of a class that a clinician gave or confirmed."""
DX_TYPES: Mapping[Certainty, str] = {Certainty.HISTOPATHOLOGY: "histo", Certainty.FOLLOW_UP: "follow_up"}
"""``dx_type`` of a class that was found out, as HAM10000 writes it; the surer first."""


@dataclass(frozen=True, slots=True)
class Said:
    """What clinicians said of one image: the class (absent where they named none), and all that stands."""

    lesion_class: LesionClass | None
    standing: Standing
    dx_type: str = CLINICIAN

    @property
    def reviewed(self) -> bool:
        """Whether a person said anything that stands: in a review, or in a report of pathology or follow-up."""
        return self.standing.last is not None or self.dx_type != CLINICIAN


def said_of(analyses: Sequence[tuple[AnalysisRow, Sequence[Review]]], outcomes: Sequence[OutcomeRow] = ()) -> Said:
    """What stands of an image that one or several models looked at: what was found out, else what clinicians said.

    Pathology goes before follow-up, and both before a clinician's word. Where findings disagree, are in doubt or are of
    no class that is known here, there is no label: then the clinician's word is no longer one either.
    """
    said = _said_in_reviews(analyses)
    for certainty, dx_type in DX_TYPES.items():
        found = [one for one in outcomes if one.certainty == certainty]
        if found:
            classes = {"" if one.doubt else one.lesion_class for one in found}
            label = classes.pop() if len(classes) == 1 else ""
            return Said(LesionClass(label) if label else None, said.standing, dx_type)
    return said


def _said_in_reviews(analyses: Sequence[tuple[AnalysisRow, Sequence[Review]]]) -> Said:
    """By the analysis that was reviewed last. A confirmation confirms the class that the algorithm called, if any."""
    reviewed = [
        (now.last.at, row, now)
        for row, reviews in analyses
        if (now := standing(reviews)).last is not None and now.last is not None
    ]
    if not reviewed:
        return Said(None, standing(()))
    _, row, now = max(reviewed, key=lambda one: one[0])
    confirmed = now.last is not None and (now.last.verdict in (Verdict.CONFIRMED, Verdict.CORRECTED))
    called = LesionClass(row.primary_class) if row.primary_class and confirmed else None
    if now.lesion_class is None and now.last is not None and now.last.verdict is Verdict.CORRECTED:
        called = None  # outline or site was put right, and nothing was said of the class
    return Said(now.lesion_class or called, now)


def lesion_of(names: Pseudonyms, row: InstanceRow, tracking_uid: str, body_site_code: str, laterality: str) -> str:
    """Pseudonym of the lesion: by the Tracking UID that the object states (0062,0021), else patient, site and side.

    The latter may join lesions of one site. That is the safe mistake: images of one lesion in two folds would flatter a
    model.
    """
    if tracking_uid:
        return names.lesion("tracking", tracking_uid)
    patient = (row.issuer, row.patient_id) if row.patient_id else ("", row.id)
    return names.lesion("site", *patient, body_site_code, laterality)


def described(photograph: Photograph, retained: Retained, days: int) -> dict[str, str]:
    """Date of the picture, moved, and, where that is retained, age and sex of the patient."""
    age, sex = photograph.age_and_sex(retained)
    return {"acquired": photograph.taken_on(days), "age": age, "sex": sex}


def site_name(body_site_code: str) -> str:
    """Body site in the words of SNOMED CT; empty for one that is not in CID 4029."""
    found = SITES.get(body_site_code)
    return found.display if found else ""


def write_rows(path: Path, rows: Iterable[Mapping[str, str]]) -> int:
    """Write a table; returns how many rows it has."""
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow(row)
            count += 1
    return count


def write_json(path: Path, document: Mapping[str, object]) -> bytes:
    """Write ``document`` with sorted keys, so that the same gives the same bytes; returns them."""
    data = (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
    path.write_bytes(data)
    return data
