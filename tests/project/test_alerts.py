"""The configuration of Prometheus and Grafana, as far as no server is needed."""

import re
import subprocess

import pytest

from chassis.resources import declare_metrics
from tests.compose.alerting import BY_HAND
from tests.process import ROOT
from tests.prometheus import CONFIG, program

ALERTS = ["alerts.yml", "stack.yml"]
CHECKS = [["check", "config", config] for config in ("prometheus.yml", "compose.yml")]
TESTS = sorted(path.name for path in CONFIG.glob("*_test.yml"))
ROUTES = ROOT / "docker" / "alertmanager" / "alertmanager.yml"


@pytest.mark.parametrize("command", [*CHECKS, *(["test", "rules", name] for name in TESTS)])
def test_promtool_accepts_configuration_and_alerts(command: list[str]):
    subprocess.run([program("promtool"), *command], cwd=CONFIG, check=True)


def test_every_alert_is_tested_and_has_a_runbook():
    alerts = "".join((CONFIG / name).read_text() for name in ALERTS)
    tests = "".join((CONFIG / name).read_text() for name in TESTS)
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs/runbooks.md").read_text(), re.MULTILINE)

    names = re.findall(r"alert: (\w+)", alerts)
    links = re.findall(r"runbook_url: docs/runbooks.md#(\w+)", alerts)

    assert sorted(names) == sorted(headings)
    assert links == [name.lower() for name in names]
    assert set(re.findall(r"alertname: (\w+)\n", tests)) == set(names)


def test_every_alert_is_caused_in_a_running_stack_or_was_by_hand():
    alerts = "".join((CONFIG / name).read_text() for name in ALERTS)
    paths = (ROOT / "tests" / "compose").glob("test_alerts*.py")
    caused = set(re.findall(r'"(\w+)"', "".join(path.read_text() for path in paths)))

    names = set(re.findall(r"alert: (\w+)", alerts))

    assert names - caused == BY_HAND.keys()


def test_alerts_name_dashboards_that_exist():
    alerts = "".join((CONFIG / name).read_text() for name in ALERTS)
    named = set(re.findall("dashboard: (.*)", alerts))
    dashboards = (ROOT / "docker" / "grafana" / "dashboards").glob("*.json")

    assert named
    assert named <= {f"/d/{path.stem}" for path in dashboards}


def test_every_alert_goes_to_the_receiver_of_its_severity():
    alerts = "".join((CONFIG / name).read_text() for name in ALERTS)
    receivers = {"page": "pages", "ticket": "tickets", "none": "watchdog"}
    severities = dict(re.findall(r"alert: (\w+)(?:.|\n)*?severity: (\w+)", alerts))

    routed = {name: route(alertname=name, severity=severities[name]) for name in severities}

    assert len(routed) == alerts.count("- alert: ")
    assert routed == {name: receivers[severity] for name, severity in severities.items()}
    assert route(alertname="Another", severity="unheard of") == "tickets"


def test_inhibition_names_alerts_that_exist():
    alerts = "".join((CONFIG / name).read_text() for name in ALERTS)
    names = re.findall(r"alert: (\w+)", alerts)
    patterns = "|".join(re.findall(r'alertname=~?"([^"]+)"', ROUTES.read_text()))

    for pattern in patterns.split("|"):
        assert any(re.fullmatch(pattern, name) for name in names), pattern


def test_every_job_is_missed_when_it_is_gone():
    jobs = set(re.findall(r"job_name: (\w+)", (CONFIG / "compose.yml").read_text()))
    [expression] = re.findall(r"alert: ExporterDown\n +expr: >((?:.|\n)*?)for:", stack_alerts())

    absent = set(re.findall(r'absent\(up{job="(\w+)"}\)', expression))

    assert absent == jobs - {"api", "jobs"}  # ServiceDown and JobsStandStill


def stack_alerts() -> str:
    return (CONFIG / "stack.yml").read_text()


def route(**labels: str) -> str:
    command = [program("amtool"), "config", "routes", "test", f"--config.file={ROUTES}"]
    command += [f"{name}={value}" for name, value in labels.items()]
    return subprocess.check_output(command, text=True).strip()


# Prometheus' own, of exporters, and of backups.
OF_OTHERS = re.compile("up$|(mysql|redis|nginx|node|alertmanager|edge|backup|probe)_|vector$")


def test_rules_alerts_and_panels_name_metrics_that_exist():
    families = {family.name for family in declare_metrics().registry.collect()}
    texts = [path.read_text() for path in CONFIG.glob("*.yml")]
    texts += [path.read_text() for path in (ROOT / "docker/grafana/dashboards").glob("*.json")]

    # A metric stands before its labels; what a rule has recorded has colons in its name.
    named = {name for text in texts for name in re.findall(r"(?<![\w:])([a-z_]+)\{", text)}
    ours = {name for name in named if not OF_OTHERS.match(name)}
    used = {re.sub("_(bucket|count|sum|total)$", "", name) for name in ours}

    assert len(used) > 10
    assert used <= families
