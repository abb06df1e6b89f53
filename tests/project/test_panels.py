"""Each panel about the servers shows data, by real exporters."""

import math
from collections.abc import Iterator

import pytest
from sqlalchemy import make_url

from chassis.development.private_servers import embedded_valkey, private_mariadb
from tests.dashboards import queries
from tests.exporters import scraping_exporters
from tests.process import ROOT
from tests.prometheus import Prometheus

pytestmark = pytest.mark.drill


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("exporters")
    with (
        private_mariadb(folder / "mariadb", ROOT / "var") as mariadb,
        embedded_valkey(folder / "valkey") as valkey,
        scraping_exporters(make_url(mariadb.url), valkey.url, folder) as prometheus,
    ):
        yield prometheus


@pytest.mark.parametrize("name", ["edge", "host", "mariadb", "slo", "valkey"])
def test_panels_show_data(scraped: Prometheus, name: str):
    empty = [
        panel
        for panel, expression in queries(name).items()
        if all(math.isnan(float(one["value"][1])) for one in scraped.query(expression))
    ]

    assert empty == []
