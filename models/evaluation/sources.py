"""Image and mask files of a data set, in folders and tar archives, decoded strictly: a truncated file is an error."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from dermoscopy.domain import Mask, RGBPixels
from dermoscopy.errors import Misconfigured, UnreadableObject

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"})
_MASK_SUFFIX = re.compile(r"[_-](segmentation|mask|seg|lesion)$")
_MASK_FOLDER = re.compile(r"mask|segmentation|ground[ _-]?truth|annotation", re.IGNORECASE)
_NO_LESION = re.compile(r"_superpixels$|_attribute_\w+$")
_PART = re.compile(r"-\d+$")
_ORIENTATION, _LIES_ON_ITS_SIDE = 0x0112, 5


@dataclass(frozen=True)
class Source:
    """One file: ``name`` is its path below the data set (below the archive's name, for a member of one)."""

    path: Path
    name: str
    offset: int = 0
    size: int = -1

    @property
    def stem(self) -> str:
        """The file's name in lower case, without folder and without the suffix of an image."""
        return image_key(self.name)

    @property
    def masked(self) -> str:
        """The stem of the image that a mask of this name would belong to: without ``_segmentation``, ``_mask`` …"""
        return _MASK_SUFFIX.sub("", self.stem)

    @property
    def in_mask_folder(self) -> bool:
        """Whether a folder or archive that it lies in is one of masks, by its name."""
        return any(_MASK_FOLDER.search(part) for part in PurePosixPath(self.name).parts[:-1])

    def read(self) -> bytes:
        """The bytes as they lie there. Raises `UnreadableObject`."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.offset)
                return stream.read(self.size)
        except OSError as error:
            raise UnreadableObject(f"{self.name}: cannot be read: {error.strerror}") from error


def image_key(text: str) -> str:
    """Name of an image for comparison: no folder, no image suffix, lower case."""
    name = PurePosixPath(text.strip().replace("\\", "/")).name.lower()
    return name[: -len(suffix)] if (suffix := PurePosixPath(name).suffix) in SUFFIXES else name


def find_sources(folder: Path, archives: str = "") -> list[Source]:
    """Every image file below ``folder`` and in the ``.tar`` archives that lie in it, by name.

    Of the archives only those whose name begins with ``archives`` are opened: to list a large one takes seconds.
    Raises `Misconfigured` if an archive cannot be read.
    """
    found = [
        Source(path, path.relative_to(folder).as_posix())
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    ]
    for archive in sorted(path for path in folder.glob("*.tar") if path.name.startswith(archives)):
        found.extend(_members(archive))
    return sorted((one for one in found if _is_image(one.name)), key=lambda one: one.name)


def collection_of(source: Source) -> str:
    """The first part of a source's name: a folder, or an archive without its number (``…-images-256``)."""
    return _PART.sub("", PurePosixPath(source.name).parts[0])


def decode_image(source: Source) -> RGBPixels:
    """uint8 RGB [rows, columns, 3], turned as the file's EXIF says. Raises `UnreadableObject` naming the file."""
    with _opened(source) as picture:
        return _array(ImageOps.exif_transpose(picture).convert("RGB"))


def image_size(source: Source) -> tuple[int, int]:
    """(rows, columns) of the decoded image, from its header. Raises `UnreadableObject` naming the file."""
    try:
        with Image.open(BytesIO(source.read())) as picture:
            turned = picture.getexif().get(_ORIENTATION, 1) >= _LIES_ON_ITS_SIDE
            columns, rows = picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableObject(f"{source.name}: not an image") from error
    return (columns, rows) if turned else (rows, columns)


def decode_mask(source: Source, size: tuple[int, int]) -> Mask:
    """bool ``size`` (rows, columns): brighter than half of the brightest value.

    A mask that was shrunk or enlarged in proportion is brought to its image's size. Raises `UnreadableObject` naming
    the file, also where the proportions differ.
    """
    rows, columns = size
    with _opened(source) as picture:
        if picture.size != (columns, rows):
            if abs(picture.size[0] / picture.size[1] - columns / rows) > 0.02:
                raise UnreadableObject(
                    f"{source.name}: a mask of {picture.size[0]} × {picture.size[1]} pixels for an image of "
                    f"{columns} × {rows}: the proportions differ, so it belongs to another picture or crop"
                )
            picture = picture.convert("L").resize((columns, rows), Image.Resampling.NEAREST)
        values = _array(picture.convert("L"))
    return values > values.max(initial=0) / 2


@contextmanager
def _opened(source: Source) -> Iterator[Image.Image]:
    """A decoded picture; whatever Pillow finds wrong while decoding leaves as `UnreadableObject`."""
    data = source.read()
    if not data:
        raise UnreadableObject(f"{source.name}: the file is empty")
    try:
        picture = Image.open(BytesIO(data))
        picture.load()
    except UnidentifiedImageError as error:
        raise UnreadableObject(f"{source.name}: not an image") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableObject(f"{source.name}: broken image: {error}") from error
    with picture:
        yield picture


def _array(picture: Image.Image) -> npt.NDArray[np.uint8]:
    return np.asarray(picture, dtype=np.uint8)


def _members(archive: Path) -> Iterable[Source]:
    try:
        with tarfile.open(archive, "r:") as stream:
            return [
                Source(archive, f"{archive.stem}/{member.name.removeprefix('./')}", member.offset_data, member.size)
                for member in stream
                if member.isfile()
            ]
    except tarfile.TarError as error:
        raise Misconfigured(f"{archive.name}: not a plain tar archive ({error}); unpack it into a folder") from error


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden and not _NO_LESION.search(image_key(name))
