"""Analysis → DICOM objects. `RENDERERS` is the one list; its order is the order of rendering.

``SOURCE`` is for pictures only: a DICOM source is referred to as it came. ``SEG`` needs a lesion
(``finding.measurements is not None``).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dermoscopy.domain import ArtifactKind
from dermoscopy.ports import Renderer
from dicom_listener.render.rejection import render_rejection_note
from dicom_listener.render.secondary_capture import render_secondary_capture
from dicom_listener.render.seg import render_seg
from dicom_listener.render.source import render_source, source_dataset
from dicom_listener.render.sr import render_sr

RENDERERS: Mapping[ArtifactKind, Renderer] = MappingProxyType(
    {
        ArtifactKind.SOURCE: render_source,
        ArtifactKind.SEG: render_seg,
        ArtifactKind.SR: render_sr,
        ArtifactKind.SECONDARY_CAPTURE: render_secondary_capture,
    }
)

REJECTION: Mapping[ArtifactKind, Renderer] = MappingProxyType({ArtifactKind.REJECTION_NOTE: render_rejection_note})
"""Of an amended report only, and after everything that it has replaced."""

__all__ = ["REJECTION", "RENDERERS", "source_dataset"]
