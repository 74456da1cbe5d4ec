"""What a chart waits for besides its card: the review page in a real browser, the bundle and its way into the EHR."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.bare_loop import analysed, open_algorithm, open_renderers, read
from benchmarks.results import NOT_INSTALLED, Cell, Table, median, quantile
from benchmarks.setting import Setting, await_analyses, send_all
from dermoscopy.domain import Analysis, Artifact, ArtifactKind
from dermoscopy.patients import IssuerMap
from dermoscopy.ports import RenderInput
from dicom_listener.decode import decode
from fhir_adapters.deliver import FhirDestination
from tests.peers.browser import chromium
from tests.peers.fhir_server.server import FhirServer, fhir_server
from tests.peers.processes import MissingPeer
from tests.service import ISSUER, SYSTEM

AIM_MS = 1000
_READY = "() => performance.getEntriesByType('navigation')[0].loadEventEnd"
"""Milliseconds from the navigation until everything of the page, pictures included, is loaded and its scripts ran."""


def measure(setting: Setting) -> list[Table]:
    """Pages first, then bundles."""
    return [_pages(setting), _bundles(setting)]


def _pages(setting: Setting) -> Table:
    title = "Review page ready in Chromium, ms"
    columns = ("browser", "p50", "p99", "max")
    try:
        cold, warm = _opened(setting)
    except MissingPeer as missing:
        return Table("review-page", title, columns, (("", *[NOT_INSTALLED] * 3),), str(missing))
    rows: list[tuple[Cell, ...]] = [
        (name, quantile(times, 0.5), quantile(times, 0.99), quantile(times, 1))
        for name, times in (("new, nothing cached", cold), ("the same user's next page", warm))
    ]
    note = (
        f"{len(cold)} pages of as many images, from the navigation until all pictures and scripts are there. The first "
        f"row's service decodes each image anew, the second's has it. Aim: under {AIM_MS} ms."
    )
    return Table("review-page", title, columns, tuple(rows), note, {"cold": cold, "warm": warm})


def _opened(setting: Setting) -> tuple[list[float], list[float]]:
    cold: list[float] = []
    warm: list[float] = []
    with chromium() as browser, setting.fresh_folder() as folder, setting.service(folder / "service") as service:
        files = setting.images.write(folder / "files", setting.size.pages, batch="pages")
        send_all(service, files)
        await_analyses(service, len(files))
        reports = [str(one["report_id"]) for one in service.analyses()][: len(files)]
        with browser.new_context() as first:  # the browser's own start is no part of a page
            first.new_page().goto(f"{service.url}/")
        setting.tell("review pages")
        for report in reports:
            with browser.new_context() as context:
                page = context.new_page()
                for times in (cold, warm):
                    page.goto(f"{service.url}/analyses/{report}", wait_until="load")
                    page.wait_for_function(f"({_READY})() > 0")
                    times.append(float(page.evaluate(_READY)))
    return cold, warm


def _bundles(setting: Setting) -> Table:
    title = "FHIR bundle of an image, ms"
    columns = ("step", "p50", "p99")
    setting.tell("bundles")
    with setting.fresh_folder() as folder:
        made, built = _built(setting, folder)
        rows: list[tuple[Cell, ...]] = [("build", quantile(built, 0.5), quantile(built, 0.99))]
        samples = {"build": built}
        try:
            with fhir_server(folder) as server:
                samples |= _delivered(server, made)
        except MissingPeer as missing:
            return Table("bundle", title, columns, (*rows, ("deliver", NOT_INSTALLED, NOT_INSTALLED)), str(missing))
    rows += [(name, quantile(ms, 0.5), quantile(ms, 0.99)) for name, ms in samples.items() if name != "build"]
    kilobytes = median([len(artifact.data) / 1000 for artifact, _ in made])
    note = (
        f"{len(made)} bundles of {kilobytes:.0f} kB. Delivery: search of the patient, of what stands there and the "
        "transaction, on a FHIR R4 server in memory on the same machine; a repeat finds everything in place."
    )
    return Table("bundle", title, columns, tuple(rows), note, samples)


def _built(setting: Setting, folder: Path) -> tuple[list[tuple[Artifact, Analysis]], list[float]]:
    """Bundles with their analyses, and milliseconds of building each."""
    algorithm = open_algorithm(setting.settings)
    made, built = [], []
    with open_renderers(setting.settings) as renderers:
        for path in setting.images.write(folder / "files", setting.size.pages, batch="bundles"):
            source = read(path)
            image = decode(source)
            analysis = analysed(algorithm, source, image)
            done: dict[ArtifactKind, Artifact] = {}
            for kind, draw in renderers.items():
                if kind is ArtifactKind.SEG and analysis.finding.measurements is None:
                    continue
                began = time.perf_counter()
                done[kind] = draw(RenderInput(analysis, image, source, dict(done)))
                if kind is ArtifactKind.FHIR_BUNDLE:
                    built.append((time.perf_counter() - began) * 1000)
            made.append((done[ArtifactKind.FHIR_BUNDLE], analysis))
    return made, built


def _delivered(server: FhirServer, made: list[tuple[Artifact, Analysis]]) -> dict[str, list[float]]:
    for patient_id in {analysis.header.patient.patient_id for _, analysis in made}:
        identifier = {"system": SYSTEM, "value": patient_id}
        server.post({"resourceType": "Patient", "identifier": [identifier]}).raise_for_status()
    destination = FhirDestination("ehr", server.url, issuers=IssuerMap({ISSUER: SYSTEM}, default_issuer=ISSUER))
    return {
        name: [_milliseconds(lambda: destination.deliver(artifact, analysis)) for artifact, analysis in made]  # noqa: B023
        for name in ("deliver", "deliver again")
    }


def _milliseconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000
