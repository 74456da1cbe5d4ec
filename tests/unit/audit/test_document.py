"""The document for compliance officers lists every action that the code writes."""

import re
from pathlib import Path

from dermoscopy.domain import DeliveryState

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("cds_service", "dermoscopy", "dicom_listener", "fhir_adapters", "models")


def written():
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            text = path.read_text()
            if "AuditEntry" in text:
                calls = re.findall(r"(?:action=|ACTION = |_append\(session, )([^\n]*)", text)
                yield from (name for call in calls for name in re.findall(r'"([a-z_]+\.[a-z_]+)"', call))


def test_every_action_is_in_the_table():
    listed = set(re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \|", (ROOT / "docs" / "audit.md").read_text(), re.MULTILINE))
    delivered = {f"delivery.{state.value}" for state in DeliveryState if state is not DeliveryState.PENDING}
    assert set(written()) | delivered <= listed
