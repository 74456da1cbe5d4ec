"""Whatever somebody does to the rows is found and named, in any table, at any place."""

import json
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit import merkle
from audit.checkpoint import open_signer
from audit.leaf import leaf_hash
from audit.verify import ProblemKind
from dermoscopy.errors import AuditLogTampered

SIZE = 17
KEYS = {"audit_leaf": "id", "audit_tree": "position", "audit_checkpoint": "number", "audit_pending": "leaf_id"}
many = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def broken(whole_log, tmp_path):
    """A fresh copy of the whole log for every example, and the intruder's connection to it."""
    copies = []

    def make():
        copies.append(log := whole_log.copy(tmp_path / "copy"))
        return log, log.break_in()

    return make


def rows(connection, table):
    order = KEYS[table] if table != "audit_leaf" else "at, id"
    return [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY {order}")]


def positions(connection):
    return {row["leaf_id"]: row["position"] for row in connection.execute("SELECT * FROM audit_tree")}


def other_value(value, draw):
    if isinstance(value, int):
        return draw(st.integers(-3, 40).filter(lambda new: new != value))
    letters = "0123456789abcdefZ{}:é"
    kinds = [st.text(letters, max_size=64), st.just(value + " "), st.just(value[:-1]), st.just(value[::-1])]
    return draw(st.one_of(kinds).filter(lambda new: new != value))


def names(problem, leaf_id, position):
    return problem.leaf_id == leaf_id or problem.position == position or str(leaf_id) in problem.message


@pytest.mark.parametrize("column", ["peaks", "root_hash", "signature"])
@pytest.mark.parametrize("spelling", [str.upper, "{} ".format, " {}".format])
def test_another_spelling_of_the_same_hash_is_a_change(broken, column, spelling):
    table = "audit_checkpoint"
    log, intruder = broken()
    row = rows(intruder, table)[0]
    assert spelling(row[column]) != row[column]
    changed = (spelling(row[column]), row[KEYS[table]])
    intruder.execute(f"UPDATE {table} SET {column} = ? WHERE {KEYS[table]} = ?", changed)
    intruder.commit()
    intruder.close()
    assert ProblemKind.CHECKPOINT in [problem.kind for problem in log.verify().problems]


@many
@given(data=st.data())
def test_any_changed_cell_is_found_and_its_row_named(broken, data):
    log, intruder = broken()
    table = data.draw(st.sampled_from(sorted(KEYS)))
    row = data.draw(st.sampled_from(rows(intruder, table)))
    column = data.draw(st.sampled_from(sorted(row)))
    value = other_value(row[column], data.draw)
    place = positions(intruder)
    try:
        intruder.execute(f"UPDATE {table} SET {column} = ? WHERE {KEYS[table]} = ?", (value, row[KEYS[table]]))
    except sqlite3.IntegrityError:  # a unique column: the database itself refuses
        return
    intruder.commit()
    intruder.close()
    result = log.verify()
    assert not result.ok
    if table == "audit_leaf":
        position = place.get(row["id"])
        assert any(names(problem, row["id"], position) for problem in result.problems)
        if column not in ("id", "leaf_hash"):
            assert any(
                p.kind is ProblemKind.CHANGED and p.leaf_id == row["id"] and p.position == position
                for p in result.problems
            )
    elif table == "audit_tree":
        assert any(names(problem, row["leaf_id"], row["position"]) for problem in result.problems)
    elif table == "audit_checkpoint":
        assert any(
            p.kind in (ProblemKind.CHECKPOINT, ProblemKind.TRUNCATED) and f"{row['number']}" in p.message
            for p in result.problems
        )
    else:
        assert any(row["leaf_id"] in problem.message for problem in result.problems)


@many
@given(data=st.data())
def test_any_removed_row_is_found_and_named(broken, data):
    log, intruder = broken()
    table = data.draw(st.sampled_from(sorted(KEYS)))
    row = data.draw(st.sampled_from(rows(intruder, table)))
    place = positions(intruder)
    intruder.execute(f"DELETE FROM {table} WHERE {KEYS[table]} = ?", (row[KEYS[table]],))
    intruder.commit()
    intruder.close()
    result = log.verify()
    assert not result.ok
    leaf_id = row.get("id") or row.get("leaf_id")
    if table == "audit_checkpoint":
        assert any(p.kind in (ProblemKind.CHECKPOINT, ProblemKind.TRUNCATED) for p in result.problems)
    else:
        assert any(p.leaf_id == leaf_id for p in result.problems)
    if table == "audit_tree" and row["position"] < SIZE - 1:
        wanted = (ProblemKind.REMOVED, leaf_id, place[leaf_id])
        assert wanted in [(p.kind, p.leaf_id, p.position) for p in result.problems]


@many
@given(data=st.data())
def test_any_two_exchanged_rows_are_found_and_named(broken, data):
    log, intruder = broken()
    table = data.draw(st.sampled_from(["audit_leaf", "audit_tree", "audit_checkpoint"]))
    key = KEYS[table]
    found = rows(intruder, table)
    one, two = data.draw(st.lists(st.sampled_from(range(len(found))), min_size=2, max_size=2, unique=True))
    one, two = found[one], found[two]
    free = -99 if isinstance(one[key], int) else "free"
    for old, new in ((one[key], free), (two[key], one[key]), (free, two[key])):
        intruder.execute(f"UPDATE {table} SET {key} = ? WHERE {key} = ?", (new, old))
    intruder.commit()
    place = positions(intruder)
    intruder.close()
    result = log.verify()
    assert not result.ok
    if table == "audit_tree":
        first = min(one["position"], two["position"])
        assert any(p.position == first for p in result.problems)
        reordered = {p.leaf_id for p in result.problems if p.kind is ProblemKind.REORDERED}
        if max(one["position"], two["position"]) - first > 1:
            assert {one["leaf_id"], two["leaf_id"]} <= reordered
    elif table == "audit_leaf":
        assert {one["id"], two["id"]} <= {p.leaf_id for p in result.problems}
        assert {place.get(one["id"]), place.get(two["id"])} <= {p.position for p in result.problems}
    else:
        assert all(any(str(row["number"]) in p.message for p in result.problems) for row in (one, two))


@many
@given(data=st.data(), position=st.integers(0, SIZE))
def test_any_inserted_row_is_found_and_named(broken, data, position):
    log, intruder = broken()
    leaf = {**rows(intruder, "audit_leaf")[0], "id": "forged", "actor": "nobody"}
    leaf["leaf_hash"] = leaf_hash(leaf)
    columns = ", ".join(leaf)
    intruder.execute(f"INSERT INTO audit_leaf ({columns}) VALUES ({', '.join('?' * len(leaf))})", tuple(leaf.values()))
    if data.draw(st.booleans(), "into the tree"):
        for old in range(SIZE - 1, position - 1, -1):
            intruder.execute("UPDATE audit_tree SET position = ? WHERE position = ?", (old + 1, old))
        root = "00" * 32
        if data.draw(st.booleans(), "with the right root"):
            tree = merkle.CompactRange()
            for row in rows(intruder, "audit_tree")[:position]:
                tree.append(bytes.fromhex(row["leaf_hash"]))
            tree.append(bytes.fromhex(leaf["leaf_hash"]))
            root = tree.root().hex()
        values = (position, "forged", leaf["leaf_hash"], root)
        intruder.execute("INSERT INTO audit_tree (position, leaf_id, leaf_hash, root_hash) VALUES (?, ?, ?, ?)", values)
    intruder.commit()
    intruder.close()
    result = log.verify()
    assert not result.ok
    assert any(p.leaf_id == "forged" or p.position == position for p in result.problems)


@many
@given(count=st.integers(1, SIZE))
def test_a_log_cut_short_is_found_by_its_checkpoints(broken, count):
    log, intruder = broken()
    cut(intruder, SIZE - count)
    intruder.close()
    result = log.verify()
    assert any(p.kind is ProblemKind.TRUNCATED and p.position == SIZE - count for p in result.problems)


@many
@given(count=st.integers(1, SIZE))
def test_a_log_cut_short_with_its_checkpoints_is_found_by_those_kept_outside(broken, count):
    log, intruder = broken()
    cut(intruder, SIZE - count)
    intruder.execute("DELETE FROM audit_checkpoint WHERE tree_size > ?", (SIZE - count,))
    intruder.commit()
    intruder.close()
    result = log.verify(outside=True)
    assert any(p.kind is ProblemKind.TRUNCATED and p.position == SIZE - count for p in result.problems)
    with pytest.raises(AuditLogTampered):
        result.require()


def cut(intruder, size):
    intruder.execute("DELETE FROM audit_leaf WHERE id IN (SELECT leaf_id FROM audit_tree WHERE position >= ?)", (size,))
    intruder.execute("DELETE FROM audit_tree WHERE position >= ?", (size,))
    intruder.commit()


def rewrite(intruder, first, *, change):
    """Change the leaf at ``first`` and make every hash and root after it fit again; nothing is signed."""
    tree = merkle.CompactRange()
    for row in rows(intruder, "audit_tree"):
        leaf = dict(intruder.execute("SELECT * FROM audit_leaf WHERE id = ?", (row["leaf_id"],)).fetchone())
        if row["position"] == first:
            leaf.update(change)
            leaf["leaf_hash"] = leaf_hash(leaf)
            text = ", ".join(f"{column} = ?" for column in leaf)
            intruder.execute(f"UPDATE audit_leaf SET {text} WHERE id = ?", (*leaf.values(), leaf["id"]))
        tree.append(bytes.fromhex(leaf["leaf_hash"]))
        values = (leaf["leaf_hash"], tree.root().hex(), row["position"])
        intruder.execute("UPDATE audit_tree SET leaf_hash = ?, root_hash = ? WHERE position = ?", values)
    intruder.commit()


@many
@given(position=st.integers(0, SIZE - 1))
def test_somebody_who_rewrites_all_hashes_but_has_no_key_is_found(broken, position):
    log, intruder = broken()
    rewrite(intruder, position, change={"actor": "somebody else"})
    intruder.close()
    result = log.verify()
    start, ranges = 0, []
    for batch in (5, 1, 8, 3):
        ranges.append(range(start, start + batch))
        start += batch
    hit = next(batch for batch in ranges if position in batch)
    assert [p.position for p in result.problems] == [hit.start]
    assert f"positions {hit.start}…{hit.stop - 1}" in result.problems[0].message


def test_somebody_with_a_key_of_their_own_is_found(broken, tmp_path):
    log, intruder = broken()
    rewrite(intruder, 3, change={"outcome": "failure"})
    forger = open_signer(tmp_path / "forged")
    for row in rows(intruder, "audit_checkpoint"):
        root = rows(intruder, "audit_tree")[row["tree_size"] - 1]["root_hash"]
        forged = forger.sign(row["number"], row["tree_size"], root, row["at"])
        values = (forged.root_hash, forged.key_id, forged.signature, row["number"])
        intruder.execute(
            "UPDATE audit_checkpoint SET root_hash = ?, key_id = ?, signature = ? WHERE number = ?", values
        )
    intruder.commit()
    intruder.close()
    assert any("not signed by a known key" in p.message for p in log.verify().problems)
    assert any("was changed" in p.message for p in log.verify(outside=True).problems)


def test_checkpoints_kept_outside_find_a_log_that_was_forked_with_the_real_key(broken):
    log, intruder = broken()
    rewrite(intruder, 3, change={"outcome": "failure"})
    signer = open_signer(log.folder / "keys")
    tree = rows(intruder, "audit_tree")
    for row in rows(intruder, "audit_checkpoint"):
        forged = signer.sign(row["number"], row["tree_size"], tree[row["tree_size"] - 1]["root_hash"], row["at"])
        growing = merkle.CompactRange()
        for leaf in tree[: row["tree_size"]]:
            growing.append(bytes.fromhex(leaf["leaf_hash"]))
        peaks = " ".join(peak.hex() for peak in growing.peaks)
        values = (forged.root_hash, forged.signature, peaks, row["number"])
        intruder.execute("UPDATE audit_checkpoint SET root_hash = ?, signature = ?, peaks = ? WHERE number = ?", values)
    intruder.commit()
    intruder.close()
    assert log.verify().ok
    assert any("forked" in p.message for p in log.verify(outside=True).problems)


def test_several_intrusions_are_named_each(broken):
    log, intruder = broken()
    tree = rows(intruder, "audit_tree")
    intruder.execute("UPDATE audit_leaf SET details = ? WHERE id = ?", (json.dumps({}), tree[2]["leaf_id"]))
    intruder.execute("DELETE FROM audit_leaf WHERE id = ?", (tree[9]["leaf_id"],))
    intruder.execute("DELETE FROM audit_tree WHERE position = 12")
    intruder.execute("UPDATE audit_tree SET root_hash = leaf_hash WHERE position = 15")
    intruder.commit()
    intruder.close()
    found = {(p.kind, p.position) for p in log.verify().problems}
    assert {
        (ProblemKind.CHANGED, 2),
        (ProblemKind.REMOVED, 9),
        (ProblemKind.REMOVED, 12),
        (ProblemKind.ROOT, 15),
    } <= found


def test_rows_moved_up_after_a_removal_are_followed_from_the_next_checkpoint_on(broken):
    log, intruder = broken()
    tree = rows(intruder, "audit_tree")
    for position in (7,):
        intruder.execute("DELETE FROM audit_leaf WHERE id = ?", (tree[position]["leaf_id"],))
        intruder.execute("DELETE FROM audit_tree WHERE position = ?", (position,))
    for old in range(8, SIZE):
        intruder.execute("UPDATE audit_tree SET position = ? WHERE position = ?", (old - 1, old))
    intruder.commit()
    intruder.close()
    problems = log.verify().problems
    assert problems[0].position == 7
    assert {p.position for p in problems} <= {6, 7}
