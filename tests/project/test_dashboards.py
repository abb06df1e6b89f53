"""Grafana's dashboards and data sources, as far as no Grafana is needed."""

import re
from typing import Any

import pytest

from tests.dashboards import VARIABLES, boards
from tests.process import ROOT

SOURCES = ROOT / "docker/grafana/provisioning/datasources"
BUILT_IN = {"__rate_interval", "__auto", "__url_time_range"}


def found(node: Any, key: str) -> list[Any]:
    """The values of a key, at any depth."""
    if isinstance(node, list):
        return [value for one in node for value in found(one, key)]
    if isinstance(node, dict):
        here = [node[key]] if key in node else []
        return here + [value for one in node.values() for value in found(one, key)]
    return []


@pytest.mark.parametrize("name", boards())
def test_dashboard_is_found_by_the_name_of_its_file(name: str):
    board = boards()[name]
    ids = [panel["id"] for panel in board["panels"]]

    assert board["uid"] == name
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", boards())
def test_data_sources_of_panels_variables_and_annotations_are_provisioned(name: str):
    texts = [path.read_text() for path in SOURCES.glob("*.yml")]
    provisioned = {uid for text in texts for uid in re.findall(r"^    uid: (\w+)", text, re.M)}

    used = {source["uid"] for source in found(boards()[name], "datasource")}

    assert used
    assert used <= provisioned


@pytest.mark.parametrize("name", boards())
def test_variables_and_links_lead_somewhere(name: str):
    board = boards()[name]
    has = {variable["name"] for variable in board["templating"]["list"]}
    texts = [*found(board, "expr"), *found(board, "url")]

    uses = {word for text in texts for word in re.findall(r"\$\{?(\w+)", text)}
    targets = {text.removeprefix("/d/").partition("?")[0] for text in found(board, "url")}

    assert uses - BUILT_IN <= has
    assert has <= uses
    assert targets <= boards().keys()


@pytest.mark.parametrize("name", boards())
def test_panels_do_not_overlap(name: str):
    taken = [
        (x, y)
        for place in found(boards()[name]["panels"], "gridPos")
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24


@pytest.mark.parametrize("name", boards())
def test_deployments_and_alerts_are_marked(name: str):
    marks = {mark["name"]: mark["expr"] for mark in boards()[name]["annotations"]["list"]}

    assert "app_build_info" in marks["Deployments"]
    assert "ALERTS" in marks["Alerts"]


def test_tests_know_each_variable_of_a_query():
    exprs = [text for board in boards().values() for text in found(board["panels"], "expr")]
    prometheus = [text for text in exprs if "|=" not in text]

    used = {name for text in prometheus for name in re.findall(r"\$\w+", text)}

    assert used == VARIABLES.keys()
