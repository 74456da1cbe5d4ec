"""Logins: found by their cookie alone, ended by time or by hand, and never without a leaf."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from audit.log import MerkleAuditLog
from audit.tables import AuditLeaf
from cds_service.authorization import Caller
from cds_service.login.sessions import LEAVES_PER_MINUTE, Sessions, form_key
from dermoscopy.settings import Role, Settings
from dermoscopy.tables import LoginRow
from tests.findings import NOON, PATIENT

ADA = Caller("https://login.example|ada", Role.REVIEW, "Dr. Ada Example")


@pytest.fixture
def clock():
    return [NOON]


@pytest.fixture
def sessions(begin, clock):
    return Sessions(begin, MerkleAuditLog(), Settings(session_idle_minutes=30, session_hours=12), lambda: clock[0])


def actions(begin):
    with begin() as session:
        return list(session.execute(sa.select(AuditLeaf.action, AuditLeaf.actor).order_by(AuditLeaf.at)))


def test_a_login_is_found_by_its_cookie_which_is_kept_nowhere(sessions, begin):
    token = sessions.start(ADA, how="provider")
    found = sessions.find(token)
    assert (found.name, found.role, found.full_name, found.patients) == (ADA.name, ADA.role, ADA.full_name, None)
    assert found.form_key == form_key(token) and token not in found.form_key
    with begin() as session:
        row = session.execute(sa.select(LoginRow)).scalar_one()
        assert token not in str(row.model_dump())
    assert sessions.find(token + "x") is None and sessions.find("") is None and sessions.find("x" * 5000) is None


def test_a_login_by_token_ends_with_the_token(begin):
    tokens = [{"name": "ward", "token": "x" * 20, "role": "review"}]
    before = Sessions(begin, MerkleAuditLog(), Settings(api_tokens=tokens))
    cookie = before.start(Caller("ward", Role.REVIEW), how="token")
    assert before.find(cookie) is not None
    assert Sessions(begin, MerkleAuditLog(), Settings()).find(cookie) is None
    lowered = [{**tokens[0], "role": "read"}]
    assert Sessions(begin, MerkleAuditLog(), Settings(api_tokens=lowered)).find(cookie) is None


def test_a_launch_stays_with_its_patient(sessions):
    token = sessions.start(Caller("ehr|ada", Role.REVIEW, "", (PATIENT,)), how="launch")
    assert sessions.find(token).patients == (PATIENT,)
    nobody = sessions.start(Caller("ehr|ada", Role.REVIEW, "", ()), how="launch")
    assert sessions.find(nobody).patients == ()


def test_a_login_ends_when_it_is_not_used_and_in_any_case_in_the_end(sessions, clock):
    idle, used = sessions.start(ADA, how="provider"), sessions.start(ADA, how="provider")
    for _ in range(20):
        clock[0] += timedelta(minutes=29)
        assert sessions.find(used) is not None
    assert sessions.find(idle) is None
    while clock[0] < NOON + timedelta(hours=12) - timedelta(minutes=29):
        clock[0] += timedelta(minutes=29)
        assert sessions.find(used) is not None
    clock[0] = NOON + timedelta(hours=12)
    assert sessions.find(used) is None


def test_what_ended_is_swept_away(sessions, clock, begin):
    sessions.start(ADA, how="provider")
    clock[0] += timedelta(hours=13)
    sessions.start(ADA, how="provider")
    with begin() as session:
        assert session.execute(sa.select(sa.func.count()).select_from(LoginRow)).scalar_one() == 1


def test_every_beginning_failure_and_end_leaves_a_leaf(sessions, begin):
    token = sessions.start(ADA, how="provider")
    sessions.fail("provider", "", "the provider said no")
    sessions.end(token)
    sessions.end(token)
    assert sessions.find(token) is None
    assert sorted(actions(begin)) == [
        ("login.ended", ADA.name),
        ("login.failed", "unknown"),
        ("login.succeeded", ADA.name),
    ]


def test_failures_cannot_fill_the_audit_log(sessions, begin, clock):
    for _ in range(LEAVES_PER_MINUTE + 5):
        sessions.fail("token", "", "the token is not known")
    assert len(actions(begin)) == LEAVES_PER_MINUTE
    clock[0] += timedelta(minutes=1)
    sessions.fail("token", "", "the token is not known")
    with begin() as session:
        leaves = session.execute(sa.select(AuditLeaf.details)).scalars()
        assert sum('"further_unwritten": 5' in str(d) or '"further_unwritten":5' in str(d) for d in leaves) == 1
