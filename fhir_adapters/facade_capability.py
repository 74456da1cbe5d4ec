"""CapabilityStatement of the read side, made from the tables that it is served by.

https://hl7.org/fhir/R4/capabilitystatement.html; the export is that of https://hl7.org/fhir/uv/bulkdata/.
"""

from __future__ import annotations

from datetime import datetime

from fhir.resources.R4B.capabilitystatement import CapabilityStatement

from fhir_adapters.elements import FHIR_JSON, JsonObject, instant
from fhir_adapters.facade_types import RESULT_PARAMETERS, TYPES, Parameter, ServedType

FHIR_VERSION = "4.0.1"
INTERACTIONS = ("read", "vread", "search-type")
"""Of every type (https://hl7.org/fhir/R4/valueset-type-restful-interaction.html); a Device has no former versions."""
EXPORT = "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/export"
_SPECIAL = "special"
_SECURITY = (
    "An API token of the role read in the Authorization header (Bearer); $export takes the role admin. Every read and "
    "every search leaves an entry in the audit log. Patient identifiers are taken in the body of POST …/_search alone."
)


def capability_statement(base: str, version: str, started: datetime, *, cors: bool) -> JsonObject:
    """What is served at ``base`` by this version of the software; ``cors``: whether pages of other sites may ask.

    Raises `pydantic.ValidationError` if it is not FHIR: a fault of this room.
    """
    rest: JsonObject = {
        "mode": "server",
        "documentation": "Read side of the results of dermoscopic image analysis; nothing can be written here.",
        "security": {"cors": cors, "description": _SECURITY},
        "resource": [_resource(one) for one in TYPES.values()],
        "operation": [{"name": "export", "definition": EXPORT, "documentation": "System level: _type, _since"}],
    }
    found: JsonObject = {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": instant(started),
        "kind": "instance",
        "software": {"name": "Dermoscopy decision support", "version": version},
        "implementation": {"description": "Results of dermoscopic image analysis", "url": base},
        "fhirVersion": FHIR_VERSION,
        "format": [FHIR_JSON, "json"],
        "rest": [rest],
    }
    CapabilityStatement.model_validate(found)
    return found


def _resource(served: ServedType) -> JsonObject:
    kinds = [name for name in INTERACTIONS if not (served.name == "Device" and name == "vread")]
    made: JsonObject = {
        "type": served.name,
        "documentation": served.about,
        "interaction": [{"code": name} for name in kinds],
        "versioning": "versioned" if "vread" in kinds else "no-version",
        "readHistory": "vread" in kinds,
        "updateCreate": False,
        "conditionalRead": "not-match",
        "referencePolicy": ["literal", "logical"],
        "searchParam": [_parameter(one) for one in served.parameters.values()]
        + [
            {"name": name, "type": _SPECIAL, "documentation": text}
            for name, text in RESULT_PARAMETERS.items()
            if name in ("_count", "_summary")
        ],
    }
    if served.includes:
        made["searchInclude"] = list(served.includes)
    return made


def _parameter(one: Parameter) -> JsonObject:
    made: JsonObject = {"name": one.name, "type": one.kind}
    if one.definition:
        made["definition"] = one.definition
    if one.documentation:
        made["documentation"] = one.documentation
    return made
