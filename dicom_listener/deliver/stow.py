"""A PACS that takes results by STOW-RS (PS3.18 10.5), with dicomweb-client."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from io import BytesIO
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import requests
import structlog
from dicomweb_client.api import DICOMwebClient
from opentelemetry import trace
from pydantic import SecretStr
from pydicom import dcmread
from pydicom.dataset import Dataset

from dermoscopy.domain import Analysis, Artifact, ArtifactKind, DeliveryReceipt
from dermoscopy.errors import DestinationUnavailable, Misconfigured, Rejected
from dicom_listener.part10 import PARSE_ERRORS

log = structlog.get_logger(__name__)
_tracer = trace.get_tracer(__name__)

ACCEPTS: Final = frozenset(
    {
        ArtifactKind.SOURCE,
        ArtifactKind.SEG,
        ArtifactKind.SR,
        ArtifactKind.SECONDARY_CAPTURE,
        ArtifactKind.REJECTION_NOTE,
    }
)
_TRANSIENT: Final = frozenset({408, 423, 425, 429, 500, 502, 503, 504})
"""Answers after which the same request may succeed; 507 and the other 5xx count too (`_transient`)."""
_WHOLE_IN_ONE: Final = 1 << 40
"""Bytes up to which the body goes with a Content-Length: not every server takes chunked ones."""
_DUPLICATE: Final = 0x0111
_RETRY_SECONDS: Final = 30.0


class StowDestination:
    """Implements `dermoscopy.ports.Destination`; safe to call from many threads. Times are in seconds."""

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        token: SecretStr | None = None,
        username: str = "",
        password: SecretStr | None = None,
        authorities: Path | None = None,
        timeout: float = 30.0,
        rejection_notes: bool = True,
    ) -> None:
        """``base_url`` is the DICOMweb root, without ``/studies``. Raises `Misconfigured`."""
        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.username:
            raise Misconfigured(f"stow destination {name!r}: base_url must be http(s)://host/path without credentials")
        if token is not None and username:
            raise Misconfigured(f"stow destination {name!r}: give a token or a username, not both")
        if authorities is not None and not authorities.is_file():
            raise Misconfigured(f"stow destination {name!r}: tls_ca {authorities} is not a file")
        self._name, self._rejection_notes = name, rejection_notes
        self._base = base_url.rstrip("/")
        self._token, self._timeout = token, timeout
        self._login = (username, password.get_secret_value() if password else "") if username else None
        self._authorities = authorities

    @property
    def name(self) -> str:
        """Name of the destination in settings, deliveries and logs."""
        return self._name

    @property
    def accepts(self) -> frozenset[ArtifactKind]:
        """The DICOM kinds; rejection notes where the archive understands them."""
        return ACCEPTS if self._rejection_notes else ACCEPTS - {ArtifactKind.REJECTION_NOTE}

    def deliver(self, artifact: Artifact, analysis: Analysis) -> DeliveryReceipt:
        """Store ``artifact`` (a Part 10 file) at the server; the same object again is the same SOP instance there.

        Raises `DestinationUnavailable` (no answer in time, busy, failing) and `Rejected` (refused for good).
        """
        if artifact.kind not in ACCEPTS:
            raise Rejected(f"{self._name} takes DICOM objects, not {artifact.kind.value}")
        with _tracer.start_as_current_span(
            "dicomweb.deliver", attributes={"destination": self._name, "artifact": artifact.kind.value}
        ):
            dataset = _read(artifact)
            with requests.Session() as session:  # one each: sessions are not made for many threads
                answer = self._send(dataset, self._prepared(session))
            self._judge(answer, artifact)
        log.info("deliver.stored", destination=self._name, artifact=artifact.kind.value, analysis_id=analysis.id)
        return DeliveryReceipt(reference=artifact.uid)

    def _prepared(self, session: requests.Session) -> requests.Session:
        session.trust_env = False  # no proxy and no .netrc that nobody configured for patients' images
        session.max_redirects = 0
        session.verify = str(self._authorities) if self._authorities else True
        if self._token is not None:
            session.headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
        elif self._login is not None:
            session.auth = self._login
        session.headers.update({"Accept": "application/dicom+json", "User-Agent": "dermoscopy-cds"})
        return session

    def _send(self, dataset: Dataset, session: requests.Session) -> Dataset:
        client = DICOMwebClient(self._base, session=session, timeout=self._timeout, chunk_size=_WHOLE_IN_ONE)
        client.set_http_retry_params(retry=False)  # the delivery is retried, with its own pauses, and is seen to be
        try:
            answer: Dataset = client.store_instances([dataset])
        except requests.HTTPError as error:
            if error.response is None:
                raise DestinationUnavailable(f"{self._name} gave no answer to STOW-RS", retry_after=5) from error
            return self._refused(error.response)
        except requests.TooManyRedirects as error:
            raise Rejected(f"{self._name} redirects: set base_url to the address that takes objects") from error
        except (requests.exceptions.SSLError, requests.RequestException) as error:
            why = "cannot be reached by TLS" if isinstance(error, requests.exceptions.SSLError) else "cannot be reached"
            why = "did not answer in time" if isinstance(error, requests.Timeout) else why
            raise DestinationUnavailable(f"{self._name} {why} (STOW-RS)", retry_after=5) from error
        except PARSE_ERRORS as error:  # stored, or not: nothing that can be read says so
            raise DestinationUnavailable(f"{self._name} answered with something else than DICOM JSON") from error
        return answer

    def _refused(self, response: requests.Response) -> Dataset:
        """What a refusal means; a 409 with a response dataset is judged by that, object by object."""
        status = response.status_code
        if _transient(status):
            pause = retry_after(response.headers.get("Retry-After", ""))
            raise DestinationUnavailable(f"{self._name} answered {status}", retry_after=pause)
        if status == 409 and "json" in response.headers.get("Content-Type", ""):
            try:
                return Dataset.from_json(response.json())
            except PARSE_ERRORS:
                pass  # judged by its status alone
        hint = {401: ": check token or password", 403: ": check its permissions", 404: ": check base_url"}
        raise Rejected(f"{self._name} refused the object ({status}{hint.get(status, '')})")

    def _judge(self, answer: Dataset, artifact: Artifact) -> None:
        """PS3.18 I.2: whether the response dataset says that our object was stored."""
        failures = [*_items(answer, "FailedSOPSequence"), *_items(answer, "OtherFailuresSequence")]
        for item in failures:
            if str(item.get("ReferencedSOPInstanceUID") or artifact.uid) == artifact.uid:
                code = int(item.get("FailureReason") or 0)
                if code == _DUPLICATE:
                    continue
                if code >> 8 == 0xA7 or code == 0x0213:
                    raise DestinationUnavailable(
                        f"{self._name} is out of resources (reason {code:04X})", retry_after=_RETRY_SECONDS
                    )
                raise Rejected(f"{self._name} refused the {artifact.kind.value} object (reason {code:04X})")
        for item in _items(answer, "ReferencedSOPSequence"):
            if (reason := item.get("WarningReason")) is not None:
                log.warning("deliver.stored_with_warning", destination=self._name, status=f"{int(reason):04X}")


def retry_after(text: str) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110 10.2.3), or ``None``."""
    if text.isascii() and text.strip().isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, math.ceil(moment.timestamp() - time.time()))


def _transient(status: int) -> bool:
    permanent_5xx = (501, 505)
    return status in _TRANSIENT or (status >= 500 and status not in permanent_5xx)


def _items(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    return list(dataset.get(keyword) or [])


def _read(artifact: Artifact) -> Dataset:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dcmread(BytesIO(artifact.data))
    except PARSE_ERRORS as error:
        raise Rejected(f"the {artifact.kind.value} artifact is not a DICOM file") from error
