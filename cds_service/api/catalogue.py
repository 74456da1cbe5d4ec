"""Which models answer here, and answered."""

from __future__ import annotations

from fastapi import APIRouter, Request
from sqlmodel import col, func, select

from cds_service.api.answers import Model, ModelList
from cds_service.api.refusals import problems
from cds_service.api.stored import node_of
from cds_service.authorization import Reader
from dermoscopy.tables import AnalysisRow

router = APIRouter(prefix="/api/v1/models", tags=["models"])


@router.get("", summary="List models", responses=problems(401, 403, 421, 503))
def list_models(request: Request, caller: Reader) -> ModelList:
    """The champion first, then models whose analyses are still stored."""
    node = node_of(request)
    key = (col(AnalysisRow.model_name), col(AnalysisRow.model_version), col(AnalysisRow.model_digest))
    with node.begin() as session:
        counted = {tuple(row[:3]): row[3] for row in session.execute(select(*key, func.count()).group_by(*key))}
    champion = (node.champion.name, node.champion.version, node.champion.digest)
    known = [champion, *sorted(set(counted) - {champion})]
    return ModelList(
        models=[
            Model(
                name=name,
                version=version,
                digest=digest,
                role="champion" if (name, version, digest) == champion else "past",
                analyses=counted.get((name, version, digest), 0),
            )
            for name, version, digest in known
        ]
    )
