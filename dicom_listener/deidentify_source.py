"""A stored photograph as an export looks at it: its pixels, and what it says of itself that decides if it leaves."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

from dermoscopy.domain import DermoscopicImage, SourceObject
from dicom_listener.decode import decode
from dicom_listener.deidentify import moved_date
from dicom_listener.deidentify_kept import kept
from dicom_listener.deidentify_table import Retained
from dicom_listener.render.source import source_dataset
from dicom_listener.syntaxes import VL_ENDOSCOPIC, VL_PHOTOGRAPHIC

_CLINICAL = frozenset({VL_PHOTOGRAPHIC, VL_ENDOSCOPIC})


@dataclass(frozen=True, slots=True)
class Photograph:
    """A decoded photograph; ``dataset`` is the object, or what a picture is wrapped in."""

    dataset: Dataset
    image: DermoscopicImage

    @property
    def recognisable(self) -> bool:
        """Whether it says that a person can be recognised (0028,0302)."""
        return self._says("RecognizableVisualFeatures") == "YES"

    @property
    def annotated(self) -> bool:
        """Whether it says that words are burned into the pixels (0028,0301)."""
        return self._says("BurnedInAnnotation") == "YES"

    @property
    def clinical(self) -> bool:
        """Whether its class is that of clinical photographs and no contact with the skin is stated."""
        return self._says("SOPClassUID") in _CLINICAL and self.image.acquisition.contact is not True

    @property
    def tracking_uid(self) -> str:
        """Tracking UID (0062,0021) of the lesion, where it is stated."""
        return self._says("TrackingUID")

    def taken_on(self, days: int) -> str:
        """Day of the picture, ``days`` earlier, as YYYY-MM-DD; empty where none is stated."""
        stated = (self._says(keyword) for keyword in ("AcquisitionDate", "ContentDate", "StudyDate"))
        moved = next((day for day in (moved_date(text, days) for text in stated) if day), "")
        return f"{moved[:4]}-{moved[4:6]}-{moved[6:]}" if moved else ""

    def age_and_sex(self, retained: Retained) -> tuple[str, str]:
        """Age in years and ``male`` or ``female``; empty where they are not retained, not stated, or something else."""
        if not retained.patient:
            return "", ""
        rules = kept(retained)
        age, sex = (rules[keyword](self.dataset.get(keyword)) for keyword in ("PatientAge", "PatientSex"))
        years = str(int(age[:3])) if age and age.endswith("Y") else ""
        return years, {"M": "male", "F": "female"}.get(sex or "", "")

    def _says(self, keyword: str) -> str:
        return str(self.dataset.get(keyword) or "").strip(" \0")


def open_photograph(source: SourceObject) -> Photograph:
    """Decode ``source``. Raises `Rejected` with what is wrong."""
    image = decode(source)
    return Photograph(source_dataset(source, image), image)
