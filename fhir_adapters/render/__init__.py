"""What this room draws from an analysis. A new output: one file here and one line in `RENDERERS`."""

from __future__ import annotations

from dermoscopy.domain import ArtifactKind
from dermoscopy.ports import Renderer
from fhir_adapters.render.bundle import bundle

RENDERERS: dict[ArtifactKind, Renderer] = {ArtifactKind.FHIR_BUNDLE: bundle}
