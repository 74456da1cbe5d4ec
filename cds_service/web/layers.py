"""The pictures that lie over each other on the review page: the image as the algorithm saw it, mask, heat-map, hair.

Decoded once and kept in memory while there is room; a browser that has a picture only asks whether it may show it.
Sizes are bounded: the outline is exact, since it is drawn from the mask itself in pixels of the source.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal

import cv2
import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Header, Request, Response

from cds_service.api.analyses import AnalysisId, note_read
from cds_service.api.refusals import NotFound, NotReady
from cds_service.api.stored import READY, find_analysis, node_of, read_blob
from cds_service.authorization import Reader
from cds_service.node import Node
from cds_service.web.visible import check_visible
from dermoscopy.analyses import artifact_rows, load_source
from dermoscopy.domain import ArtifactKind, DermoscopicImage, Mask, SourceObject
from dermoscopy.outline import outline_fault
from dermoscopy.overlay import decode_grey_png
from dermoscopy.tables import ArtifactRow, InstanceRow
from models.hair import crossing, find_hair

LayerName = Literal["image", "mask", "heat", "hair"]
LARGEST: Final = {"image": 4096, "mask": 2048, "heat": 1024, "hair": 2048}
"""Longer side of a layer in pixels; the browser stretches it over the image."""
MEMORY_BYTES: Final = 64 * 1024 * 1024
MOST_OUTLINES: Final = 256
_JPEG_QUALITY = 92
_MASK_COLOUR, _HAIR_COLOUR = (0, 215, 255), (255, 0, 200)
"""RGB; no skin has them."""
_MOST_CORNERS = 40
"""Corners of an outline offered for editing: a person moves each by hand."""

UInt8 = npt.NDArray[np.uint8]
Decode = Callable[[SourceObject], DermoscopicImage]
router = APIRouter(include_in_schema=False)


class Pictures:
    """Layers by what they are made of; at most two are made at a time."""

    def __init__(self, node: Node, decode: Decode) -> None:
        self._node = node
        self._decode = decode
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        self._outlines: OrderedDict[str, list[list[tuple[float, float]]]] = OrderedDict()
        self._lock = threading.Lock()
        self._making = threading.Semaphore(2)

    def layer(self, tag: str, name: LayerName, source: SourceObject, outputs: dict[ArtifactKind, ArtifactRow]) -> bytes:
        """JPEG (image) or PNG with transparency (the others). Raises `Rejected` for what cannot be decoded."""
        kept = self._recall(tag)
        if kept is None:
            with self._making:
                kept = self._recall(tag) or self._draw(name, source, outputs)
            self._keep(tag, kept)
        return kept

    def outlines(self, mask: ArtifactRow) -> list[list[tuple[float, float]]]:
        """Outlines of a stored mask, the largest first."""
        with self._lock:
            known = self._outlines.get(mask.digest)
        if known is None:
            known = contours(decode_grey_png(read_blob(self._node.blobs, mask)) > 127)
            with self._lock:
                self._outlines[mask.digest] = known
                while len(self._outlines) > MOST_OUTLINES:
                    self._outlines.popitem(last=False)
        return known

    def _draw(self, name: LayerName, source: SourceObject, outputs: dict[ArtifactKind, ArtifactRow]) -> bytes:
        if name == "image":
            image = self._decode(source)
            return _encode(".jpg", _bounded(image.pixels, name, image.aspect), cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY)
        if name == "heat":
            grey = decode_grey_png(read_blob(self._node.blobs, outputs[ArtifactKind.HEATMAP]))
            return _encode(".png", _heat(_bounded(grey, name)))
        mask = decode_grey_png(read_blob(self._node.blobs, outputs[ArtifactKind.MASK])) > 127
        if name == "hair":
            hair = crossing(find_hair(self._decode(source).pixels), mask)
            return _encode(".png", _tinted(_bounded(hair.astype(np.uint8) * 255, name), _HAIR_COLOUR))
        return _encode(".png", _tinted(_bounded(mask.astype(np.uint8) * 255, name), _MASK_COLOUR))

    def _recall(self, tag: str) -> bytes | None:
        with self._lock:
            if tag in self._kept:
                self._kept.move_to_end(tag)
            return self._kept.get(tag)

    def _keep(self, tag: str, data: bytes) -> None:
        with self._lock:
            self._size += len(data) - len(self._kept.pop(tag, b""))
            self._kept[tag] = data
            while self._size > MEMORY_BYTES:
                _, dropped = self._kept.popitem(last=False)
                self._size -= len(dropped)


@router.get("/analyses/{analysis_id:uuid}/layers/{name}")
def get_layer(
    request: Request,
    caller: Reader,
    analysis_id: AnalysisId,
    name: LayerName,
    if_none_match: Annotated[str, Header(max_length=1000)] = "",
) -> Response:
    """One layer of the review page."""
    node, pictures = node_of(request), request.app.state.pictures
    check_visible(node, caller, str(analysis_id))
    with node.begin() as session:
        row = find_analysis(session, str(analysis_id))
        outputs = artifact_rows(session, row.id) if row.state in READY else {}
        if name != "image" and not {ArtifactKind.MASK, ArtifactKind.HEATMAP} <= outputs.keys():
            if row.state == "failed":
                raise NotFound("The analysis failed, so there is no such layer.", report_id=row.id)
            raise NotReady("The analysis is under way: come back for this layer.", report_id=row.id)
        stored = session.get_one(InstanceRow, row.instance_id).digest
        tag = _tag(name, stored, outputs)
        note_read(node, session, caller, row, f"layer {name}")
        headers = {"ETag": f'"{tag}"', "Cache-Control": "private, no-cache"}
    if tag in if_none_match:
        return Response(status_code=304, headers=headers)
    with node.begin() as session:
        source = load_source(session, node.blobs, row.instance_id)
    data = pictures.layer(tag, name, source, outputs)
    return Response(data, headers=headers, media_type="image/jpeg" if name == "image" else "image/png")


def contours(mask: Mask) -> list[list[tuple[float, float]]]:
    """Outlines of ``mask`` (bool [rows, columns]) as (column, row) corners, the largest first."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    near = max(mask.shape) / 2000  # finer than a line on the screen is wide
    kept = [cv2.approxPolyDP(one, near, True)[:, 0, :] for one in sorted(found, key=cv2.contourArea, reverse=True)]
    return [_corners(one) for one in kept if len(one) >= 3]


def editable(outline: Sequence[tuple[float, float]], rows: int, columns: int) -> list[tuple[float, float]]:
    """``outline`` with so few corners that a person can move them; empty where there is none."""
    if len(outline) <= _MOST_CORNERS:
        return list(outline)
    points = np.asarray(outline, np.float32)[:, None, :]
    for part in range(1, 40):
        fewer = cv2.approxPolyDP(points, part * max(rows, columns) / 1000, True)[:, 0, :]
        found = [(float(x), float(y)) for x, y in fewer]
        if len(found) <= _MOST_CORNERS and not outline_fault(found, rows, columns):
            return found
    hull = cv2.approxPolyDP(cv2.convexHull(points), max(rows, columns) / 200, True)[:, 0, :]
    return [(float(x), float(y)) for x, y in hull]


def _corners(points: npt.NDArray[Any]) -> list[tuple[float, float]]:
    """Pixel indices → places: the centre of the first pixel is (0.5, 0.5)."""
    return [(float(x) + 0.5, float(y) + 0.5) for x, y in points]


def _tag(name: str, source: str, outputs: dict[ArtifactKind, ArtifactRow]) -> str:
    made_of = [source, *(outputs[k].digest for k in (ArtifactKind.MASK, ArtifactKind.HEATMAP) if k in outputs)]
    return hashlib.sha256("\n".join(("1", name, *made_of)).encode()).hexdigest()


def _bounded(pixels: UInt8, name: LayerName, aspect: float = 1.0) -> UInt8:
    """``pixels`` with square pixels and no side longer than the layer's largest."""
    rows, columns = pixels.shape[0] * max(aspect, 1.0), pixels.shape[1] / min(aspect, 1.0)
    scale = min(1.0, LARGEST[name] / max(rows, columns))
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    if size == (pixels.shape[1], pixels.shape[0]):
        return pixels
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _tinted(strength: UInt8, colour: tuple[int, int, int]) -> UInt8:
    """BGRA of one colour, as opaque as ``strength``."""
    drawn = np.empty((*strength.shape, 4), np.uint8)
    drawn[..., :3], drawn[..., 3] = colour[::-1], strength
    return drawn


def _heat(grey: UInt8) -> UInt8:
    """BGRA: the colours of the other pictures' heat-maps, transparent where there is no evidence."""
    drawn = np.empty((*grey.shape, 4), np.uint8)
    drawn[..., :3], drawn[..., 3] = cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO), grey
    return drawn


def _encode(suffix: str, pixels: UInt8, *options: int) -> bytes:
    if suffix == ".jpg":
        pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), np.uint8)
    done, data = cv2.imencode(suffix, pixels, list(options))
    if not done:
        raise ValueError(f"cannot encode an array of shape {pixels.shape} as {suffix}")
    return bytes(data.tobytes())
