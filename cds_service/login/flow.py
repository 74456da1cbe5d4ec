"""A login from beginning to end: authorization code with PKCE, at the OpenID provider or at the EHR that launched us.

OpenID Connect Core 1.0, 3.1; SMART App Launch 2.2, EHR launch (https://hl7.org/fhir/smart-app-launch/app-launch.html).
An EHR's access token serves to read the patient of the launch, once, and is then forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import httpx
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from pydantic import SecretStr

from cds_service.authorization import Caller, highest
from cds_service.hooks.key_sets import KeySets
from cds_service.login.app_context import analysis_of
from cds_service.login.attempts import Attempt
from cds_service.login.directory import Directory, Endpoints
from cds_service.login.id_tokens import checked_claims
from cds_service.login.refusals import LoginFailed
from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import DestinationUnavailable, Rejected
from dermoscopy.patients import IssuerMap
from dermoscopy.settings import LoginProvider, Role, Settings, SmartServer
from fhir_adapters.fetch import EhrReader
from fhir_adapters.read import patient_identities

CALLBACK: Final = "/login/callback"
SECONDS: Final = 10.0
"""Patience with the provider's token endpoint."""
_CLINICIANS = ("Practitioner", "PractitionerRole")


class LoginFlow:
    """Begins and finishes logins; made once by `cds_service.app.create_app`."""

    def __init__(
        self, settings: Settings, issuers: IssuerMap, *, directory: Directory | None = None, keys: KeySets | None = None
    ) -> None:
        self._provider = settings.login
        self._ehrs = {server.base_url.rstrip("/"): server for server in settings.smart_launch_servers}
        self._callback = f"{settings.resolved_public_url}{CALLBACK}"
        self._issuers = issuers
        self._directory = directory or Directory()
        self._keys = keys or KeySets()
        self._reader = EhrReader({server.base_url: server.inward for server in self._ehrs.values()}, seconds=SECONDS)

    def close(self) -> None:
        self._reader.close()

    def named(self, ehr: str) -> str:
        """``ehr`` if it is one of the settings, else nothing: what a browser says is not written down."""
        return ehr if ehr in self._ehrs else ""

    def begin_login(self, next_path: str) -> tuple[str, Attempt]:
        """Address to send the browser to, and what it must remember. Raises `LoginFailed`."""
        if self._provider is None:
            raise LoginFailed("No login provider is configured here (setting login).")
        attempt = Attempt(next=next_path)
        endpoints = self._directory.provider(self._provider.issuer)
        scopes = " ".join(self._provider.scopes)
        return self._authorization(self._provider, endpoints, attempt, scopes, {}), attempt

    def begin_launch(self, iss: str, launch: str) -> tuple[str, Attempt]:
        """The same for a launch by the EHR ``iss``, which must be one of the settings. Raises `LoginFailed`."""
        server = self._ehrs.get(iss.rstrip("/"))
        if server is None:
            raise LoginFailed("This EHR may not launch the page: its iss is not in smart_launch_servers.")
        if not 0 < len(launch) <= 2000:
            raise LoginFailed("The EHR's launch brought no launch parameter.")
        base = server.base_url.rstrip("/")
        attempt = Attempt(ehr=base)
        more = {"aud": iss, "launch": launch}
        return self._authorization(server, self._directory.ehr(base), attempt, " ".join(server.scopes), more), attempt

    def finish(self, attempt: Attempt, code: str, issuer: str = "") -> tuple[Caller, str]:
        """Who logged in, and the path to go to. ``issuer``: who sent the browser back, where it says so (RFC 9207).

        Raises `LoginFailed`.
        """
        if not attempt.ehr:
            if self._provider is None:
                raise LoginFailed("No login provider is configured here any more.")
            endpoints = _same(self._directory.provider(self._provider.issuer), issuer)
            claims, _ = self._exchange(self._provider, endpoints, attempt, code)
            role = granted_role(self._provider, claims)
            if role is None:
                raise LoginFailed("You are known to the provider, but none of your roles may use this service.")
            return Caller(*_named(endpoints, claims, role)), attempt.next
        server = self._ehrs.get(attempt.ehr)
        if server is None:
            raise LoginFailed("This EHR may not launch the page any more.")
        endpoints = _same(self._directory.ehr(attempt.ehr), issuer)
        claims, answer = self._exchange(server, endpoints, attempt, code)
        who = Caller(*_named(endpoints, claims, launched_role(server, claims)))
        patients = self._patients(attempt.ehr, answer)
        analysis = analysis_of(answer.get("appContext"))
        return replace(who, patients=patients), f"/analyses/{analysis}" if analysis else "/worklist"

    def _authorization(
        self,
        who: LoginProvider | SmartServer,
        endpoints: Endpoints,
        attempt: Attempt,
        scopes: str,
        more: Mapping[str, str],
    ) -> str:
        with self._client(who, scopes) as client:
            address, _ = client.create_authorization_url(
                endpoints.authorization,
                state=attempt.state,
                code_verifier=attempt.verifier,
                nonce=attempt.nonce,
                **more,
            )
        return str(address)

    def _exchange(
        self, who: LoginProvider | SmartServer, endpoints: Endpoints, attempt: Attempt, code: str
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """(claims of the ID token, token response)."""
        try:
            with self._client(who, "") as client:
                answer = client.fetch_token(endpoints.token, code=code, code_verifier=attempt.verifier)
        except OAuthError as error:
            raise LoginFailed(f"The provider did not accept the login ({_word(error.error)}).") from error
        except (httpx.HTTPError, ValueError, TypeError) as error:
            raise LoginFailed(f"The provider did not complete the login ({type(error).__name__}).") from error
        if not isinstance(answer, Mapping):
            raise LoginFailed("The provider's token response is not JSON.")
        claims = checked_claims(answer.get("id_token"), endpoints, who.client_id, attempt.nonce, self._keys)
        return claims, answer

    def _client(self, who: LoginProvider | SmartServer, scopes: str) -> OAuth2Client:
        return OAuth2Client(
            client_id=who.client_id,
            client_secret=who.client_secret.get_secret_value() if who.client_secret else None,
            token_endpoint_auth_method="client_secret_basic" if who.client_secret else "none",
            scope=scopes or None,
            redirect_uri=self._callback,
            code_challenge_method="S256",
            timeout=SECONDS,
            follow_redirects=False,
            trust_env=False,
        )

    def _patients(self, base_url: str, answer: Mapping[str, Any]) -> tuple[PatientIdentity, ...]:
        patient, token = answer.get("patient"), answer.get("access_token")
        if not isinstance(patient, str) or not isinstance(token, str):
            raise LoginFailed("The EHR named no patient with the launch: open a chart first (scope launch).")
        try:
            resource = self._reader.read(base_url, "Patient", patient, SecretStr(token))
            found = patient_identities(resource, self._issuers.issuer_of_system)
        except (Rejected, DestinationUnavailable) as error:
            raise LoginFailed(f"The patient of the launch cannot be read: {error}.") from error
        if not found:
            raise LoginFailed("The EHR's patient has no identifier, so that no image can be found by it.")
        return found


def granted_role(provider: LoginProvider, claims: Mapping[str, Any]) -> Role | None:
    """The highest role that the claims give; the provider's default, or ``None``, where they give none."""
    found: Any = claims
    for part in provider.role_claim.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    values = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
    granted = [provider.roles[value] for value in values if isinstance(value, str) and value in provider.roles]
    return highest(granted) or provider.default_role


def launched_role(server: SmartServer, claims: Mapping[str, Any]) -> Role:
    """A practitioner has the server's role, who is not said to be one only reads, a patient raises `LoginFailed`."""
    user = claims.get("fhirUser")
    if user is None:
        return Role.READ
    kind = user.rstrip("/").split("/")[-2:-1] if isinstance(user, str) else []
    if not kind or kind[0] not in _CLINICIANS:
        raise LoginFailed("This page is for clinicians: the EHR says that you are not one (fhirUser).")
    return server.role


def _same(endpoints: Endpoints, issuer: str) -> Endpoints:
    if issuer and issuer != endpoints.issuer:
        raise LoginFailed("Another provider than the one that was asked sent the browser back.")
    return endpoints


def _named(endpoints: Endpoints, claims: Mapping[str, Any], role: Role) -> tuple[str, Role, str]:
    full_name = claims.get("name") or claims.get("preferred_username") or ""
    printable = "".join(c for c in full_name if c.isprintable())[:200] if isinstance(full_name, str) else ""
    return f"{endpoints.issuer}|{claims['sub']}", role, printable


def _word(error: object) -> str:
    """An OAuth error code; what else a provider says is not repeated."""
    return error if isinstance(error, str) and error.replace("_", "").isalnum() and len(error) < 60 else "refused"
