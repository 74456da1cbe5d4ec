"""What the demo sends: synthetic phantoms, or a person's own pictures and DICOM files."""

from __future__ import annotations

from pathlib import Path

from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import Rejected
from dermoscopy.overlay import encode_png
from dermoscopy.phantoms import Kind, phantom
from dicom_listener.camera import wrap_picture
from dicom_listener.part10 import is_part10

PHANTOMS: tuple[tuple[Kind, int], ...] = (
    ("nevus", 1),
    ("melanoma-like", 2),
    ("keratosis", 3),
    ("vascular", 4),
    ("empty", 5),
)
PICTURES = (".png", ".jpg", ".jpeg")


def phantom_instances(issuer: str, patient_id: str) -> list[tuple[str, bytes]]:
    """Name and Part 10 file of each phantom."""
    patient = PatientIdentity(issuer, patient_id)
    return [
        (f"phantom-{kind}", wrap_picture(encode_png(phantom(seed, kind=kind, hairs=seed).pixels), patient))
        for kind, seed in PHANTOMS
    ]


def instances_of(folder: Path, issuer: str, patient_id: str) -> list[tuple[str, bytes]]:
    """Name and Part 10 file of each image in ``folder``; pictures are wrapped for the demo's patient.

    Raises `Rejected` naming a file that should be an image and is not.
    """
    patient = PatientIdentity(issuer, patient_id)
    objects = []
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        data = path.read_bytes()
        if is_part10(data):
            objects.append((path.name, data))
        elif path.suffix.lower() in PICTURES:
            try:
                objects.append((path.name, wrap_picture(data, patient)))
            except Rejected as error:
                raise Rejected(f"{path.name}: {error}") from error
    return objects
