"""The benchmarks count what they see, and write what readers of docs/performance.md find."""

import asyncio
import json
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import pytest

from app.sample.goodbooks import GoodRow, read_goodbooks
from benchmarks import overload
from benchmarks.client import request_for
from benchmarks.comparison import chart, generated, pages
from benchmarks.comparison.measure import Plan, Sample, sample_of
from benchmarks.comparison.publish import COSTS, MARKER, RATES
from benchmarks.comparison.results import machine, summary_of, write
from benchmarks.comparison.routes import DESIGNS, routes
from benchmarks.comparison.stage import Book
from benchmarks.growth import catalogue, lines
from benchmarks.growth.__main__ import PARTS
from benchmarks.growth.cost import Cost
from benchmarks.growth.report import report_of
from benchmarks.scaling.model import Resource, closed
from benchmarks.scaling.sizing import Demand, size_for
from benchmarks.service import Service
from tests.process import ROOT, free_port

CLIENTS = 4
EACH = 3  # requests of a connection before it is closed


async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for _ in range(EACH):
        try:
            await reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError):
            break
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    writer.close()


async def test_overload_counts_connections_that_the_service_closes():
    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    seen = await overload.send(Service(url, 0), overload.AT_ONCE, 0.5, CLIENTS)
    server.close()

    assert (len(seen.accepted), seen.broken) == (CLIENTS * EACH, CLIENTS)
    assert f"{CLIENTS} connections closed or refused" in str(seen)


async def test_overload_counts_connections_that_are_refused():
    service = Service(f"http://127.0.0.1:{free_port()}", 0)

    seen = await overload.send(service, overload.AT_ONCE, 0.01, CLIENTS)

    assert (seen.accepted, seen.broken) == ([], CLIENTS)


async def test_load_ends_with_the_last_response_and_knows_how_long_each_took():
    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    tally = await request_for(url, iter(["/"] * EACH), 60, clients=1)
    server.close()
    sample = sample_of(tally, elapsed=2, spent=0.003)

    assert len(tally.latencies) == tally.responses[200] == EACH
    assert sample.rate == EACH / 2
    assert sample.cpu == pytest.approx(1000)


async def test_other_statuses_and_broken_connections_are_errors():
    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    tally = await request_for(url, iter(["/"] * EACH), 60, clients=1)
    server.close()
    tally.responses.update({500: 2})
    tally.broken = 1

    summary = summary_of([sample_of(tally, 1, 1), sample_of(tally, 1, 1)])

    assert (summary.errors, summary.rounds) == (6, 2)


def test_generated_catalogue_is_one_that_can_be_imported(tmp_path: Path):
    rows = read_goodbooks(generated.write(tmp_path / "books.csv", 300))
    again = read_goodbooks(generated.write(tmp_path / "again.csv", 300))

    assert rows == again
    assert [type(row) for row in rows] == [GoodRow] * 300
    assert len({row.book.title for row in rows if isinstance(row, GoodRow)}) > 290


def test_every_design_has_a_page_of_the_same_books():
    books = [Book(id * 2, f"Silver Harbour {id}") for id in range(1, 1001)]

    pages = {route.name: route.paths for route in routes(books)}["page of 20"]

    assert {design: next(paths) for design, paths in pages.items()} == {
        "limit": "/v1/books?limit=20&after=2",
        "before": "/v1/books?limit=20&offset=1",
        "literature": "/v1/books?limit=20&after=2",
        "ours": "/v1/books?limit=20&after=WyJpZCIsMl0",
    }


def test_charts_are_drawings_for_light_and_dark(tmp_path: Path):
    values = {"a route": {"before": 3.5, "ours": 1200.0}, "another": {"ours": 70.0}}

    chart.write(tmp_path, "rates", "Responses < per second", values, DESIGNS)

    for theme in ("light", "dark"):
        text = (tmp_path / f"rates-{theme}.svg").read_text()
        assert len(ElementTree.fromstring(text).findall(".//{*}rect")) == 3 + 2  # and the legend
        assert "1,200" in text


def test_line_charts_have_the_points_of_each_line(tmp_path: Path):
    points = {10_000.0: 400.0, 1_000_000.0: 520.5}
    chart = lines.Chart("books", "CPU & time", "books", {"first": points, "last": points})
    linear = lines.Chart("memory", "MiB", "requests", {"a": {0: 55.5, 1e6: 56}}, logarithmic=False)

    for each in (chart, linear):
        lines.write(tmp_path, each)

    for theme in ("light", "dark"):
        drawn = ElementTree.fromstring((tmp_path / f"growth-books-{theme}.svg").read_text())
        assert len(drawn.findall(".//{*}polyline")) == 2
        assert len(drawn.findall(".//{*}circle")) == 4
        assert {"first", "last", "books"} <= {text.text for text in drawn.findall(".//{*}text")}
        assert (tmp_path / f"growth-memory-{theme}.svg").exists()


def test_growth_is_shown_beside_that_of_a_logarithm():
    costs = {"a page": {1e4: Cost(1.5, 300, 100, 21), 1e6: Cost(20.4, 300, 500, 21, errors=2)}}

    report = report_of("pages", "Pages", "books", costs, [])

    assert report.head[0] == "10,000 → 1 M books"
    assert report.head[-1] == "CPU, times (a logarithm: 1.5)"
    assert report.rows == [["a page", "1.50 → 20", "300 → 300", "100 → 500", "21 → 21", "2.00"]]
    assert report.notes == ("2 responses were errors.",)


def test_growing_catalogue_has_its_rare_word_and_its_prolific_authors():
    books = 10_000
    names = [f"Author {number}" for number in range(1, 20_001)]
    names += [f"Prolific {count}" for count in catalogue.prolific(books).values()]
    rows = [*catalogue.rows(books, names)]

    for id, count in catalogue.prolific(books).items():
        assert sum(names[id - 1] in row["authors"] for row in rows) == count
    for word, count in ((catalogue.RARE, 5), (catalogue.COMMON[0], books)):
        assert sum(f"{word}__" in row["words"].split() for row in rows) == count


def test_tables_replace_what_is_between_two_lines(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("Before\n<!-- it: begin -->\nold\n<!-- it: end -->\nAfter\n")
    table = pages.table(["a", "b"], [["1", "2"]])

    pages.replace(page, "it", "Text", table)

    assert table == "| a | b |\n| --- | ---: |\n| 1 | 2 |"
    assert page.read_text() == (
        f"Before\n<!-- it: begin -->\n\nText\n\n{table}\n\n<!-- it: end -->\nAfter\n"
    )
    with pytest.raises(SystemExit):
        pages.replace(page, "another", "")


@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("docs/performance.md", MARKER),
        ("docs/performance.md", "make bench-parts"),
        *(("docs/performance.md", f"make bench-growth {part}") for part in PARTS),
        ("README.md", MARKER),
    ],
)
def test_pages_have_the_lines_between_which_figures_stand(page: str, name: str):
    text = (ROOT / page).read_text("utf-8")

    assert text.index(f"<!-- {name}: begin -->") < text.index(f"<!-- {name}: end -->")


def test_pictures_that_are_shown_exist():
    """They are there with the first figures."""
    for page in ("README.md", "docs/performance.md"):
        folder = "docs/images" if page == "README.md" else "images"
        text = (ROOT / page).read_text("utf-8")
        for name in (RATES[0], COSTS[0], *(f"growth-{part}" for part in PARTS)):
            if f"{folder}/{name}-light.svg" in text:
                assert (ROOT / page).parent.joinpath(folder, f"{name}-dark.svg").exists()


def test_results_have_the_exact_versions_and_rounded_figures(tmp_path: Path):
    path = tmp_path / "results.json"

    write(path, {("health", "ours"): summary_of([Sample(1.23456, 1, 1, 1, 1, 0)])}, {}, Plan(), {})
    document = json.loads(path.read_text())

    assert document["versions"]["fastapi"] == version("fastapi")
    assert document["results"]["health"]["ours"]["rate"]["median"] == 1.23
    assert str(ROOT) not in path.read_text()


def test_machine_is_described_without_its_name():
    assert machine().keys() == {"cpu", "cpus", "memory_gib", "kernel", "python"}


@pytest.mark.parametrize("clients", [1, 2, 10, 64])
def test_model_of_two_equal_queues_is_the_known_one(clients: int):
    """N / (N + 1) of what one of them can do (Denning and Buzen, 1978)."""
    point = closed([Resource(0.002), Resource(0.002)], clients)

    assert point.rate == pytest.approx(clients / (clients + 1) / 0.002)
    assert point.rate * point.response == pytest.approx(clients)  # Little's law


def test_model_is_bounded_by_the_busiest_resource():
    alone = closed([Resource(0.004, servers=2), Resource(0.001)], 1)
    crowded = closed([Resource(0.004, servers=2), Resource(0.001)], 200)

    assert alone.response == pytest.approx(0.005)
    assert crowded.rate == pytest.approx(500, rel=0.01)


def test_sizes_leave_two_fifths_of_each_cpu():
    size = size_for(10_000, Demand(worker=0.0003, mariadb=0.00003, valkey=0, size=300), held=0.001)

    assert (size.workers, size.mariadb, size.valkey, size.busy) == (5, 1, 0, 10)
    assert size.network == pytest.approx(0.08)
