"""The service ``dermoscopy-discharge``: high risks that are still open when an encounter ends, and images without a
result. What a clinician confirmed as malignant is open until somebody acts, what was set aside is not.
"""

from __future__ import annotations

from cds_service.hooks.calls import Case, Told
from cds_service.hooks.cards import CardWriter
from cds_service.hooks.triage import MAX_FINDINGS, unfinished

ID = "dermoscopy-discharge"
UNREVIEWED = "No clinician has reviewed this result yet. See that somebody does, and that the patient knows of it."
REVIEWED = "A clinician agreed that the risk is high. See that the next step is arranged before the patient leaves."


def answer(case: Case) -> list[Told]:
    """Cards for what must not be forgotten."""
    writer = CardWriter(case.service, case.public_url)
    risks = [standing for standing in case.records.findings if standing.open]
    told = [
        Told(
            writer.finding(standing, note=REVIEWED if standing.revision else UNREVIEWED),
            standing.state,
            standing.analysis.id,
            alone=True,
        )
        for standing in risks[:MAX_FINDINGS]
    ]
    if rest := risks[MAX_FINDINGS:]:
        told.append(Told(writer.more(rest), "more " + " ".join(sorted(s.state for s in rest)), alone=True))
    return told + unfinished(case, writer)
