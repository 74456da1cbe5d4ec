from __future__ import annotations

import inspect

import pytest

from dermoscopy import errors
from dicom_listener.status import COMMENT_LENGTH, STATUS_BY_ERROR, status_of


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.StorageFull("x"), 0xA700),
        (errors.ModelServerBusy("x"), 0xA700),
        (errors.UnsupportedSopClass("x"), 0xA900),
        (errors.UnreadableObject("x"), 0xC000),
        (errors.UnsupportedTransferSyntax("x"), 0xC100),
        (errors.UnsupportedImage("x"), 0xC110),
        (errors.NotDermoscopic("x"), 0xC120),
        (errors.Rejected("x"), 0xC1FF),
        (errors.BlobCorrupted("x"), 0xA700),
        (RuntimeError("x"), 0xC211),
    ],
)
def test_each_error_has_its_status(error, code):
    assert status_of(error).code == code


def test_every_error_of_the_tree_has_a_failure_status():
    tree = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.DermoscopyError)]
    for kind in tree:
        code = status_of(kind("x")).code
        assert code >> 8 == 0xA7 or code >> 8 == 0xA9 or code >> 12 == 0xC


def test_comments_fit_a_long_string_and_never_repeat_the_message():
    for kind, _, comment in STATUS_BY_ERROR:
        assert 0 < len(comment) <= COMMENT_LENGTH
        assert comment.isascii()
        assert "4711" not in status_of(kind("patient 4711")).comment


def test_subclasses_stand_before_their_parents():
    kinds = [kind for kind, _, _ in STATUS_BY_ERROR]
    for position, kind in enumerate(kinds):
        assert not any(issubclass(later, kind) for later in kinds[position + 1 :])
