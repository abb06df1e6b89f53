"""The queries of Grafana's dashboards, as Prometheus gets them."""

import json
from typing import Any

from tests.process import ROOT

FOLDER = ROOT / "docker/grafana/dashboards"
# What Grafana replaces: `All` of a variable, and the rest by the time that is shown.
VARIABLES = {
    "$__rate_interval": "15s",
    "$instance": ".*",
    "$route": ".*",
    "$server": "valkey|queue",
    "$window": "1d",
}


def boards() -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def filled(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def queries(*names: str) -> dict[str, str]:
    """Those of all panels of these dashboards, by what they are."""
    return {
        f"{name}: {panel['title']} {target['refId']}": filled(target["expr"])
        for name in names
        for panel in boards()[name]["panels"]
        for target in panel["targets"]
    }
