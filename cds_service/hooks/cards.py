"""Stored analyses → cards. Says what the algorithm found, how sure it is, what it cannot know, and what is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from cds_service.hooks.messages import SUMMARY_LIMIT, Card, Coding, Link, Source, Suggestion
from cds_service.hooks.standing import Standing
from dermoscopy import codes
from dermoscopy.analyses import AnalysisSummary
from dermoscopy.domain import LesionClass, ReportStatus, TriageTier, derive_id
from dermoscopy.overlay import CLASS_TITLES, NOTICE
from dermoscopy.wording import not_excluded

Indicator = Literal["info", "warning", "critical"]
DISCLAIMER = (
    f"{NOTICE}. Image analysis of this kind is a medical device; this one is for research and not cleared by any "
    "authority. Decide by your own examination."
)
INDICATORS: Mapping[TriageTier, Indicator] = {
    TriageTier.URGENT: "critical",
    TriageTier.EXPEDITED: "warning",
    TriageTier.UNDETERMINED: "warning",
    TriageTier.ROUTINE: "info",
    TriageTier.MONITOR: "info",
}
OVERRIDE_REASONS = [
    Coding(system=reason.system, code=reason.code, display=reason.display) for reason in codes.OVERRIDE_REASONS
]
_TOPIC = Coding(system=codes.DERMATOSCOPY.system, code=codes.DERMATOSCOPY.code, display=codes.DERMATOSCOPY.display)


class CardWriter:
    """Writes cards of one service; ``public_url`` is where clinicians' browsers find this service."""

    def __init__(self, service: str, public_url: str) -> None:
        self._service = service
        self._public_url = public_url
        self._source = Source(label="Dermoscopy decision support (research)", url=public_url, topic=_TOPIC)

    def finding(self, standing: Standing, *, note: str = "", suggestions: Sequence[Suggestion] = ()) -> Card:
        """The result of one image; ``note`` says what it has to do with an order or a discharge."""
        analysis, tier = standing.analysis, standing.tier
        finding = json.loads(analysis.document)["finding"]
        said = _said(standing, finding)
        parts = [str(standing.revision)] if standing.revision else []
        parts += [derive_id("change", standing.change)] if standing.change else []
        parts += [suggestion.uuid for suggestion in suggestions]
        card = self._card(
            derive_id("card", self._service, analysis.id, *parts),
            f"{codes.TRIAGE[tier].display.partition(':')[0]}: {said}{_where(standing, ' (', ')')}",
            INDICATORS[tier],
            (f"**{_plain(note)}**\n\n" if note else "") + _detail(standing, finding, said),
            "Open image, outline and report",
            f"/analyses/{analysis.id}",
        )
        offered: dict[str, Any] = {"override_reasons": OVERRIDE_REASONS}
        if suggestions:
            offered |= {"suggestions": list(suggestions), "selection_behavior": "at-most-one"}
        return card.model_copy(update=offered)

    def withdrawn(self, standing: Standing) -> Card:
        """A result that a clinician marked as not to be used."""
        return self._card(
            derive_id("card", self._service, "withdrawn", standing.analysis.id, str(standing.revision)),
            f"A dermoscopy result was withdrawn by a clinician{_where(standing, ' (', ')')}: do not use it",
            "info",
            f"The image or its result is not usable. This says nothing about the lesion.\n\n_{DISCLAIMER}_",
            "Open the analysis",
            f"/analyses/{standing.analysis.id}",
        )

    def unfetched(self, images: Sequence[tuple[str, str]]) -> Card:
        """Images in the chart that could not be had within this call: (key, reason)."""
        count = len(images)
        what = "1 image" if count == 1 else f"{count} images"
        been = "was" if count == 1 else "were"
        reasons = sorted({reason for _, reason in images})
        return self._card(
            derive_id("card", self._service, "unfetched", *sorted(key for key, _ in images)),
            f"{what} in this chart {been} not fetched yet and not analysed; the next call tries again",
            "info",
            "\n".join(f"- {_plain(reason)}" for reason in reasons)
            + f"\n\nThis says nothing about any lesion.\n\n_{DISCLAIMER}_",
            "Open the worklist",
            "/worklist",
        )

    def refused(self, images: Sequence[tuple[str, str]]) -> Card:
        """Images in the chart that cannot be analysed: (key, reason)."""
        count = len(images)
        what = "1 image" if count == 1 else f"{count} images"
        reasons = sorted({reason for _, reason in images})
        return self._card(
            derive_id("card", self._service, "refused", *sorted(key for key, _ in images)),
            f"{what} in this chart cannot be analysed: look at {'it' if count == 1 else 'them'} yourself",
            "warning",
            "\n".join(f"- {_plain(reason)}" for reason in reasons)
            + f"\n\nThis says nothing about any lesion.\n\n_{DISCLAIMER}_",
            "Open the worklist",
            "/worklist",
        )

    def under_way(self, analyses: Sequence[AnalysisSummary]) -> Card:
        """There will be a result, but not yet."""
        count = len(analyses)
        what = "1 dermoscopy image is" if count == 1 else f"{count} dermoscopy images are"
        return self._card(
            derive_id("card", self._service, "under-way", *sorted(a.id for a in analyses)),
            f"{what} being analysed: no result yet",
            "info",
            f"The result stands here when this chart is opened again.\n\n_{DISCLAIMER}_",
            "Follow the analysis",
            f"/analyses/{analyses[0].id}",
        )

    def failed(self, analysis: AnalysisSummary) -> Card:
        """There is no result and there will be none."""
        reason = analysis.error.partition(": ")[2] or "internal error"
        return self._card(
            derive_id("card", self._service, "failed", analysis.id),
            f"A dermoscopy image could not be analysed{_where(analysis, ' (', ')')}: look at it yourself",
            "warning",
            f"{_plain(reason)}\n\nThe image is kept; this says nothing about the lesion.\n\n_{DISCLAIMER}_",
            "Open the analysis",
            f"/analyses/{analysis.id}",
        )

    def more_failed(self, analyses: Sequence[AnalysisSummary]) -> Card:
        """Failed analyses beyond the ones that have a card of their own."""
        count = len(analyses)
        what = "1 further dermoscopy image" if count == 1 else f"{count} further dermoscopy images"
        return self._card(
            derive_id("card", self._service, "more-failed", *sorted(a.id for a in analyses)),
            f"{what} could not be analysed: look at {'it' if count == 1 else 'them'} yourself",
            "warning",
            f"The images are kept; this says nothing about any lesion.\n\n_{DISCLAIMER}_",
            "Open the worklist",
            "/worklist",
        )

    def held(self, instance_ids: Sequence[str]) -> Card:
        """Images that a person must decide about before they are analysed."""
        count = len(instance_ids)
        what = "1 dermoscopy image waits" if count == 1 else f"{count} dermoscopy images wait"
        been = "was" if count == 1 else "were"
        return self._card(
            derive_id("card", self._service, "held", *sorted(instance_ids)),
            f"{what} for a decision and {been} not analysed",
            "warning",
            "Another object with the same UID exists, so it is unclear which image is right or whose it is. "
            f"This says nothing about the lesion.\n\n_{DISCLAIMER}_",
            "Open the list of open decisions",
            "/worklist",
        )

    def more(self, findings: Sequence[Standing]) -> Card:
        """Findings beyond the ones that have a card of their own."""
        return self._card(
            derive_id("card", self._service, "more", *sorted(s.analysis.id for s in findings)),
            f"{len(findings)} further dermoscopy findings of this patient are stored",
            INDICATORS[min((s.tier for s in findings), key=list(TriageTier).index)],
            f"Less urgent than, or older than, the ones shown.\n\n_{DISCLAIMER}_",
            "Open the next one",
            f"/analyses/{findings[0].analysis.id}",
        )

    def _card(self, uuid: str, summary: str, indicator: Indicator, detail: str, label: str, path: str) -> Card:
        short = summary if len(summary) <= SUMMARY_LIMIT else summary[: SUMMARY_LIMIT - 1] + "…"
        link = Link(label=label, url=f"{self._public_url}{path}")
        return Card(uuid=uuid, summary=short, detail=detail, indicator=indicator, source=self._source, links=[link])


def _said(standing: Standing, finding: Mapping[str, Any]) -> str:
    """The result in one line: a clinician's word first, then what the algorithm says."""
    analysis, tier = standing.analysis, standing.tier
    if (corrected := standing.corrected_class) is not None:
        return f"{CLASS_TITLES[corrected]}, as a clinician corrected it"
    if analysis.primary_class:
        title = CLASS_TITLES[LesionClass(analysis.primary_class)]
        said = f"{title}, probability {_percent(finding['confidence'])}"
        if finding.get("decision_note"):  # absent from rows of earlier versions
            likeliest = max(finding["classes"], key=lambda one: float(one["probability"]))
            title = CLASS_TITLES[LesionClass(likeliest["label"])]
            said += f"; more probable: {title} {_percent(likeliest['probability'])}"
    else:
        said = "the algorithm abstains"
    if tier is TriageTier.URGENT and analysis.primary_class != LesionClass.MEL:  # say first why it is urgent
        said = f"melanoma risk {_percent(finding['melanoma_risk'])}, although {said}"
    return said + ("; confirmed by a clinician" if standing.status is ReportStatus.FINAL else "")


def _detail(standing: Standing, finding: Mapping[str, Any], said: str) -> str:
    triage, analysis = finding["triage"], standing.analysis
    lines = [f"**{_plain(said[:1].upper() + said[1:])}**", ""]
    if standing.revision:
        lines += [f"**Report: {standing.status.value}** after review. What follows is what the algorithm said.", ""]
    lines += [
        f"**Triage: {analysis.tier}.** {_plain(triage['reason'])}",
        "",
        f"**Recommendation:** {_plain(triage['recommendation'])}",
        "",
    ]
    if analysis.abstention:
        lines += [f"**No answer:** {_plain(analysis.abstention)}", ""]
    if note := finding.get("decision_note"):
        lines += [_plain(note), ""]
    if standing.change:
        lines += [f"**Change:** {_plain(standing.change)}", ""]
    kept = [LesionClass(label) for label in finding.get("prediction_set", ())]
    if kept and not analysis.abstention:
        lines.append(f"- {_plain(not_excluded(kept, finding['inference']['thresholds']).rstrip('.'))}")
    lines.append(
        f"- Melanoma risk {_percent(finding['melanoma_risk'])}, malignancy risk {_percent(finding['malignancy_risk'])}"
    )
    lines += [f"- {line}" for line in _measured(finding["measurements"])]
    if not finding["quality"]["usable"]:
        lines.append(f"- Image quality: {_plain(', '.join(finding['quality']['reasons']) or 'not usable')}")
    where = _where(standing, "", "")
    lines += [f"- Site: {where}"] if where else []
    lines += [
        f"- Image received {analysis.created_at:%Y-%m-%d %H:%M} UTC",
        f"- Model {_plain(analysis.model_name)} {_plain(analysis.model_version)}",
        "",
        f"_{DISCLAIMER}_",
    ]
    return "\n".join(lines)


def _measured(measured: Mapping[str, Any] | None) -> list[str]:
    if measured is None:
        return ["No lesion was outlined"]
    if measured["area_mm2"] is not None and measured["equivalent_diameter_mm"] is not None:
        size = f"Area {measured['area_mm2']:.1f} mm², diameter {measured['equivalent_diameter_mm']:.1f} mm"
    else:
        size = f"Area {measured['area_percent']:.1f} % of the image (no scale known, so no millimetres)"
    return [
        size,
        f"Asymmetry {measured['asymmetry']:.2f}, border irregularity {measured['border_irregularity']:.2f}, "
        f"{measured['colour_count']} of 6 dermoscopic colours",
    ]


def _where(what: Standing | AnalysisSummary, before: str, after: str) -> str:
    site = codes.SITES.get(what.body_site_code)
    side = codes.LATERALITY.get(what.laterality)
    parts = [part.display.lower() for part in (site, side) if part is not None]
    return f"{before}{', '.join(parts)}{after}" if parts else ""


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


def _plain(text: str) -> str:
    """``text`` without meaning to Markdown or HTML: what a model or an error says is never markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", text.replace("\n", " "))
