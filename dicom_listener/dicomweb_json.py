"""Stored objects as the DICOM JSON model (PS3.18 F): their headers for searching, their metadata for retrieving."""

from __future__ import annotations

import json
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import UnreadableObject
from dicom_listener.part10 import PARSE_ERRORS, open_dataset, split_part10

JsonDataset = dict[str, dict[str, Any]]
"""``{"00100020": {"vr": "LO", "Value": ["…"]}}`` (PS3.18 F.2)."""

BULK_BYTES: Final = 1024
"""Binary values longer than this are left behind and referred to by their address."""
_BINARY: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_LEFT_OUT_OF_HEADERS: Final = frozenset({0x0040A730, 0x52009229, 0x52009230, 0x00081115, 0x04000561})
"""Long sequences that no search looks into: content tree, functional groups, referenced series, original attributes."""
_IDENTITY: Final = ("PatientName", "PatientBirthDate", "PatientSex")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One instance that can be retrieved: where its bytes are, and what the database says of it.

    ``syntax`` is empty for a Part 10 file. ``patient`` is whose it is now; a person may have decided otherwise than
    the bytes say.
    """

    digest: str
    syntax: str
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    patient: PatientIdentity


def plain_dataset(data: bytes, syntax: str) -> tuple[bytes, str]:
    """(dataset bytes, transfer syntax), whether ``data`` is such a dataset or a Part 10 file (no ``syntax``)."""
    return (data, syntax) if syntax else split_part10(data)


def open_stored(stored: StoredObject, data: bytes, *, pixels: bool) -> Dataset:
    """The dataset in ``data`` with the patient it belongs to. Raises `UnreadableObject`."""
    body, syntax = plain_dataset(data, stored.syntax)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = open_dataset(body, syntax, pixels=pixels)
            if _moved(dataset, stored.patient):
                for keyword in _IDENTITY:
                    setattr(dataset, keyword, None)
                dataset.PatientID = stored.patient.patient_id
                dataset.IssuerOfPatientID = stored.patient.issuer[:64]
            return dataset
    except PARSE_ERRORS as error:
        raise UnreadableObject("The stored object cannot be read any more.") from error


def is_moved(stored: StoredObject, data: bytes) -> bool:
    """Whether a person gave the object to another patient than its bytes name. Raises `UnreadableObject`."""
    body, syntax = plain_dataset(data, stored.syntax)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _moved(open_dataset(body, syntax, pixels=False), stored.patient)
    except PARSE_ERRORS as error:
        raise UnreadableObject("The stored object cannot be read any more.") from error


def _moved(dataset: Dataset, patient: PatientIdentity) -> bool:
    return patient.known and str(dataset.get("PatientID") or "").strip(" \0") != patient.patient_id


def metadata(stored: StoredObject, data: bytes, address: str) -> JsonDataset:
    """Everything but bulk data, which is found at ``address``/bulkdata/TAG (PS3.18 10.4.1.1.2)."""
    dataset = open_stored(stored, data, pixels=False)
    found = _to_json(dataset, lambda element: f"{address}/bulkdata/{int(element.tag):08X}")
    if "Rows" in dataset:
        found["7FE00010"] = {
            "vr": "OB" if int(dataset.get("BitsAllocated") or 8) <= 8 else "OW",
            "BulkDataURI": f"{address}/bulkdata/7FE00010",
        }
    found["00083002"] = {"vr": "UI", "Value": [str(dataset.file_meta.TransferSyntaxUID)]}
    return found


class Headers:
    """What searches look at, one JSON dataset per stored object; the last ``keep`` that were read are kept."""

    def __init__(self, keep: int = 4096) -> None:
        self._keep = keep
        self._known: OrderedDict[tuple[str, PatientIdentity], str] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, stored: StoredObject, load: Callable[[], bytes]) -> JsonDataset:
        """Header of ``stored``, whose bytes ``load`` gives. Raises `UnreadableObject` and what ``load`` raises."""
        key = (stored.digest, stored.patient)
        with self._lock:
            text = self._known.get(key)
            if text is not None:
                self._known.move_to_end(key)
        if text is None:
            dataset = open_stored(stored, load(), pixels=False)
            for tag in _LEFT_OUT_OF_HEADERS:
                if tag in dataset:
                    del dataset[tag]
            text = json.dumps(_to_json(dataset, None), separators=(",", ":"))
            with self._lock:
                self._known[key] = text
                while len(self._known) > self._keep:
                    self._known.popitem(last=False)
        found: JsonDataset = json.loads(text)
        return found


def put_values(dataset: JsonDataset, values: Mapping[str, tuple[str, Iterable[Any]]]) -> JsonDataset:
    """``dataset`` with these elements: tag → (vr, values). Elements without values stand there empty."""
    for tag, (vr, given) in values.items():
        listed = list(given)
        dataset[tag] = {"vr": vr, "Value": listed} if listed else {"vr": vr}
    return dataset


def _to_json(dataset: Dataset, bulk: Callable[[DataElement], str] | None) -> JsonDataset:
    """Element by element, since one value that does not keep to its VR must not hide the others."""
    found: JsonDataset = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tag in sorted(dataset.keys()):
            try:
                element = dataset[tag]
                long = element.VR in _BINARY and len(element.value or b"") > BULK_BYTES
                if not long:
                    found[f"{int(tag):08X}"] = element.to_json_dict(None, BULK_BYTES)
                elif bulk is not None:
                    found[f"{int(tag):08X}"] = {"vr": str(element.VR), "BulkDataURI": bulk(element)}
            except PARSE_ERRORS:
                continue
    if "00080005" in found:
        found["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}  # JSON is UTF-8, whatever the object was (PS3.18 F.2)
    return found
