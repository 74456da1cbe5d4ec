"""The only reader of the environment and of the configuration file.

`Settings` is frozen, read once by `cds_service.bootstrap` and passed down. Values come from environment variables
``CDS_<FIELD>`` (lists and tables as JSON) over the optional TOML file named by ``CDS_CONFIG``. Every field is
described in ``docs/configuration.md``; a test fails when one is missing there.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    ModelWrapValidatorHandler,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from dermoscopy.errors import Misconfigured

Port = Annotated[int, Field(ge=0, le=65535)]


class Role(StrEnum):
    """What the bearer of an API token may do; each role includes the ones before it."""

    READ = "read"
    SUBMIT = "submit"
    REVIEW = "review"
    """A clinician who confirms or corrects results."""
    ADMIN = "admin"


class ApiToken(BaseModel):
    """A bearer token of the REST API and its role."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(min_length=1)
    token: SecretStr
    role: Role = Role.READ


class DicomPeer(BaseModel):
    """A sender of images: its AE title, the addresses it may come from, its limits (0: none of its own)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    ae_title: str = Field(min_length=1, max_length=16)
    addresses: tuple[IPvAnyNetwork, ...] = ()
    """Addresses and networks (``10.1.2.0/24``); empty means any."""
    max_associations: int = Field(default=0, ge=0)
    objects_per_minute: int = Field(default=0, ge=0)
    max_object_bytes: int = Field(default=0, ge=0)
    report_host: str = ""
    """Where it takes storage commitment reports; empty means the address that it asked from."""
    report_port: Port = 0
    report_tls: bool = False


class PacsDestination(BaseModel):
    """A PACS that receives result objects by C-STORE."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(min_length=1)
    host: str
    port: Port
    ae_title: str = Field(min_length=1, max_length=16)
    tls: bool = False
    tls_ca: Path | None = None
    """Authorities that sign its certificate; else ``dicom_tls_ca``, else those of the system."""
    tls_check_name: bool = True
    """Whether the certificate must be issued for ``host``."""
    rejection_notes: bool = True
    """Whether it is told by a Key Object Selection what an amendment replaced (IHE IOCM)."""
    commitment: bool = False
    """Whether it is asked to commit to what it was sent (PS3.4 J)."""
    commitment_wait_seconds: float = Field(default=3600.0, gt=0, le=7 * 86400)
    """How long its report is waited for."""
    commitment_attempts: int = Field(default=5, ge=1, le=20)
    """How often an object is sent and asked about before a person decides."""
    commitment_backoff_seconds: float = Field(default=60.0, gt=0, le=86400)
    """Pause before an unconfirmed object is sent again; doubles each time."""
    commitment_host: str = ""
    commitment_port: Port = 0
    commitment_ae_title: str = Field(default="", max_length=16)
    """Who is asked and reports, where that is not ``host``, ``port`` and ``ae_title``."""
    query: bool = False
    """Whether patients' earlier images are looked for there (docs/pull.md)."""
    retrieve: Literal["move", "get"] = "move"
    """How they come: sent to our listener (C-MOVE), or on the association that asks (C-GET)."""
    move_destination: str = Field(default="", max_length=16)
    """AE title under which it knows our listener; empty means ``ae_title``."""


class StowDestination(BaseModel):
    """A PACS that receives result objects by STOW-RS; ``base_url`` is its DICOMweb root, without ``/studies``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(min_length=1)
    base_url: str
    token: SecretStr | None = None
    username: str = ""
    password: SecretStr | None = None
    tls_ca: Path | None = None
    """Authorities that sign its certificate; else those that come with the client."""
    timeout_seconds: float = Field(default=30.0, gt=0, le=600)
    rejection_notes: bool = True
    """As for a PACS."""


class Archive(StowDestination):
    """A DICOMweb archive in which patients' earlier images are looked for (QIDO-RS, WADO-RS); it is sent nothing."""


Patterns = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
"""One pattern or several: a glob for the whole value, or ``/…/``, a regular expression; case is ignored."""


class RoutingRule(BaseModel):
    """What happens with the objects that it matches; all conditions that are given must hold (docs/dicom.md)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    action: str = "analyse"
    calling_ae: Patterns = ()
    station: Patterns = ()
    sop_class: Patterns = ()
    modality: Patterns = ()
    body_part: Patterns = ()
    description: Patterns = ()
    outputs: tuple[str, ...] | None = None
    destinations: tuple[str, ...] | None = None

    @model_validator(mode="wrap")
    @classmethod
    def _named(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            name = value.get("name", "without a name") if isinstance(value, dict) else "without a name"
            told = "; ".join(f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors())
            raise ValueError(f"rule {name!r}: {told}") from error


FHIR_SCOPE = " ".join(
    f"system/{kind}"
    for kind in (
        *("Patient.rs", "ServiceRequest.rs", "DiagnosticReport.crus", "Observation.crus", "BodyStructure.crus"),
        *("ImagingStudy.crus", "Media.crus", "DocumentReference.crus", "Device.crus", "Provenance.crus"),
    )
)
"""What a delivery reads, searches and writes (https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html)."""


class FhirDestination(BaseModel):
    """A FHIR R4 server that receives reports by transaction."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(min_length=1)
    base_url: str
    token: SecretStr | None = None
    """Sent as it is; in place of the four below."""
    client_id: str = ""
    """How its authorization server knows us (SMART Backend Services)."""
    private_key: Path | None = None
    """Our key in PEM: on P-384 (ES384), or RSA (RS384)."""
    key_id: str = ""
    """``kid`` under which the public key is registered; empty means its thumbprint (RFC 7638)."""
    scope: str = FHIR_SCOPE
    token_url: str = ""
    """The authorization server's token endpoint; empty asks the FHIR server for it."""
    dicomweb_url: str = ""
    """DICOMweb root by which its users reach our DICOM objects; DocumentReferences then link to them."""

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        where = f"fhir destination {self.name!r}"
        if bool(self.client_id) != bool(self.private_key):
            raise ValueError(f"{where}: client_id and private_key go together")
        if self.client_id and self.token is not None:
            raise ValueError(f"{where}: choose token, or client_id with private_key")
        if self.client_id:
            _checked_address(self.base_url, f"{where}: base_url")
        elif self.token_url or self.key_id:
            raise ValueError(f"{where}: token_url and key_id need client_id and private_key")
        if self.token_url:
            _checked_address(self.token_url, f"{where}: token_url")
        if self.dicomweb_url:
            _checked_address(self.dicomweb_url, f"{where}: dicomweb_url")
        return self


OUTCOME_SCOPE = " ".join(
    f"system/{kind}.rs"
    for kind in ("Patient", "DiagnosticReport", "Observation", "Condition", "Specimen", "ServiceRequest")
)


class OutcomeServer(FhirDestination):
    """A FHIR R4 server that is asked again and again for pathology reports; it is sent nothing."""

    scope: str = OUTCOME_SCOPE
    resources: tuple[Literal["DiagnosticReport", "Observation", "Condition"], ...] = ("DiagnosticReport",)
    parameters: dict[str, str] = Field(default_factory=dict)
    """Search parameters besides the time, such as ``category``."""
    since: date | None = None
    """Nothing older is asked for; without it, nothing older than our first image."""
    seconds: float = Field(default=300.0, ge=1, le=86400)
    """Pause between two questions."""


Several = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
ServiceId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._\-]{1,100}$")]


class CdsClient(BaseModel):
    """An EHR whose signed calls of the CDS services are believed (https://cds-hooks.hl7.org/2.0/#trusting-cds-clients)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(min_length=1, max_length=100)
    issuer: str = Field(min_length=1, max_length=500)
    """``iss`` of its tokens, exactly."""
    jku: Several = ()
    """Where its public keys are (https, or http on loopback); a token that names another place is refused."""
    key_set: Path | None = None
    """File with its public keys (JWK set); read in place of every address in ``jku``."""
    tenants: tuple[str, ...] = ()
    """Values of ``tenant`` that are let in; empty means any, and none."""

    @model_validator(mode="after")
    def _has_keys(self) -> Self:
        if not self.jku and self.key_set is None:
            raise ValueError(f"client {self.name!r} needs jku (the address of its keys) or key_set (a file with them)")
        for address in self.jku:
            _checked_address(address, f"client {self.name!r}: jku")
        return self


class EhrServer(BaseModel):
    """A FHIR server that CDS calls may name as ``fhirServer``, and that missing prefetch is read from."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    base_url: str
    inward: bool = False
    """Whether its name may resolve to a private or loopback address; one that is written as such always may."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"base_url": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _checked(self) -> Self:
        _checked_address(self.base_url, "base_url")
        return self


class LoginProvider(BaseModel):
    """Where clinicians log in: an OpenID provider (https://openid.net/specs/openid-connect-core-1_0.html)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    issuer: str
    """``iss`` of its tokens, exactly; its discovery document is below it."""
    client_id: str = Field(min_length=1)
    client_secret: SecretStr | None = None
    """None for a public client; PKCE is used either way."""
    name: str = "your organisation"
    """What the button says: log in with …"""
    scopes: tuple[str, ...] = ("openid", "profile")
    role_claim: str = "roles"
    """Claim of the ID token with the person's roles or groups: a list, or a text with spaces; dots lead into it."""
    roles: dict[str, Role] = Field(default_factory=dict)
    """Value of that claim → what its bearer may do here; the highest counts."""
    default_role: Role | None = None
    """Role of whoever has none of these; none: they are not let in."""

    @model_validator(mode="after")
    def _checked(self) -> Self:
        _checked_address(self.issuer, "login.issuer")
        if "openid" not in self.scopes:
            raise ValueError("login.scopes needs openid")
        if not self.roles and self.default_role is None:
            raise ValueError("login needs roles (value of role_claim → role) or default_role: else nobody gets in")
        return self


class SmartServer(BaseModel):
    """An EHR that launches the review page as a SMART app (https://hl7.org/fhir/smart-app-launch/)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    base_url: str
    """Its FHIR server: the ``iss`` of the launch, and the ``aud`` of our request."""
    client_id: str = Field(min_length=1)
    client_secret: SecretStr | None = None
    inward: bool = False
    """Whether its name may resolve to a private or loopback address; one that is written as such always may."""
    scopes: tuple[str, ...] = ("launch", "openid", "fhirUser", "patient/*.read")
    """What is asked for; add ``profile`` where the EHR then tells the person's name."""
    role: Role = Role.REVIEW
    """What a practitioner whom it launches may do."""

    @model_validator(mode="after")
    def _checked(self) -> Self:
        _checked_address(self.base_url, "smart_launch_servers.base_url")
        return self


class ImageServer(EhrServer):
    """A server that images of a chart may be fetched from, beside the FHIR servers: a DICOMweb root or a file store."""

    token: SecretStr | None = None
    """Sent to this server; the access token of a call goes to that call's FHIR server alone."""


def _checked_address(address: str, where: str) -> None:
    """Raises `ValueError` for what is no https address; http is let through on loopback."""
    parts = urlsplit(address)
    try:
        usable = bool(parts.hostname) and not (parts.username or parts.password) and (parts.port is None or parts.port)
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or parts.scheme not in ("http", "https"):
        raise ValueError(f"{where} must be https://host/path without credentials, query and fragment")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError(f"{where} must be https: tokens and keys do not travel in the clear (http only on loopback)")


class Settings(BaseSettings):
    """Configuration of one deployment. Everything has a default that works on a laptop, on loopback."""

    model_config = SettingsConfigDict(env_prefix="CDS_", frozen=True, extra="forbid", env_ignore_empty=True)

    data_dir: Path = Path("var/cds")
    """Folder for the database, blobs, keys and reports of the embedded default."""
    database_url: str = ""
    """SQLAlchemy URL; empty means SQLite in ``data_dir``. PostgreSQL: ``postgresql+psycopg://…``."""
    blob_url: str = ""
    """Object store URL (``s3://``, ``gs://``, ``az://``); empty means a folder in ``data_dir``."""

    host: str = "127.0.0.1"
    port: Port = 8600
    api_processes: int = Field(default=1, ge=1, le=64)
    public_url: str = ""
    """Address that clinicians' browsers use for links in cards; empty means ``http://host:port``."""
    api_tokens: tuple[ApiToken, ...] = ()
    analyze_wait_seconds: float = Field(default=10.0, ge=0, le=120)
    max_upload_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    cors_origins: tuple[str, ...] = ()

    login: LoginProvider | None = None
    """Where clinicians log in for the pages; without it they use an API token."""
    smart_launch_servers: tuple[SmartServer, ...] = ()
    """EHRs whose launches are answered; no other ``iss`` is ever asked."""
    session_idle_minutes: float = Field(default=30.0, gt=0, le=24 * 60)
    session_hours: float = Field(default=12.0, gt=0, le=72)
    """A login ends after so long, used or not."""
    frame_ancestors: tuple[str, ...] = ()
    """Origins of EHRs that may show the pages in a frame of theirs; none may by default."""

    hooks_clients: tuple[CdsClient, ...] = ()
    """EHRs that sign their calls. Without any, CDS calls need an API token, or ``hooks_open``."""
    hooks_open: bool = False
    """Whether anybody on this machine may call the CDS services; on loopback and without tokens and clients only."""
    hooks_clock_skew_seconds: float = Field(default=60.0, ge=0, le=300)
    hooks_service_ids: dict[str, ServiceId] = Field(default_factory=dict)
    """Our id of a CDS service → the id under which this deployment offers it."""
    hooks_fhir_servers: tuple[EhrServer, ...] = ()
    hooks_fetch_seconds: float = Field(default=2.0, gt=0, le=10)
    """The whole time that reading missing prefetch may take in one call."""
    hooks_image_servers: tuple[ImageServer, ...] = ()
    """Where images of charts may be fetched from, besides ``hooks_fhir_servers``."""
    hooks_image_seconds: float = Field(default=3.0, ge=0, le=20)
    """How long one call may look for new images in the chart, fetch them and wait for results; 0 never looks."""
    hooks_image_max_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    """Largest image that is fetched from a chart."""
    hooks_max_request_bytes: int = Field(default=8 * 1024 * 1024, ge=1024)
    """Largest body of a CDS call."""
    hooks_shown_days: int = Field(default=30, ge=0, le=3650)
    """How long a shown card is remembered within one encounter; 0 remembers nothing and shows all at every call."""

    ae_title: str = Field(default="DERMCDS", min_length=1, max_length=16)
    dicom_host: str = "127.0.0.1"
    dicom_port: Port = 11112
    dicom_processes: int = Field(default=1, ge=0, le=64)
    seg_hair: bool = False
    """Whether segmentations have a second segment with the hair over the skin; see docs/dicom.md for who reads it."""
    dicom_max_pdu: int = Field(default=131072, ge=4096)
    dicom_max_associations: int = Field(default=32, ge=1)
    dicom_max_object_bytes: int = Field(default=512 * 1024 * 1024, ge=1024)
    dicom_check_called_ae: bool = True
    """Whether a sender must call us by ``ae_title``."""
    dicom_calling_ae_titles: tuple[str, ...] = ()
    """AE titles that may send from any address; the short form of ``dicom_peers``."""
    dicom_peers: tuple[DicomPeer, ...] = ()
    """Who may send. With neither list anybody may on loopback; beyond it one of the three is required."""
    dicom_promiscuous: bool = False
    """Callers that are on no list may send too; for those that are, addresses and limits still hold."""
    dicom_negotiation_seconds: float = Field(default=30.0, gt=0, le=600)
    dicom_idle_seconds: float = Field(default=300.0, gt=0, le=86400)
    dicom_lowest_rate: float = Field(default=1024.0, ge=0)
    """Bytes per second, over a message and over an object, below which a sender is cut off; 0 asks for none."""
    dicom_shutdown_seconds: float = Field(default=30.0, ge=0, le=40)
    dicom_tls_certificate: Path | None = None
    """Our certificate (PEM, with its chain); turns TLS on for the listener, and is shown to every PACS with ``tls``."""
    dicom_tls_key: Path | None = None
    """Its private key (PEM); empty where the certificate's file holds it."""
    dicom_tls_key_password: SecretStr = SecretStr("")
    dicom_tls_ca: Path | None = None
    """Authorities that sign the certificates of our peers."""
    dicom_tls_mutual: bool = True
    """Whether a sender must show a certificate."""
    dicom_tls_handshake_seconds: float = Field(default=10.0, gt=0, le=120)
    rules: tuple[RoutingRule, ...] = ()
    """Routing of what comes by C-STORE; the first that matches decides. None: analyse all, send all everywhere."""
    pacs: tuple[PacsDestination, ...] = ()
    stow: tuple[StowDestination, ...] = ()
    archives: tuple[Archive, ...] = ()
    pull_modalities: tuple[str, ...] = ("DMS", "XC", "ES", "OT")
    """Modalities of series that may hold dermoscopic photographs; empty means any."""
    pull_priors: str = ""
    """Name of the PACS or archive that is asked for earlier images of a patient whose image came by C-STORE."""
    dicomweb_max_request_bytes: int = Field(default=2 * 1024 * 1024 * 1024, ge=1024)
    """Largest body of one STOW-RS request; each object in it is held to ``dicom_max_object_bytes``."""
    dicomweb_search_objects: int = Field(default=5000, ge=1)
    """How many objects one DICOMweb search looks at; one that would look at more is asked to be narrower."""
    fhir: tuple[FhirDestination, ...] = ()

    outcome_servers: tuple[OutcomeServer, ...] = ()
    """FHIR servers that are asked for what became of lesions (docs/outcomes.md)."""
    outcome_days: int = Field(default=180, ge=0, le=3650)
    """How long after its image a specimen may have been taken to be matched by body site alone."""

    issuers: dict[str, str] = Field(default_factory=dict)
    """DICOM Issuer of Patient ID → FHIR identifier system."""
    default_issuer: str = ""
    """Issuer of objects that name none; empty leaves them unmatched to any FHIR patient."""

    models_dir: Path = Path(__file__).resolve().parent.parent / "models" / "store"
    model: str = ""
    """``name==version`` of the model to answer with; empty means the champion named in the model store."""
    execution_provider: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    inference_threads: int = Field(default=0, ge=0)
    """Threads inside one inference; 0 leaves the choice to onnxruntime."""
    inference_precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """Which form of the weights answers; one that the model does not have stops the service."""
    inference_batch: int = Field(default=1, ge=1, le=256)
    """Images at most in one run of the network; above 1, requests that meet are computed together."""

    worker_processes: int = Field(default=1, ge=0, le=64)
    worker_concurrency: int = Field(default=4, ge=1, le=64)
    queue_polling_seconds: float = Field(default=0.1, gt=0, le=10)
    delivery_backoff_seconds: float = Field(default=1.0, gt=0)
    delivery_backoff_limit_seconds: float = Field(default=900.0, gt=0)
    executor_id: str = Field(default_factory=socket.gethostname)
    """Stable name of this node: work in flight when it dies goes on when it comes back."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "console"] = "json"
    otlp_endpoint: str = ""
    """OTLP/HTTP endpoint for traces; empty exports none."""
    metrics_port: Port = 0
    """Loopback port of the first worker's metrics; the next processes count up from it. 0 serves none."""
    audit_verify_seconds: float = Field(default=3600.0, ge=0)
    """How often the running service verifies its audit log; 0 leaves that to ``cds audit verify``."""
    disk_watermark_bytes: int = Field(default=256 * 1024 * 1024, ge=0)
    backlog_watermark: int = Field(default=20_000, ge=0)
    """Above so many images that wait for their analysis DICOM senders are told to come again; 0 is no limit."""

    @model_validator(mode="after")
    def _nothing_wide_without_a_lock(self) -> Settings:
        if not is_loopback(self.host) and not (self.api_tokens or self.login or self.smart_launch_servers):
            raise ValueError(
                f"host {self.host!r} is reachable from outside, but api_tokens is empty: "
                "set CDS_API_TOKENS (one role per token), or CDS_LOGIN for people, or listen on 127.0.0.1"
            )
        named = self.dicom_peers or self.dicom_calling_ae_titles or self.dicom_promiscuous
        if not is_loopback(self.dicom_host) and not named:
            raise ValueError(
                f"dicom_host {self.dicom_host!r} is reachable from outside, but dicom_peers and "
                "dicom_calling_ae_titles are empty: name who may send, or listen on 127.0.0.1"
            )
        if self.hooks_open and not is_loopback(self.host):
            raise ValueError(f"hooks_open is for loopback only, host is {self.host!r}: name the EHRs in hooks_clients")
        if self.hooks_open and (self.hooks_clients or self.api_tokens):
            raise ValueError("hooks_open lets anybody in, and api_tokens or hooks_clients say who may: choose one")
        clients = [c.name for c in self.hooks_clients]
        if len(set(clients)) != len(clients):
            raise ValueError("hooks_clients: every client needs a name of its own")
        bases = [s.base_url.rstrip("/") for s in self.smart_launch_servers]
        if len(set(bases)) != len(bases):
            raise ValueError("smart_launch_servers: every base_url once")
        for origin in self.frame_ancestors:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}" or "'" in origin:
                raise ValueError(f"frame_ancestors: {origin!r} is no origin (https://host or https://host:port)")
        offered = list(self.hooks_service_ids.values())
        if len(set(offered)) != len(offered):
            raise ValueError("hooks_service_ids: two services cannot have one id")
        names = [p.name for p in self.pacs] + [s.name for s in self.stow] + [f.name for f in self.fhir]
        names += [a.name for a in self.archives]
        asked = [s.name for s in self.outcome_servers]
        if len(set(asked)) != len(asked):
            raise ValueError("outcome_servers: every server needs a name of its own")
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"destination names must be unique; used more than once: {', '.join(twice)}")
        if self.pull_priors and self.pull_priors not in self.sources:
            known = ", ".join(self.sources) or "there is none"
            raise ValueError(f"pull_priors is none of the archives and the pacs with query = true ({known})")
        tokens = [t.token.get_secret_value() for t in self.api_tokens]
        if any(len(t) < 16 for t in tokens):
            raise ValueError("every API token needs at least 16 characters")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of everything that earlier images can be pulled from."""
        return (*(p.name for p in self.pacs if p.query), *(a.name for a in self.archives))

    @property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{(self.data_dir / 'cds.sqlite3').resolve()}"

    @property
    def resolved_public_url(self) -> str:
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        if path := os.environ.get("CDS_CONFIG"):
            sources += (TomlConfigSettingsSource(settings_cls, toml_file=Path(path)),)
        return sources


def is_loopback(host: str) -> bool:
    """Whether ``host`` can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_settings() -> Settings:
    """Read environment and configuration file.

    Raises `Misconfigured` naming each wrong field; values are not repeated, since they may be secrets.
    """
    path = os.environ.get("CDS_CONFIG")
    if path and not Path(path).is_file():
        raise Misconfigured(f"CDS_CONFIG names {path}, which is not a file")
    try:
        return Settings()
    except ValidationError as error:
        lines = [f"{'.'.join(str(p) for p in e['loc']) or 'settings'}: {e['msg']}" for e in error.errors()]
        raise Misconfigured("the configuration is wrong:\n  " + "\n  ".join(lines)) from error
