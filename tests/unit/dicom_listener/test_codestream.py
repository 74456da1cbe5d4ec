"""A compressed stream that states another size than its header is refused before a decoder sees it."""

from __future__ import annotations

import pytest
from pydicom.encaps import encapsulate, get_frame

from dermoscopy.errors import UnreadableObject
from dicom_listener.codestream import check_stream_size
from dicom_listener.decode import decode
from tests.unit.dicom_listener.samples import as_file, compressed, picture, source

JPEG_LS = "1.2.840.10008.1.2.4.80"


def test_the_size_of_jpeg_and_jpeg_ls_is_found():
    check_stream_size(as_file(picture(), "JPEG"), 48, 64)
    check_stream_size(get_frame(compressed(JPEG_LS).PixelData, 0, number_of_frames=1), 48, 64)


@pytest.mark.parametrize("size", [(0, 64), (49, 64), (48, 0)])
def test_another_size_is_refused(size):
    with pytest.raises(UnreadableObject, match="Rows and Columns"):
        check_stream_size(as_file(picture(), "JPEG"), *size)


@pytest.mark.parametrize("stream", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9" * 9, bytes(100), b"\xff\xd8" + b"\xff" * 50])
def test_a_stream_without_a_frame_header_is_refused(stream):
    with pytest.raises(UnreadableObject):
        check_stream_size(stream, 48, 64)


def test_no_number_of_lines_is_no_endless_loop():
    made = compressed(JPEG_LS)
    stream = get_frame(made.PixelData, 0, number_of_frames=1)
    at = stream.index(b"\xff\xf7") + 5
    made.PixelData = encapsulate([stream[:at] + b"\0\0" + stream[at + 2 :]])
    made["PixelData"].is_undefined_length = True
    with pytest.raises(UnreadableObject, match="Rows and Columns"):
        decode(source(made, JPEG_LS))
