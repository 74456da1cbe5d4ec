"""An EHR that answers as told, and a destination that talks to it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from pydantic import SecretStr

from fhir_adapters.deliver import FhirDestination
from tests.unit.fhir_adapters.scripted_ehr import BASE, ISSUERS, Ehr


@pytest.fixture
def ehr() -> Ehr:
    return Ehr()


@pytest.fixture
def destination(ehr: Ehr) -> Iterator[FhirDestination]:
    made = FhirDestination("ehr", BASE, issuers=ISSUERS, token=SecretStr("a-token"), transport=httpx.MockTransport(ehr))
    yield made
    made.close()
