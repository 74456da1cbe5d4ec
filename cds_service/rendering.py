"""Drawing every output of an analysis once, in the order of the renderers; each may look at the ones before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from opentelemetry import trace

from dermoscopy.domain import Artifact, ArtifactKind, ReportStatus
from dermoscopy.ports import FindHair, Renderer, RenderInput

_tracer = trace.get_tracer(__name__)


def draw(renderers: Mapping[ArtifactKind, Renderer], what: RenderInput) -> list[Artifact]:
    """Every output that there is of ``what``. Raises what the renderers raise."""
    done: dict[ArtifactKind, Artifact] = {}
    for kind, renderer in renderers.items():
        if exists(kind, what):
            with _tracer.start_as_current_span(f"render.{kind.value}"):
                done[kind] = renderer(replace(what, companions=dict(done)))
    return list(done.values())


def with_hair(what: RenderInput, find: FindHair | None) -> RenderInput:
    """``what`` with the hair that ``find`` sees in it; without ``find`` no segment of hair is wanted."""
    return what if find is None else replace(what, hair=find(what.image.pixels, what.analysis.finding.mask))


def exists(kind: ArtifactKind, what: RenderInput) -> bool:
    """Whether there is an output of this kind at all."""
    if kind is ArtifactKind.SOURCE:
        return what.source.header.media_type != "application/dicom"  # the PACS has it already
    if kind is ArtifactKind.SEG:
        if what.status is ReportStatus.ENTERED_IN_ERROR:
            return False  # withdrawn, and nothing comes in its place
        return what.outlined is not None or what.analysis.finding.measurements is not None
    if kind is ArtifactKind.REJECTION_NOTE:
        return bool(what.former)
    return True
