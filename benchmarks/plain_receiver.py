"""A bare pynetdicom storage SCP that writes what it gets, without fsync, database or audit: ``FOLDER PORT``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.dimse_primitives import C_STORE

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit]


def serve(folder: Path, port: int) -> None:
    """Receive until killed."""

    def keep(event: evt.Event) -> int:
        (folder / f"{cast(C_STORE, event.request).AffectedSOPInstanceUID}.dcm").write_bytes(event.encoded_dataset())
        return 0

    ae = AE(ae_title="PLAIN")
    ae.maximum_pdu_size = 131072
    ae.maximum_associations = 100
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(str(context.abstract_syntax), SYNTAXES)
    ae.start_server(("127.0.0.1", port), block=True, evt_handlers=[(evt.EVT_C_STORE, keep)])


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
