"""Serve the OHIF viewer's built pages, with DICOMweb of a PACS under the same address."""

from __future__ import annotations

import http.client
import json
import mimetypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from tests.peers.processes import LOOPBACK, PEERS, installed

# How the viewer's pages list the SOP classes that are images; both places have the same text.
_IMAGE_CLASSES = b"sopClassDictionary.VLPhotographicImageStorage,"
_DERMOSCOPIC = b'"1.2.840.10008.5.1.4.1.1.77.1.7",'

_CONFIGURATION = {
    "routerBasename": "/",
    "extensions": [],
    "modes": [],
    "customizationService": {},
    "showStudyList": True,
    "maxNumberOfWebWorkers": 2,
    "showWarningMessageForCrossOrigin": False,
    "showCPUFallbackMessage": False,
    "showLoadingIndicator": True,
    "strictZSpacingForVolumeViewport": True,
    # Open a segmentation without asking; the question is a dialog that a test would have to click away.
    "disableConfirmationPrompts": True,
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "pacs",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "pacs",
            "configuration": {
                "friendlyName": "PACS",
                "name": "pacs",
                "wadoUriRoot": "/dicom-web",
                "qidoRoot": "/dicom-web",
                "wadoRoot": "/dicom-web",
                "qidoSupportsIncludeField": False,
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "supportsFuzzyMatching": False,
                "supportsWildcard": True,
                "omitQuotationForMultipartRequest": True,
                "singlepart": "",
                "bulkDataURI": {"enabled": True},
            },
        }
    ],
}


def _handler(pages: Path, dicomweb_url: str, knows_dermoscopic: bool) -> type[BaseHTTPRequestHandler]:
    target = urlsplit(dicomweb_url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path.startswith("/dicom-web/"):
                self._proxy()
            elif path == "/app-config.js":
                self._answer(200, "text/javascript", f"window.config = {json.dumps(_CONFIGURATION)};".encode())
            else:
                self._page(path)

        def _page(self, path: str) -> None:
            file = (pages / path.lstrip("/")).resolve()
            if not file.is_relative_to(pages) or not file.is_file():
                if Path(path).suffix:
                    self._answer(404, "text/plain", b"not found")
                    return
                file = pages / "index.html"
            content = file.read_bytes()
            if knows_dermoscopic and file.suffix == ".js":
                content = content.replace(_IMAGE_CLASSES, _IMAGE_CLASSES + _DERMOSCOPIC)
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            self._answer(200, "application/wasm" if file.suffix == ".wasm" else kind, content)

        def _proxy(self) -> None:
            connection = http.client.HTTPConnection(target.hostname or LOOPBACK, target.port, timeout=60)
            try:
                headers = {"Accept": self.headers.get("Accept", "*/*")}
                # Orthanc writes this address into the BulkDataURI that the viewer then asks for.
                headers["Forwarded"] = f"host={self.headers['Host']};proto=http"
                connection.request("GET", self.path, headers=headers)
                answer = connection.getresponse()
                body = answer.read()
                self._answer(answer.status, answer.getheader("Content-Type", "application/octet-stream"), body)
            finally:
                connection.close()

        def _answer(self, code: int, content_type: str, body: bytes) -> None:
            self.send_response_only(code)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            if not self.path.startswith("/dicom-web/"):
                self.send_header("Cache-Control", "max-age=3600")  # the second study opens with what the first loaded
            # SharedArrayBuffer, which the viewer's decoders ask for, needs an isolated page.
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            self.end_headers()
            self.wfile.write(body)

    return Handler


@contextmanager
def viewer_server(dicomweb_url: str, *, knows_dermoscopic: bool = False) -> Iterator[str]:
    """Address of the viewer in front of this DICOMweb server; see `ohif` for knows_dermoscopic."""
    pages = installed(PEERS / ".ohif" / "dist").resolve()
    server = ThreadingHTTPServer((LOOPBACK, 0), _handler(pages, dicomweb_url, knows_dermoscopic))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://{LOOPBACK}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
