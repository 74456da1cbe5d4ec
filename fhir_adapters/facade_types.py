"""What the read side serves, as tables: resource types with their search parameters, and what may be included.

The CapabilityStatement, the checks of a request and the filters all read these tables, so that none promises what
another does not keep. Names and types are those of https://hl7.org/fhir/R4/searchparameter-registry.html; ``study`` is
ours, since R4 has no parameter that leads from a report or an Observation to its DICOM study.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Served(StrEnum):
    """How a search parameter is answered."""

    ID = "id"
    """Names the analysis."""
    PATIENT = "patient"
    """A column; in the body of a POST alone."""
    STUDY = "study"
    """A column; pictures that were wrapped into a study of ours are looked through."""
    MOMENT = "moment"
    """A column: when the image was accepted, which the resource carries as its clinical time."""
    UPDATED = "updated"
    """A column: when this version was stored."""
    TARGET = "target"
    """The id in the reference names the analysis."""
    IDENTIFIER = "identifier"
    """A column where it is the report's or a DICOM object's; else resources are looked through."""
    CODED = "coded"
    """Resources are looked through."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One search parameter of one resource type."""

    name: str
    kind: str
    """https://hl7.org/fhir/R4/valueset-search-param-type.html"""
    served: Served
    definition: str
    """Canonical URL of the SearchParameter; empty for our own."""
    documentation: str = ""
    element: str = ""
    """Element of the resource that is looked at, where the resource is."""


@dataclass(frozen=True, slots=True)
class ServedType:
    """One resource type of the read side."""

    name: str
    parameters: Mapping[str, Parameter]
    includes: Mapping[str, tuple[str, ...]]
    """``_include`` value → path of the element that holds the references."""
    about: str


LARGEST_PAGE = 200
DEFAULT_PAGE = 50
PATIENT_FORMS = ("patient:identifier", "patient.identifier", "subject:identifier", "subject.identifier")
"""Ways in which a client may write it; a patient here is a logical reference, and has no id."""
RESULT_PARAMETERS: Mapping[str, str] = {
    "_count": f"Resources on a page, 1 to {LARGEST_PAGE}; {DEFAULT_PAGE} where nothing is said, 0 as _summary=count",
    "_summary": "count alone (or false)",
    "_include": "what the type lists under searchInclude",
    "_format": "json, application/json or application/fhir+json",
}
"""Parameters about the answer (https://hl7.org/fhir/R4/search.html#Summary)."""

_R4 = "http://hl7.org/fhir/SearchParameter/"
_BY_POST = (
    "As patient:identifier or patient.identifier with system|value, and in the body of POST …/_search alone: no "
    "address carries a patient's identifier. Patients are logical references here; there is no Patient/[id]."
)
_ID = Parameter("_id", "token", Served.ID, f"{_R4}Resource-id")
_UPDATED = Parameter(
    "_lastUpdated", "date", Served.UPDATED, f"{_R4}Resource-lastUpdated", "When this version was stored here"
)
_STUDY = Parameter(
    "study", "token", Served.STUDY, "", "DICOM Study Instance UID of the image, bare or as urn:dicom:uid|urn:oid:[UID]"
)


def _identifier(definition: str, element: str = "identifier") -> Parameter:
    return Parameter(
        "identifier",
        "token",
        Served.IDENTIFIER,
        f"{_R4}{definition}",
        "urn:uuid: identifiers of ours and DICOM UIDs (urn:oid:); accession numbers are not searched for",
        element,
    )


def _patient(definition: str) -> Parameter:
    return Parameter("patient", "reference", Served.PATIENT, f"{_R4}{definition}", _BY_POST)


def _subject(definition: str) -> Parameter:
    by_post = _BY_POST.replace("patient:", "subject:").replace("patient.", "subject.")
    return Parameter("subject", "reference", Served.PATIENT, f"{_R4}{definition}", by_post)


def _moment(name: str, definition: str) -> Parameter:
    return Parameter(name, "date", Served.MOMENT, f"{_R4}{definition}", "When the image was accepted for analysis")


def _token(name: str, definition: str) -> Parameter:
    return Parameter(name, "token", Served.CODED, f"{_R4}{definition}", "", name)


def _type(
    name: str, about: str, *parameters: Parameter, includes: Mapping[str, tuple[str, ...]] | None = None
) -> ServedType:
    listed = (_ID, _UPDATED, *parameters)
    return ServedType(name, {one.name: one for one in listed}, dict(includes or {}), about)


TYPES: Mapping[str, ServedType] = {
    one.name: one
    for one in (
        _type(
            "DiagnosticReport",
            "One for each analysis: preliminary until a clinician reviewed it, then final, amended or entered-in-error",
            _identifier("clinical-identifier"),
            _patient("clinical-patient"),
            _subject("DiagnosticReport-subject"),
            _STUDY,
            _moment("date", "clinical-date"),
            _token("status", "DiagnosticReport-status"),
            _token("code", "clinical-code"),
            includes={"DiagnosticReport:result": ("result",), "DiagnosticReport:media": ("media", "link")},
        ),
        _type(
            "Observation",
            "One for each question of an analysis; a question without an answer has dataAbsentReason",
            _identifier("clinical-identifier"),
            _patient("clinical-patient"),
            _subject("Observation-subject"),
            _STUDY,
            _moment("date", "clinical-date"),
            _token("status", "Observation-status"),
            _token("code", "clinical-code"),
        ),
        _type(
            "ImagingStudy",
            "What one analysis read and made of a DICOM study; two analyses of a study give two with its identifier",
            _identifier("clinical-identifier"),
            _patient("clinical-patient"),
            _subject("ImagingStudy-subject"),
            _STUDY,
            _token("status", "ImagingStudy-status"),
        ),
        _type(
            "Device",
            "One for each set of weights, shared by all their analyses",
            _identifier("Device-identifier"),
            _token("status", "Device-status"),
        ),
        _type(
            "Provenance",
            "Which computation made an analysis, and one for each review that changed its report",
            Parameter(
                "target",
                "reference",
                Served.TARGET,
                f"{_R4}Provenance-target",
                "[type]/[id] of a resource of ours but Device",
                "target",
            ),
        ),
        _type(
            "DocumentReference",
            "Where segmentation, measurement report and secondary capture are (DICOMweb)",
            _identifier("clinical-identifier", "masterIdentifier"),
            _patient("clinical-patient"),
            _subject("DocumentReference-subject"),
            _STUDY,
            _moment("date", "DocumentReference-date"),
            _token("status", "DocumentReference-status"),
        ),
        _type(
            "BodyStructure",
            "The lesion in one image",
            _identifier("BodyStructure-identifier"),
            _patient("BodyStructure-patient"),
            _STUDY,
        ),
        _type(
            "Media",
            "The picture that goes with a report, by its DICOM UID",
            _identifier("Media-identifier"),
            _patient("Media-patient"),
            _subject("Media-subject"),
            _STUDY,
            _moment("created", "Media-created"),
            _token("status", "Media-status"),
        ),
    )
}
"""Every resource type of the rendered bundles."""
