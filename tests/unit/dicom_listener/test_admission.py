"""Who is admitted and how much a peer may send."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from dicom_listener.admission import (
    ADDRESS_UNKNOWN,
    CALLED_AE_UNKNOWN,
    CALLING_AE_UNKNOWN,
    CONTEXT_UNKNOWN,
    LIMIT_REACHED,
    PEER_LIMIT_REACHED,
    STOPPING,
    Admission,
    Caller,
    Peer,
)

CAMERA = Peer("CAMERA", (ip_network("10.1.2.0/24"), ip_network("2001:db8::/32")), max_associations=2)
PACS = Peer("PACS")


def admission(*peers: Peer, **options) -> Admission:
    return Admission("DERMCDS", peers, **options)


def caller(calling: str = "CAMERA", address: str = "10.1.2.7", called: str = "DERMCDS", **more) -> Caller:
    return Caller(calling, called, address, **more)


@pytest.mark.parametrize("address", ["10.1.2.7", "2001:db8::1", "::ffff:10.1.2.7"])
def test_a_listed_title_from_a_listed_address(address):
    assert admission(CAMERA, PACS).judge(caller(address=address), []) is None


@pytest.mark.parametrize(
    ("who", "refusal"),
    [
        (caller(called="OTHER"), CALLED_AE_UNKNOWN),
        (caller("STRANGER"), CALLING_AE_UNKNOWN),
        (caller("camera"), CALLING_AE_UNKNOWN),
        (caller(""), CALLING_AE_UNKNOWN),
        (caller(address="10.1.3.7"), ADDRESS_UNKNOWN),
        (caller(address="fe80::1"), ADDRESS_UNKNOWN),
        (caller(application_context="1.2.3"), CONTEXT_UNKNOWN),
    ],
)
def test_everybody_else_is_refused(who, refusal):
    assert admission(CAMERA, PACS).judge(who, []) == refusal


def test_the_answers_are_those_of_the_standard():
    """PS3.8 Table 9-21: result, source, reason."""
    told = {
        refusal: (refusal.result, refusal.source, refusal.diagnostic)
        for refusal in (CONTEXT_UNKNOWN, CALLING_AE_UNKNOWN, ADDRESS_UNKNOWN, CALLED_AE_UNKNOWN, LIMIT_REACHED,
                        PEER_LIMIT_REACHED, STOPPING)
    }  # fmt: skip
    assert list(told.values()) == [(1, 1, 2), (1, 1, 3), (1, 1, 3), (1, 1, 7), (2, 3, 2), (2, 3, 2), (2, 3, 1)]


def test_one_title_from_several_places():
    both = admission(Peer("CAMERA", (ip_network("10.0.0.1"),)), Peer("CAMERA", (ip_network("10.0.0.2"),)))
    assert both.judge(caller(address="10.0.0.2"), []) is None
    assert both.judge(caller(address="10.0.0.3"), []) == ADDRESS_UNKNOWN


def test_without_a_list_anybody_is_admitted():
    assert admission().judge(caller("ANYBODY", "192.0.2.1"), []) is None


def test_promiscuous_admits_strangers_but_nobody_under_a_listed_name():
    open_house = admission(CAMERA, promiscuous=True)
    assert open_house.judge(caller("STRANGER", "192.0.2.1"), []) is None
    assert open_house.judge(caller(address="192.0.2.1"), []) == ADDRESS_UNKNOWN
    assert open_house.judge(caller(), ["CAMERA"] * 2) == PEER_LIMIT_REACHED


def test_the_called_title_may_be_anything_where_that_is_said():
    assert admission(CAMERA, require_called_ae=False).judge(caller(called="OTHER"), []) is None


def test_limits_on_associations():
    strict = admission(CAMERA, PACS, max_associations=4)
    assert strict.judge(caller(), ["CAMERA", "PACS"]) is None
    assert strict.judge(caller(), ["CAMERA", "CAMERA"]) == PEER_LIMIT_REACHED
    assert strict.judge(caller("PACS"), ["PACS"] * 3) is None
    assert strict.judge(caller("PACS"), ["PACS"] * 4) == LIMIT_REACHED


def test_objects_per_minute():
    now = [100.0]
    counted = admission(clock=lambda: now[0])
    slow, free = Peer("SLOW", objects_per_minute=60), Peer("FREE")
    assert [counted.may_send(slow) for _ in range(61)] == [True] * 60 + [False]
    assert counted.may_send(free)
    now[0] += 2.0
    assert [counted.may_send(slow) for _ in range(3)] == [True, True, False]
    now[0] += 3600.0
    assert [counted.may_send(slow) for _ in range(61)] == [True] * 60 + [False]
