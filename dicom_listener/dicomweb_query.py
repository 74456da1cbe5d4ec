"""What a DICOMweb archive holds of a patient, and its objects: QIDO-RS and WADO-RS as client (PS3.18 10.6, 10.4).

The patient's id stands in the address of a search, as QIDO-RS demands (PS3.18 8.3.4): use https, and know that the
archive's own access log has it. Nothing here logs an address or repeats one in an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import requests
import structlog
from dicomweb_client.api import DICOMwebClient
from pydantic import SecretStr
from pydicom.dataset import Dataset

from dermoscopy.errors import DestinationUnavailable, Misconfigured, Rejected, UnreadableObject
from dicom_listener.deliver.stow import retry_after
from dicom_listener.handlers import StoreHandler, StoreRequest
from dicom_listener.part10 import PARSE_ERRORS, split_part10
from dicom_listener.query import (
    MAX_ANSWERS,
    Found,
    Match,
    SameIssuer,
    Wanted,
    check_patient,
    is_modality,
    is_of,
    text_of,
)
from dicom_listener.retrieve import Retrieved
from dicom_listener.status import SUCCESS
from dicom_listener.syntaxes import IMAGE_CLASSES

log = structlog.get_logger(__name__)

PAGE: Final = 200
"""Matches asked for at a time."""
_AS_STORED: Final = 'multipart/related; type="application/dicom"; transfer-syntax=*'
"""Any transfer syntax, so the one that the object is kept in: no archive has to decode it (PS3.18 8.7.3)."""
_BUSY: Final = frozenset({408, 423, 425, 429})
_PERMANENT_5XX: Final = frozenset({501, 505})
_HINTS: Final = {401: ": check token or password", 403: ": check its permissions", 404: ": check base_url"}
_CHUNK: Final = 1 << 20


class DicomwebArchive:
    """An archive that is searched and read; safe to use from one thread at a time. Times are in seconds."""

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
        max_object_bytes: int = 512 * 1024 * 1024,
    ) -> None:
        """``base_url`` is the DICOMweb root, without ``/studies``. Raises `Misconfigured`."""
        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.username:
            raise Misconfigured(f"archive {name!r}: base_url must be http(s)://host/path without credentials")
        if token is not None and username:
            raise Misconfigured(f"archive {name!r}: give a token or a username, not both")
        if authorities is not None and not authorities.is_file():
            raise Misconfigured(f"archive {name!r}: tls_ca {authorities} is not a file")
        self._name, self._base = name, base_url.rstrip("/")
        self._token, self._timeout, self._largest = token, timeout, max_object_bytes
        self._login = (username, password.get_secret_value() if password else "") if username else None
        self._authorities = authorities

    def find(self, wanted: Wanted, same: SameIssuer) -> Found:
        """Every photograph of the patient; answers are believed as those of `query.find` are.

        Raises `DestinationUnavailable` and `Rejected`.
        """
        check_patient(wanted.patient)
        matches: dict[str, Match] = {}
        others: list[str] = []
        with self._session() as session:
            client = DICOMwebClient(self._base, session=session, timeout=self._timeout)
            client.set_http_retry_params(retry=False)
            for study in self._answers(client.search_for_studies, **study_search(wanted)):
                study_uid = text_of(study, "StudyInstanceUID")
                if not study_uid or not is_of(study, wanted.patient, same):
                    others.append(study_uid)
                    continue
                for series in self._answers(client.search_for_series, study_instance_uid=study_uid):
                    series_uid = text_of(series, "SeriesInstanceUID")
                    if not series_uid or not is_modality(text_of(series, "Modality"), wanted.modalities):
                        continue
                    for image in self._answers(
                        client.search_for_instances, study_instance_uid=study_uid, series_instance_uid=series_uid
                    ):
                        uid, sop_class = text_of(image, "SOPInstanceUID"), text_of(image, "SOPClassUID")
                        if uid and (not sop_class or sop_class in IMAGE_CLASSES):
                            matches.setdefault(uid, Match(study_uid, series_uid, uid, sop_class))
        if others:
            log.warning("query.other_patient", source=self._name, studies=len(others))
        return Found(tuple(matches.values()), tuple(others))

    def fetch(self, matches: Sequence[Match], *, door: StoreHandler) -> Retrieved:
        """Retrieve ``matches`` one by one, as they are stored; ``door`` takes each in as it does any C-STORE.

        One that cannot be had does not stop the rest. Raises `DestinationUnavailable`: nothing more can be had now.
        """
        done = Retrieved()
        with self._session() as session:
            for match in matches:
                try:
                    data, syntax = split_part10(self._object(session, match))
                except Rejected as error:
                    log.warning("retrieve.failed", source=self._name, error=type(error).__name__, reason=str(error))
                    done += Retrieved(failed=1)
                    continue
                request = StoreRequest(match.sop_class_uid, match.sop_instance_uid, syntax, self._name, data)
                ok = door(request).code == SUCCESS
                done += Retrieved(completed=int(ok), failed=int(not ok))
        return done

    def _object(self, session: requests.Session, match: Match) -> bytes:
        """One Part 10 file, byte for byte: dicomweb-client would decode it and write another."""
        path = (
            f"studies/{match.study_instance_uid}/series/{match.series_instance_uid}/instances/{match.sop_instance_uid}"
        )
        with self._translated("WADO-RS"):
            answer = session.get(
                f"{self._base}/{path}", headers={"Accept": _AS_STORED}, timeout=self._timeout, stream=True
            )
            with answer:
                answer.raise_for_status()
                body = bytearray()
                for chunk in answer.iter_content(_CHUNK):
                    body += chunk
                    if len(body) > self._largest:
                        raise UnreadableObject(f"{self._name} sent an object that is larger than this service takes")
                kind = answer.headers.get("Content-Type", "")
        return only_part(bytes(body), kind)

    def _answers(self, search: Callable[..., Any], **asked: Any) -> list[Dataset]:
        """All pages of one search. Raises `DestinationUnavailable` and `Rejected`."""
        found: list[Dataset] = []
        seen: set[str] = set()
        with self._translated("QIDO-RS"):
            while True:
                page = [Dataset.from_json(item) for item in search(limit=PAGE, offset=len(found), **asked)]
                uids = {"\n".join(text_of(item, k) for k in _KEYS) for item in page}
                if uids <= seen:  # the end, or a server that knows no offset
                    return found
                seen |= uids
                found += page
                if len(found) > MAX_ANSWERS:
                    raise Rejected(f"{self._name} has more than {MAX_ANSWERS} matches: ask for a shorter time")

    @contextmanager
    def _session(self) -> Iterator[requests.Session]:
        with requests.Session() as session:
            session.trust_env = False  # no proxy and no .netrc that nobody configured for patients' images
            session.max_redirects = 0
            session.verify = str(self._authorities) if self._authorities else True
            if self._token is not None:
                session.headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
            elif self._login is not None:
                session.auth = self._login
            session.headers["User-Agent"] = "dermoscopy-cds"
            yield session

    @contextmanager
    def _translated(self, service: str) -> Iterator[None]:
        """Errors of requests as ours, without their cause: its text holds the address, and that the patient's id."""
        name = self._name
        try:
            yield
        except requests.HTTPError as error:
            if error.response is None:
                raise DestinationUnavailable(f"{name} gave no answer to {service}", retry_after=5) from None
            status = error.response.status_code
            if status in _BUSY or (status >= 500 and status not in _PERMANENT_5XX):
                pause = retry_after(error.response.headers.get("Retry-After", ""))
                raise DestinationUnavailable(f"{name} answered {status} to {service}", retry_after=pause) from None
            raise Rejected(f"{name} refused {service} ({status}{_HINTS.get(status, '')})") from None
        except requests.TooManyRedirects:
            raise Rejected(f"{name} redirects: set base_url to the address that answers") from None
        except requests.exceptions.JSONDecodeError:
            raise DestinationUnavailable(f"{name} answered {service} with something else than DICOM JSON") from None
        except requests.exceptions.SSLError:
            raise DestinationUnavailable(f"{name} cannot be reached by TLS ({service})", retry_after=5) from None
        except requests.RequestException as error:
            why = "did not answer in time" if isinstance(error, requests.Timeout) else "cannot be reached"
            raise DestinationUnavailable(f"{name} {why} ({service})", retry_after=5) from None
        except PARSE_ERRORS:
            raise DestinationUnavailable(f"{name} answered {service} with something that cannot be read") from None


_KEYS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def study_search(wanted: Wanted) -> dict[str, Any]:
    """Query of a search for studies (PS3.18 8.3.4): patient id, from a date on, the issuer in the answer."""
    filters = {"PatientID": wanted.patient.patient_id}
    if wanted.since:
        filters["StudyDate"] = f"{wanted.since}-"
    return {"search_filters": filters, "fields": ["IssuerOfPatientID"]}


def only_part(body: bytes, content_type: str) -> bytes:
    """The one part of a multipart/related body (RFC 2046 5.1.1), byte for byte; a bare DICOM body is itself.

    Raises `UnreadableObject`.
    """
    kind, *parameters = [word.strip() for word in content_type.split(";")]
    if kind.lower() == "application/dicom":
        return body
    named = {key.strip().lower(): value.strip().strip('"') for key, _, value in (p.partition("=") for p in parameters)}
    boundary = b"--" + named.get("boundary", "").encode("latin-1", "replace")
    start = body.find(boundary)
    content = body.find(b"\r\n\r\n", start)
    end = body.rfind(b"\r\n" + boundary)
    if kind.lower() != "multipart/related" or len(boundary) == 2 or start < 0 or content < 0 or end < content + 4:
        raise UnreadableObject("The archive answered with something else than one DICOM object.")
    return body[content + 4 : end]
