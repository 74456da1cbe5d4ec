"""What the conformance statement promises, negotiated with a running listener and by a running sender."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pynetdicom import AE, build_context, build_role, evt

from dermoscopy.settings import Settings
from dicom_listener.conformance import Deployment, statement
from dicom_listener.conformance.document import Table
from dicom_listener.deliver import CStoreDestination
from dicom_listener.scp import ListenerSettings, StorageListener

CT, BIG_ENDIAN, JPEG_XL = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.110"
LISTENER = ListenerSettings(port=0)


@pytest.fixture(scope="module")
def tables() -> dict[str, Table]:
    return statement(Deployment("1.0", Settings(), LISTENER)).tables()


@pytest.fixture(scope="module")
def listener() -> Iterator[StorageListener]:
    started = StorageListener(LISTENER, lambda *_: None, lambda *_: None)
    started.start()
    yield started
    started.shutdown(1)


def promised(tables: dict[str, Table], key: str) -> set[tuple[str, str]]:
    """(SOP class, transfer syntax) of a table of presentation contexts."""
    sets: dict[str, list[str]] = {}
    for letter, _, _, uid in tables["transfer-syntax-sets"].rows:
        sets.setdefault(letter, []).append(uid)
    listed = tables[key].rows
    return {(uid, syntax) for _, uid, named, *_ in listed for part in named.split(", ") for syntax in sets[part[0]]}


def negotiated(port: int, pairs: list[tuple[str, str]], roles=()) -> AE:
    sender = AE("CHECK")
    sender.acse_timeout = sender.network_timeout = 60
    contexts = [build_context(uid, syntax) for uid, syntax in pairs]
    association = sender.associate("127.0.0.1", port, contexts=contexts, ae_title="DERMCDS", ext_neg=list(roles))
    assert association.is_established
    association.release()
    return association


def pairs_of(contexts) -> set[tuple[str, str]]:
    return {(str(one.abstract_syntax), str(syntax)) for one in contexts for syntax in one.transfer_syntax}


def test_every_class_and_encoding_is_accepted_and_nothing_else(listener, tables):
    wanted = promised(tables, "accepted-contexts")
    classes = sorted({uid for uid, _ in wanted})
    assert len(wanted) > 100
    others = [(CT, "1.2.840.10008.1.2"), *((uid, BIG_ENDIAN) for uid in classes), (classes[-1], JPEG_XL)]
    association = negotiated(listener.port, [*sorted(wanted), *others])
    assert pairs_of(association.accepted_contexts) == wanted
    assert pairs_of(association.rejected_contexts) == set(others)


def test_of_several_encodings_the_first_of_its_set_is_chosen(listener, tables):
    order = [uid for letter, _, _, uid in tables["transfer-syntax-sets"].rows if letter == "C"]
    (uid,) = {uid for name, uid, *_ in tables["accepted-contexts"].rows if name.startswith("Dermoscopic")}
    sender = AE("CHECK")
    for first in (0, 3, len(order) - 2):
        context = build_context(uid, order[: first - 1 if first else None : -1])
        association = sender.associate("127.0.0.1", listener.port, contexts=[context], ae_title="DERMCDS")
        assert [str(one) for one in association.accepted_contexts[0].transfer_syntax] == [order[first]]
        association.release()


def test_who_reports_a_commitment_may_be_its_provider(listener, tables):
    (row,) = [row for row in tables["accepted-contexts"].rows if row[0].startswith("Storage Commitment")]
    assert row[3:] == ("SCU and SCP", "role selection")
    plain = [(row[1], "1.2.840.10008.1.2.1")]
    (context,) = negotiated(listener.port, plain, [build_role(row[1], scp_role=True)]).accepted_contexts
    assert context.as_scp and not context.as_scu
    (context,) = negotiated(listener.port, plain).accepted_contexts
    assert context.as_scu and not context.as_scp


def test_the_sender_proposes_what_the_statement_says(tables):
    asked: list[set[tuple[str, str]]] = []
    pacs = AE("PACS")
    pacs.add_supported_context("1.2.840.10008.1.1")
    handlers = [(evt.EVT_REQUESTED, lambda event: asked.append(pairs_of(event.assoc.requestor.requested_contexts)))]
    server = pacs.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        destination = CStoreDestination("pacs", "127.0.0.1", server.server_address[1], "PACS", "DERMCDS")
        destination.echo()
        destination.close()
    finally:
        server.shutdown()
    assert asked == [promised(tables, "storage-contexts")]
