"""A real Orthanc as the PACS: DICOM both ways, DICOMweb, auto-routing and storage commitment."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.peers.processes import LOOPBACK, MissingPeer, Service, free_port, program

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

# RemoteAet is set for what came by C-STORE; what came by REST or STOW has another RequestOrigin.
_ROUTE = """
function OnStoredInstance(instanceId, tags, metadata, origin)
  local byDicom = origin['RequestOrigin'] == 'DicomProtocol' and origin['RemoteAet'] ~= '{our_aet}'
  local byHttp = {route_http} and (origin['RequestOrigin'] == 'RestApi' or origin['RequestOrigin'] == 'Plugins')
  if byDicom or byHttp then
    SendToModality(instanceId, '{alias}')
  end
end
"""


@dataclass(frozen=True)
class OurApplicationEntity:
    """The application under test as this PACS knows it."""

    aet: str
    port: int
    alias: str = "us"


@dataclass(frozen=True)
class StoredInstance:
    """One object in the PACS: Orthanc's own id, and what identifies it in DICOM."""

    id: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    calling_aet: str | None


class Orthanc:
    """A running Orthanc. stop() and start() keep its storage and ports, as a PACS that is down for a while."""

    def __init__(
        self,
        folder: Path,
        *,
        aet: str,
        us: OurApplicationEntity | None,
        auto_route: bool,
        route_http: bool,
    ) -> None:
        executable = program("Orthanc", package="orthanc")
        if not PLUGIN.exists():
            raise MissingPeer("Orthanc's DICOMweb plugin is not installed (Debian package orthanc-dicomweb)")
        if auto_route and us is None:
            raise ValueError("auto_route needs to know us")
        self.aet = aet
        self.us = us
        self.dicom_port = free_port()
        self.http_port = free_port()
        self.url = f"http://{LOOPBACK}:{self.http_port}"
        self.dicomweb_url = f"{self.url}/dicom-web"
        self.client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)
        scripts = []
        if auto_route and us is not None:
            script = folder / "route.lua"
            script.write_text(
                _ROUTE.format(our_aet=us.aet, alias=us.alias, route_http="true" if route_http else "false")
            )
            scripts.append(str(script))
        configuration = folder / "orthanc.json"
        configuration.write_text(json.dumps(self._configuration(folder, scripts), indent=2))
        self._service = Service(
            [executable, str(configuration)],
            log=folder / "orthanc.log",
            ready=self._answers,
        )

    def _configuration(self, folder: Path, scripts: list[str]) -> dict[str, Any]:
        modalities = {}
        if self.us is not None:
            modalities[self.us.alias] = {
                "AET": self.us.aet,
                "Host": LOOPBACK,
                "Port": self.us.port,
                "AllowEcho": True,
                "AllowStore": True,
                "AllowFind": True,
                "AllowMove": True,
                "AllowGet": True,
                "AllowStorageCommitment": True,
                "Timeout": 20,
            }
        return {
            "Name": "Test PACS",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "Plugins": [str(PLUGIN)],
            "LuaScripts": scripts,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAet": self.aet,
            "DicomPort": self.dicom_port,
            "DicomCheckCalledAet": True,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "AcceptedTransferSyntaxes": ["1.2.840.10008.1.*"],
            "UnknownSopClassAccepted": True,
            "DicomModalities": modalities,
            "DicomScuTimeout": 10,
            "DicomScpTimeout": 30,
            "MaximumPduLength": 131072,
            "DicomThreadsCount": 8,
            "ConcurrentJobs": 4,
            "OverwriteInstances": True,
            "StableAge": 1,
            "StorageCommitmentReportsSize": 1000,
            "SaveJobs": False,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": True, "StudiesMetadata": "Full"},
        }

    def _answers(self) -> bool:
        try:
            return self.client.get("/system").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def start(self) -> None:
        self._service.start()

    def stop(self) -> None:
        self._service.stop()

    def kill(self) -> None:
        self._service.kill()

    def upload(self, dicom: bytes | Path) -> str:
        """Store one object through REST (not DICOM); Orthanc's id of it."""
        content = dicom.read_bytes() if isinstance(dicom, Path) else dicom
        return str(self.client.post("/instances", content=content).raise_for_status().json()["ID"])

    def instances(self, sop_class: str | None = None) -> list[StoredInstance]:
        """What the PACS holds, of one SOP class or of all."""
        found = []
        for identifier in self.client.get("/instances").raise_for_status().json():
            metadata = self.client.get(f"/instances/{identifier}/metadata?expand").raise_for_status().json()
            stored = StoredInstance(
                id=identifier,
                sop_instance_uid=self.client.get(f"/instances/{identifier}").json()["MainDicomTags"]["SOPInstanceUID"],
                sop_class_uid=metadata.get("SopClassUid", ""),
                transfer_syntax_uid=metadata.get("TransferSyntax", ""),
                calling_aet=metadata.get("RemoteAET"),
            )
            if sop_class is None or stored.sop_class_uid == sop_class:
                found.append(stored)
        return found

    def wait_for(self, count: int, sop_class: str | None = None, *, seconds: float = 30) -> list[StoredInstance]:
        """The stored instances as soon as there are count of them; TimeoutError otherwise."""
        deadline = time.monotonic() + seconds
        while len(found := self.instances(sop_class)) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.aet} holds {len(found)} of {count} instances after {seconds:g} s")
            time.sleep(0.1)
        return found

    def file(self, identifier: str) -> bytes:
        """The stored object as a DICOM file."""
        return self.client.get(f"/instances/{identifier}/file").raise_for_status().content

    def rendered(self, identifier: str) -> bytes:
        """The object's first frame as PNG, drawn by Orthanc."""
        headers = {"Accept": "image/png"}
        return self.client.get(f"/instances/{identifier}/preview", headers=headers).raise_for_status().content

    def delete(self, identifier: str) -> None:
        self.client.delete(f"/instances/{identifier}").raise_for_status()

    def echo(self) -> bool:
        """C-ECHO from the PACS to us."""
        return self.client.post(f"/modalities/{self._alias}/echo", json={}).is_success

    def send(self, identifiers: Sequence[str], *, commit: bool = False) -> dict[str, Any]:
        """C-STORE instances from the PACS to us and wait; commit asks us for storage commitment too."""
        answer = self.client.post(
            f"/modalities/{self._alias}/store",
            json={"Resources": list(identifiers), "Synchronous": True, "StorageCommitment": commit},
        )
        return dict(answer.raise_for_status().json())

    def request_storage_commitment(
        self, instances: Sequence[tuple[str, str]], *, seconds: float = 20
    ) -> dict[str, Any]:
        """Ask us to commit to (SOP class, SOP instance) pairs; the report once it is no longer pending."""
        asked = self.client.post(
            f"/modalities/{self._alias}/storage-commitment", json={"DicomInstances": [list(pair) for pair in instances]}
        )
        path = asked.raise_for_status().json()["Path"]
        deadline = time.monotonic() + seconds
        while (report := self.client.get(path).raise_for_status().json())["Status"] == "Pending":
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return dict(report)

    @property
    def _alias(self) -> str:
        if self.us is None:
            raise ValueError("This Orthanc was started without knowing us")
        return self.us.alias


@contextmanager
def orthanc(
    folder: Path | None = None,
    *,
    aet: str = "TESTPACS",
    us: OurApplicationEntity | None = None,
    auto_route: bool = False,
    route_http: bool = False,
) -> Iterator[Orthanc]:
    """A running Orthanc on free loopback ports, with an empty storage in folder (or a temporary one).

    us: our application entity, which may store, query, and ask for storage commitment.
    auto_route: send each received instance on to us, but never one whose calling AE is ours (that would loop).
    route_http: route what came by REST or STOW as well; not when we deliver by STOW, which would loop.
    """
    with tempfile.TemporaryDirectory(prefix="test-orthanc-", ignore_cleanup_errors=True) as temporary:
        server = Orthanc(folder or Path(temporary), aet=aet, us=us, auto_route=auto_route, route_http=route_http)
        server.start()
        try:
            yield server
        finally:
            server.kill()  # a gentle end takes seconds, and nothing of it is kept
            server.client.close()
