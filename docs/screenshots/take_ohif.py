"""Takes the screenshot of docs/dicom.md anew: ``python docs/screenshots/take_ohif.py`` in the project's folder.

A synthetic phantom (no patient's picture) goes through the real service to a real Orthanc, and OHIF in Chromium draws
our segmentation over it. Needs what the acceptance tests need.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from pydicom import dcmread  # noqa: E402

from dermoscopy.domain import PatientIdentity  # noqa: E402
from dermoscopy.overlay import encode_png  # noqa: E402
from dermoscopy.phantoms import phantom  # noqa: E402
from dicom_listener.camera import wrap_picture  # noqa: E402
from dicom_listener.syntaxes import DERMOSCOPIC_PHOTOGRAPHY, SEGMENTATION  # noqa: E402
from tests.peers.dcmtk import storescu  # noqa: E402
from tests.peers.orthanc import Orthanc, orthanc  # noqa: E402
from tests.peers.processes import wait_until  # noqa: E402
from tests.peers.seg_readers.ohif import ohif  # noqa: E402
from tests.service import ISSUER, running_service  # noqa: E402

RESULTS = 3
"""Segmentation, report and secondary capture, beside the photograph."""


def series(pacs: Orthanc) -> dict[str, tuple[str, str]]:
    """SOP class → (study, series) of what the PACS holds."""
    held = [dcmread(io.BytesIO(pacs.file(one.id)), stop_before_pixels=True) for one in pacs.instances()]
    return {str(one.SOPClassUID): (str(one.StudyInstanceUID), str(one.SeriesInstanceUID)) for one in held}


def main() -> None:
    """Take it."""
    with tempfile.TemporaryDirectory() as name, orthanc() as pacs:
        folder = Path(name)
        picture = encode_png(phantom(2, kind="melanoma-like", rows=600, columns=800).pixels)
        file = folder / "phantom.dcm"
        file.write_bytes(wrap_picture(picture, PatientIdentity(ISSUER, "PHANTOM-1")))
        pacs.upload(file)
        there = [{"name": "pacs", "host": "127.0.0.1", "port": pacs.dicom_port, "ae_title": pacs.aet}]
        with running_service(folder / "service", pacs=there) as service:
            if not storescu(service.dicom_port, [file], called="DERMCDS").ok:
                raise SystemExit("the service did not take the phantom")
            wait_until(lambda: len(pacs.instances()) == 1 + RESULTS, "results at the PACS", seconds=300)
        found = series(pacs)
        study, photograph = found[DERMOSCOPIC_PHOTOGRAPHY]
        with ohif(pacs.dicomweb_url, knows_dermoscopic=True) as viewer:
            shown = viewer.open_segmentation(study, photograph, found[SEGMENTATION][1], seconds=240)
    if shown.label_map is None:
        raise SystemExit(f"the viewer did not open the segmentation: {shown.errors}")
    seen = Image.open(io.BytesIO(shown.screenshot)).convert("RGB")
    target = HERE / "ohif-seg.png"
    seen.quantize(200, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(target, optimize=True)
    print(f"{target.name}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
