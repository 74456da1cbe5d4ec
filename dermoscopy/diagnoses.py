"""Coded diagnoses of skin lesions as pathology states them, and which class of ours each is.

Read in tables generated from the code systems, and then ``VERIFIED``: the eHDSI value set Morphologic Abnormality 8.1.0
(SNOMED CT International of February 2025, http://terminology.ehdsi.eu/ValueSet/eHDSIMorphologicAbnormality), the value
set of morphologies of the French CI-SIS (ICD-O-3, https://smt.esante.gouv.fr/fhir/ValueSet/jdv-morphologie-cisis), and
the context groups of DICOM PS3.16 (CID 638, 639, 4405). Chapters of ICD-10 are by their title. What no row here names
is unknown, and a person decides: a diagnosis is never guessed from its words or from a neighbouring code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from dermoscopy.codes import ICD10, SNOMED, Code, Verification
from dermoscopy.domain import MALIGNANT, LesionClass

ICDO3 = "http://terminology.hl7.org/CodeSystem/icd-o-3"
"""ICD-O-3, morphology with behaviour: ``8720/3``."""
ICD10CM = "http://hl7.org/fhir/sid/icd-10-cm"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What one code says. ``lesion_class`` is ``None`` for a diagnosis that is none of our seven classes.

    ``malignant`` means what `dermoscopy.domain.MALIGNANT` means: cancer, also in situ, or actinic keratosis.
    """

    code: Code
    lesion_class: LesionClass | None
    malignant: bool


_V, _H, _M = Verification.VERIFIED, Verification.HIGH, Verification.MEDIUM
_SNOMED: Mapping[LesionClass, tuple[tuple[str, str, Verification], ...]] = {
    LesionClass.MEL: (
        ("93655004", "Malignant melanoma of skin", _H),
        ("1162635006", "Malignant melanoma", _V),
        ("2092003", "Malignant melanoma, no ICD-O subtype", _V),
        ("77986002", "Melanoma in situ", _V),
        ("70594002", "Amelanotic melanoma", _V),
        ("109266006", "Melanoma in situ of skin", _H),
        ("254730000", "Superficial spreading malignant melanoma of skin", _H),
        ("254731001", "Nodular malignant melanoma of skin", _H),
        ("302837001", "Lentigo maligna melanoma", _H),
        ("254732008", "Acral lentiginous malignant melanoma of skin", _H),
        ("372244006", "Malignant melanoma (disorder)", _M),
        ("189758001", "Melanoma in situ (disorder)", _M),
        ("302836005", "Lentigo maligna", _M),
        ("403924008", "Desmoplastic malignant melanoma", _M),
        ("276751004", "Amelanotic malignant melanoma of skin", _M),
    ),
    LesionClass.BCC: (
        ("254701007", "Basal cell carcinoma of skin", _H),
        ("1338007", "Basal cell carcinoma", _V),
        ("403914000", "Superficial basal cell carcinoma", _M),
        ("403909004", "Pigmented basal cell carcinoma", _M),
    ),
    LesionClass.AKIEC: (
        ("201101007", "Actinic keratosis (disorder)", _V),
        ("856006", "Actinic keratosis", _V),
        ("1162893000", "Squamous cell carcinoma in situ", _V),
    ),
    LesionClass.BKL: (("25499005", "Seborrheic keratosis", _V),),
    LesionClass.NV: (
        ("400096001", "Melanocytic nevus", _H),
        ("1163403006", "Pigmented nevus", _V),
        ("112681002", "Intradermal nevus", _V),
        ("49409001", "Compound nevus", _V),
        ("61814002", "Dysplastic nevus", _V),
        ("254818000", "Dysplastic nevus of skin", _H),
    ),
    LesionClass.VASC: (
        ("253053003", "Benign hemangioma", _V),
        ("2099007", "Hemangioma, no ICD-O subtype", _V),
        ("400210000", "Hemangioma", _V),
        ("33377007", "Cavernous hemangioma", _V),
        ("17372009", "Granuloma pyogenicum", _V),
    ),
}
"""HAM10000 counts melanoma in situ as melanoma, Bowen's disease as ``akiec`` and dysplastic naevi as ``nv``."""
_SNOMED_OTHER = (
    ("1162767002", "Squamous cell carcinoma", True, _V),
    ("28899001", "Squamous cell carcinoma, no ICD-O subtype", True, _V),
    ("254651007", "Squamous cell carcinoma of skin", True, _V),
    ("253001006", "Merkel cell carcinoma (disorder)", True, _V),
    ("5052009", "Merkel cell carcinoma", True, _V),
    ("39000009", "Hemangiosarcoma", True, _V),
    ("1179374007", "Kaposi sarcoma", True, _V),
    ("419670003", "Epidermoid cyst", False, _V),
    ("134328007", "Lipoma", False, _V),
    ("1156930004", "Benign neurofibroma", False, _V),
)
_ICDO3: Mapping[LesionClass, tuple[tuple[str, str], ...]] = {
    LesionClass.MEL: (
        ("8720/3", "Malignant melanoma, NOS"),
        ("8721/3", "Nodular melanoma"),
        ("8722/3", "Balloon cell melanoma"),
        ("8723/3", "Malignant melanoma, regressing"),
        ("8730/3", "Amelanotic melanoma"),
        ("8740/3", "Malignant melanoma in junctional nevus"),
        ("8742/2", "Lentigo maligna"),
        ("8742/3", "Lentigo maligna melanoma"),
        ("8743/3", "Superficial spreading melanoma"),
        ("8744/3", "Acral lentiginous melanoma, malignant"),
        ("8745/3", "Desmoplastic melanoma, malignant"),
        ("8761/3", "Malignant melanoma in giant pigmented nevus"),
        ("8770/3", "Mixed epithelioid and spindle cell melanoma"),
        ("8771/3", "Epithelioid cell melanoma"),
        ("8772/3", "Spindle cell melanoma, NOS"),
        ("8780/3", "Blue nevus, malignant"),
    ),
    LesionClass.BCC: (
        ("8090/3", "Basal cell carcinoma, NOS"),
        ("8091/3", "Multifocal superficial basal cell carcinoma"),
        ("8092/3", "Infiltrating basal cell carcinoma, NOS"),
        ("8093/3", "Basal cell carcinoma, fibroepithelial"),
        ("8097/3", "Basal cell carcinoma, nodular"),
    ),
    LesionClass.AKIEC: (("8070/2", "Squamous cell carcinoma in situ, NOS"), ("8081/2", "Bowen disease")),
    LesionClass.NV: (
        ("8722/0", "Balloon cell nevus"),
        ("8723/0", "Halo nevus"),
        ("8727/0", "Dysplastic nevus"),
        ("8730/0", "Nonpigmented nevus"),
        ("8740/0", "Junctional nevus, NOS"),
        ("8750/0", "Intradermal nevus"),
        ("8760/0", "Compound nevus"),
        ("8761/0", "Small congenital nevus"),
        ("8770/0", "Epithelioid and spindle cell nevus"),
        ("8771/0", "Epithelioid cell nevus"),
        ("8772/0", "Spindle cell nevus, NOS"),
        ("8780/0", "Blue nevus, NOS"),
        ("8790/0", "Cellular blue nevus"),
    ),
    LesionClass.DF: (("8832/0", "Dermatofibroma, NOS"), ("8830/0", "Benign fibrous histiocytoma")),
    LesionClass.VASC: (("9120/0", "Hemangioma, NOS"),),
}
_ICDO3_OTHER = (
    ("8070/3", "Squamous cell carcinoma, NOS", True),
    ("8071/3", "Squamous cell carcinoma, keratinizing, NOS", True),
    ("8094/3", "Basosquamous carcinoma", True),
    ("8247/3", "Merkel cell carcinoma", True),
    ("8832/3", "Dermatofibrosarcoma, NOS", True),
    ("8110/0", "Pilomatrixoma, NOS", False),
    ("8850/0", "Lipoma, NOS", False),
)
_ICD10 = (
    ("C43", "Malignant melanoma of skin", LesionClass.MEL, True),
    ("D03", "Melanoma in situ", LesionClass.MEL, True),
    ("C44", "Other malignant neoplasms of skin", None, True),
    ("D04", "Carcinoma in situ of skin", LesionClass.AKIEC, True),
    ("L57.0", "Actinic keratosis", LesionClass.AKIEC, True),
    ("L82", "Seborrhoeic keratosis", LesionClass.BKL, False),
    ("D22", "Melanocytic naevi", LesionClass.NV, False),
    ("D23", "Other benign neoplasms of skin", None, False),
)
"""Category or code; what stands below it (``C43.5``) says the same of a place."""
_BASAL_CM = re.compile(r"C44\.(?:[0-9]1|[0-9]1[0-9]+)")
"""ICD-10-CM splits C44: the fifth character 1 is basal cell carcinoma (C44.01 … C44.91, C44.111 …)."""
_BASAL = Diagnosis(Code(ICD10CM, "C44", "Basal cell carcinoma of skin", _H), LesionClass.BCC, True)


def _rows() -> dict[tuple[str, str], Diagnosis]:
    found = [
        Diagnosis(Code(SNOMED, code, display, verified), label, label in MALIGNANT)
        for label, rows in _SNOMED.items()
        for code, display, verified in rows
    ]
    found += [Diagnosis(Code(SNOMED, code, said, how), None, malignant) for code, said, malignant, how in _SNOMED_OTHER]
    found += [
        Diagnosis(Code(ICDO3, code, display, _V), label, label in MALIGNANT)
        for label, rows in _ICDO3.items()
        for code, display in rows
    ]
    found += [Diagnosis(Code(ICDO3, code, display, _V), None, malignant) for code, display, malignant in _ICDO3_OTHER]
    # "Benign fibrous histiocytoma" is the morphology that dermatofibroma is coded by
    found.append(Diagnosis(Code(SNOMED, "25889007", "Benign fibrous histiocytoma", _V), LesionClass.DF, False))
    return {(one.code.system, one.code.code): one for one in found}


DIAGNOSES: Mapping[tuple[str, str], Diagnosis] = MappingProxyType(_rows())
"""By (system, code); ICD-10 apart, since its codes carry the place behind the category."""


def diagnosis_of(system: str, code: str) -> Diagnosis | None:
    """What a code says; ``None`` for one that is not known here."""
    exact = DIAGNOSES.get((system, code))
    if exact is not None or system not in (ICD10, ICD10CM):
        return exact
    if system == ICD10CM and _BASAL_CM.fullmatch(code):
        return Diagnosis(Code(system, code, _BASAL.code.display, _H), LesionClass.BCC, True)
    for stem, display, label, malignant in _ICD10:
        if code == stem or (code.startswith(stem) and ("." in stem or code[len(stem)] == ".")):
            return Diagnosis(Code(system, code, display, _H), label, malignant)
    return None


@dataclass(frozen=True, slots=True)
class Reading:
    """What several codes say together: one diagnosis, or why there is none."""

    diagnosis: Diagnosis | None
    unknown: tuple[tuple[str, str], ...] = ()
    """(system, code) of those that are not known here."""
    contradictory: bool = False
    """Whether known codes say different things."""


def read(codes: Iterable[tuple[str, str]]) -> Reading:
    """One diagnosis of codes that are about one specimen; the most precise stands where they agree.

    A wider code beside a narrower one agrees with it: C44 and basal cell carcinoma, melanoma and melanoma in situ.
    """
    pairs = list(dict.fromkeys(codes))
    known = [one for pair in pairs if (one := diagnosis_of(*pair))]
    unknown = tuple(pair for pair in pairs if diagnosis_of(*pair) is None)
    if not known:
        return Reading(None, unknown)
    precise = [one for one in known if one.lesion_class is not None or one.code.system not in (ICD10, ICD10CM)]
    chosen = precise or known
    said = {(one.lesion_class, one.malignant) for one in chosen}
    malignant = {one.malignant for one in known}
    others = {one.code.display for one in chosen if one.lesion_class is None}
    if len(said) > 1 or len(malignant) > 1 or len(others) > 1:
        return Reading(None, unknown, contradictory=True)
    return Reading(chosen[0], unknown)
