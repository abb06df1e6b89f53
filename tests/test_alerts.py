"""The configuration of Prometheus and Grafana, as far as no server is needed."""

import json
import re
import subprocess

import pytest

from app.metrics import Metrics
from tests.process import ROOT
from tests.prometheus import CONFIG, program


@pytest.mark.parametrize(
    "command", [["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]]
)
def test_promtool_accepts_configuration_and_alerts(command: list[str]):
    subprocess.run([program("promtool"), *command], cwd=CONFIG, check=True)


def test_every_alert_is_tested_and_has_a_runbook():
    alerts = (CONFIG / "alerts.yml").read_text()
    tests = (CONFIG / "alerts_test.yml").read_text()
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs/runbooks.md").read_text(), re.MULTILINE)

    names = re.findall(r"alert: (\w+)", alerts)
    links = re.findall(r"runbook_url: docs/runbooks.md#(\w+)", alerts)

    assert names == headings
    assert links == [name.lower() for name in names]
    assert set(re.findall(r"alertname: (\w+)\n", tests)) == set(names)


OF_OTHERS = {"up", "mysql_up", "redis_up"}  # Prometheus' own, and of exporters


def test_rules_alerts_and_panels_name_metrics_that_exist():
    families = {family.name for family in Metrics().registry.collect()}
    texts = [path.read_text() for path in CONFIG.glob("*.yml")]
    texts += [path.read_text() for path in (ROOT / "docker/grafana/dashboards").glob("*.json")]

    # A metric stands before its labels; what a rule has recorded has colons in its name.
    named = {name for text in texts for name in re.findall(r"(?<![\w:])([a-z_]+)\{", text)}
    used = {re.sub("_(bucket|count|sum|total)$", "", name) for name in named - OF_OTHERS}

    assert len(used) > 10
    assert used <= families


def test_dashboards_use_the_data_source_that_is_provisioned():
    grafana = ROOT / "docker" / "grafana"
    source = (grafana / "provisioning/datasources/prometheus.yml").read_text()
    [uid] = re.findall(r"uid: (\w+)", source)

    boards = [json.loads(path.read_text()) for path in (grafana / "dashboards").glob("*.json")]

    assert len({board["uid"] for board in boards}) == len(boards) > 0
    panels = [panel for board in boards for panel in board["panels"]]
    assert {panel["datasource"]["uid"] for panel in panels} == {uid}
