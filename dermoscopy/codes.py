"""Every coded concept, once. Each row says how far it was verified; a wrong clinical code is worse than a local one.

SNOMED CT http://snomed.info/sct, LOINC http://loinc.org, DICOM terms
https://dicom.nema.org/medical/dicom/current/output/chtml/part16/chapter_D.html,
ICD-10 https://icd.who.int/browse10, UCUM https://ucum.org. What no standard names precisely carries a code of our own
system `LOCAL`, never a neighbour's: ``akiec``, ``bkl`` and ``vasc`` are groups, and a group is not one of its members.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from dermoscopy.domain import LesionClass, TriageTier, Verdict, derive_uid

SNOMED = "http://snomed.info/sct"
LOINC = "http://loinc.org"
DCM = "http://dicom.nema.org/resources/ontology/DCM"
ICD10 = "http://hl7.org/fhir/sid/icd-10"
UCUM = "http://unitsofmeasure.org"

LOCAL_UID = derive_uid("coding-scheme", "99DERMCDS")
"""Coding Scheme UID (0008,010C) of our own codes, for DICOM's Coding Scheme Identification Sequence."""
LOCAL = f"urn:oid:{LOCAL_UID}"
"""The same code system in FHIR: an identifier nobody else can hold, and no address that pretends to resolve."""

OBSERVATION_VALUE = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue"
OBSERVATION_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
DATA_ABSENT_REASON = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
PROVENANCE_PARTICIPANT = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
IDENTIFIER_TYPE = "http://terminology.hl7.org/CodeSystem/v2-0203"
URI = "urn:ietf:rfc:3986"
CPT = "http://www.ama-assn.org/go/cpt"
ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
AI_DEVICE_TYPE = "http://hl7.org/fhir/uv/aitransparency/CodeSystem/AIdeviceTypeCS"

SCHEMES: Mapping[str, str] = MappingProxyType(
    {SNOMED: "SCT", LOINC: "LN", DCM: "DCM", ICD10: "I10", UCUM: "UCUM", LOCAL: "99DERMCDS"}
)
"""FHIR system → DICOM Coding Scheme Designator (0008,0102), PS3.16 table 8-1; ``99…`` is for private schemes."""


class Verification(StrEnum):
    """How far a code was checked against its source."""

    VERIFIED = "verified"
    """Read in the standard itself or in a table generated from it."""
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    LOCAL = "local"
    """Our own code: no standard code was found that says exactly this."""


@dataclass(frozen=True, slots=True)
class Code:
    """One coded concept: ``system`` is the FHIR URI, `scheme` its DICOM designator."""

    system: str
    code: str
    display: str
    verified: Verification

    @property
    def scheme(self) -> str:
        """DICOM Coding Scheme Designator. Raises `KeyError` for a system that DICOM objects do not use."""
        return SCHEMES[self.system]


def _sct(code: str, display: str, verified: Verification = Verification.VERIFIED) -> Code:
    return Code(SNOMED, code, display, verified)


def _dcm(code: str, display: str) -> Code:
    return Code(DCM, code, display, Verification.VERIFIED)


def _unit(code: str, display: str) -> Code:
    return Code(UCUM, code, display, Verification.VERIFIED)


def _local(code: str, display: str) -> Code:
    return Code(LOCAL, code, display, Verification.LOCAL)


# ------------------------------------------------------------------------------------------------------------- classes

CLASS_LOCAL: Mapping[LesionClass, Code] = MappingProxyType(
    {
        LesionClass.AKIEC: _local("akiec", "Actinic keratosis or intraepithelial carcinoma (group)"),
        LesionClass.BCC: _local("bcc", "Basal cell carcinoma"),
        LesionClass.BKL: _local("bkl", "Benign keratosis-like lesion (group)"),
        LesionClass.DF: _local("df", "Dermatofibroma"),
        LesionClass.MEL: _local("mel", "Melanoma"),
        LesionClass.NV: _local("nv", "Melanocytic nevus"),
        LesionClass.VASC: _local("vasc", "Vascular skin lesion (group)"),
    }
)
"""The class as the algorithm knows it (HAM10000)."""

_CLASS_STANDARD: Mapping[LesionClass, tuple[Code, ...]] = {
    LesionClass.MEL: (
        _sct("93655004", "Malignant melanoma of skin", Verification.HIGH),
        Code(ICD10, "C43", "Malignant melanoma of skin", Verification.HIGH),
    ),
    LesionClass.BCC: (
        _sct("254701007", "Basal cell carcinoma of skin", Verification.HIGH),
        Code(ICD10, "C44", "Other malignant neoplasms of skin", Verification.HIGH),
    ),
    LesionClass.NV: (
        _sct("400096001", "Melanocytic nevus", Verification.MEDIUM),
        Code(ICD10, "D22", "Melanocytic naevi", Verification.HIGH),
    ),
}

CLASS_CODES: Mapping[LesionClass, tuple[Code, ...]] = MappingProxyType(
    {label: (*_CLASS_STANDARD.get(label, ()), CLASS_LOCAL[label]) for label in LesionClass}
)
"""All codings of a class, the most widely understood first, our own always last. Groups have only our own."""

CLASS_PROBABILITY: Mapping[LesionClass, Code] = MappingProxyType(
    {label: _local(f"p-{label.value}", f"Probability: {CLASS_LOCAL[label].display}"[:64]) for label in LesionClass}
)
"""The quantity "calibrated probability of this class": not the disorder itself, which nobody has diagnosed."""


def class_code(label: LesionClass) -> Code:
    """The one code of a class where only one may stand (DICOM): SNOMED CT where a precise one is known, else ours."""
    return CLASS_CODES[label][0]


# -------------------------------------------------------------------------------------------------------------- triage

TRIAGE: Mapping[TriageTier, Code] = MappingProxyType(
    {
        TriageTier.URGENT: _local("urgent", "Urgent review"),
        TriageTier.EXPEDITED: _local("expedited", "Expedited review"),
        TriageTier.UNDETERMINED: _local("undetermined", "Undetermined: the algorithm abstained"),
        TriageTier.ROUTINE: _local("routine", "Routine review"),
        TriageTier.MONITOR: _local("monitor", "Monitor"),
    }
)

# ------------------------------------------------------------------------------------- what is observed, with its unit

MILLIMETRE = _unit("mm", "mm")
SQUARE_MILLIMETRE = _unit("mm2", "mm2")
PIXELS = _unit("{pixels}", "pixels")
PERCENT = _unit("%", "%")
RATIO = _unit("1", "1")

CLASSIFICATION = _local("classification", "Lesion classification by image analysis")
ALGORITHM_CLASS = _local("algorithm-class", "Lesion classification by the algorithm, corrected since")
MELANOMA_RISK = _local("melanoma-risk", "Melanoma risk by image analysis")
MALIGNANCY_RISK = _local("malignancy-risk", "Malignancy risk by image analysis")
CONFIDENCE = _local("confidence", "Calibrated probability of the class called")
TRIAGE_TIER = _local("triage", "Triage tier by image analysis")
EXPLANATION = _local("explanation", "Explanation of the image analysis")
ABSTENTION = _local("abstention", "Reason for which the algorithm abstained")
PREDICTION_SET = _local("prediction-set", "Class that cannot be excluded")
DECISION_NOTE = _local("decision-note", "Why the class called is not the most probable")
CHANGE = _local("change", "Change since an earlier image of the lesion")
LESION_SIZE = _local("lesion-size", "Lesion size in the image")
LESION_BORDER = _local("lesion-border", "Lesion border in the image")
IMAGE_QUALITY = _dcm("111101", "Image Quality")
LESION_COLOUR = _dcm("130832", "Skin lesion color")

REVIEW = _local("review", "Clinician's review of the result")
CLINICIAN_CLASS = _local("clinician-class", "Lesion class given by a clinician")
VERDICTS: Mapping[Verdict, Code] = MappingProxyType(
    {
        Verdict.CONFIRMED: _local("confirmed", "Confirmed by a clinician"),
        Verdict.CORRECTED: _local("corrected", "Corrected by a clinician"),
        Verdict.UNUSABLE: _local("withdrawn", "Withdrawn by a clinician: not usable"),
        Verdict.COMMENTED: _local("commented", "Commented by a clinician"),
    }
)

ABSTENTION_REASONS: Mapping[str, Code] = MappingProxyType(
    {
        "not_dermoscopy": _local("not-dermoscopy", "Not a dermoscopic image of skin"),
        "too_small": _local("too-small", "Image too small"),
        "blur": _local("blur", "Image blurred"),
        "exposure": _local("exposure", "Image under- or overexposed"),
        "glare": _local("glare", "Glare covers much of the image"),
        "no_lesion": _local("no-lesion", "No lesion found"),
        "lesion_cut_off": _local("lesion-cut-off", "Lesion not wholly in the image"),
        "unlike_training": _local("unlike-training", "Unlike the images the model was trained on"),
        "low_confidence": _local("low-confidence", "No class likely enough"),
        "ambiguous": _local("ambiguous", "Too many classes cannot be excluded"),
    }
)
"""By `dermoscopy.domain.Reason.code`."""

AREA = _sct("42798000", "Area")
PERIMETER = _sct("131191004", "Perimeter")
DIAMETER = _sct("81827009", "Diameter")
AREA_PERCENT = _local("area-percent", "Lesion area as a share of the image")
EQUIVALENT_DIAMETER = _local("eq-diameter", "Diameter of the circle of equal area")
CIRCULARITY = _local("circularity", "Circularity")
SOLIDITY = _local("solidity", "Solidity (area over convex hull area)")
ECCENTRICITY = _local("eccentricity", "Eccentricity of the equivalent ellipse")
ASYMMETRY = _local("asymmetry", "Asymmetry (mean non-overlap after folding)")
BORDER_IRREGULARITY = _local("border-irreg", "Border irregularity (perimeter squared over 4 pi area)")
COLOUR_COUNT = _local("colour-count", "Number of dermoscopic reference colours")
COLOUR_VARIETY = _local("colour-variety", "Colour variety")

AREA_PIXELS = _local("area-px", "Area in pixels of the image")
PERIMETER_PIXELS = _local("perimeter-px", "Perimeter in pixels of the image")
EQUIVALENT_DIAMETER_PIXELS = _local("eq-diameter-px", "Diameter of the circle of equal area in pixels")
"""For components beside the calibrated value: FHIR forbids a component with the code of its Observation (obs-7)."""

QUALITY_USABLE = _dcm("111237", "Usable - Meets the quality control standard")
QUALITY_UNUSABLE = _dcm("111235", "Unusable - Quality renders image unusable")
"""CID 6044; the quality control standard is the algorithm's own gate."""


@dataclass(frozen=True, slots=True)
class MeasurementCode:
    """How one attribute of `dermoscopy.domain.LesionMeasurements` is coded."""

    attribute: str
    concept: Code
    unit: Code
    broader: Code | None = None
    """A standard concept that holds for it as well, but says less."""


MEASUREMENTS: tuple[MeasurementCode, ...] = (
    MeasurementCode("area_mm2", AREA, SQUARE_MILLIMETRE),
    MeasurementCode("area_px", AREA, PIXELS),
    MeasurementCode("area_percent", AREA_PERCENT, PERCENT),
    MeasurementCode("perimeter_mm", PERIMETER, MILLIMETRE),
    MeasurementCode("perimeter_px", PERIMETER, PIXELS),
    MeasurementCode("equivalent_diameter_mm", EQUIVALENT_DIAMETER, MILLIMETRE, DIAMETER),
    MeasurementCode("equivalent_diameter_px", EQUIVALENT_DIAMETER, PIXELS, DIAMETER),
    MeasurementCode("circularity", CIRCULARITY, RATIO),
    MeasurementCode("solidity", SOLIDITY, RATIO),
    MeasurementCode("eccentricity", ECCENTRICITY, RATIO),
    MeasurementCode("asymmetry", ASYMMETRY, RATIO),
    MeasurementCode("border_irregularity", BORDER_IRREGULARITY, RATIO),
    MeasurementCode("colour_count", COLOUR_COUNT, RATIO),
    MeasurementCode("colour_variety", COLOUR_VARIETY, RATIO),
)


def colour_fraction(name: str) -> Code:
    """Share of lesion pixels near the reference colour ``name`` (a key of ``colour_fractions``)."""
    return _local(f"col-{name.replace('_', '-')}", f"Share of lesion near {name.replace('_', ' ')}")


def quality_score(name: str) -> Code:
    """Image-quality or novelty score ``name`` (a key of ``Quality.scores``); may be too long for DICOM's Code Value."""
    return _local(f"q-{name.replace('_', '-')}", f"Image quality: {name.replace('_', ' ')}")


# ------------------------------------------------------------------------------------------ segment, report, algorithm

SEGMENT_CATEGORY = _sct("49755003", "Morphologically Abnormal Structure")
SEGMENT_TYPE = _sct("52988006", "Lesion")
HAIR_CATEGORY = _sct("91723000", "Anatomical Structure")
HAIR = _sct("386045008", "Hair")
SKIN_LESION = _sct("95324001", "Skin lesion")
DERMATOSCOPY = _sct("1237125003", "Optical dermatoscopy of skin", Verification.HIGH)
DERMOSCOPIC_PHOTOGRAPHY = _sct("446078004", "Dermoscopic photography")
MODALITY_DERMOSCOPY = _dcm("DMS", "Dermoscopy")
MODALITY_SEGMENTATION = _dcm("SEG", "Segmentation")
MODALITY_REPORT = _dcm("SR", "Structured Report Document")
MODALITY_OTHER = _dcm("OT", "Other")
MODALITY_EXTERNAL = _dcm("XC", "External-camera Photography")
ALGORITHM_NAME = _dcm("111001", "Algorithm Name")
ALGORITHM_PARAMETERS = _dcm("111002", "Algorithm Parameters")
ALGORITHM_VERSION = _dcm("111003", "Algorithm Version")
ARTIFICIAL_INTELLIGENCE = _dcm("123110", "Artificial Intelligence")
"""Segmentation Algorithm Family (CID 7162)."""
MORPHOLOGICAL_OPERATIONS = _dcm("123104", "Morphological Operations")
DIAGNOSTIC_IMAGING_STUDY = Code(LOINC, "18748-4", "Diagnostic imaging study", Verification.VERIFIED)

AI_ASSERTED = Code(OBSERVATION_VALUE, "AIAST", "Artificial Intelligence asserted", Verification.VERIFIED)
"""Security label and reason (https://build.fhir.org/ig/HL7/aitransparency-ig/)."""
CLINICIAN_ASSERTED = Code(OBSERVATION_VALUE, "CLINAST", "clinician asserted", Verification.VERIFIED)
"""Security label of what a clinician says, in place of or beside `AI_ASSERTED` (same value set of HL7 v3)."""
AI_DEVICE = Code(
    AI_DEVICE_TYPE, "Artificial-Intelligence", "All kinds of Artificial Intelligence", Verification.VERIFIED
)
AI_CONFIDENCE_URL = "http://hl7.org/fhir/uv/aitransparency/StructureDefinition/AIconfidence"
"""Extension with the confidence as ``valueDecimal`` (0…1); in the current build, not yet in the 2026 ballot."""

CATEGORY_IMAGING = Code(OBSERVATION_CATEGORY, "imaging", "Imaging", Verification.VERIFIED)
ABSENT_UNKNOWN = Code(DATA_ABSENT_REASON, "unknown", "Unknown", Verification.VERIFIED)
ABSENT_NOT_APPLICABLE = Code(DATA_ABSENT_REASON, "not-applicable", "Not Applicable", Verification.VERIFIED)
PARTICIPANT_AUTHOR = Code(PROVENANCE_PARTICIPANT, "author", "Author", Verification.VERIFIED)
PARTICIPANT_VERIFIER = Code(PROVENANCE_PARTICIPANT, "verifier", "Verifier", Verification.VERIFIED)
ACCESSION_IDENTIFIER = Code(IDENTIFIER_TYPE, "ACSN", "Accession ID", Verification.VERIFIED)

# --------------------------------------------------------------------------------------------------------------- where

LATERALITY: Mapping[str, Code] = MappingProxyType(
    {
        "R": _sct("24028007", "Right"),
        "L": _sct("7771000", "Left"),
        "B": _sct("51440002", "Right and left"),
    }
)
"""DICOM Image Laterality (0020,0062) → SNOMED CT; ``U`` (unpaired) and unknown values have no code."""

SITE_SKIN = _sct("39937001", "Skin")

_SITES: tuple[tuple[str, str], ...] = (
    ("280387007", "Groin skin crease"),
    ("770820003", "Nail unit of fifth toe"),
    ("770809003", "Nail unit of finger"),
    ("770821004", "Nail unit of fourth toe"),
    ("770822006", "Nail unit of great toe"),
    ("770815003", "Nail unit of index finger"),
    ("770818001", "Nail unit of little finger"),
    ("770816002", "Nail unit of middle finger"),
    ("770817006", "Nail unit of ring finger"),
    ("770823001", "Nail unit of second toe"),
    ("770825008", "Nail unit of third toe"),
    ("770810008", "Nail unit of thumb"),
    ("770805009", "Nail unit of toe"),
    ("39937001", "Skin"),
    ("75093004", "Skin of abdomen"),
    ("68598004", "Skin of ala nasi"),
    ("17957002", "Skin of antecubital fossa"),
    ("11584001", "Skin of anterior portion of neck"),
    ("70559009", "Skin of anterior surface of forearm"),
    ("181553006", "Skin of anterior surface of knee"),
    ("25763004", "Skin of anterior surface of lower leg"),
    ("61248009", "Skin of anterior surface of thigh"),
    ("244106003", "Skin of anterior surface of thorax"),
    ("45981001", "Skin of anterior surface of upper arm"),
    ("181491009", "Skin of anterior trunk"),
    ("38407007", "Skin of antitragus"),
    ("59112000", "Skin of anus"),
    ("72005009", "Skin of areola"),
    ("76261009", "Skin of axilla"),
    ("66643007", "Skin of back"),
    ("699893008", "Skin of back of upper thoracic region"),
    ("22180002", "Skin of buttock"),
    ("51098001", "Skin of cavity of concha"),
    ("36141000", "Skin of cheek"),
    ("23747009", "Skin of chin"),
    ("29353003", "Skin of clitoris"),
    ("57726007", "Skin of crus of helix"),
    ("244169007", "Skin of digit of hand"),
    ("52876008", "Skin of dorsal area of wrist"),
    ("1902009", "Skin of ear"),
    ("2059009", "Skin of ear lobule"),
    ("30598005", "Skin of epigastric area"),
    ("86409001", "Skin of external auditory canal"),
    ("60944009", "Skin of external genitalia"),
    ("362916000", "Skin of eye region"),
    ("367577003", "Skin of eyebrow"),
    ("73897004", "Skin of face"),
    ("60496002", "Skin of foot"),
    ("68698007", "Skin of forehead"),
    ("7991003", "Skin of glans penis"),
    ("63029009", "Skin of gluteal fold"),
    ("33712006", "Skin of hand"),
    ("70762009", "Skin of head"),
    ("84607009", "Skin of heel"),
    ("79313003", "Skin of helix of ear"),
    ("367578008", "Skin of hypogastric region"),
    ("89784008", "Skin of hypothenar region of palm"),
    ("66288003", "Skin of infraclavicular region"),
    ("39687006", "Skin of inguinal region"),
    ("45591000", "Skin of intertragal incisure"),
    ("244097004", "Skin of jawline"),
    ("73058008", "Skin of labium"),
    ("128252004", "Skin of labium majus"),
    ("128253009", "Skin of labium minus"),
    ("181564009", "Skin of lateral aspect of ankle"),
    ("35739000", "Skin of lateral border of sole of foot"),
    ("37671003", "Skin of lateral canthus"),
    ("699909001", "Skin of lateral part of heel"),
    ("5272005", "Skin of lateral portion of neck"),
    ("88089004", "Skin of lip"),
    ("699914002", "Skin of lower abdomen"),
    ("113182001", "Skin of lower back"),
    ("699915001", "Skin of lower chest wall"),
    ("371304004", "Skin of lower extremity"),
    ("40069000", "Skin of lower eyelid"),
    ("66934001", "Skin of lower lip"),
    ("181563003", "Skin of medial aspect of ankle"),
    ("52953006", "Skin of medial border of sole of foot"),
    ("27887005", "Skin of medial canthus"),
    ("699919007", "Skin of medial part of heel"),
    ("73958006", "Skin of medial surface of thigh"),
    ("37108007", "Skin of nasolabial fold"),
    ("43081002", "Skin of neck"),
    ("54468004", "Skin of nipple"),
    ("113179006", "Skin of nose"),
    ("4658004", "Skin of nuchal region"),
    ("79951008", "Skin of occipital region"),
    ("70887009", "Skin of palm of hand"),
    ("24527008", "Skin of palmar area of wrist"),
    ("21672008", "Skin of parietal region"),
    ("281642007", "Skin of part of dorsal surface of hand"),
    ("35900000", "Skin of penis"),
    ("48014002", "Skin of perineum"),
    ("110488009", "Skin of perioral region of face"),
    ("84365009", "Skin of philtrum"),
    ("84507004", "Skin of popliteal fossa"),
    ("24483006", "Skin of postauricular region"),
    ("181536004", "Skin of posterior surface of elbow"),
    ("41550009", "Skin of posterior surface of forearm"),
    ("47224004", "Skin of posterior surface of lower leg"),
    ("4578000", "Skin of posterior surface of thigh"),
    ("244111001", "Skin of posterior surface of thorax"),
    ("72939005", "Skin of posterior surface of upper arm"),
    ("86719006", "Skin of preauricular region"),
    ("76723005", "Skin of prepuce of clitoris"),
    ("244117002", "Skin of root of penis"),
    ("43067004", "Skin of scalp"),
    ("81992007", "Skin of scrotum"),
    ("244118007", "Skin of shaft of penis"),
    ("314395006", "Skin of side of nose"),
    ("34926004", "Skin of submental area"),
    ("76072005", "Skin of supraclavicular region of neck"),
    ("16621002", "Skin of temporal region"),
    ("26795005", "Skin of thenar region of palm"),
    ("79283007", "Skin of tip of nose"),
    ("52034004", "Skin of toe"),
    ("79502000", "Skin of tragus"),
    ("315003", "Skin of umbilicus"),
    ("699935000", "Skin of upper abdomen"),
    ("371311000", "Skin of upper extremity"),
    ("41310005", "Skin of upper eyelid"),
    ("16251004", "Skin of upper lip"),
    ("54440003", "Skin of upper trunk"),
    ("61719002", "Skin of vertex of scalp"),
    ("244107007", "Sternal skin"),
)

SITES: Mapping[str, Code] = MappingProxyType({code: _sct(code, display) for code, display in _SITES})
"""SNOMED CT rows of CID 4029 (dermatology anatomic sites) that name skin or nails; laterality stands apart."""


def site(code: str) -> Code:
    """Body site of a SNOMED CT code. One that CID 4029 does not list keeps its code and has no display of ours."""
    return SITES.get(code) or _sct(code, "", Verification.LOW)


# ------------------------------------------------------------------------------------------- orders, and what overrides


class OrderKind(StrEnum):
    """Orders that a finding has something to say about."""

    REFERRAL = "referral"
    BIOPSY = "biopsy"
    EXCISION = "excision"


@dataclass(frozen=True, slots=True)
class OrderCode:
    """A code by which an order is recognised. ``skin``: it says by itself that skin (or dermatology) is meant."""

    code: Code
    kind: OrderKind
    skin: bool = True


PATIENT_REFERRAL = _sct("3457005", "Patient referral", Verification.HIGH)
DERMATOLOGY = _sct("394582007", "Dermatology")
"""Of http://hl7.org/fhir/ValueSet/c80-practice-codes (R4)."""

_CPT_BIOPSY = ("11102", "11103", "11104", "11105", "11106", "11107")
_CPT_EXCISION = (
    *("11400", "11401", "11402", "11403", "11404", "11406", "11420", "11421", "11422", "11423", "11424", "11426"),
    *("11440", "11441", "11442", "11443", "11444", "11446"),
    *("11600", "11601", "11602", "11603", "11604", "11606", "11620", "11621", "11622", "11623", "11624", "11626"),
    *("11640", "11641", "11642", "11643", "11644", "11646"),
)

ORDER_CODES: Mapping[tuple[str, str], OrderCode] = MappingProxyType(
    {
        (row.code.system, row.code.code): row
        for row in (
            OrderCode(PATIENT_REFERRAL, OrderKind.REFERRAL, skin=False),
            OrderCode(_sct("240977001", "Biopsy of skin"), OrderKind.BIOPSY),  # CID 4409
            OrderCode(_sct("86273004", "Biopsy"), OrderKind.BIOPSY, skin=False),  # CID 8109
            OrderCode(_sct("440258006", "Excision of skin"), OrderKind.EXCISION),  # CID 4409
            OrderCode(_sct("35646002", "Excision of lesion of skin", Verification.HIGH), OrderKind.EXCISION),
            OrderCode(_sct("65801008", "Excision"), OrderKind.EXCISION, skin=False),  # CID 8109
            *(OrderCode(Code(CPT, c, "Biopsy of skin", Verification.HIGH), OrderKind.BIOPSY) for c in _CPT_BIOPSY),
            *(
                OrderCode(Code(CPT, c, "Excision of a skin lesion", Verification.HIGH), OrderKind.EXCISION)
                for c in _CPT_EXCISION
            ),
        )
    }
)
"""By (system, code). CPT's own texts are the American Medical Association's and not repeated. No LOINC code was found
that orders one of these: LOINC names the documents that come of them."""

OVERRIDE_REASONS: tuple[Code, ...] = (
    Code(ACT_CODE, "2", "Assessed Patient", Verification.VERIFIED),
    Code(ACT_CODE, "4", "Consulted Other Source", Verification.VERIFIED),
    Code(ACT_CODE, "9", "Instituted Ongoing Monitoring Program", Verification.VERIFIED),
    Code(ACT_CODE, "8", "Other Action Taken", Verification.VERIFIED),
    _sct("428119001", "Procedure not indicated"),
    _sct("416432009", "Procedure not wanted"),
)
"""Why a clinician sets a card aside. HL7's own answers to a detected issue
(http://hl7.org/fhir/ValueSet/detectedissue-mitigation-action, R4; written for drug therapy, used here for what their
displays say), and two of http://hl7.org/fhir/ValueSet/procedure-not-performed-reason."""
