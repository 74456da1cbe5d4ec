import os
from pathlib import Path

import pytest

from dermoscopy.blobs import FolderBlobStore, digest_of
from dermoscopy.errors import BlobCorrupted


def test_changed_byte_is_found_on_reading(tmp_path: Path) -> None:
    store = FolderBlobStore(tmp_path)
    digest = store.put(b"image")
    path = tmp_path / digest[:2] / digest
    path.write_bytes(b"imagE")
    with pytest.raises(BlobCorrupted, match=digest):
        store.get(digest)


@pytest.mark.parametrize("address", ["../../etc/passwd", "", "g" * 64, "A" * 64])
def test_address_cannot_leave_the_folder(tmp_path: Path, address: str) -> None:
    with pytest.raises(KeyError):
        FolderBlobStore(tmp_path).get(address)


def test_interrupted_write_leaves_no_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderBlobStore(tmp_path)

    def pull_the_plug(_handle: int) -> None:
        raise OSError(5, "input/output error")

    monkeypatch.setattr(os, "fsync", pull_the_plug)
    with pytest.raises(OSError, match="input/output"):
        store.put(b"half")
    monkeypatch.undo()
    assert not store.exists(digest_of(b"half"))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
