"""Program for .venvs/dcmqi: SEGMENTATION SOURCE SEGMENT TARGET.npy."""

import subprocess
import sys
import tempfile
from pathlib import Path

import nrrd
import numpy as np

segmentation, _source, segment, target = sys.argv[1:]
with tempfile.TemporaryDirectory() as folder:
    program = str(Path(sys.executable).parent / "segimage2itkimage")
    command = [program, "--inputDICOM", segmentation, "--outputDirectory", folder, "--outputType", "nrrd"]
    subprocess.run(command, check=True)
    volume, _header = nrrd.read(str(Path(folder) / f"{segment}.nrrd"), index_order="C")
(mask,) = volume != 0
np.save(target, mask)
