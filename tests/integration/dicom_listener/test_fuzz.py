"""A short throw of broken objects and broken PDUs at a real node; `make fuzz` throws as many as one likes.

What was found stands in tests of its own, by name: `test_abuse`, and `test_bounds`, `test_identifiers`, `test_part10`,
`test_character_sets` and `test_connection` among the unit tests. Seeds that found something are thrown again here.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from sqlmodel import select

from dermoscopy.domain import PatientIdentity
from dermoscopy.intake import PATIENT_CONFLICT, UID_CONFLICT
from dermoscopy.tables import HoldRow, InstanceRow
from dicom_listener.handlers import StoreHandler, StoreRequest
from dicom_listener.syntaxes import DERMOSCOPIC_PHOTOGRAPHY, EXPLICIT_LITTLE_ENDIAN
from tests.fuzz.inside import Doors
from tests.fuzz.node import fuzz_settings, half_stored, open_fresh
from tests.fuzz.objects import CONTENT, ENCODING, mutated
from tests.fuzz.outside import hold_conversation, listening, throw, throw_object
from tests.fuzz.pdus import FAULTS, conversation
from tests.unit.dicom_listener.samples import dataset, encoded, picture

OBJECTS, SENT, CONVERSATIONS = 300, 60, 150


def test_a_number_always_makes_the_same_object_and_the_same_conversation():
    script = (
        "import hashlib; from tests.fuzz.objects import mutated; from tests.fuzz.pdus import conversation\n"
        "print(hashlib.sha256(repr([(mutated(n), conversation(n)) for n in range(60)]).encode()).hexdigest())"
    )
    elsewhere = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    here = repr([(mutated(n), conversation(n)) for n in range(60)])
    assert elsewhere.stdout.strip() == hashlib.sha256(here.encode()).hexdigest()


def test_every_fault_is_thrown_in_the_short_run():
    assert {fault for n in range(OBJECTS) for fault in mutated(n).faults} >= {*CONTENT, *ENCODING}
    assert {fault for n in range(CONVERSATIONS) for fault in conversation(n).faults} == set(FAULTS)


def test_mutated_objects_through_every_door(tmp_path: Path):
    """In a process of its own: a decoder that dies takes nothing else with it."""
    command = [sys.executable, "-m", "tests.fuzz.inside", str(tmp_path), "0", str(OBJECTS)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert ran.stdout, ran.stderr[-3000:]
    told = json.loads(ran.stdout.splitlines()[-1])
    assert (ran.returncode, told["wrong"]) == (0, []), ran.stderr[-3000:]
    assert sum(n for name, n in told["outcomes"].items() if name.startswith(("cstore", "stow", "upload"))) == OBJECTS
    assert told["outcomes"]["decoded"] > 20
    assert told["audit"]["instance.rejected"] > 100


def test_mutated_objects_and_pdus_over_associations(tmp_path: Path):
    with listening(tmp_path) as listener:
        sent = throw(listener, throw_object, 0, SENT)
        talked = throw(listener, hold_conversation, 0, CONVERSATIONS)
        ended = listener.stop()
    assert sent["wrong"] + talked["wrong"] + ended["wrong"] + listener.errors() == []
    assert sum(sent["outcomes"].values()) == SENT
    assert sum(talked["outcomes"].values()) == CONVERSATIONS
    assert {"0000", "C000"} <= set(sent["outcomes"])
    assert {"heard 7", "heard 246"} <= set(talked["outcomes"])


@pytest.mark.filterwarnings("ignore")
def test_bytes_that_lie_about_their_uid_are_both_kept_and_a_person_decides(tmp_path: Path):
    node = open_fresh(fuzz_settings(tmp_path))
    handler = StoreHandler(
        lambda data, header, caller, route: node.intake.accept(
            data, header, source="cstore", caller=caller, route=route
        )
    )

    def send(made) -> None:
        uid = str(dataset().SOPInstanceUID)
        status = handler(StoreRequest(DERMOSCOPIC_PHOTOGRAPHY, uid, EXPLICIT_LITTLE_ENDIAN, "CAMERA", encoded(made)))
        assert status.code == 0

    first, other_bytes, other_patient = dataset(), dataset(255 - picture()), dataset(PatientID="9999")
    for made in (first, other_bytes, other_patient):
        send(made)
    with node.begin() as session:
        rows = session.execute(select(InstanceRow.id, InstanceRow.digest, InstanceRow.state)).tuples().all()
        holds = dict(session.execute(select(HoldRow.kind, HoldRow.id)).tuples().all())
    kept = sorted(node.blobs.get(digest) for _, digest, _ in rows)
    assert kept == sorted(encoded(made) for made in (first, other_bytes, other_patient))
    assert sorted(state for _, _, state in rows) == ["accepted", "held", "held"]
    assert set(holds) == {UID_CONFLICT, PATIENT_CONFLICT}
    receipt = node.intake.resolve_hold(
        holds[PATIENT_CONFLICT], by="dr", patient=PatientIdentity("HOSPITAL-A", "9999"), resolution="looked"
    )
    assert receipt is not None and receipt.analysis_id
    assert half_stored(node) == []


FOUND = {
    "a model name of an unknown representation stopped the analysis": 67847,
    "a JPEG-LS stream without a number of lines never came out of the decoder": 30567,
    "a model name that says it is a sequence stopped the analysis": 76798,
    "a model name that says it is a number stopped the analysis": 83060,
}
"""What was wrong → the number of the object."""


@pytest.mark.parametrize("seed", FOUND.values(), ids=FOUND.keys())
def test_what_was_found_stays_found(tmp_path: Path, seed: int):
    doors = Doors(open_fresh(fuzz_settings(tmp_path)))
    doors.throw(mutated(seed))
    assert doors.wrong == []
