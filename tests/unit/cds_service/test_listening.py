"""Settings become the listener's admission and TLS; refusals become audit leaves; watermarks are looked at."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from cds_service import watermarks
from cds_service.listening import check, listener_settings, open_listener, pacs_tls, peers
from cds_service.watermarks import Watermarks
from dermoscopy.errors import Misconfigured, StorageFull, Unavailable
from dermoscopy.settings import Settings
from dicom_listener.refusals import Refused
from tests.findings import finish, make_node, take_in
from tests.unit.dicom_listener.certificates import Authority


def settings(tmp_path: Path, **values) -> Settings:
    return Settings(data_dir=tmp_path, **values)


def test_both_lists_of_senders(tmp_path):
    made = settings(
        tmp_path,
        dicom_calling_ae_titles=("PACS",),
        dicom_peers=[{"ae_title": "CAMERA", "addresses": ["10.1.2.0/24"], "objects_per_minute": 60}],
    )
    camera, pacs = peers(made)
    assert (camera.ae_title, str(camera.networks[0]), camera.objects_per_minute) == ("CAMERA", "10.1.2.0/24", 60)
    assert (pacs.ae_title, pacs.networks) == ("PACS", ())


def test_plain_is_the_default(tmp_path):
    assert listener_settings(settings(tmp_path)).tls is None


def test_tls_of_listener_and_sender(tmp_path):
    authority = Authority(tmp_path)
    ours = authority.issue("ours")
    made = settings(
        tmp_path,
        dicom_tls_certificate=ours.certificate,
        dicom_tls_key=ours.key,
        dicom_tls_ca=authority.path,
        pacs=[{"name": "pacs", "host": "h", "port": 104, "ae_title": "P", "tls": True}],
    )
    check(made)
    assert listener_settings(made).tls is not None
    assert pacs_tls(made, made.pacs[0]) is not None


@pytest.mark.parametrize(
    "values",
    [
        {"dicom_tls_certificate": "absent.pem"},
        {"pacs": [{"name": "p", "host": "h", "port": 1, "ae_title": "P", "tls": True, "tls_ca": "absent.pem"}]},
    ],
    ids=["listener", "destination"],
)
def test_wrong_files_stop_the_start(tmp_path, values):
    with pytest.raises(Misconfigured):
        check(settings(tmp_path, **values))


def test_a_refused_association_is_a_leaf_of_the_audit_log(engine: sa.Engine, tmp_path: Path):
    node = make_node(engine, tmp_path)
    listener = open_listener(node)
    listener._refusals.note(Refused("association", "not on the list", "STRANGER", "US", "192.0.2.1", "RJ 1/1/3"))
    with engine.connect() as connection:
        (leaf,) = connection.execute(
            sa.text("SELECT * FROM audit_leaf WHERE action = 'association.refused'")
        ).mappings()
    assert (leaf["actor"], leaf["subject_id"], leaf["outcome"]) == ("STRANGER", "192.0.2.1", "failure")
    assert "RJ 1/1/3" in leaf["details"]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        self.now += 10
        return self.now


def test_too_little_room(engine, tmp_path, monkeypatch):
    guard = Watermarks(settings(tmp_path, disk_watermark_bytes=1000), engine, Clock())
    guard.check()
    monkeypatch.setattr(watermarks.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 999}))
    with pytest.raises(StorageFull):
        guard.check()


def test_too_much_waiting(engine, tmp_path):
    node = make_node(engine, tmp_path, backlog_watermark=1)
    guard = Watermarks(node.settings, engine, Clock())
    take_in(node, name="1")
    guard.check()
    waiting = take_in(node, name="2").analysis_id
    with pytest.raises(Unavailable, match="too many images"):
        guard.check()
    finish(node, waiting)
    guard.check()


def test_the_answer_is_kept_for_a_moment(engine, tmp_path):
    node = make_node(engine, tmp_path, backlog_watermark=1)
    guard = Watermarks(node.settings, engine, lambda: 1.0)
    guard.check()
    take_in(node, name="1")
    take_in(node, name="2")
    guard.check()


def test_a_database_that_is_away(tmp_path):
    away = sa.create_engine(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.sqlite3'}")
    with pytest.raises(Unavailable, match="database is away"):
        Watermarks(settings(tmp_path), away).check()
