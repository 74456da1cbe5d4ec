"""Open a DICOM segmentation in programs of five makers and compare what each one sees.

`READERS` maps a name to a function (segmentation file, source image file, segment number) -> boolean mask.
`tests.peers.seg_readers.ohif` is the fifth: a viewer, which returns pictures.
"""

from tests.peers.seg_readers.masks import READERS, UnreadableSegmentation

__all__ = ["READERS", "UnreadableSegmentation"]
