"""The bare loop: one process that decodes, analyses and renders one image after the other, and keeps it in memory.

The floor under the service: no database, no queue, no audit, no network. Run as a program it prints JSON:
``python -m benchmarks.bare_loop FILE…``.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from cds_service.bootstrap import ENGINES, chosen_package, code_version, open_node, renderers
from cds_service.reading import read_object
from dermoscopy.analyses import raster_artifacts
from dermoscopy.domain import Analysis, Artifact, ArtifactKind, DermoscopicImage, PatientIdentity, SourceObject
from dermoscopy.domain import derive_id as derived
from dermoscopy.ports import Algorithm, Renderer, RenderInput
from dermoscopy.settings import Settings, read_settings
from dermoscopy.tables import utc_now
from dicom_listener.decode import decode
from models.analyze import LesionAlgorithm
from models.session import OnnxSession
from monitoring.logs import configure_logging

STEPS_OF_ALGORITHM = {
    "quality": "quality and novelty",
    "novelty": "quality and novelty",
    "preprocess": "preprocess",
    "inference": "inference",
}
"""The algorithm's own clock, in the words of the report; what is not named is measuring and explaining."""
_T = TypeVar("_T")
NO_PATIENT = PatientIdentity("", "")


def open_algorithm(settings: Settings) -> Algorithm:
    """The same algorithm as the worker's, loaded the same way."""
    package = chosen_package(settings)
    session = OnnxSession.open(
        package,
        provider=settings.execution_provider,
        threads=settings.inference_threads,
        batch=settings.inference_batch,
        cache=settings.data_dir / ENGINES,
    )
    return LesionAlgorithm(package, session, code_version=code_version())


@contextmanager
def open_renderers(settings: Settings) -> Iterator[dict[ArtifactKind, Renderer]]:
    """The service's own list of outputs for DICOM sources."""
    with tempfile.TemporaryDirectory(prefix="cds-bench-") as folder:
        node = open_node(settings.model_copy(update={"data_dir": Path(folder), "database_url": "", "blob_url": ""}))
        unasked = (ArtifactKind.SOURCE, ArtifactKind.REJECTION_NOTE)
        yield {kind: draw for kind, draw in renderers(node).items() if kind not in unasked}
        node.engine.dispose()


def read(path: Path) -> SourceObject:
    """A DICOM file as intake would have stored it."""
    data, header = read_object(path.read_bytes(), NO_PATIENT)
    return SourceObject(derived("bare", path.name), data, header, utc_now())


def analysed(algorithm: Algorithm, source: SourceObject, image: DermoscopicImage) -> Analysis:
    """What the pipeline makes of a finding before it is stored."""
    return Analysis(
        id=derived("bare-analysis", source.instance_id),
        instance_id=source.instance_id,
        created_at=source.received_at,
        finding=algorithm.analyze(image),
        header=source.header,
        rows=image.rows,
        columns=image.columns,
        pixel_digest=image.pixel_digest,
        spacing_mm=image.spacing_mm,
        acquisition=image.acquisition,
    )


def run(files: Sequence[Path], settings: Settings) -> dict[str, Any]:
    """Seconds of the whole loop and of each step.

    Loading program and weights is not counted, nor the first file: with it libraries load what they need.
    """
    algorithm = open_algorithm(settings)
    steps: dict[str, float] = defaultdict(float)
    kept: list[tuple[Analysis, dict[ArtifactKind, Artifact]]] = []
    with open_renderers(settings) as outputs:
        _one(files[0], algorithm, outputs, defaultdict(float))
        began = time.perf_counter()
        for path in files[1:]:
            kept.append(_one(path, algorithm, outputs, steps))
        seconds = time.perf_counter() - began
    return {"images": len(kept), "seconds": seconds, "steps": dict(steps)}


def _one(
    path: Path, algorithm: Algorithm, outputs: dict[ArtifactKind, Renderer], steps: dict[str, float]
) -> tuple[Analysis, dict[ArtifactKind, Artifact]]:
    def timed(name: str, work: Callable[[], _T]) -> _T:
        began = time.perf_counter()
        result = work()
        steps[name] += time.perf_counter() - began
        return result

    source = timed("read and decode", lambda: read(path))
    image = timed("read and decode", lambda: decode(source))
    began = time.perf_counter()
    analysis = analysed(algorithm, source, image)
    rest = time.perf_counter() - began
    for name, milliseconds in analysis.finding.inference.milliseconds.items():
        if name in STEPS_OF_ALGORITHM:
            steps[STEPS_OF_ALGORITHM[name]] += milliseconds / 1000
            rest -= milliseconds / 1000
    steps["outline, measure, explain, triage"] += rest
    done: dict[ArtifactKind, Artifact] = {}
    timed("mask and heat-map PNG", lambda: raster_artifacts(analysis))
    for kind, draw in outputs.items():
        if kind is ArtifactKind.SEG and analysis.finding.measurements is None:
            continue
        what = RenderInput(analysis, image, source, dict(done))
        done[kind] = timed(f"render {kind.value}", partial(draw, what))
    return analysis, done


if __name__ == "__main__":
    configure_logging(level="WARNING", format="console")
    print(json.dumps(run([Path(name) for name in sys.argv[1:]], read_settings())))
