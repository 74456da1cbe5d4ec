"""What every command does first: read the settings, set up logging, migrate."""

from __future__ import annotations

from dermoscopy.settings import Settings, read_settings


def prepare(*, service: str = "", migrated: bool = True) -> Settings:
    """Settings, with logging configured: full logs for a ``service`` role, warnings only for a person at a terminal."""
    settings = read_settings()
    from monitoring.logs import configure_logging

    if service:
        configure_logging(level=settings.log_level, format=settings.log_format)
    else:
        configure_logging(level="WARNING", format="console")
    if migrated and service in ("", "all"):
        from cds_service.schema import migrate
        from dermoscopy.database import create_database_engine

        engine = create_database_engine(settings.resolved_database_url)
        migrate(engine)
        engine.dispose()
    return settings
