"""STOW-RS (PS3.18 10.5): one file of a request through the door of intake, and the answer about all of them."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any, Final

import structlog
from opentelemetry import trace
from pydicom.filereader import read_dataset

from dermoscopy.domain import ImageHeader
from dermoscopy.errors import (
    DermoscopyError,
    Rejected,
    Unavailable,
    UnsupportedImage,
    UnsupportedSopClass,
    UnsupportedTransferSyntax,
)
from dermoscopy.routing import Action, Route
from dicom_listener.dicomweb_json import JsonDataset
from dicom_listener.header import read_header_and_facts
from dicom_listener.part10 import PARSE_ERRORS, is_part10, split_part10
from dicom_listener.rules import RefusedByRule, Rules
from dicom_listener.status import DOES_NOT_MATCH_SOP_CLASS, OUT_OF_RESOURCES, status_of

log = structlog.get_logger(__name__)
_tracer = trace.get_tracer(__name__)

STORED: Final = 0
SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
SYNTAX_NOT_SUPPORTED: Final = 0xC122

_OK, _ACCEPTED, _CONFLICT, _BUSY = 200, 202, 409, 503


class OtherStudy(Rejected):
    """The object belongs to another study than the address of the request says."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one part. UIDs are empty where they could not be read; ``failure`` is 0 or a Failure Reason."""

    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    failure: int = STORED
    held: bool = False
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Storage:
    """Takes files in; safe to call from many threads. The doors are those of the C-STORE listener.

    ``accept`` returns whether the object is held for a person. ``ready`` raises `Unavailable` while nothing can be
    taken. A rule's ``calling_ae`` never matches here: the name of a token is no AE title.
    """

    accept: Callable[[bytes, ImageHeader, str, Route], bool]
    on_rejected: Callable[[Rejected, ImageHeader | None, str, str], None]
    ready: Callable[[], None]
    rules: Rules = field(default_factory=Rules)

    def store(self, data: bytes, caller: str, *, study: str = "", broken: str = "") -> Outcome:
        """Keep one Part 10 file and start its analysis; ``broken`` says why a part is refused unread.

        ``study`` is the study of the address. Only errors of our own kind become an outcome: what is not foreseen,
        such as a database that is away, goes up and is answered for the whole request.
        """
        header: ImageHeader | None = None
        with _tracer.start_as_current_span("dicomweb.store") as span:
            try:
                self.ready()
                if broken:
                    raise UnsupportedImage(broken)
                body, syntax = split_part10(data)
                header, facts = read_header_and_facts(body, syntax)
                if study and header.study_instance_uid != study:
                    raise OtherStudy("The object belongs to another study than the address says.")
                decision = self.rules.decide(facts)
                if decision.route.action is Action.REFUSE:
                    raise RefusedByRule(f"The rule {decision.route.rule!r} refuses such objects.")
                held = self.accept(body, header, caller, decision.route)
            except DermoscopyError as error:
                outcome = self._refused(error, header, data, caller)
            else:
                outcome = _about(header, held=held)
            span.set_attribute("dicom.failure_reason", f"{outcome.failure:04X}")
            return outcome

    def _refused(self, error: DermoscopyError, header: ImageHeader | None, data: bytes, caller: str) -> Outcome:
        code = failure_reason(error)
        if isinstance(error, Rejected):
            self.on_rejected(error, header, caller, hashlib.sha256(data).hexdigest())
        else:
            log.warning("store.not_kept", error=type(error).__name__, status=f"{code:04X}", caller=caller)
        known = _about(header) if header else _announced(data)
        pause = error.retry_after or 5.0 if isinstance(error, Unavailable) else 0.0
        return replace(known, failure=code, retry_after=pause)


def failure_reason(error: DermoscopyError) -> int:
    """Failure Reason (0008,1197) for ``error`` (PS3.18 I.2.2): the status of C-STORE, or the code of its own kind."""
    if isinstance(error, UnsupportedSopClass):
        return SOP_CLASS_NOT_SUPPORTED
    if isinstance(error, UnsupportedTransferSyntax):
        return SYNTAX_NOT_SUPPORTED
    if isinstance(error, OtherStudy):
        return DOES_NOT_MATCH_SOP_CLASS
    return status_of(error).code


def status_for(outcomes: Sequence[Outcome]) -> int:
    """200 all stored, 202 some, 409 none (PS3.18 Table 10.5.3-1); 503 if none for want of room or time."""
    stored = sum(not one.failure for one in outcomes)
    if stored:
        return _OK if stored == len(outcomes) else _ACCEPTED
    return _BUSY if outcomes and all(one.failure == OUT_OF_RESOURCES for one in outcomes) else _CONFLICT


def response(outcomes: Sequence[Outcome], base: str) -> JsonDataset:
    """The Store Instances Response (PS3.18 I.2) in the JSON model; addresses hold UIDs and nothing else."""
    stored = [one for one in outcomes if not one.failure]
    failed = [one for one in outcomes if one.failure and one.sop_instance_uid]
    unknown = [one for one in outcomes if one.failure and not one.sop_instance_uid]
    studies = {one.study_instance_uid for one in stored}
    said: JsonDataset = {}
    if len(studies) == 1:
        said["00081190"] = _one("UR", f"{base}/studies/{studies.pop()}")
    if failed:
        said["00081198"] = _items({**_reference(one), "00081197": _one("US", one.failure)} for one in failed)
    if stored:
        said["00081199"] = _items(_stored_item(one, base) for one in stored)
    if unknown:
        said["0008119A"] = _items({"00081197": _one("US", one.failure)} for one in unknown)
    return said


def _stored_item(one: Outcome, base: str) -> JsonDataset:
    if one.held:  # safe, but nobody may retrieve it before a person has decided
        return _reference(one)
    where = f"{base}/studies/{one.study_instance_uid}/series/{one.series_instance_uid}/instances/{one.sop_instance_uid}"
    return {**_reference(one), "00081190": _one("UR", where)}


def _reference(one: Outcome) -> JsonDataset:
    return {"00081150": _one("UI", one.sop_class_uid), "00081155": _one("UI", one.sop_instance_uid)}


def _one(vr: str, value: str | int) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]} if value != "" else {"vr": vr}


def _items(items: Any) -> dict[str, Any]:
    return {"vr": "SQ", "Value": list(items)}


def _about(header: ImageHeader, *, held: bool = False) -> Outcome:
    return Outcome(
        header.sop_class_uid,
        header.sop_instance_uid,
        header.study_instance_uid,
        header.series_instance_uid,
        held=held,
    )


def _announced(data: bytes) -> Outcome:
    """Which object the file meta information says it is, as far as it can be read."""
    if not is_part10(data):
        return Outcome()
    buffer = BytesIO(data)
    buffer.seek(132)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            meta = read_dataset(buffer, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)
            sop_class, instance = str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)
    except PARSE_ERRORS:
        return Outcome()
    valid = all(0 < len(uid) <= 64 and set(uid) <= set("0123456789.") for uid in (sop_class, instance))
    return Outcome(sop_class, instance) if valid else Outcome()
