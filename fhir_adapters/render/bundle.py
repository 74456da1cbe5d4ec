"""The R4 transaction that carries one analysis into the EHR (https://hl7.org/fhir/R4/http.html#transaction).

Every entry names its resource by a derived identifier and is written conditionally: sending the bundle again, or
sending a later amendment, finds the resources of the first time.
"""

from __future__ import annotations

import hashlib
import json

from fhir.resources.R4B.bundle import Bundle

from dermoscopy.domain import Artifact, ArtifactKind
from dermoscopy.identifiers import SYSTEM, digest_uri, report_identifier
from dermoscopy.ports import RenderInput
from fhir_adapters.elements import FHIR_JSON, JsonObject, entry_url, own_identifier
from fhir_adapters.render.body_structure import body_structure
from fhir_adapters.render.device import device
from fhir_adapters.render.diagnostic_report import diagnostic_report
from fhir_adapters.render.document_reference import document_references
from fhir_adapters.render.draft import Draft
from fhir_adapters.render.imaging_study import imaging_study
from fhir_adapters.render.media import media
from fhir_adapters.render.observation import observations
from fhir_adapters.render.provenance import provenance, review_provenances
from fhir_adapters.seal import revision_tag, seal


def bundle(what: RenderInput) -> Artifact:
    """The bundle of an analysis, with the artifacts rendered before it; the same input gives the same bytes.

    The patient is a logical reference; `fhir_adapters.deliver` fills in the addressee's own. The report is tagged with
    the digest of the whole, by which a repeat is known before it is sent; report and Observations are sealed, so that
    what somebody changes in the EHR is known before it is replaced.
    Raises `pydantic.ValidationError` if what was built is not FHIR: a fault of this room, never of the input.
    """
    draft = Draft(what)
    entries = [_updated(device(draft))]
    if draft.has_study:
        entries.append(_created_once(draft.urn("imaging-study"), imaging_study(draft)))
    entries.append(_updated(body_structure(draft)))
    answers, report, picture = observations(draft), diagnostic_report(draft), media(draft)
    for resource in (*answers, report):
        resource["meta"]["tag"] = [seal(resource)]
    if what.revision:
        report["meta"]["tag"].append(revision_tag(what.revision))
    documents = [*document_references(draft), *([picture] if picture else [])]
    made = [_updated(resource) for resource in (*answers, *documents, report)]
    targets = [entry["fullUrl"] for entry in made]
    entries += [*made, _tagged(provenance(draft, targets))]
    entries += [_tagged(reviewed) for reviewed in review_provenances(draft, targets)]
    content: JsonObject = {
        "resourceType": "Bundle",
        "identifier": own_identifier(draft.urn("bundle")),
        "type": "transaction",
        "timestamp": draft.issued,
        "entry": entries,
    }
    digest = hashlib.sha256(canonical(content)).hexdigest()
    report["meta"]["tag"].insert(0, {"system": SYSTEM, "code": digest_uri(digest)})
    Bundle.model_validate(content)
    return Artifact(
        kind=ArtifactKind.FHIR_BUNDLE,
        media_type=FHIR_JSON,
        data=canonical(content),
        uid=report_identifier(what.analysis.id),
    )


def canonical(content: JsonObject) -> bytes:
    """JSON with sorted keys and no spare blanks. Raises `ValueError` for numbers that JSON does not have."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def _updated(resource: JsonObject) -> JsonObject:
    """Conditional update by our own identifier (https://hl7.org/fhir/R4/http.html#cond-update)."""
    kind, identifier = resource["resourceType"], resource["identifier"][0]
    condition = f"{kind}?identifier={identifier['system']}|{identifier['value']}"
    return {
        "fullUrl": entry_url(identifier["value"]),
        "resource": resource,
        "request": {"method": "PUT", "url": condition},
    }


def _created_once(urn: str, resource: JsonObject) -> JsonObject:
    """Conditional create (https://hl7.org/fhir/R4/http.html#ccreate): what the addressee already has stays as it is."""
    identifier = resource["identifier"][0]
    return {
        "fullUrl": entry_url(urn),
        "resource": resource,
        "request": {
            "method": "POST",
            "url": resource["resourceType"],
            "ifNoneExist": f"identifier={identifier['system']}|{identifier['value']}",
        },
    }


def _tagged(resource: JsonObject) -> JsonObject:
    """Conditional update of a resource that has no identifier, by its tag."""
    tag = resource["meta"]["tag"][0]
    return {
        "fullUrl": entry_url(tag["code"]),
        "resource": resource,
        "request": {"method": "PUT", "url": f"{resource['resourceType']}?_tag={tag['system']}|{tag['code']}"},
    }
