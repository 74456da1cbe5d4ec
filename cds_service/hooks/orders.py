"""The services ``dermoscopy-order-select`` and ``dermoscopy-order-sign``: a referral, biopsy or excision in draft.

They show the result of the image that the order is about, and suggest a higher priority where the result is urgent or
expedited. A priority is never lowered. While orders are chosen (``order-select``) and none of these is among them, a
referral is suggested for an open high risk.
"""

from __future__ import annotations

from collections.abc import Sequence

from cds_service.api.refusals import MalformedRequest
from cds_service.hooks.calls import Case, Told
from cds_service.hooks.cards import CardWriter
from cds_service.hooks.matching import Match, matches
from cds_service.hooks.messages import Action, Suggestion
from cds_service.hooks.standing import HIGH_RISK, Standing
from cds_service.hooks.triage import MAX_FINDINGS, is_grave, unfinished
from dermoscopy import codes
from dermoscopy.codes import OrderKind
from dermoscopy.domain import derive_id
from dermoscopy.errors import Rejected
from fhir_adapters.orders import DraftOrder, Ground, draft_orders, raised, referral

SELECT = "dermoscopy-order-select"
SIGN = "dermoscopy-order-sign"
PRIORITY = "urgent"
"""For both tiers: between routine and urgent FHIR's scale has nothing, and neither tier is an emergency."""
_NAMES = {OrderKind.REFERRAL: "referral", OrderKind.BIOPSY: "biopsy order", OrderKind.EXCISION: "excision order"}


def answer(case: Case) -> list[Told]:
    """Cards about the orders in draft. Raises `MalformedRequest` for orders of another patient."""
    context = case.request.context
    try:
        orders = draft_orders(context.draft_orders or {}, context.patient, context.selections or ())
    except Rejected as error:
        raise MalformedRequest(f"{error}.") from error
    writer = CardWriter(case.service, case.public_url)
    selecting = case.request.hook == "order-select"
    if not orders:
        risks = [standing for standing in case.records.findings if standing.open] if selecting else []
        return [_without_order(case, writer, standing, index) for index, standing in enumerate(risks[:MAX_FINDINGS])]
    chosen = [order for order in orders if order.selected] if selecting else list(orders)
    if not chosen:
        return []
    told = _with_orders(case, writer, chosen)
    shown = {one.analysis_id for one in told}
    elsewhere = [s for s in case.records.findings if s.open and s.analysis.id not in shown]
    referred = any(order.kind is OrderKind.REFERRAL for order in orders)
    for index, standing in enumerate(elsewhere[:MAX_FINDINGS]):
        if selecting and not referred:
            told.append(_without_order(case, writer, standing, index))
        else:
            note = "No order names the site of this image: it is another lesion, or the order says too little."
            told.append(_told(writer, standing, note, []))
    return told + unfinished(case, writer)


def _with_orders(case: Case, writer: CardWriter, orders: Sequence[DraftOrder]) -> list[Told]:
    """One card per image that an order is about; each order is to be raised on the card of its most urgent image."""
    found: dict[str, list[tuple[DraftOrder, Match]]] = {}
    for order in orders:
        for match in matches(order, case.records.findings):
            found.setdefault(match.standing.analysis.id, []).append((order, match))
    told: list[Told] = []
    raising: set[int] = set()
    for standing in [s for s in case.records.findings if s.analysis.id in found][:MAX_FINDINGS]:
        pairs = found[standing.analysis.id]
        suggestions: list[Suggestion] = []
        if standing.open and standing.tier in HIGH_RISK:
            fresh = [(order, match) for order, match in pairs if id(order) not in raising]
            suggestions = _raise(case, standing, fresh)
            raising |= {id(order) for order, _ in fresh}
        told.append(_told(writer, standing, _note(pairs), suggestions))
    return told


def _raise(case: Case, standing: Standing, pairs: Sequence[tuple[DraftOrder, Match]]) -> list[Suggestion]:
    actions: list[Action] = []
    names: list[str] = []
    for order, _ in pairs:
        resource = raised(order, PRIORITY)
        if resource is not None:
            description = f"Set the priority of the {_NAMES[order.kind]} to {PRIORITY}; nothing else changes"
            actions.append(Action(type="update", description=description, resource=dict(resource)))
            names.append(order.reference)
    if not actions:
        return []
    what = _NAMES[pairs[0][0].kind] if len(actions) == 1 else f"{len(actions)} orders"
    return [
        Suggestion(
            label=f"Set priority to {PRIORITY}: {what}",
            uuid=derive_id("suggestion", case.service, standing.state, PRIORITY, *sorted(names)),
            is_recommended=all(match.sure for _, match in pairs) or None,
            actions=actions,
        )
    ]


def _without_order(case: Case, writer: CardWriter, standing: Standing, index: int) -> Told:
    """An open high risk for which nothing is ordered; one referral is enough, so only the first card suggests it."""
    context = case.request.context
    resource = referral(
        context.patient,
        encounter_id=context.encounter,
        requester=context.user_id,
        priority=PRIORITY,
        site=codes.SITES.get(standing.body_site_code),
        side=codes.LATERALITY.get(standing.laterality),
        why=f"Dermoscopy second opinion (research): {codes.TRIAGE[standing.tier].display.lower()}",
    )
    suggestion = Suggestion(
        label="Add a referral to dermatology",
        uuid=derive_id("suggestion", case.service, standing.state, "referral"),
        is_recommended=True,
        actions=[Action(type="create", description="Draft an urgent referral to dermatology", resource=resource)],
    )
    note = "No referral, biopsy or excision in this draft is about this image."
    return _told(writer, standing, note, [suggestion] if index == 0 else [])


def _told(writer: CardWriter, standing: Standing, note: str, suggestions: list[Suggestion]) -> Told:
    card = writer.finding(standing, note=note, suggestions=suggestions)
    key = " ".join([standing.state, *(suggestion.uuid for suggestion in suggestions)])
    return Told(card, key, standing.analysis.id, alone=is_grave(standing))


def _note(pairs: Sequence[tuple[DraftOrder, Match]]) -> str:
    said = list(dict.fromkeys(match.why for _, match in pairs))
    if any(order.ground is Ground.WORDS for order, _ in pairs):
        said.append("The order was recognised by its words, not by a code.")
    return " ".join(said)
