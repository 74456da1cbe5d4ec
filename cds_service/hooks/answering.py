"""One call of a service, from request to cards: chart → images → stored results → cards → what is new of them."""

from __future__ import annotations

import time
from dataclasses import dataclass

from fastapi.concurrency import run_in_threadpool
from pydantic_core import PydanticSerializationError

from cds_service.api.refusals import MalformedRequest
from cds_service.hooks.calls import Call, Case, Chart, TakenIn
from cds_service.hooks.charts import open_chart
from cds_service.hooks.images import settle, take_in
from cds_service.hooks.launching import with_launch
from cds_service.hooks.messages import Card, HookAnswer, HookRequest
from cds_service.hooks.services import Service
from cds_service.hooks.shown import ShownCards
from cds_service.hooks.standing import records_of
from cds_service.hooks.traces import leave_leaf
from dermoscopy.ports import JsonValue


@dataclass(frozen=True, slots=True)
class _Opened:
    chart: Chart
    images: TakenIn


async def answer_to(call: Call, service: Service, request: HookRequest, shown: ShownCards) -> str:
    """`HookAnswer` to ``request`` as JSON. Only images that this call took in are waited for, in the event loop."""
    ends = time.monotonic() + call.node.settings.hooks_image_seconds
    opened = await run_in_threadpool(_open, call, service, request, ends)
    if opened is None:
        return _json([])
    if opened.images.waiting:
        await settle(call.node, opened.images.waiting, ends)
    return await run_in_threadpool(_answer, call, service, request, shown, opened)


def _open(call: Call, service: Service, request: HookRequest, ends: float) -> _Opened | None:
    chart = open_chart(call, service.id, request)
    return None if chart is None else _Opened(chart, take_in(call, request, chart, ends))


def _answer(call: Call, service: Service, request: HookRequest, shown: ShownCards, opened: _Opened) -> str:
    node, chart = call.node, opened.chart
    more: dict[str, JsonValue] = dict(opened.images.details)
    if chart.fetched:
        more["fetched"] = ["patient"]
    with node.begin() as session:
        records = records_of(session, chart.identities)
        told = service.answer(Case(service.id, request, records, opened.images, node.settings.resolved_public_url))
        new = shown.unseen(session, call.caller, service.id, request, told)
        if len(new) < len(told):
            more["shown_before"] = len(told) - len(new)
        leave_leaf(call, session, service.id, request, chart.identities, new, **more)
        # before the commit: cards that cannot be sent must not count as shown
        return _json([with_launch(one.card, request, node.settings) for one in new])


def _json(cards: list[Card]) -> str:
    """Nothing in it is null (https://cds-hooks.hl7.org/2.0/#cds-service-response). Raises `MalformedRequest`."""
    try:
        return HookAnswer(cards=cards).model_dump_json(by_alias=True, exclude_none=True)
    except PydanticSerializationError as error:  # a suggestion carries the order as it came
        raise MalformedRequest("An order in context.draftOrders is nested too deeply to be sent back.") from error
