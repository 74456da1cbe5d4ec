"""Services: what each does on the wire, as user and as provider (PS3.2 N.5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_description
from pydicom.dataset import Dataset

from dermoscopy.domain import PatientIdentity
from dicom_listener import dicomweb_search as search
from dicom_listener.bounds import MAX_DEPTH, MAX_ELEMENTS
from dicom_listener.commitment import CLASS_CONFLICT, COMMITMENT_INSTANCE, MAX_REFERENCES, NO_SUCH_OBJECT
from dicom_listener.conformance.deployment import Deployment
from dicom_listener.conformance.document import Section, Table, rows
from dicom_listener.conformance.overview import FETCHER, LEGEND, RECEIVER, SENDER, WEB_CLIENT, WEB_SERVER
from dicom_listener.dicomweb_media import DICOM, DICOM_JSON, IMAGE_TYPES, MULTIPART, OCTETS
from dicom_listener.dicomweb_retrieve import RENDERED
from dicom_listener.query import MAX_ANSWERS, Wanted, image_identifier, series_identifier, study_identifier
from dicom_listener.render.modules import CHARACTER_SET
from dicom_listener.retrieve import TOGETHER

_DEFINED_TERM: Final = re.compile(r"ISO_IR \d+|ISO 2022 (IR \d+|GBK)|GB18030|GBK")
"""Of PS3.3 C.12.1.1.2; pydicom knows some misspelt ones as well."""


def services(deployment: Deployment) -> Section:
    """N.5."""
    return Section(
        "5",
        "Service and interoperability description",
        (LEGEND,),
        (
            Section("5.1", "Mapping of services to Application Entities", (_mapping(deployment),)),
            Section("5.2", "DIMSE services", sections=tuple(_dimse(deployment))),
            Section("5.3", "DICOM Web Services", sections=tuple(_web(deployment))),
            Section("5.4", "Media services", ("None.",)),
            Section("5.5", "Real-Time Video services", ("None.",)),
            Section("5.6", "Cross-service considerations", (_across(deployment),)),
            Section("5.7", "Specific Character Sets", (_characters(), _character_sets())),
        ),
    )


def _mapping(deployment: Deployment) -> Table:
    table = (
        ("Verification", SENDER, RECEIVER),
        ("Storage", SENDER, RECEIVER),
        ("Storage Commitment", SENDER, RECEIVER),
        ("Query/Retrieve", FETCHER, ""),
        ("Studies Web Service", WEB_CLIENT, WEB_SERVER),
    )
    return Table("services", "Services", ("Service", "SCU or User Agent", "SCP or Origin Server"), rows(table))


def _dimse(deployment: Deployment) -> Iterator[Section]:
    settings = deployment.settings
    yield Section(
        "5.2.1",
        "Verification service",
        (
            f"The {RECEIVER} answers every C-ECHO of an accepted association. The {SENDER} proposes the SOP class "
            "beside those of storage; the service sends no C-ECHO by itself.",
        ),
    )
    yield Section(
        "5.2.2",
        "Storage service",
        sections=(
            Section(
                "5.2.2.1",
                "SCU of the Storage SOP Classes",
                (
                    f"In use: {deployment.sends}. Each result is a delivery of its own, retried alone. An object goes "
                    "out in the transfer syntax in which it is stored where the PACS accepts it, else decompressed; it "
                    "is never compressed here. "
                    f"What found nobody is tried again after {settings.delivery_backoff_seconds:g} s, then "
                    f"after pauses that double up to {settings.delivery_backoff_limit_seconds:g} s.",
                ),
            ),
            Section(
                "5.2.2.2",
                "SCP of the Storage SOP Classes",
                (
                    "Level 2 (Full): every attribute is kept, byte for byte, in the transfer syntax in which it came. "
                    "Success is answered after the bytes are on disk and the transaction is committed. An object is "
                    f"refused when it is larger than {_limit(deployment)} bytes, holds more than {MAX_ELEMENTS} "
                    f"elements, or nests sequences more than {MAX_DEPTH} deep. A second object under a known SOP "
                    "Instance UID with the same bytes is answered with success and changes nothing; with other bytes "
                    "both are kept and a person is asked. No attribute is coerced. Transcoding: none on reception.",
                ),
            ),
        ),
    )
    yield Section(
        "5.2.3",
        "Storage Commitment service",
        (
            f"Push model, instance {COMMITMENT_INSTANCE}.",
            f"SCP: at most {MAX_REFERENCES} references in one request. The report goes out on an association that we "
            "open, at the address that `dicom_peers` or `pacs` names for the requester, and is tried again until it is "
            f"taken or refused. Committed is what is durably stored here. Failure Reasons: {NO_SUCH_OBJECT:04X} (no "
            f"such object), "
            f"{CLASS_CONFLICT:04X} (another SOP class than stated). Objects are kept as long as the operator keeps "
            "them; nothing is deleted by the product.",
            f"SCU: in use: {deployment.asks_commitment}. One transaction covers what one analysis sent to one PACS. "
            "The report is taken on the association of the request, for some seconds, and on one that the PACS opens. "
            "What is not confirmed is sent and asked about again, and at last held for a person.",
        ),
    )
    yield Section(
        "5.2.4",
        "Query/Retrieve service",
        (
            f"SCU: in use: C-FIND {deployment.queries}, C-MOVE {deployment.retrieves('move')}, C-GET "
            f"{deployment.retrieves('get')}. Study Root, hierarchical; relational queries and extended negotiation are "
            f"not used. More than {MAX_ANSWERS} matches are cancelled. Retrieval is at IMAGE level, at most {TOGETHER} "
            "UIDs in a request. The keys:",
            _keys(),
            "SCP: none. Use the Studies Web Service.",
        ),
    )
    yield Section("5.2.5", "Workflow, Instance Availability and Print services", ("None.",))


def _limit(deployment: Deployment) -> int:
    return deployment.listener.max_object_bytes


def _keys() -> Table:
    wanted = Wanted(PatientIdentity("", "PHANTOM"), since="20260101")
    asked = {"STUDY": study_identifier(wanted), "SERIES": series_identifier(""), "IMAGE": image_identifier("", "")}
    table = [(level, name, tag, matched) for level, one in asked.items() for name, tag, matched in _elements(one)]
    return Table("query-keys", "Keys of a query", ("Level", "Attribute", "Tag", "Matching"), rows(table))


def _elements(asked: Dataset) -> Iterator[tuple[str, str, str]]:
    unique = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    for element in asked:
        if element.keyword != "QueryRetrieveLevel":
            how = "range, where a date is given" if element.VR == "DA" else "single value"
            how = how if element.value else "return key, or the unique key of the level above"
            how = how if element.value or element.keyword in unique else "return key"
            yield element.name, f"({element.tag.group:04X},{element.tag.element:04X})", how


def _web(deployment: Deployment) -> Iterator[Section]:
    yield Section("5.3.1", "URI web service", ("None.",))
    yield Section(
        "5.3.2",
        "Studies web service",
        (_resources(deployment),),
        (
            Section("5.3.2.1", "Media types", (_media(),)),
            Section(
                "5.3.2.2",
                "Retrieve",
                (
                    f"Origin server: source instances and results, but nothing that waits for a person. Without a "
                    "transfer syntax Explicit VR Little Endian comes; `transfer-syntax=*` gives the stored one; any "
                    "other than these two is answered with 406. Rendered: `viewport=width,height`, `quality=1…100`. "
                    f"User agent (in use: {deployment.searches}): instance by instance, as stored.",
                ),
            ),
            Section(
                "5.3.2.3",
                "Store",
                (
                    f"Origin server: `{MULTIPART}; type=\"{DICOM}\"`, at most "
                    f"{deployment.settings.dicomweb_max_request_bytes} bytes, each object {_limit(deployment)}. "
                    "An object goes through the same door as one that comes by C-STORE. "
                    f"User agent (in use: {deployment.stows}): one instance per request; redirects are not followed.",
                ),
            ),
            Section(
                "5.3.2.4",
                "Search",
                (
                    "Keys: every attribute with a plain value, by keyword or tag; not inside sequences. Wild cards, "
                    "ranges of dates and times, lists of UIDs. `includefield` (keywords, tags, `all`), `limit` (up to "
                    f"{search.MAX_RESULTS}), `offset`; `fuzzymatching` is taken and not done, and a Warning says so. "
                    f"Accession Number, UIDs and Patient ID are looked up; others are compared with the newest "
                    f"{deployment.settings.dicomweb_search_objects} objects. A parameter that is no attribute: 400. "
                    f"User agent (in use: {deployment.searches}): studies by Patient ID, their series and instances.",
                    _returned(),
                ),
            ),
        ),
    )  # fmt: skip
    yield Section("5.3.3", "Other web services", ("None.",))


def _resources(deployment: Deployment) -> Table:
    table = [(one.method, one.path, one.does) for one in deployment.resources]
    return Table("web-resources", "Resources of the origin server", ("Method", "Resource", "Service"), rows(table))


def _media() -> Table:
    images = ", ".join(dict.fromkeys(IMAGE_TYPES.values()))
    table = (
        ("Store", f"{MULTIPART} of {DICOM}", f"{DICOM_JSON}"),
        ("Search", "", DICOM_JSON),
        ("Retrieve instances", "", f"{MULTIPART} of {DICOM}; {DICOM} for one instance"),
        ("Retrieve metadata", "", DICOM_JSON),
        ("Retrieve frames, bulk data", "", f"{MULTIPART} of {OCTETS} or, as stored, {images}"),
        ("Retrieve rendered", "", ", ".join(RENDERED)),
    )
    return Table("media-types", "Media types", ("Transaction", "Request", "Response"), rows(table))


def _returned() -> Table:
    levels: tuple[tuple[str, Iterable[str]], ...] = (
        ("Study", (*search.STUDY_ROWS, "00080056", "00080061", "00081190", "00201206", "00201208")),
        ("Series", (*search.SERIES_ROWS, "00081190", "00201209")),
        ("Instance", (*search.INSTANCE_ROWS, "00080056", "00081190")),
    )
    table = [
        (level, dictionary_description(int(tag, 16)), f"({tag[:4]},{tag[4:]})")
        for level, tags in levels
        for tag in sorted(tags)
    ]
    return Table("search-results", "Attributes of a search result", ("Level", "Attribute", "Tag"), rows(table))


def _across(deployment: Deployment) -> str:
    names = ", ".join(f"`{rule.name}`" for rule in deployment.settings.rules) or "none"
    return (
        f"Routing rules of this configuration, in their order: {names}. Without a rule every image is analysed and "
        "every result goes to every destination. Patient and study of results are those of the source, or of "
        "the patient to whom a person assigned it."
    )


def _characters() -> str:
    return (
        "Taken in: the sets below, alone or with code extensions (ISO 2022). Patient names and texts are converted to "
        f"UTF-8 ({CHARACTER_SET}) in objects that are made; what is kept and retrieved stays as it came. A query is "
        "sent in ASCII. DICOM JSON is UTF-8."
    )


def _character_sets() -> Table:
    known = sorted(name for name in python_encoding if _DEFINED_TERM.fullmatch(name))
    return Table("character-sets", "Specific Character Sets", ("Defined Term",), rows([name] for name in known))
