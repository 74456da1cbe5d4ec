"""Keys and signed tree heads."""

import base64
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from audit.checkpoint import (
    ORIGIN,
    PRIVATE_KEY,
    open_signer,
    public_keys,
    read_checkpoints,
    signed_text,
    write_checkpoints,
)
from dermoscopy.errors import Misconfigured

ROOT = "ab" * 32
AT = "2026-01-02T03:04:05.000006Z"


def test_the_key_is_made_once_and_nobody_else_may_read_it(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda _: open_signer(tmp_path / "keys").key_id, range(16)))
    assert len(ids) == 1
    assert set(public_keys(tmp_path / "keys")) == ids
    assert stat.S_IMODE((tmp_path / "keys" / PRIVATE_KEY).stat().st_mode) == 0o600
    assert len(list((tmp_path / "keys").iterdir())) == 2


def test_an_unreadable_key_is_a_configuration_error(tmp_path):
    (tmp_path / PRIVATE_KEY).write_text("nonsense")
    with pytest.raises(Misconfigured):
        open_signer(tmp_path)


def test_the_signature_covers_every_field(tmp_path):
    signer = open_signer(tmp_path)
    checkpoint = signer.sign(7, 42, ROOT, AT)
    assert checkpoint.signed_by(signer.public_key)
    fields = {name: getattr(checkpoint, name) for name in checkpoint.__slots__}
    for change in ({"number": 8}, {"tree_size": 43}, {"root_hash": "cd" * 32}, {"at": AT.replace("2026", "2025")}):
        assert not type(checkpoint)(**{**fields, **change}).signed_by(signer.public_key)
    assert not type(checkpoint)(**{**fields, "signature": "no hex"}).signed_by(signer.public_key)


def test_the_note_is_a_c2sp_signed_note(tmp_path):
    signer = open_signer(tmp_path)
    checkpoint = signer.sign(7, 42, ROOT, AT)
    text, _, signature = checkpoint.note().partition("\n\n")
    assert (text + "\n").encode() == signed_text(7, 42, ROOT, AT)
    assert text.splitlines()[:3] == [ORIGIN, "42", base64.b64encode(bytes.fromhex(ROOT)).decode()]
    dash, name, blob = signature.split()
    assert (dash, name) == ("—", ORIGIN)
    raw = base64.b64decode(blob)
    assert raw[:4].hex() == signer.key_id
    signer.public_key.verify(raw[4:], (text + "\n").encode())


def test_the_file_outside_survives_a_half_written_line(tmp_path):
    signer = open_signer(tmp_path)
    path = tmp_path / "outside.jsonl"
    written = [signer.sign(number, number + 1, ROOT, AT) for number in range(3)]
    write_checkpoints(path, written[:2])
    with path.open("a") as file:
        file.write('{"number": 3, "tree_\n')
    write_checkpoints(path, written[2:])
    with path.open("a") as file:
        file.write('{"number": 3, "tree_')
    assert list(read_checkpoints(path)) == written
