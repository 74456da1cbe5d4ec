"""A fresh PostgreSQL database per test, in a cluster that can crash."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from tests.peers.postgres import Postgres

pytestmark = pytest.mark.peers


def test_fresh_database_each_time(postgres_cluster: Postgres) -> None:
    with postgres_cluster.database() as first, postgres_cluster.database() as second:
        assert first != second
        engine = sa.create_engine(first)
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE t (n int)"))
            assert connection.execute(sa.text("SHOW fsync")).scalar() == "on"
        engine.dispose()
        engine = sa.create_engine(second)
        assert not sa.inspect(engine).has_table("t")
        engine.dispose()


def test_committed_rows_survive_a_crash(postgres_cluster: Postgres) -> None:
    with postgres_cluster.database() as url:
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE t (n int)"))
            connection.execute(sa.text("INSERT INTO t VALUES (7)"))
        engine.dispose()
        postgres_cluster.stop("immediate")
        postgres_cluster.start()
        with engine.begin() as connection:
            assert connection.execute(sa.text("SELECT n FROM t")).scalar() == 7
        engine.dispose()
