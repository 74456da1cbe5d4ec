"""Derived names: the same question, the same name; another question, another name."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from dermoscopy.domain import ArtifactKind, ModelReference
from dermoscopy.identifiers import device_urn, dicom_urn, digest_uri, report_identifier, resource_urn, series_uid

MODEL = ModelReference("name", "1.0", "ab" * 32)


def test_names_are_uuids_and_stable():
    assert report_identifier("a") == report_identifier("a") == resource_urn("a", "report")
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", report_identifier("a"))


def test_names_differ_by_analysis_part_and_model():
    names = {report_identifier("a"), report_identifier("b"), resource_urn("a", "observation/area")}
    names |= {device_urn(MODEL), device_urn(ModelReference("name", "1.0", "cd" * 32))}
    assert len(names) == 5


def test_series_differ_by_kind():
    uids = {series_uid(kind, "a") for kind in ArtifactKind}
    assert len(uids) == len(ArtifactKind)
    assert all(re.fullmatch(r"2\.25\.\d{1,39}", uid) for uid in uids)


def test_dicom_uids_are_oids():
    assert dicom_urn("1.2.840") == "urn:oid:1.2.840"


def test_digests_by_rfc_6920():
    digest = hashlib.sha256(b"Hello World!")
    name = digest_uri(digest.hexdigest())
    assert name == "ni:///sha-256;f4OxZX_x_FO5LcGBSKHWXfwtSx-j1ncoSt3SABJtkGk"  # the RFC's own example
    assert base64.urlsafe_b64decode(name.rpartition(";")[2] + "=") == digest.digest()


@pytest.mark.parametrize("text", ["", "ab", "zz" * 32, "ab" * 33])
def test_other_digests_are_refused(text):
    with pytest.raises(ValueError):
        digest_uri(text)
