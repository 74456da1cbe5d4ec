"""Content-addressed object store: a folder by default, S3, Google Cloud or Azure by URL (obstore).

The address of an object is the SHA-256 of its bytes, so equal bytes are kept once and a changed byte is found on
reading.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from pathlib import Path

import obstore
import obstore.exceptions
from obstore.store import ObjectStore, from_url

from dermoscopy.errors import BlobCorrupted, Misconfigured, StorageFull, Unavailable
from dermoscopy.ports import BlobStore


def digest_of(data: bytes) -> str:
    """SHA-256 in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def _checked(data: bytes, digest: str) -> bytes:
    if digest_of(data) != digest:
        raise BlobCorrupted(f"stored object {digest} no longer has its digest: restore it from a backup")
    return data


_FOLDERS = 256


class FolderBlobStore:
    """Objects in ``root/ab/abcd…``; a write is fsynced and renamed into place, so it is whole or absent."""

    def __init__(self, root: Path, *, watermark_bytes: int = 0) -> None:
        self._root = root
        self._watermark = watermark_bytes
        root.mkdir(parents=True, exist_ok=True)
        if sum(1 for _ in root.iterdir()) < _FOLDERS:  # made once, so that no write has to
            for number in range(_FOLDERS):
                (root / f"{number:02x}").mkdir(exist_ok=True)
            _sync_folder(root)

    def _path(self, digest: str) -> Path:
        if len(digest) != 64 or not all(c in "0123456789abcdef" for c in digest):
            raise KeyError(digest)
        return self._root / digest[:2] / digest

    def put(self, data: bytes) -> str:
        digest = digest_of(data)
        path = self._path(digest)
        if path.exists():
            _sync_folder(path.parent)  # a twin may have been renamed into place and not yet be durable
            return digest
        try:
            self._write(path, data)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise StorageFull("the object store is full: free space, then send again", retry_after=60) from error
            raise
        return digest

    def _write(self, path: Path, data: bytes) -> None:
        if self._watermark:
            room = os.statvfs(self._root)
            if room.f_bavail * room.f_frsize - len(data) < self._watermark:
                raise StorageFull("free space is below the watermark: free space, then send again", retry_after=60)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)

    def get(self, digest: str) -> bytes:
        try:
            data = self._path(digest).read_bytes()
        except FileNotFoundError:
            raise KeyError(digest) from None
        return _checked(data, digest)

    def exists(self, digest: str) -> bool:
        return self._path(digest).exists()


class RemoteBlobStore:
    """Objects in a bucket; the provider's acknowledgement of a put is the promise of durability."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @staticmethod
    def _key(digest: str) -> str:
        return f"{digest[:2]}/{digest[2:4]}/{digest}"

    def put(self, data: bytes) -> str:
        digest = digest_of(data)
        try:
            obstore.put(self._store, self._key(digest), data)
        except obstore.exceptions.BaseError as error:
            raise Unavailable("the object store did not take the object: nothing was kept", retry_after=5) from error
        return digest

    def get(self, digest: str) -> bytes:
        try:
            data = bytes(obstore.get(self._store, self._key(digest)).bytes())
        except FileNotFoundError:
            raise KeyError(digest) from None
        except obstore.exceptions.BaseError as error:
            raise Unavailable("the object store did not answer", retry_after=5) from error
        return _checked(data, digest)

    def exists(self, digest: str) -> bool:
        try:
            obstore.head(self._store, self._key(digest))
        except FileNotFoundError:
            return False
        except obstore.exceptions.BaseError as error:
            raise Unavailable("the object store did not answer", retry_after=5) from error
        return True


def open_blob_store(url: str, folder: Path, *, watermark_bytes: int = 0) -> BlobStore:
    """The store at ``url`` (any obstore URL), or the one in ``folder`` when ``url`` is empty."""
    if not url:
        return FolderBlobStore(folder, watermark_bytes=watermark_bytes)
    try:
        return RemoteBlobStore(from_url(url))
    except (obstore.exceptions.BaseError, ValueError) as error:
        raise Misconfigured(f"blob_url cannot be opened: {error}") from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
