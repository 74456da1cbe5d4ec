"""Program for .venvs/pydicom-seg: SEGMENTATION SOURCE SEGMENT TARGET.npy."""

import sys

import numpy as np
import pydicom
import pydicom_seg

segmentation, _source, segment, target = sys.argv[1:]
result = pydicom_seg.SegmentReader().read(pydicom.dcmread(segmentation))
(mask,) = result.segment_data(int(segment))
np.save(target, mask.astype(bool))
