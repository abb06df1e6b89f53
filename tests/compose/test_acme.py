"""A certificate by ACME: the first one, its renewal, and what may go wrong in between."""

import asyncio
import json
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress

import httpx2 as httpx
import pytest
from cryptography import x509

from tests.compose.images import debian, have, named
from tests.compose.stack import PRODUCTION, Finished, Stack, free_subnet, stack, wait_until
from tests.compose.subject import PATH
from tests.compose.test_operations import failures
from tests.load import load
from tests.process import free_port

FILES = [
    *PRODUCTION,
    *("-f", "tests/compose/edge/compose.yml"),
    *("-f", "tests/compose/acme/compose.yml"),
]
NAMES = {"service.test", "www.service.test"}
LIVE = "/var/tmp/certbot/https-pebble-14000-dir"
ONCE = "python3 /etc/acme/certificate.py once"
PEBBLE = {
    "listenAddress": "0.0.0.0:14000",
    "managementListenAddress": "0.0.0.0:15000",
    "certificate": "/pebble/server.pem",
    "privateKey": "/pebble/server.key",
    "httpPort": 8080,
    "tlsPort": 8443,
}


@pytest.fixture(scope="module")
def acme(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """nginx, which waits for a certificate, and an ACME server."""
    with stack(tmp_path_factory.mktemp("acme"), "test-acme", FILES) as made:
        have(made, "certbot/certbot", debian("certbot", entrypoint="certbot"))
        exporter = debian("prometheus-blackbox-exporter", entrypoint="prometheus-blackbox-exporter")
        have(made, "prom/blackbox-exporter", exporter)
        made.variables |= {
            "DOMAIN": "www.Service.test, service.test",
            "ACME_SERVER": "https://pebble:14000/dir",
            "COMPOSE_PROFILES": "https",
            "PEBBLE_PORT": str(free_port()),
            "EDGE_SUBNET": free_subnet(),
            "NGINX_IMAGE": named(made, "nginx"),
        }
        for name in ("HTTP", "HTTPS", "SILENT"):
            made.variables[f"FRONT_{name}_PORT"] = str(free_port())
        del made.variables["PLAIN_HTTP"]
        folder = made.folder / "pebble"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"pebble": PEBBLE}))
        command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=pebble"
        command += " -addext subjectAltName=DNS:pebble"
        command += f" -keyout {folder}/server.key -out {folder}/server.pem"
        subprocess.run(command.split(), check=True, capture_output=True)
        for file in (folder / "server.key", folder):
            file.chmod(0o755)
        made.compose("up", "--detach", "--wait", "nginx", "pebble")
        yield made


def up(acme: Stack) -> None:
    acme.compose("up", "--detach", "--wait", "--no-deps", "acme")
    wait_until(lambda: served(acme) is not None, "a certificate")


def once(acme: Stack, *options: str) -> Finished:
    return acme.inside("acme", " ".join([ONCE, *options]))


def one_off(acme: Stack, *command: str, **variables: str) -> Finished:
    """Another container with the settings and the volume of `acme`."""
    run = ("docker", "compose", *acme.files, "run", "--rm", "--no-deps", "-T")
    return acme.run(*run, *command, **variables)


def served(acme: Stack) -> x509.Certificate | None:
    address = ("127.0.0.1", int(acme.variables["HTTPS_PORT"]))
    with suppress(OSError):
        return x509.load_pem_x509_certificate(ssl.get_server_certificate(address).encode())
    return None


def serves_another(acme: Stack, before: x509.Certificate | None) -> None:
    wait_until(lambda: served(acme) not in (None, before), "the new certificate")


def responses(acme: Stack) -> str:
    """What is counted by docker/mtail, as nginx writes it within a second."""
    return acme.inside("nginx", "cat /run/responses/log").stdout


def issue_count(acme: Stack) -> int:
    """How often the server was asked."""
    [container] = acme.containers("pebble")
    log = acme.run("docker", "logs", container)
    return (log.stdout + log.stderr).count("new-order")


def test_machine_without_a_certificate_gets_one_and_serves_https(acme: Stack):
    with acme.client(Host="service.test") as client:
        waiting, probe = client.get(PATH), client.get("/health")
    wait_until(lambda: "503" in responses(acme), "its line for the exporter")
    counted = responses(acme)
    up(acme)
    root = httpx.get(f"https://127.0.0.1:{acme.variables['PEBBLE_PORT']}/roots/0", verify=False)
    context = ssl.create_default_context(cadata=root.text)
    context.set_alpn_protocols(["h2"])
    address = ("127.0.0.1", int(acme.variables["HTTPS_PORT"]))
    with (
        socket.create_connection(address, 10) as plain,
        context.wrap_socket(plain, server_hostname="www.service.test") as secure,
    ):
        protocol = secure.selected_alpn_protocol()
    with https(acme) as client:
        response = client.get(PATH)
        other = client.get(PATH, headers={"Host": "elsewhere.test"})
    with acme.client(Host="service.test") as client:
        redirect = client.get(f"{PATH}?limit=1")
        challenge = client.get("/.well-known/acme-challenge/none")

    assert (waiting.status_code, waiting.json()["title"]) == (503, "Service Unavailable")
    assert waiting.headers["Retry-After"] == "5"
    assert re.search(r"(?m)^503 edge ", counted)  # clients get no response, so it burns the budget
    assert "200 service" not in counted
    assert probe.status_code == 200
    assert protocol == "h2"
    assert response.status_code == 200
    assert "Strict-Transport-Security" in response.headers
    assert other.status_code == 421
    port = acme.variables["HTTPS_PORT"]
    assert redirect.status_code == 308
    assert redirect.headers["Location"] == f"https://service.test:{port}{PATH}?limit=1"
    assert challenge.status_code == 404
    certificate = served(acme)
    assert certificate is not None
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {*names.get_values_for_type(x509.DNSName)} == NAMES


def test_expiry_of_the_certificate_is_probed_where_only_its_names_are_served(acme: Stack):
    """The probe connects by another name, that of nginx's container."""
    acme.compose("up", "--detach", "--wait", "--no-deps", "blackbox-exporter")
    [jobs] = re.findall(
        r"job_name: certificate\n(?:.*\n)*?.*params: {module: \[(\w+)\], target: \[\"(.*)\"\]}",
        (acme.folder / "docker" / "prometheus" / "compose.yml").read_text(),
    )
    url = "http://blackbox-exporter:9115/probe?module={}&target={}".format(*jobs)
    metrics = acme.inside("nginx", f"wget -q -O - '{url}'").stdout
    acme.compose("rm", "--stop", "--force", "blackbox-exporter")

    certificate = served(acme)
    assert certificate is not None
    [expiry] = re.findall(r"(?m)^probe_ssl_earliest_cert_expiry (\S+)$", metrics)
    assert float(expiry) == certificate.not_valid_after_utc.timestamp()


def https(acme: Stack) -> httpx.Client:
    url = f"https://127.0.0.1:{acme.variables['HTTPS_PORT']}"
    return httpx.Client(base_url=url, headers={"Host": "service.test"}, verify=False, timeout=20)


def test_certificate_that_is_not_due_is_not_asked_for(acme: Stack):
    before, count = served(acme), issue_count(acme)
    finished = once(acme)

    assert finished.returncode == 0, finished.stdout
    assert (served(acme), issue_count(acme)) == (before, count)


async def test_renewed_certificate_is_taken_without_a_failed_request(acme: Stack):
    before = served(acme)
    [nginx] = acme.containers("nginx")
    started = acme.inspect(nginx)["State"]["StartedAt"]
    url = f"https://127.0.0.1:{acme.variables['HTTPS_PORT']}"
    async with load(url, PATH, 4, headers={"Host": "service.test"}, verify=False) as seen:
        await seen.until(20)
        finished = await asyncio.to_thread(once, acme, "--force-renewal")
        await asyncio.to_thread(serves_another, acme, before)
        await seen.until(100)
    reloaded = acme.inside("nginx", "sh /etc/edge/start.sh reload")

    assert finished.returncode == 0, finished.stdout
    assert seen.responses.keys() == {200}, seen.errors
    assert (seen.refused, failures(acme, seen)) == (0, [])
    assert acme.inspect(nginx)["State"]["StartedAt"] == started
    assert "nginx: has this configuration already" in reloaded.stdout, reloaded.stderr


def test_edit_of_a_file_is_not_taken_with_a_certificate(acme: Stack):
    before = served(acme)
    file = acme.folder / "docker" / "nginx" / "service.conf"
    text = file.read_text()
    file.write_text(text.replace("nosniff", 'half "'))
    try:
        finished = once(acme, "--force-renewal")
        serves_another(acme, before)
    finally:
        file.write_text(text)

    assert finished.returncode == 0, finished.stdout
    with https(acme) as client:
        assert client.get(PATH).headers["X-Content-Type-Options"] == "nosniff"


def test_name_that_leads_elsewhere_is_named_and_the_old_certificate_serves(acme: Stack):
    before = served(acme)
    refused = one_off(acme, "acme", "once", DOMAIN="service.test,elsewhere.test")
    once(acme)  # the settings of before again

    assert refused.returncode != 0
    assert "elsewhere.test" in refused.stdout
    assert "next step: let the DNS records" in refused.stdout
    assert "the one that is served is valid until" in refused.stdout
    assert served(acme) == before


def test_client_that_is_killed_in_the_middle_goes_on_when_it_is_started(acme: Stack):
    before = served(acme)
    [container] = acme.containers("acme")
    # From within: a challenge is there for less time than a command from outside takes.
    asking = "ls /var/tmp/challenges/.well-known/acme-challenge | grep -q ."
    kill = f"{ONCE} --force-renewal & until {asking}; do sleep 0.05; done; kill -9 -1"
    killed = acme.run("docker", "exec", container, "timeout", "60", "sh", "-c", kill)
    acme.done("docker", "kill", container)
    during = served(acme)
    # What a machine that went down may leave besides.
    half = f": >{LIVE}/renewal/certificate.conf; rm {LIVE}/live/certificate/cert.pem"
    one_off(acme, "--entrypoint", "sh", "acme", "-c", half)
    up(acme)
    finished = once(acme)
    serves_another(acme, before)

    assert killed.returncode == 137, killed.stdout  # with all the others
    assert during == before
    assert finished.returncode == 0, finished.stdout


def test_pair_that_does_not_fit_is_not_taken(acme: Stack):
    before = served(acme)
    key = f"{LIVE}/live/certificate/privkey.pem"
    wrong = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"
    key_text = subprocess.run(wrong.split(), check=True, capture_output=True, text=True).stdout
    kept = acme.inside("acme", f"cat {key}").stdout
    acme.inside("acme", f"cat >{key} <<'END'\n{key_text}\nEND")
    try:
        finished = once(acme)
    finally:
        acme.inside("acme", f"cat >{key} <<'END'\n{kept}END")

    assert finished.returncode != 0
    assert "the key belongs to another certificate" in finished.stdout
    assert served(acme) == before
    assert once(acme).returncode == 0


def test_full_disk_is_named_before_a_certificate_is_made(acme: Stack):
    volume = f"{acme.project}-full"
    label = f"--label=com.docker.compose.project={acme.project}"
    small = ("--opt=type=tmpfs", "--opt=device=tmpfs", "--opt=o=size=512k,mode=1777")
    acme.done("docker", "volume", "create", label, *small, volume)
    count = issue_count(acme)
    finished = one_off(acme, "--volume", f"{volume}:/var/tmp", "acme", "once")

    assert finished.returncode != 0
    assert "No space left" in finished.stdout
    assert "next step: make room" in finished.stdout
    assert issue_count(acme) == count


def test_server_that_is_away_is_not_asked_again_for_hours(acme: Stack):
    before = served(acme)
    acme.compose("stop", "pebble")
    failed = once(acme, "--force-renewal")
    acme.compose("restart", "acme")  # which asks nobody before it is time
    state = json.loads(acme.inside("acme", "cat /var/tmp/next.json").stdout)
    wait_until(lambda: acme.inside("acme", "test -e /tmp/healthy").returncode == 0, "health")
    later = json.loads(acme.inside("acme", "cat /var/tmp/next.json").stdout)
    during = served(acme)
    acme.compose("start", "pebble")
    # It has forgotten all accounts, as a staging server does now and then.
    again = [once(acme, "--force-renewal") for _ in range(2)][-1]

    assert failed.returncode != 0
    assert "next step: see that this machine reaches https://pebble:14000/dir" in failed.stdout
    assert "the one that is served is valid until" in failed.stdout
    assert "exec acme python3 /etc/acme/certificate.py once" in failed.stdout
    assert state == later
    assert (state["failures"], state["at"] > time.time() + 1800) == (1, True)
    assert during == before
    assert again.returncode == 0, again.stdout


@pytest.mark.parametrize(
    ("domain", "said"),
    [
        ("*.service.test", "DOMAIN has '*.service.test'"),
        ("https://service.test", "DOMAIN has 'https://service.test'"),
        ("localhost", "DOMAIN has 'localhost'"),
    ],
)
def test_wrong_domain_is_named_by_both(acme: Stack, domain: str, said: str):
    checks = [
        one_off(acme, "nginx", "check", DOMAIN=domain, ALLOWED_HOSTS="service.test"),
        one_off(acme, "acme", "once", DOMAIN=domain),
    ]

    for finished in checks:
        assert finished.returncode != 0
        assert said in finished.stderr
        assert ".env" in finished.stderr
