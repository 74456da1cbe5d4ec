"""Images that stand in a chart: Media, DocumentReference (with Binary) and ImagingStudy (by WADO-RS).

https://hl7.org/fhir/R4/media.html, …/documentreference.html, …/imagingstudy.html, DICOM PS3.18 10.4. Only what names
the patient of the context is looked at. What says that it is something else than dermoscopy is passed over, what says
nothing of its kind is taken (the quality gate abstains on it), and what this service made itself never comes back.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from dermoscopy import codes
from dermoscopy.errors import Rejected
from fhir_adapters.concepts import codings, is_patient, members, says_dermoscopy, side_of, site_codes
from fhir_adapters.fetch import Content

PICTURES: Final = ("image/jpeg", "image/png", "application/dicom")
ACCEPT_BINARY: Final = "image/jpeg, image/png, application/dicom, application/fhir+json;q=0.5"
ACCEPT_DICOM: Final = 'multipart/related; type="application/dicom"; transfer-syntax=*, application/dicom;q=0.5'
DERMOSCOPIC_CLASS: Final = "1.2.840.10008.5.1.4.1.1.77.1.7"
SEARCHES: Final[Mapping[str, Mapping[str, str]]] = {
    "Media": {"_sort": "-created", "_count": "20"},
    "DocumentReference": {"contenttype": ",".join(PICTURES), "_sort": "-date", "_count": "20"},
    "ImagingStudy": {"_sort": "-started", "_count": "20"},
}
"""What is asked of a FHIR server beside ``patient``; the prefetch templates say the same."""
_GONE = ("entered-in-error", "not-done", "cancelled", "superseded")
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True, slots=True)
class ChartImage:
    """One image as the chart refers to it. Either ``data`` holds it (base64) or ``url`` says where it is."""

    reference: str
    """``Media/12``, or ``ImagingStudy/7`` with the SOP Instance UID behind ``#``."""
    made: str
    """FHIR dateTime, or empty."""
    url: str = ""
    data: str = field(default="", repr=False)
    accept: str = ACCEPT_BINARY
    endpoint: str = ""
    """Reference of the Endpoint below which ``url`` is, where it must be read first."""
    sop_instance_uid: str = ""
    body_site_code: str = ""
    laterality: str = ""

    def key(self, server: str) -> str:
        """The same for the same bytes at the same place; tells nothing of whose they are."""
        where = sha256(self.data.encode()).hexdigest() if self.data else f"{self.endpoint} {self.url}"
        return sha256("\x1f".join((server, self.reference, where)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ChartImages:
    """Images of a chart, newest first, and why others were passed over (reason → how many)."""

    images: tuple[ChartImage, ...]
    passed_over: Mapping[str, int]


def resources_of(found: object) -> list[Mapping[str, Any]] | None:
    """Resources of a prefetched value or an answer to a search; ``None`` where it is an OperationOutcome or no data.

    ``null`` is an answer: the client looked, and there is nothing (https://cds-hooks.hl7.org/2.0/#prefetch-template).
    """
    if found is None:
        return []
    if not isinstance(found, Mapping) or found.get("resourceType") == "OperationOutcome":
        return None
    if found.get("resourceType") != "Bundle":
        return [found]
    return [r for entry in members(found.get("entry")) for r in members(entry.get("resource"))]


def chart_images(resources: Sequence[Mapping[str, Any]], patient_id: str) -> ChartImages:
    """The images among ``resources`` that are this patient's and may be dermoscopy."""
    found: list[ChartImage] = []
    passed: Counter[str] = Counter()
    for resource in resources:
        read = _READ.get(str(resource.get("resourceType")))
        if read is None or resource.get("status") in _GONE or resource.get("docStatus") in _GONE:
            continue
        whose = _reference(resource.get("subject"))
        if not is_patient(whose, patient_id):
            passed["of another patient than context.patientId" if whose else "names no patient"] += 1
        elif _ours(resource):
            passed["a result of this service"] += 1
        else:
            found += read(resource, passed)
    return ChartImages(tuple(sorted(found, key=lambda image: image.made, reverse=True)), dict(passed))


def wado_base(endpoint: Mapping[str, Any]) -> str:
    """Address of a DICOMweb endpoint (https://hl7.org/fhir/R4/endpoint.html). Raises `Rejected` for any other."""
    kinds = [coding.get("code") for coding in members(endpoint.get("connectionType"))]
    address = endpoint.get("address")
    if endpoint.get("status", "active") != "active" or "dicom-wado-rs" not in kinds or not isinstance(address, str):
        raise Rejected("the study names no WADO-RS endpoint that is in use")
    return address.rstrip("/")


def image_bytes(content: Content) -> bytes:
    """The image in an answer: bare, in a FHIR Binary, or as the one part of a multipart. Raises `Rejected`."""
    kind = content.media_type.partition(";")[0].strip().lower()
    if "json" in kind:
        return _from_binary(content.data)
    if kind == "multipart/related":
        return _one_part(content)
    if kind in PICTURES or kind in ("application/octet-stream", ""):
        return content.data
    raise Rejected(f"the server answered with {kind[:60]} instead of a JPEG, PNG or DICOM image")


def inline_bytes(data: str) -> bytes:
    """Bytes of ``Attachment.data``. Raises `Rejected`."""
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (ValueError, binascii.Error) as error:
        raise Rejected("the image in the chart is no base64") from error


def _media(resource: Mapping[str, Any], passed: Counter[str]) -> list[ChartImage]:
    kind, modality = resource.get("type"), resource.get("modality")
    content = next(iter(members(resource.get("content"))), {})
    named = says_dermoscopy(kind, modality, resource.get("view"), content.get("title"))
    if not named and (modality or {"video", "audio"} & {code for _, code in _pairs(kind)}):
        passed["another modality than dermoscopy"] += 1
        return []
    where = resource.get("bodySite")
    made = resource.get("createdDateTime") or resource.get("issued")
    return _attached(resource, content, passed, made, (site_codes(where) or [""])[0], side_of(where))


def _document(resource: Mapping[str, Any], passed: Counter[str]) -> list[ChartImage]:
    kind, category = resource.get("type"), resource.get("category")
    attached = [one for part in members(resource.get("content")) for one in members(part.get("attachment"))]
    titles = [one.get("title") for one in attached]
    if not says_dermoscopy(kind, category, resource.get("description"), *titles) and (kind or category):
        passed["a document of another kind than dermoscopy"] += 1
        return []
    found = []
    for one in attached:
        found += _attached(resource, one, passed, resource.get("date"), "", "")
    return found


def _attached(
    resource: Mapping[str, Any], one: Mapping[str, Any], passed: Counter[str], made: object, site: str, side: str
) -> list[ChartImage]:
    kind = str(one.get("contentType") or "").partition(";")[0].strip().lower()
    if kind and kind not in PICTURES:
        passed[f"of type {kind[:60]}, not JPEG, PNG or DICOM"] += 1
        return []
    data, url = one.get("data"), one.get("url")
    if not (isinstance(data, str) and data) and not (isinstance(url, str) and url):
        passed["holds no image and no address of one"] += 1
        return []
    return [
        ChartImage(
            reference=f"{resource['resourceType']}/{resource.get('id', '')}",
            made=str(made or one.get("creation") or ""),
            url="" if isinstance(data, str) and data else str(url),
            data=data if isinstance(data, str) else "",
            body_site_code=site,
            laterality=side,
        )
    ]


def _study(resource: Mapping[str, Any], passed: Counter[str]) -> list[ChartImage]:
    study = next((_uid(i.get("value")) for i in members(resource.get("identifier")) if _uid(i.get("value"))), "")
    found = []
    for series in members(resource.get("series")):
        modality = (series.get("modality") or {}).get("code") if isinstance(series.get("modality"), Mapping) else ""
        endpoint = _endpoint(resource, series)
        listed = members(series.get("instance"))
        if not listed:
            passed["a series without a list of its instances"] += 1
        for instance in listed:
            uid = _uid(instance.get("uid"))
            of_class = {_uid(code) for _, code in _pairs(instance.get("sopClass"))}
            if not study or not uid or not _uid(series.get("uid")):
                passed["without the UIDs to fetch it by"] += 1
            elif modality != codes.MODALITY_DERMOSCOPY.code and DERMOSCOPIC_CLASS not in of_class:
                passed["another modality than dermoscopy"] += 1
            elif not endpoint:
                passed["without a WADO-RS endpoint"] += 1
            else:
                found.append(
                    ChartImage(
                        reference=f"ImagingStudy/{resource.get('id', '')}#{uid}",
                        made=str(series.get("started") or resource.get("started") or ""),
                        url=f"studies/{study}/series/{_uid(series['uid'])}/instances/{uid}",
                        accept=ACCEPT_DICOM,
                        endpoint=endpoint,
                        sop_instance_uid=uid,
                        body_site_code=(site_codes(series.get("bodySite")) or [""])[0],
                        laterality=side_of(series.get("laterality")),
                    )
                )
    return found


def _endpoint(resource: Mapping[str, Any], series: Mapping[str, Any]) -> str:
    """``Endpoint/id`` to be read, or the address itself where the endpoint is contained; empty where there is none."""
    contained = {f"#{one.get('id')}": one for one in members(resource.get("contained"))}
    for named in (*members(series.get("endpoint")), *members(resource.get("endpoint"))):
        reference = _reference(named)
        if reference in contained:
            try:
                return wado_base(contained[reference])
            except Rejected:
                continue
        if re.fullmatch(r"Endpoint/[A-Za-z0-9\-.]{1,64}", reference):
            return reference
    return ""


_READ: Mapping[str, Callable[[Mapping[str, Any], Counter[str]], list[ChartImage]]] = {
    "Media": _media,
    "DocumentReference": _document,
    "ImagingStudy": _study,
}


def _ours(resource: Mapping[str, Any]) -> bool:
    meta = resource.get("meta")
    labels = members(meta.get("security")) if isinstance(meta, Mapping) else []
    return any(label.get("code") == codes.AI_ASSERTED.code for label in labels)


def _reference(value: object) -> str:
    reference = value.get("reference") if isinstance(value, Mapping) else None
    return reference if isinstance(reference, str) else ""


def _pairs(concept: object) -> list[tuple[str, str]]:
    return list(codings(concept))


def _uid(value: object) -> str:
    text = value.removeprefix("urn:oid:") if isinstance(value, str) else ""
    return text if _UID.fullmatch(text) and len(text) <= 64 else ""


def _from_binary(data: bytes) -> bytes:
    try:
        resource = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Rejected("the server answered with something that is not FHIR JSON") from error
    held = resource.get("data") if isinstance(resource, dict) and resource.get("resourceType") == "Binary" else None
    if not isinstance(held, str):
        raise Rejected("the server answered with something else than a Binary that holds data")
    return inline_bytes(held)


def _one_part(content: Content) -> bytes:
    """The first part of a multipart (RFC 2046, 5.1.1)."""
    named = re.search(r'boundary="?([^";,]{1,70})"?', content.media_type)
    if named is None:
        raise Rejected("the server answered with a multipart without a boundary")
    mark = b"--" + named[1].strip().encode("latin-1", "replace")
    parts = (b"\r\n" + content.data).split(b"\r\n" + mark)
    _, empty, body = parts[1].partition(b"\r\n\r\n") if len(parts) > 2 else (b"", b"", b"")
    if not empty:
        raise Rejected("the server answered with a multipart that has no whole part")
    return body
