"""What is published, what is not, and what each container may do."""

import asyncio  # sample
import json
import re
import socket
import ssl
import subprocess
import time
from collections import Counter  # sample
from pathlib import Path

import httpx2 as httpx
import pytest

from app.about import NAME
from tests.app.images import PNG, image, noise, opened  # sample
from tests.compose.stack import Stack, wait_until
from tests.compose.subject import (
    PATH,
    RANKING,  # sample
    change,
)

SERVICES = ("nginx", "api", "worker", "mariadb", "valkey", "queue")


def test_nginx_answers_with_what_the_service_says(production: Stack):
    with production.client() as client:
        response = client.get(PATH)
        headers = response.headers

    assert response.status_code == 200
    assert len(response.json()["items"]) == 20
    assert headers["Cache-Control"] == "public, no-cache"
    assert headers["RateLimit-Policy"].startswith('"reads"')
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers.get_list("X-Request-ID") == [headers["X-Request-ID"]]


def test_headers_for_browsers_are_sent_once(production: Stack):
    with production.client(Origin="https://app.example") as client:
        responses = [client.get(PATH), client.get(f"{PATH}/0"), client.get("/nowhere")]
        preflight = client.options(PATH, headers={"Access-Control-Request-Method": "POST"})
    with production.client(Origin="https://evil.example") as client:
        other = client.get(PATH)

    for response in (*responses, preflight):
        headers = response.headers
        assert headers.get_list("Access-Control-Allow-Origin") == ["https://app.example"]
        assert headers.get_list("Cross-Origin-Resource-Policy") == ["cross-origin"]
        assert headers.get_list("Referrer-Policy") == ["no-referrer"]
        assert len(headers.get_list("Content-Security-Policy")) == 1
        assert "ETag" in headers["Access-Control-Expose-Headers"]
    assert [each.status_code for each in responses] == [200, 422, 404]
    assert preflight.status_code == 204
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert "Access-Control-Allow-Origin" not in other.headers
    assert "Origin" in other.headers["Vary"]


def test_large_answers_are_compressed_and_still_validated(production: Stack):
    with production.client() as client:
        response = client.get(f"{PATH}?limit=30")
        again = client.get(f"{PATH}?limit=30", headers={"If-None-Match": response.headers["ETag"]})

    assert response.headers["Content-Encoding"] == "gzip"
    assert response.headers["ETag"].startswith('W/"')
    assert (again.status_code, again.content) == (304, b"")


def test_etag_that_compression_made_weak_is_good_for_a_write(production: Stack):
    with production.editor() as client:
        path = client.get(f"{PATH}?limit=1").json()["items"][0]["id"]
        tag = client.get(f"{PATH}/{path}").headers["ETag"]
        weak = f"W/{tag.removeprefix('W/')}"
        edited = change("Edited")
        right = client.patch(f"{PATH}/{path}", json=edited, headers={"If-Match": weak})
        wrong = client.patch(f"{PATH}/{path}", json=edited, headers={"If-Match": weak})

    assert (right.status_code, wrong.status_code) == (200, 412)


# sample: begin
def test_only_answers_with_a_max_age_stay_at_the_edge(production: Stack):
    with production.client() as client:
        first, second = (client.get(f"{RANKING}?limit=7") for _ in range(2))
        asked = client.get(f"{RANKING}?limit=7", headers={"Cache-Control": "no-cache"})
        tag = {"If-None-Match": second.headers["ETag"]}
        unchanged = client.get(f"{RANKING}?limit=7", headers=tag)
        unstored = client.get(f"{RANKING}?limit=8", headers={"If-None-Match": "*"})
        others = client.get(f"{RANKING}?limit=8")
        plain = [client.get(f"{PATH}?limit=7") for _ in range(2)]

    assert [a.headers["X-Edge-Cache"] for a in (first, second, asked)] == ["MISS", "HIT", "BYPASS"]
    assert first.content == second.content
    assert "RateLimit" in first.headers
    assert "RateLimit" not in second.headers  # of whoever asked first
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]
    assert (unchanged.status_code, unstored.status_code) == (304, 304)
    assert (others.status_code, others.content) == (200, first.content)
    assert all("X-Edge-Cache" not in response.headers for response in plain)


async def test_many_who_want_the_same_at_the_edge_cause_one_fetch(production: Stack):
    async with httpx.AsyncClient(base_url=production.url, timeout=20) as client:
        responses = await asyncio.gather(*(client.get(f"{RANKING}?limit=9") for _ in range(30)))

    seen = Counter(response.headers["X-Edge-Cache"] for response in responses)
    assert seen == {"MISS": 1, "HIT": 29}


# sample: end


@pytest.mark.parametrize("path", ["/metrics", "/metrics/x", "/health/ready", "/nothing"])
def test_internals_are_closed(production: Stack, path: str):
    with production.client() as client:
        response = client.get(path, headers={"X-Request-ID": "mine"})

    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["request_id"] == response.headers["X-Request-ID"] == "mine"


def test_body_that_is_too_large_is_refused_before_the_service(production: Stack):
    with production.editor() as client:
        response = client.post(PATH, content=b"x" * 1_100_000)

    assert response.status_code == 413
    assert response.json()["title"] == "Content Too Large"


def test_client_cannot_forge_its_address(production: Stack):
    name = "forged-by-a-test"
    forged = {"X-Forwarded-For": "203.0.113.7", "X-Request-ID": name}
    with production.client() as client:
        client.get(PATH, headers=forged)

    def lines() -> list[str]:
        logs = [production.done("docker", "logs", c) for c in production.containers("api")]
        return [line for log in logs for line in log.splitlines() if name in line]

    wait_until(lambda: bool(lines()), "its line in the log")
    [client_address] = {json.loads(line)["client"] for line in lines()}
    assert client_address == gateway(production)


def gateway(production: Stack) -> str:
    """What this machine is to nginx."""
    networks = production.done("docker", "network", "inspect", f"{production.project}_edge")
    return str(json.loads(networks)[0]["IPAM"]["Config"][0]["Gateway"])


def test_clients_behind_a_trusted_proxy_have_logins_of_their_own(production: Stack):
    limits = {"LIMITS_LOGIN_RATE": "0.001", "LIMITS_LOGIN_BURST": "3"}
    trusted = {"TRUSTED_PROXIES": gateway(production)}
    production.compose("up", "--detach", "--wait", "--no-deps", "api", "nginx", **limits, **trusted)

    def log_in(address: str) -> int:
        form = {"grant_type": "password", "username": "nobody@example.com", "password": "a guess"}
        headers = {"X-Forwarded-For": address, "X-Forwarded-Proto": "https"}
        with production.client(**headers) as client:
            return client.post("/v1/tokens", data=form).status_code

    one = [log_in("203.0.113.1") for _ in range(4)]
    same = log_in("2001:db8::1"), log_in("2001:db8::2"), log_in("2001:db8:0:0:f::3")
    others = log_in("203.0.113.2"), log_in("2001:db8::4"), log_in("2001:db8:0:1::4")
    production.compose("up", "--detach", "--wait")

    assert one == [401, 401, 401, 429]
    assert same == (401, 401, 401)
    assert others == (401, 429, 401)


@pytest.mark.parametrize("path", ["/", "/health", "/health?probe=1"])
def test_head_is_for_load_balancers_what_get_is(production: Stack, path: str):
    with production.client() as client:
        head, got = client.head(path), client.get(path)

    assert head.status_code == got.status_code
    assert got.status_code == 200


@pytest.mark.parametrize("service", SERVICES)
def test_container_is_locked_in(production: Stack, service: str):
    container = production.containers(service)[0]
    status = production.inside(
        service, "id -u; grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status; touch /etc/x"
    )
    uid, *lines = status.stdout.splitlines()
    values = {line.partition(":")[0]: line.partition(":")[2] for line in lines}
    host = production.inspect(container)["HostConfig"]

    assert uid != "0"
    assert int(values["CapEff"], 16) == int(values["CapBnd"], 16) == 0
    assert values["NoNewPrivs"].strip() == "1"
    assert "Read-only file system" in status.stderr
    assert host["Memory"] > 0
    assert host["NanoCpus"] > 0
    assert host["PidsLimit"] > 0
    assert host["LogConfig"]["Config"]["max-size"] == "10m"
    assert host["RestartPolicy"]["Name"] == "unless-stopped"


def test_memory_limit_is_that_of_the_kernel(production: Stack):
    """The process that takes more is ended, and it alone."""
    eater = production.inside("api", "python -c 'x = b\"1\" * 2_000_000_000'")

    assert eater.returncode == 137
    production.ready()


def test_image_says_what_it_is(production: Stack):
    labels = production.inspect(production.containers("api")[0])["Config"]["Labels"]

    prefix = "org.opencontainers.image."
    assert labels[f"{prefix}title"] == NAME
    assert labels.keys() > {f"{prefix}version", f"{prefix}revision", f"{prefix}licenses"}


def test_image_has_no_compiler_and_no_cache_of_packages(production: Stack):
    tools = production.inside("api", "for each in gcc cc make g++ ld uv; do command -v $each; done")
    caches = production.inside("api", "find / -xdev -path '*pip/cache*' -o -xdev -name '*.whl'")
    compiled = production.inside("api", "find /srv/app -name 'main.*.pyc'")

    assert tools.stdout == ""
    assert not [path for path in caches.stdout.split() if "ensurepip" not in path]
    assert compiled.stdout.count("main.cpython") == 1


def test_image_is_small(production: Stack):
    """150 MB on top of the base image, whose last step sets the command."""
    image = f"{production.variables['IMAGE']}:latest"
    form = "{{.Size}} {{.CreatedBy}}"
    command = ("docker", "history", "--no-trunc", "--human=false", "--format", form, image)
    steps = production.done(*command).splitlines()
    of_base = next(number for number, step in enumerate(steps) if 'CMD ["python3"]' in step)

    assert sum(int(step.split()[0]) for step in steps[:of_base]) < 150_000_000


def test_image_has_no_pip_and_no_debug_symbols(production: Stack):
    pip = production.inside("api", "python -m pip; command -v pip")
    program = r"""
import pathlib
for file in pathlib.Path("/srv/.venv").rglob("*.so"):
    if b"\0.debug_info\0" in file.read_bytes():
        print(file)
"""
    symbols = production.inside("api", f"python -c '{program}'")

    assert pip.stdout == ""
    assert "No module named pip" in pip.stderr
    assert (symbols.returncode, symbols.stdout) == (0, "")


def test_all_that_a_worker_imports_is_compiled(production: Stack):
    """Nothing can be written beside the modules, so each process would compile it anew."""
    program = """
import os, sys
from app.main import create_app
create_app()
for module in list(sys.modules.values()):
    spec = getattr(module, "__spec__", None)
    source = spec is not None and spec.has_location and spec.origin.endswith(".py")
    if source and not os.path.exists(spec.cached):
        print(spec.origin)
"""
    source = production.inside("api", f"python -c '{program}'")

    assert (source.returncode, source.stdout) == (0, "")


def test_image_has_nothing_of_development(production: Stack):
    names = (
        "development",
        "aiosqlite-*",
        "valkey*",
        "classics.csv",
        "*.c",
        "*.cpp",
        "*.h",
        "*.pyx",
    )
    pattern = " -o ".join(f"-name '{name}'" for name in names)
    found = production.inside("api", f"find /srv {pattern}")

    assert (found.returncode, found.stdout) == (0, "")


def test_secrets_are_in_no_variable_and_no_argument(production: Stack):
    folder = production.folder / "secrets"
    passwords = [text for file in folder.iterdir() if (text := file.read_text())]
    assert len(set(passwords)) == len(passwords) > 10
    assert all(len(password) >= 40 for password in passwords)
    assert folder.stat().st_mode & 0o077 == 0

    containers = production.compose("ps", "--quiet").split()
    seen = "".join(json.dumps(production.inspect(container)) for container in containers)
    seen += "".join(production.done("docker", "top", container) for container in containers)
    assert not [password for password in passwords if password in seen]


def test_only_nginx_is_published(production: Stack):
    for service in SERVICES:
        container = production.inspect(production.containers(service)[0])
        published = {port for port, to in container["NetworkSettings"]["Ports"].items() if to}
        assert published == ({"8080/tcp", "8443/tcp"} if service == "nginx" else set())


@pytest.mark.parametrize(
    ("network", "reaches"),
    [
        ("edge", {"nginx"}),
        ("web", {"nginx", "api", "worker"}),
        ("data", {"api", "worker", "mariadb", "valkey", "queue"}),
        ("outbound", {"api", "worker"}),
    ],
)
def test_networks_are_apart(production: Stack, network: str, reaches: set[str]):
    """From a container of each network, by name and by address."""
    ports = {"nginx": 8080, "api": 8000, "worker": 9000}
    ports |= {"mariadb": 3306, "valkey": 6379, "queue": 6379}
    addresses = {
        service: [
            net["IPAddress"]
            for net in production.inspect(production.containers(service)[0])["NetworkSettings"][
                "Networks"
            ].values()
        ]
        for service in ports
    }
    image = f"{production.variables['IMAGE']}:latest"
    program = f"""
import socket
for service, addresses in {addresses}.items():
    for address in [service, *addresses]:
        try:
            socket.create_connection((address, {ports}[service]), 1).close()
            print(service)
        except OSError:
            pass
"""
    seen = production.done(
        *("docker", "run", "--rm", "--network", f"{production.project}_{network}"),
        *(image, "python", "-c", program),
    )

    assert set(seen.split()) == reaches


def test_database_has_no_way_out(production: Stack):
    for service in ("mariadb", "valkey", "queue"):
        routes = production.inside(service, "cat /proc/net/route").stdout.splitlines()[1:]
        assert routes
        assert not [route for route in routes if route.split()[1] == "00000000"], service
    nginx = production.inside("nginx", "cat /proc/net/route").stdout
    assert re.search(r"(?m)^\S+\s00000000", nginx)


def test_schema_and_budget_are_what_the_service_needs(production: Stack):
    finished = production.inside("api", "python -m app check")

    assert finished.returncode == 0, finished.stdout
    assert "300" in finished.stdout


def test_prometheus_finds_every_container(production: Stack):
    production.compose("--profile", "observability", "up", "--detach", "--wait", "prometheus")
    url = f"http://127.0.0.1:{production.variables['PROMETHEUS_PORT']}"
    with httpx.Client(base_url=url, timeout=60) as client:

        def healthy() -> bool:
            targets = client.get("/api/v1/targets").json()["data"]["activeTargets"]
            ours = [target for target in targets if target["labels"]["job"] in ("api", "jobs")]
            return [target["health"] for target in ours] == ["up"] * 4

        wait_until(healthy, "three containers of the service and a job worker to be scraped")
        rules = client.get("/api/v1/rules").json()["data"]["groups"]
    assert rules
    production.compose("rm", "--stop", "--force", "prometheus")


def test_flood_of_one_client_ends_at_the_edge(production: Stack):
    production.compose("up", "--detach", "--wait", "--no-deps", "nginx", EDGE_RATE="5")
    begin = time.monotonic()
    with production.client() as client:
        responses = [client.get("/health") for _ in range(40)]
    most = 11 + 5 * (time.monotonic() - begin)
    refused = [response for response in responses if response.status_code == 429]

    assert 10 <= len(responses) - len(refused) <= most
    assert refused[0].headers["Retry-After"] == "1"
    assert refused[0].headers["Content-Type"] == "application/problem+json"
    production.compose("up", "--detach", "--wait", "--no-deps", "nginx")


def test_https_where_certificates_are_mounted(production: Stack, tmp_path: Path):
    key, certificate = tmp_path / "privkey.pem", tmp_path / "fullchain.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"
    command += f" -addext subjectAltName=DNS:localhost -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    mounted = {"CERTIFICATES": str(tmp_path)}
    tmp_path.chmod(0o700)
    start = ("docker", "compose", *production.files, "up", "--detach", "--no-deps", "nginx")
    production.run(*start, **mounted)
    [container] = production.containers("nginx")

    def log() -> str:
        return production.run("docker", "logs", container).stderr

    wait_until(lambda: "that user 101 can read" in log(), "what is wrong")
    tmp_path.chmod(0o755)
    key.chmod(0o644)
    production.compose("up", "--detach", "--wait", "--no-deps", "nginx", **mounted)
    port = int(production.variables["HTTPS_PORT"])
    trusting = ssl.create_default_context(cafile=str(certificate))
    with httpx.Client(base_url=f"https://localhost:{port}", verify=trusting) as client:
        secure = client.get(f"{PATH}?limit=1")
    with production.client() as client:
        plain = client.get(f"{PATH}?limit=1")
    trusting.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", port)) as raw,
        trusting.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        protocol = tls.selected_alpn_protocol()

    assert secure.status_code == 200
    assert "max-age" in secure.headers["Strict-Transport-Security"]
    assert (plain.status_code, protocol) == (308, "h2")
    assert plain.headers["Location"] == f"https://127.0.0.1:{port}{PATH}?limit=1"
    production.compose("up", "--detach", "--wait", "--no-deps", "nginx")


# sample: begin
def put_cover(production: Stack, content: bytes) -> tuple[httpx.Response, str]:
    """What nginx says, and the path of the cover."""
    with production.editor() as client:
        book = client.get("/v1/books?limit=1").json()["items"][0]["id"]
        path = f"/v1/books/{book}/cover"
        return client.put(path, content=content, headers=PNG), path


def url_of(production: Stack, path: str) -> str:
    with production.client() as client:
        return str(client.get(path).headers["Location"])


def test_cover_is_sent_by_nginx_to_whoever_has_its_address(production: Stack):
    response, path = put_cover(production, noise(1000, 1200))  # more than other bodies may have
    assert response.status_code == 200, response.text
    url = url_of(production, path)
    with production.client() as client:
        whole = client.get(url)
        part = client.get(url, headers={"Range": "bytes=4-9"})
        same = client.get(url, headers={"If-None-Match": whole.headers["ETag"]})
        shown = client.get(url, headers={"Origin": "https://www.example"}).headers
        forged = client.get(url + "0")
        behind = client.get("/stored" + url.removeprefix("/files"))

    assert opened(whole.content).size == (400, 480)
    assert whole.headers["Content-Type"] == "image/webp"
    assert whole.headers["Cache-Control"].startswith("private, max-age=")
    # As nginx makes them: of the time of the file and its size.
    assert re.fullmatch('"[0-9a-f]+-[0-9a-f]+"', whole.headers["ETag"])
    assert "X-Accel-Redirect" not in whole.headers
    # Pages of other origins may show it, and those of CORS_ORIGINS may read it.
    assert shown["Access-Control-Allow-Origin"] == "https://www.example"
    assert shown.get_list("Cross-Origin-Resource-Policy") == ["cross-origin"]
    assert (shown["Vary"], whole.headers["Vary"]) == ("Origin", "Origin")
    assert "Access-Control-Allow-Origin" not in whole.headers
    assert (part.status_code, part.content) == (206, whole.content[4:10])
    assert same.status_code == 304
    assert [forged.status_code, behind.status_code] == [403, 404]
    for refused in (forged, behind):
        assert refused.headers["Content-Type"] == "application/problem+json"


def test_cover_that_is_too_large_is_refused_before_the_service(production: Stack):
    response, _ = put_cover(production, bytes(5_300_000))

    assert response.status_code == 413
    assert response.json()["title"] == "Content Too Large"


def test_old_files_are_swept_by_the_job_worker(production: Stack):
    for _ in range(2):
        response, path = put_cover(production, image())
        assert response.status_code == 200, response.text

    def files() -> int:
        found = production.inside("api", "find /srv/files/objects -type f").stdout
        return len(found.splitlines())

    assert files() > 3
    password = "REDISCLI_AUTH=$(cat /run/secrets/redis_password)"
    due = f"{password} valkey-cli del bookshelf:periodic:sweep_files"
    assert production.inside("queue", due).returncode == 0
    orphans = "mariadb -u root -p$(cat /run/secrets/database_root_password) bookshelf -N -e "
    seen = orphans + "'SELECT count(*) FROM orphans'"
    wait_until(lambda: production.inside("mariadb", seen).stdout.strip() not in ("", "0"), "it")
    later = orphans + "'UPDATE orphans SET seen_at = seen_at - INTERVAL 2 HOUR'"
    assert production.inside("mariadb", later).returncode == 0
    assert production.inside("queue", due).returncode == 0
    wait_until(lambda: files() == 3, "the sweep")
    with production.client() as client:
        assert client.get(url_of(production, path)).status_code == 200


def test_files_come_back_from_a_copy(production: Stack):
    _, path = put_cover(production, image())
    copy = "tar -C /srv/files -cf /tmp/files.tar objects && rm -r /srv/files/objects/covers"
    assert production.inside("api", f"{copy} && tar -C /srv/files -xf /tmp/files.tar").stderr == ""

    with production.client() as client:
        assert client.get(url_of(production, path)).status_code == 200


# sample: end


def test_who_registers_gets_a_welcome_from_the_job_worker(production: Stack):
    production.register("mary")

    wait_until(lambda: production.got_mail("mary"), "her mail")


def test_server_of_locks_and_limits_evicts_nothing_and_keeps_what_it_has(production: Stack):
    cli = "REDISCLI_AUTH=$(cat /run/secrets/redis_password) valkey-cli"
    policy = production.inside("queue", f"{cli} CONFIG GET maxmemory-policy").stdout.split()
    lock = f"{NAME}:periodic:sweep_files"
    before = int(production.inside("queue", f"{cli} PEXPIRETIME {lock}").stdout)
    production.compose("restart", "queue")
    after = int(production.inside("queue", f"{cli} PEXPIRETIME {lock}").stdout)
    cached = production.inside("valkey", f"{cli} EXISTS {lock}").stdout.strip()
    production.register("percy")

    assert policy == ["maxmemory-policy", "noeviction"]
    assert after >= before > 0
    assert cached == "0"
    wait_until(lambda: production.got_mail("percy"), "mail by a worker that found it again")


def test_registration_while_there_is_no_worker_is_welcomed_by_the_next(production: Stack):
    production.compose("kill", "worker", "queue")
    production.register("claire")
    production.compose("up", "--detach", "--wait")

    wait_until(lambda: production.got_mail("claire"), "her mail")


def test_worker_whose_heart_does_not_beat_is_unhealthy(production: Stack):
    [container] = production.containers("worker")
    test = production.inspect(container)["Config"]["Healthcheck"]["Test"][1]
    production.inside("worker", "touch -d '1 minute ago' /tmp/old")
    old = production.inside("worker", test.replace("/tmp/heartbeat", "/tmp/old"))
    fresh = production.inside("worker", test)

    assert (old.returncode, fresh.returncode) == (1, 0)


# sample: begin
def test_files_may_be_in_a_bucket(production: Stack):
    address = f"http://127.0.0.1:{production.variables['S3_PORT']}"
    bucket = {
        "FILES_URL": f"s3://{NAME}",
        "FILES_ENDPOINT": "http://s3:9000",
        "FILES_PUBLIC_ENDPOINT": address,
        "FILES_ACCESS_KEY_ID": NAME,
    }
    production.compose("--profile", "s3", "up", "--detach", "--wait", **bucket)
    response, path = put_cover(production, image())
    assert response.status_code == 200, response.text
    url = url_of(production, path)
    whole, forged = httpx.get(url), httpx.get(url[:-1] + ("0" if url[-1] != "0" else "1"))

    assert url.startswith(f"{address}/{NAME}/covers/")
    assert opened(whole.content).format == "WEBP"
    assert whole.headers["Content-Type"] == "image/webp"
    assert forged.status_code == 403


# sample: end


def test_frozen_container_gets_no_requests_until_it_goes_on(production: Stack):
    def servers() -> int:
        known = "wget -q -O - http://127.0.0.1:8081/servers"
        return len(production.inside("nginx", known).stdout.split())

    frozen = production.containers("api")[0]
    production.done("docker", "pause", frozen)
    try:
        wait_until(lambda: servers() == 2, "nginx to leave it out")
        with production.client(**{"Cache-Control": "no-cache"}) as client:
            # A process of nginx that is about to end, with the old list, may still get the first.
            wait_until(lambda: client.get(PATH).status_code == 200, "a process with the new list")
            statuses = {client.get(f"{PATH}?limit=1").status_code for _ in range(30)}
    finally:
        production.done("docker", "unpause", frozen)

    wait_until(lambda: servers() == 3, "nginx to take it in again")
    assert statuses == {200}
