"""One suite for every adapter of the `BlobStore` port."""

import hashlib
import threading
from pathlib import Path

import pytest
from obstore.store import LocalStore, MemoryStore

from dermoscopy.blobs import FolderBlobStore, RemoteBlobStore, open_blob_store
from dermoscopy.errors import Misconfigured, StorageFull
from dermoscopy.ports import BlobStore

ADAPTERS = ("folder", "object store in memory", "object store in a folder")


@pytest.fixture(params=ADAPTERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "folder":
        return FolderBlobStore(tmp_path / "blobs")
    if request.param == "object store in memory":
        return RemoteBlobStore(MemoryStore())
    return RemoteBlobStore(LocalStore(tmp_path / "bucket", mkdir=True))


@pytest.mark.parametrize("data", [b"", b"a", bytes(range(256)) * 4096])
def test_what_was_put_is_got_back_under_its_digest(store: BlobStore, data: bytes) -> None:
    digest = store.put(data)
    assert digest == hashlib.sha256(data).hexdigest()
    assert store.get(digest) == data
    assert store.exists(digest)


def test_putting_twice_changes_nothing(store: BlobStore) -> None:
    assert store.put(b"same") == store.put(b"same")
    assert store.get(store.put(b"same")) == b"same"


def test_absent_object_is_a_key_error(store: BlobStore) -> None:
    absent = hashlib.sha256(b"never put").hexdigest()
    assert not store.exists(absent)
    with pytest.raises(KeyError):
        store.get(absent)


def test_many_threads_put_the_same_object(store: BlobStore) -> None:
    data = b"x" * 100_000
    threads = [threading.Thread(target=store.put, args=(data,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get(hashlib.sha256(data).hexdigest()) == data


def test_full_disk_keeps_nothing_and_says_so(tmp_path: Path) -> None:
    store = FolderBlobStore(tmp_path, watermark_bytes=1 << 62)
    with pytest.raises(StorageFull) as caught:
        store.put(b"data")
    assert caught.value.retry_after
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_unknown_url_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="blob_url"):
        open_blob_store("gopher://nowhere", tmp_path)
