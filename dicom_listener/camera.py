"""The sending side, as a dermoscope or a PACS has it: pictures become instances, instances go out on one association.

Used by the demo and the benchmarks, which talk to the service through its own front door.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from pydicom import dcmread
from pynetdicom import AE

from dermoscopy.domain import Artifact, PatientIdentity, SourceObject, derive_id
from dermoscopy.errors import DestinationUnavailable, Rejected
from dermoscopy.tables import utc_now
from dicom_listener.decode import decode
from dicom_listener.header import read_picture_header
from dicom_listener.render.source import picture_instance
from dicom_listener.syntaxes import IMAGE_CLASSES

CAMERA = "Demo camera"
"""Manufacturer of what is wrapped here: this plays a device, and the service must not take it for its own results."""


def wrap_picture(data: bytes, patient: PatientIdentity, received_at: datetime | None = None) -> bytes:
    """A PNG or JPEG picture as a Part 10 file of a Dermoscopic Photography instance of ``patient``.

    UIDs derive from patient and picture; dates are those of ``received_at`` (now if not given), so that with it the
    same picture gives the same bytes. Raises `Rejected` if ``data`` is no picture.
    """
    header = read_picture_header(data, patient)
    identity = derive_id("picture", patient.issuer, patient.patient_id, hashlib.sha256(data).hexdigest())
    source = SourceObject(identity, data, header, received_at or utc_now())
    wrapped: Artifact = picture_instance(source, decode(source), manufacturer=CAMERA)
    return wrapped.data


@contextmanager
def sending(
    host: str, port: int, *, called_ae: str, calling_ae: str, max_pdu: int = 131072
) -> Iterator[Callable[[bytes], str]]:
    """Open one association; the value sends one Part 10 file and returns its SOP Instance UID.

    Raises `DestinationUnavailable` (no association, no answer) and `Rejected` (a failure status).
    """
    ae = AE(ae_title=calling_ae)
    for sop_class in IMAGE_CLASSES:
        ae.add_requested_context(sop_class)
    association = ae.associate(host, port, ae_title=called_ae, max_pdu=max_pdu)
    if not association.is_established:
        raise DestinationUnavailable(f"no association with {called_ae} at {host}:{port}: is it running?")

    def send(data: bytes) -> str:
        dataset = dcmread(io.BytesIO(data))
        answer = association.send_c_store(dataset)
        if not answer:
            raise DestinationUnavailable(f"{called_ae} gave no answer to C-STORE")
        if answer.Status != 0:
            raise Rejected(f"{called_ae} refused the image (status {answer.Status:04X})")
        return str(dataset.SOPInstanceUID)

    try:
        yield send
    finally:
        association.release()
