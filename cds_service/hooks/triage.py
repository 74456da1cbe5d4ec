"""The service ``dermoscopy-triage``: what is stored of the patient whose chart was opened. Nothing is computed here."""

from __future__ import annotations

from cds_service.hooks.calls import Case, Told
from cds_service.hooks.cards import INDICATORS, CardWriter
from cds_service.hooks.messages import Card
from cds_service.hooks.standing import Standing

ID = "dermoscopy-triage"
MAX_FINDINGS = 10
"""Findings with a card of their own; the rest share one."""
MAX_FAILED = 10
"""The same for failed analyses."""


def answer(case: Case) -> list[Told]:
    """Cards for everything that is known of the patient, the most urgent first."""
    writer, records = CardWriter(case.service, case.public_url), case.records
    told = [
        Told(writer.finding(standing), standing.state, standing.analysis.id, alone=is_grave(standing))
        for standing in records.findings[:MAX_FINDINGS]
    ]
    if rest := records.findings[MAX_FINDINGS:]:
        more = writer.more(rest)
        told.append(Told(more, "more " + " ".join(sorted(s.state for s in rest))))
    told += [Told(writer.withdrawn(one), one.state, one.analysis.id) for one in records.withdrawn]
    return told + unfinished(case, writer)


def unfinished(case: Case, writer: CardWriter) -> list[Told]:
    """Cards for images that have no result: failed, held, refused, not fetched, under way."""
    records, images = case.records, case.images
    told = [Told(writer.failed(one), f"failed {one.id}", one.id, alone=True) for one in records.failed[:MAX_FAILED]]
    if rest := records.failed[MAX_FAILED:]:
        told.append(_about(writer.more_failed(rest)))
    if records.held:
        told.append(_about(writer.held(records.held)))
    if images.refused:
        told.append(_about(writer.refused(images.refused)))
    if images.unfetched:
        told.append(_about(writer.unfetched(images.unfetched)))
    if records.under_way:
        card = writer.under_way(records.under_way)
        told.append(Told(card, card.uuid, records.under_way[0].id, always=True))
    return told


def is_grave(standing: Standing) -> bool:
    """Whether it is shown again where something is decided, though it was seen when the chart was opened."""
    return INDICATORS[standing.tier] != "info"


def _about(card: Card) -> Told:
    return Told(card, card.uuid, alone=True)
