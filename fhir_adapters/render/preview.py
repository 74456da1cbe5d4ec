"""The picture inside the report, small enough for an EHR to take (many refuse requests of a few megabytes)."""

from __future__ import annotations

import cv2
import numpy as np

LARGEST_BYTES = 2 * 1024 * 1024
"""A picture up to this size is sent as it was drawn, without loss."""
LONGEST_SIDE = 1600
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 90]


def preview(data: bytes, media_type: str) -> tuple[bytes, str]:
    """The picture and its media type, scaled down to a JPEG where it is large.

    The Secondary Capture keeps it at full size. What cannot be decoded stays as it is.
    """
    if len(data) <= LARGEST_BYTES:
        return data, media_type
    drawn = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if drawn is None:
        return data, media_type
    scale = LONGEST_SIDE / max(drawn.shape[:2])
    if scale < 1:
        drawn = cv2.resize(drawn, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    done, smaller = cv2.imencode(".jpg", drawn, _JPEG)
    return (bytes(smaller.tobytes()), "image/jpeg") if done else (data, media_type)
