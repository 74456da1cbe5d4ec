from __future__ import annotations

import hashlib

import pytest

from dermoscopy.errors import BlobCorrupted, Rejected, StorageFull, UnsupportedImage
from dermoscopy.routing import EVERYTHING, Action, Route
from dicom_listener.handlers import StoreHandler, StoreRequest
from dicom_listener.rules import Rule, Rules
from dicom_listener.syntaxes import DERMOSCOPIC_PHOTOGRAPHY, EXPLICIT_LITTLE_ENDIAN
from tests.unit.dicom_listener.samples import dataset, encoded


def request(data: bytes | None = None, **changes) -> StoreRequest:
    values = {
        "sop_class_uid": DERMOSCOPIC_PHOTOGRAPHY,
        "sop_instance_uid": str(dataset().SOPInstanceUID),
        "transfer_syntax_uid": EXPLICIT_LITTLE_ENDIAN,
        "caller": "CAMERA",
        "data": encoded(dataset()) if data is None else data,
    }
    return StoreRequest(**{**values, **changes})


def raising(error: BaseException):
    def accept(*_: object) -> None:
        raise error

    return accept


def test_the_door_gets_the_bytes_unchanged():
    seen = []
    status = StoreHandler(lambda *given: seen.append(given))(request())
    assert status.code == 0
    data, header, caller, route = seen[0]
    assert route == EVERYTHING
    assert (data, caller) == (encoded(dataset()), "CAMERA")
    assert header.patient.patient_id == "4711"


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (StorageFull("x"), 0xA700, False),
        (BlobCorrupted("x"), 0xA700, False),
        (UnsupportedImage("x"), 0xC110, True),
        (RuntimeError("x"), 0xC211, False),
    ],
)
def test_only_refusals_for_good_are_recorded_as_such(error, code, told):
    refused = []
    status = StoreHandler(raising(error), lambda *given: refused.append(given))(request())
    assert status.code == code
    assert bool(refused) is told


def test_a_refusal_carries_header_and_digest():
    refused = []
    handler = StoreHandler(raising(Rejected("no")), lambda *given: refused.append(given))
    handler(request())
    error, header, caller, digest = refused[0]
    assert (str(error), caller) == ("no", "CAMERA")
    assert header.accession_number == "ACC-1"
    assert digest == hashlib.sha256(encoded(dataset())).hexdigest()


@pytest.mark.parametrize(
    "changes",
    [{"sop_class_uid": "1.2.840.10008.5.1.4.1.1.77.1.4"}, {"sop_instance_uid": "2.25.5"}, {"sop_class_uid": ""}],
)
def test_what_was_announced_must_be_what_comes(changes):
    accepted = []
    assert StoreHandler(lambda *given: accepted.append(given))(request(**changes)).code == 0xA900
    assert not accepted


def test_an_object_over_the_limit():
    assert StoreHandler(lambda *_: None)(request(b"", too_large=True)).code == 0xC110


def test_a_rule_refuses_and_the_reason_names_it():
    refused = []
    rules = Rules([Rule("no cameras", "refuse", calling_ae=("CAM*",))])
    handler = StoreHandler(lambda *_: pytest.fail("taken in"), lambda *given: refused.append(given), rules=rules)
    assert handler(request()).code == 0xC130
    assert "no cameras" in str(refused[0][0])


def test_the_door_is_told_what_the_rules_say():
    seen = []
    rules = Rules([Rule("others", "store", calling_ae=("OTHER",)), Rule("dms", modality=("DMS",), outputs=("sr",))])
    handler = StoreHandler(lambda *given: seen.append(given[3]), rules=rules)
    handler(request())
    handler(request(caller="OTHER"))
    assert seen == [Route(Action.ANALYSE, "dms", ("sr",)), Route(Action.STORE, "others")]
