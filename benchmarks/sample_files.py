"""The images that every measurement sends: native dermoscopy images where there are some, phantoms elsewhere."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path

from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEGBaseline8Bit

from dermoscopy.domain import PatientIdentity, derive_uid
from dermoscopy.overlay import encode_png
from dermoscopy.phantoms import phantom
from dicom_listener.camera import wrap_picture
from tests.service import ISSUER

NATIVE_IMAGES = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
"""Folder beside the checkout; its ``*native*.tar`` hold JPEG images as published."""
_PHANTOMS = 20
JPEG_BYTES = 45_000
"""Upper limit of a compressed object: what a camera on a phone or a telederm portal sends."""

LARGE_SIDE = 2000
"""Pixels of each side of a large object: 12 MB uncompressed."""
LARGE_KINDS = 4

QUALITIES = (92, 85, 75, 60, 45, 30)


@dataclass(frozen=True)
class SampleImages:
    """Pictures of one kind, and DICOM files made of them."""

    source: str
    pictures: tuple[bytes, ...]

    @classmethod
    def open(cls, folder: Path | None = None) -> SampleImages:
        """JPEG and PNG files in ``folder`` or in tar files there; by default the native images, else phantoms."""
        chosen = folder or NATIVE_IMAGES
        pictures = tuple(_pictures(chosen, "*" if folder else "*native*")) if chosen.is_dir() else ()
        if pictures:
            return cls(f"{len(pictures)} dermoscopy images ({chosen.name})", pictures)
        drawn = tuple(encode_png(phantom(seed, hairs=seed % 4).pixels) for seed in range(_PHANTOMS))
        return cls(f"{_PHANTOMS} synthetic phantoms", drawn)

    @cached_property
    def _raw(self) -> list[Dataset]:
        return [dcmread(io.BytesIO(wrap_picture(p, PatientIdentity(ISSUER, "BENCH")))) for p in self.pictures]

    @cached_property
    def _jpeg(self) -> list[Dataset]:
        return [_compressed(dataset, picture) for dataset, picture in zip(self._raw, self.pictures, strict=True)]

    @cached_property
    def _large(self) -> list[Dataset]:
        return [_enlarged(picture) for picture in self.pictures[:LARGE_KINDS]]

    def write(self, folder: Path, count: int, *, kind: str = "rgb", batch: str = "") -> list[Path]:
        """``count`` DICOM files with UIDs and patients of their own.

        ``kind``: ``rgb`` (uncompressed), ``large`` (the same at 2000 × 2000 pixels) or ``jpeg`` (baseline).
        """
        folder.mkdir(parents=True, exist_ok=True)
        templates = self._jpeg if kind == "jpeg" else self._large if kind == "large" else self._raw
        return [
            _copy(template, folder / f"{number:05d}.dcm", kind, batch, number)
            for number, template in enumerate(islice(cycle(templates), count))
        ]


def megabytes(files: list[Path]) -> float:
    """Size of all ``files`` in 10⁶ bytes."""
    return sum(file.stat().st_size for file in files) / 1e6


def _copy(dataset: Dataset, path: Path, kind: str, batch: str, number: int) -> Path:
    names = (kind, batch, str(number))
    dataset.PatientID = f"BENCH-{batch}-{number // 4:04d}"
    dataset.StudyInstanceUID = derive_uid("bench-study", *names)
    dataset.SeriesInstanceUID = derive_uid("bench-series", *names)
    dataset.SOPInstanceUID = derive_uid("bench-instance", *names)
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(dataset.SOPInstanceUID)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _enlarged(picture: bytes) -> Dataset:
    pixels = Image.open(io.BytesIO(picture)).convert("RGB").resize((LARGE_SIDE, LARGE_SIDE), Image.Resampling.BICUBIC)
    larger = io.BytesIO()
    pixels.save(larger, "PNG", compress_level=1)
    return dcmread(io.BytesIO(wrap_picture(larger.getvalue(), PatientIdentity(ISSUER, "BENCH"))))


def _compressed(dataset: Dataset, picture: bytes) -> Dataset:
    pixels = Image.open(io.BytesIO(picture)).convert("RGB")
    encoded = b""
    for quality in QUALITIES:
        encoded = _jpeg(pixels, quality)
        if len(encoded) <= JPEG_BYTES:
            break
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    copy = dcmread(io.BytesIO(buffer.getvalue()))
    copy.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    copy.PhotometricInterpretation = "YBR_FULL_422"
    copy.PixelData = encapsulate([encoded])
    copy["PixelData"].is_undefined_length = True
    return copy


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _pictures(folder: Path, pattern: str) -> Iterator[bytes]:
    for path in sorted(folder.glob(f"{pattern}.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member) if _is_picture(member.name) else None
                if file is not None:
                    yield file.read()
    for path in sorted(p for p in folder.glob(pattern) if _is_picture(p.name)):
        yield path.read_bytes()


def _is_picture(name: str) -> bool:
    return name.lower().endswith((".jpg", ".jpeg", ".png"))
