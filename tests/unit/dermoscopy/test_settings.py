import re
from pathlib import Path

import pytest

from dermoscopy.errors import Misconfigured
from dermoscopy.settings import Settings, read_settings

DOCUMENT = Path(__file__).parents[3] / "docs" / "configuration.md"
TOKEN = '[{"name": "ehr", "token": "0123456789abcdef", "role": "read"}]'


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("CDS_") and name != "CDS_REQUIRE_PEERS":
            monkeypatch.delenv(name)


def test_every_setting_is_documented_and_nothing_else_is() -> None:
    documented = re.findall(r"^\| `([a-z_]+)` \|", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(documented) == sorted(Settings.model_fields)


def test_default_is_loopback_and_sqlite() -> None:
    settings = read_settings()
    assert settings.host == settings.dicom_host == "127.0.0.1"
    assert settings.resolved_database_url.startswith("sqlite:///")
    assert settings.resolved_public_url == "http://127.0.0.1:8600"


def test_wide_http_without_tokens_refuses_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDS_HOST", "0.0.0.0")
    with pytest.raises(Misconfigured, match="api_tokens is empty"):
        read_settings()
    monkeypatch.setenv("CDS_API_TOKENS", TOKEN)
    assert read_settings().api_tokens[0].role == "read"


def test_wide_dicom_without_allowlist_refuses_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDS_DICOM_HOST", "192.0.2.1")
    with pytest.raises(Misconfigured, match="dicom_calling_ae_titles are empty"):
        read_settings()
    monkeypatch.setenv("CDS_DICOM_PEERS", '[{"ae_title": "CAMERA1", "addresses": ["10.1.2.0/24", "10.2.0.1"]}]')
    assert [str(network) for network in read_settings().dicom_peers[0].addresses] == ["10.1.2.0/24", "10.2.0.1/32"]


def test_promiscuous_is_said_explicitly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDS_DICOM_HOST", "0.0.0.0")
    monkeypatch.setenv("CDS_DICOM_PROMISCUOUS", "true")
    assert read_settings().dicom_promiscuous


def test_a_network_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDS_DICOM_PEERS", '[{"ae_title": "CAMERA1", "addresses": ["10.1.2.0/99"]}]')
    with pytest.raises(Misconfigured, match=r"dicom_peers\.0\.addresses\.0"):
        read_settings()


def test_short_token_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDS_API_TOKENS", '[{"name": "ehr", "token": "hunter2"}]')
    with pytest.raises(Misconfigured, match="at least 16 characters") as caught:
        read_settings()
    assert "hunter2" not in str(caught.value)


def test_wrong_value_names_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDS_PORT", "99999")
    with pytest.raises(Misconfigured, match="port: "):
        read_settings()


def test_file_is_read_and_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cds.toml"
    file.write_text(
        'port = 9001\nae_title = "FILE"\n[[pacs]]\nname = "a"\nhost = "127.0.0.1"\nport = 104\nae_title = "A"\n'
    )
    monkeypatch.setenv("CDS_CONFIG", str(file))
    monkeypatch.setenv("CDS_AE_TITLE", "ENV")
    settings = read_settings()
    assert (settings.port, settings.ae_title, settings.pacs[0].name) == (9001, "ENV", "a")


def test_unknown_key_in_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cds.toml"
    file.write_text("prot = 9001\n")
    monkeypatch.setenv("CDS_CONFIG", str(file))
    with pytest.raises(Misconfigured, match="prot"):
        read_settings()


def test_missing_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDS_CONFIG", "nowhere.toml")
    with pytest.raises(Misconfigured, match=r"nowhere\.toml"):
        read_settings()


def test_destination_names_are_unique(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDS_FHIR", '[{"name": "x", "base_url": "http://a"}, {"name": "x", "base_url": "http://b"}]')
    with pytest.raises(Misconfigured, match="more than once: x"):
        read_settings()


RULES = """
[[rules]]
name = "overviews"
description = "/overview/"
action = "store"

[[rules]]
name = "cameras"
calling_ae = ["CAM*", "SCOPE1"]
outputs = ["seg", "sr"]
"""


def test_rules_are_read_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cds.toml"
    file.write_text(RULES)
    monkeypatch.setenv("CDS_CONFIG", str(file))
    first, second = read_settings().rules
    assert (first.description, first.action, first.outputs) == (("/overview/",), "store", None)
    assert (second.calling_ae, second.outputs) == (("CAM*", "SCOPE1"), ("seg", "sr"))


@pytest.mark.parametrize(
    ("line", "said"), [("acton = 'store'", "'cameras': acton"), ("modality = 7", "'cameras': modality")]
)
def test_a_wrong_rule_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str) -> None:
    file = tmp_path / "cds.toml"
    file.write_text(RULES + line)
    monkeypatch.setenv("CDS_CONFIG", str(file))
    with pytest.raises(Misconfigured, match=f"rule {said}"):
        read_settings()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"client_id": "derm"}, "client_id and private_key go together"),
        ({"private_key": "key.pem"}, "client_id and private_key go together"),
        ({"client_id": "derm", "private_key": "key.pem", "token": "t"}, "choose token"),
        ({"client_id": "derm", "private_key": "key.pem", "base_url": "http://ehr.example"}, "base_url must be https"),
        ({"client_id": "derm", "private_key": "key.pem", "token_url": "http://a.example"}, "token_url must be https"),
        ({"token_url": "https://a.example/token"}, "need client_id"),
        ({"dicomweb_url": "https://u:p@pacs.example"}, "dicomweb_url must be"),
    ],
)
def test_a_fhir_server_is_reached_in_one_way(entry: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Settings(fhir=({"name": "ehr", "base_url": "https://ehr.example/fhir", **entry},))
