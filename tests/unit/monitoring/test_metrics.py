"""Instruments are named once: code, catalogue, documents, dashboard and alerts agree."""

import ast
import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from opentelemetry import metrics as api
from opentelemetry.metrics import CallbackOptions

from dermoscopy.tables import HoldRow, utc_now
from monitoring import gauges, heartbeat, metrics

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("audit", "cds_service", "dermoscopy", "dicom_listener", "fhir_adapters", "models", "monitoring")
CREATE = re.compile(r"create_(counter|histogram|gauge|observable_gauge|up_down_counter|observable_counter)")
CATALOGUE = {instrument.name: instrument for instrument in metrics.INSTRUMENTS}
SUFFIXES = ("_bucket", "_sum", "_count")


def created():
    """Name and file of every instrument that the code creates."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and CREATE.fullmatch(node.func.attr)
                    and node.args
                    and isinstance(node.args[0], ast.Constant)
                ):
                    yield node.args[0].value, path.relative_to(ROOT)


def used(text):
    """Metric names in an expression, without the suffixes of histograms."""
    for name in set(re.findall(r"\bcds_[a-z_]+", text)):
        for suffix in SUFFIXES:
            name = name.removesuffix(suffix)
        yield name


def test_every_instrument_in_the_code_is_in_the_catalogue():
    assert {(name, str(path)) for name, path in created() if name not in CATALOGUE} == set()


def test_the_document_lists_every_instrument_and_its_labels():
    text = (ROOT / "docs" / "monitoring.md").read_text()
    rows = dict(re.findall(r"^\| `(cds_\w+)` \|(.*)$", text, re.MULTILINE))
    assert set(rows) == {instrument.exposed for instrument in metrics.INSTRUMENTS}
    for instrument in metrics.INSTRUMENTS:
        assert instrument.kind in rows[instrument.exposed]
        for label in instrument.labels:
            assert f"`{label}`" in rows[instrument.exposed]


DASHBOARDS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "deploy" / "dashboards").glob("*.json"))


@pytest.mark.parametrize("path", ["deploy/alert-rules.yaml", *DASHBOARDS])
def test_dashboards_and_alerts_ask_for_metrics_that_exist(path):
    text = (ROOT / path).read_text()
    document = yaml.safe_load(text) if path.endswith("yaml") else json.loads(text)
    expressions = list(find(document, "expr"))
    assert expressions
    exposed = {instrument.exposed for instrument in metrics.INSTRUMENTS}
    assert {name for expression in expressions for name in used(expression)} <= exposed


def find(node, key):
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            else:
                yield from find(value, key)
    elif isinstance(node, list):
        for item in node:
            yield from find(item, key)


def test_alert_rules_say_what_to_do():
    document = yaml.safe_load((ROOT / "deploy" / "alert-rules.yaml").read_text())
    rules = [rule for group in document["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["action"]
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_what_is_recorded_is_rendered_with_documented_labels_only():
    metrics.configure_metrics()
    assert metrics.configure_metrics() is metrics.configure_metrics()
    meter = api.get_meter("test")
    meter.create_counter("cds_instances_received").add(2, {"source": "a", "outcome": "accepted", "patient_id": "P4711"})
    meter.create_histogram("cds_step_seconds", unit="s").record(0.3, {"step": "analyse"})
    text = metrics.render().decode()
    assert 'cds_instances_received_total{outcome="accepted",source="a"} 2.0' in text
    assert 'cds_step_seconds_bucket{le="0.5",step="analyse"} 1.0' in text
    assert "P4711" not in text


def test_processes_without_a_web_server_serve_a_loopback_port():
    metrics.configure_metrics()
    server = metrics.serve_metrics(0)
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        with urllib.request.urlopen(f"{address}/metrics") as answer:
            assert answer.headers["Content-Type"] == metrics.CONTENT_TYPE
            assert answer.read().startswith(b"# HELP")
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{address}/other")
    finally:
        server.shutdown()
        server.server_close()


def test_gauges_tell_what_waits(engine, begin, tmp_path):
    with begin() as session:
        session.add(HoldRow(id="h", kind="delivery", subject_id="s", reason="r", created_at=utc_now()))
    heartbeat.beat(engine, "worker", "w1")
    assert [o.value for o in gauges._holds(engine)] == [1]
    assert {(o.attributes or {})["state"]: o.value for o in gauges._waiting(engine)} == {"queued": 0, "analysed": 0}
    assert gauges._oldest(engine)[0].value == 0
    assert gauges._deliveries(engine) == []
    assert [(o.attributes or {})["worker"] for o in gauges._heartbeats(engine)] == ["w1"]
    metrics.configure_metrics()
    gauges.register_gauges(engine, tmp_path, audit_pending=lambda: 3)
    gauges.record_audit_verification(0)
    text = metrics.render().decode()
    assert "cds_audit_pending_leaves 3.0" in text
    assert "cds_audit_problems 0.0" in text
    assert 'cds_holds_open{kind="delivery"} 1.0' in text
    assert "cds_disk_free_bytes" in text


def test_a_scrape_survives_a_database_that_is_away(tmp_path):
    def away():
        raise OSError("no disk")

    assert gauges._guarded("cds_disk_free_bytes", away)(CallbackOptions()) == []
