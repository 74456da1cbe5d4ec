"""The electronic copy proves itself, line by line, without the database."""

import json
from itertools import pairwise

import pytest

from audit import merkle
from audit.checkpoint import public_keys
from audit.export import check_export, checkpoints, consistency_proof, export
from dermoscopy.errors import AuditLogTampered


@pytest.fixture
def source(whole_log):
    engine = whole_log.engine()
    yield engine
    engine.dispose()


@pytest.fixture
def keys(whole_log):
    return public_keys(whole_log.folder / "keys")


def test_every_line_proves_itself(source, keys):
    lines = list(export(source, proofs=True))
    assert len(lines) == 18
    assert check_export(lines, keys) == 17
    head, *leaves = lines
    for leaf in leaves:
        assert check_export([head, leaf], keys) == 1


def test_a_changed_line_is_found(source, keys):
    lines = list(export(source, proofs=True))
    line = json.loads(lines[5])
    line["leaf"]["actor"] = "somebody else"
    with pytest.raises(AuditLogTampered, match=r"Line 6.*hash"):
        check_export([*lines[:5], json.dumps(line), *lines[6:]], keys)
    line = json.loads(lines[5])
    line["position"] = 9
    with pytest.raises(AuditLogTampered, match=r"Line 6.*position"):
        check_export([*lines[:5], json.dumps(line), *lines[6:]], keys)
    head = json.loads(lines[0])
    head["checkpoint"]["tree_size"] = 16
    with pytest.raises(AuditLogTampered, match="not signed"):
        check_export([json.dumps(head), *lines[1:]], keys)


def test_patients_can_be_left_out_and_the_proof_still_holds(source, keys):
    lines = list(export(source, proofs=True, patients=False))
    assert check_export(lines, keys) == 17
    assert "patient_id" not in lines[3]
    assert "ward" not in lines[3]


def test_a_range_can_be_exported(source, keys):
    lines = list(export(source, proofs=True, start=3, end=6))
    assert [json.loads(line)["position"] for line in lines[1:]] == [3, 4, 5]
    assert check_export(lines, keys) == 3


def test_an_empty_log_exports_nothing(empty_log):
    engine = empty_log.engine()
    assert list(export(engine)) == []
    engine.dispose()


def test_each_checkpoint_is_the_beginning_of_the_next(source):
    heads = list(checkpoints(source))
    assert [head.number for head in heads] == [0, 1, 2, 3]
    for old, new in pairwise(heads):
        proof = consistency_proof(source, old.tree_size, new.tree_size)
        roots = bytes.fromhex(old.root_hash), bytes.fromhex(new.root_hash)
        assert merkle.verify_consistency(old.tree_size, roots[0], new.tree_size, roots[1], proof)


def test_a_tampered_tree_is_not_exported_with_proofs(whole_log, tmp_path):
    log = whole_log.copy(tmp_path / "copy")
    intruder = log.break_in()
    intruder.execute("UPDATE audit_tree SET leaf_hash = root_hash WHERE position = 3")
    intruder.commit()
    intruder.close()
    engine = log.engine()
    with pytest.raises(AuditLogTampered):
        list(export(engine, proofs=True))
    engine.dispose()
