"""What nginx takes from proxies in front of it, what it refuses, and what one client can use up."""

import json
import random
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.compose.images import named
from tests.compose.stack import PRODUCTION, Finished, Stack, free_subnet, stack, wait_until
from tests.compose.subject import (
    PATH,
    RANKING,  # sample
)
from tests.process import free_port

FILES = [*PRODUCTION, "-f", "tests/compose/edge/compose.yml"]
HAS_IPV6 = Path("/proc/net/if_inet6").exists()
HSTS = "Strict-Transport-Security"


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("edge"), "test-edge", FILES) as made:
        for name in ("HTTP", "HTTPS", "SILENT"):
            made.variables[f"FRONT_{name}_PORT"] = str(free_port())
        made.variables["NGINX_IMAGE"] = named(made, "nginx")
        del made.variables["PLAIN_HTTP"]
        made.variables["EDGE_SUBNET"] = free_subnet()
        if HAS_IPV6:
            network = f"fd{random.getrandbits(40):010x}"
            subnet = ":".join([network[:4], network[4:8], network[8:], "", "/64"])
            made.variables |= {"EDGE_IPV6": "true", "EDGE_ADDRESS": "", "EDGE_SUBNET": subnet}
        made.compose("up", "--detach", "--wait", "api", "front", "client")
        yield made


def serve(edge: Stack, **variables: str) -> None:
    """Have nginx serve with settings of its own."""
    edge.compose("up", "--detach", "--wait", "--no-deps", "nginx", **variables)


def check(edge: Stack, **variables: str) -> Finished:
    """Whether nginx would start, in a container of its own."""
    command = ("docker", "compose", *edge.files, "run", "--rm", "--no-deps", "-T", "nginx", "check")
    return edge.run(*command, **variables)


def address(edge: Stack, service: str) -> str:
    [container] = edge.containers(service)
    networks = edge.inspect(container)["NetworkSettings"]["Networks"]
    return str(networks[f"{edge.project}_edge"]["IPAddress"])


def front(edge: Stack, port: str) -> httpx.Client:
    """This machine as a client of the proxy in front."""
    url = f"http://127.0.0.1:{edge.variables[f'FRONT_{port}_PORT']}"
    return httpx.Client(base_url=url, timeout=20)


GET = """
import http.client, json, sys
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=10)
connection.request("GET", "/v1/anything", headers=json.loads(sys.argv[3]))
response = connection.getresponse()
body = response.read().decode()
print(json.dumps({"status": response.status, "headers": dict(response.getheaders()), "body": body}))
"""


def elsewhere(edge: Stack, service: str, port: int, **headers: str) -> dict[str, Any]:
    """The response to another client, in a container."""
    compose = ("docker", "compose", *edge.files, "exec", "-T", "client", "python", "-c", GET)
    output = edge.done(*compose, address(edge, service), str(port), json.dumps(headers))
    seen: dict[str, Any] = json.loads(output)
    return seen


def sent_on(response: httpx.Response) -> dict[str, str]:
    headers: dict[str, str] = response.json()["headers"]
    return headers


@pytest.fixture
def certificates(tmp_path: Path) -> str:
    key, certificate = tmp_path / "privkey.pem", tmp_path / "fullchain.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"
    command += f" -addext subjectAltName=DNS:localhost -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    tmp_path.chmod(0o755)
    key.chmod(0o644)
    return str(tmp_path)


def test_clients_behind_a_trusted_proxy_have_an_address_and_a_budget_each(edge: Stack):
    serve(edge, TRUSTED_PROXIES=address(edge, "front"), EDGE_RATE="2")
    with front(edge, "HTTPS") as client:
        first = client.get(PATH)
        flood = [client.get(PATH).status_code for _ in range(20)]
    other = elsewhere(edge, "front", 8002)

    assert flood[-1] == 429
    assert other["status"] == 200
    addresses = {sent_on(first)["x-forwarded-for"]}
    addresses.add(json.loads(other["body"])["headers"]["x-forwarded-for"])
    assert address(edge, "client") in addresses
    assert len(addresses | {address(edge, "front")}) == 3


def test_client_cannot_forge_its_address_or_scheme(edge: Stack):
    proxy, client = address(edge, "front"), address(edge, "client")
    forged = {"X-Forwarded-For": f"203.0.113.7, {proxy}", "X-Forwarded-Proto": "https"}
    serve(edge, TRUSTED_PROXIES=proxy, PLAIN_HTTP="yes")
    direct = elsewhere(edge, "nginx", 8080, **forged)
    through = elsewhere(edge, "front", 8001, **forged)

    for seen in (direct, through):
        assert seen["status"] == 200
        assert HSTS not in seen["headers"]
        headers = json.loads(seen["body"])["headers"]
        assert headers["x-forwarded-for"] == client
        assert headers["x-forwarded-proto"] == "http"


@pytest.mark.parametrize("has_certificates", [False, True])
def test_scheme_is_what_a_trusted_proxy_says(
    edge: Stack, certificates: str, has_certificates: bool
):
    variables = {"CERTIFICATES": certificates} if has_certificates else {}
    serve(edge, TRUSTED_PROXIES=address(edge, "front"), **variables)
    host = {"Host": "service.example"}
    with front(edge, "HTTPS") as client:
        secure = client.get(PATH, headers=host)
    with front(edge, "HTTP") as client:
        plain = client.get(f"{PATH}?limit=1", headers=host)
    with front(edge, "SILENT") as client:
        silent = client.get(PATH, headers=host)
    with edge.client(**{"X-Forwarded-Proto": "https"}) as client:
        direct = client.get(PATH, headers=host)

    assert (secure.status_code, sent_on(secure)["x-forwarded-proto"]) == (200, "https")
    assert HSTS in secure.headers
    assert (plain.status_code, direct.status_code) == (308, 308)
    assert plain.headers["Location"] == f"https://service.example{PATH}?limit=1"
    assert HSTS not in plain.headers  # RFC 6797, 7.2
    assert silent.status_code == 200  # it would be redirected again and again


def test_header_with_the_address_may_be_another(edge: Stack):
    proxy = address(edge, "client")
    serve(edge, TRUSTED_PROXIES=proxy, REAL_IP_HEADER="CF-Connecting-IP")
    headers = {"CF-Connecting-IP": "2001:DB8::7", "X-Forwarded-Proto": "http, https"}
    seen = elsewhere(edge, "nginx", 8080, **headers, **{"X-Forwarded-For": "203.0.113.7"})

    sent = json.loads(seen["body"])["headers"]
    assert (sent["x-forwarded-for"], sent["x-forwarded-proto"]) == ("2001:db8::7", "https")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"TRUSTED_PROXIES": "10.0.0.0/8, 10.0.0"}, "TRUSTED_PROXIES has '10.0.0'"),
        ({"TRUSTED_PROXIES": "10.0.0.256"}, "TRUSTED_PROXIES has '10.0.0.256'"),
        ({"TRUSTED_PROXIES": "proxy.example"}, "TRUSTED_PROXIES has 'proxy.example'"),
        ({"TRUSTED_PROXIES": "0.0.0.0/0"}, "TRUSTED_PROXIES has '0.0.0.0/0'"),
        ({"TRUSTED_PROXIES": "::/0"}, "TRUSTED_PROXIES has '::/0'"),
        ({"TRUSTED_PROXIES": "2001::db8::1"}, 'invalid network "2001::db8::1"'),
        ({"TRUSTED_PROXIES": "*"}, "TRUSTED_PROXIES has '*'"),
        ({"REAL_IP_HEADER": "proxy_protocol"}, "REAL_IP_HEADER has 'proxy_protocol'"),
        ({"REAL_IP_HEADER": "X-Real-IP X-Other"}, "not one name"),
        ({"ALLOWED_HOSTS": "https://example.com"}, "ALLOWED_HOSTS has 'https://example.com'"),
        ({"ALLOWED_HOSTS": "a.example,b.example;"}, "ALLOWED_HOSTS has 'b.example;'"),
        ({"HSTS": "includeSubDomains"}, "HSTS is 'includeSubDomains'"),
        ({"PLAIN_HTTP": "perhaps"}, "PLAIN_HTTP is 'perhaps'"),
        ({"CORS_ORIGINS": "https://a.example/"}, "CORS_ORIGINS has 'https://a.example/'"),
        ({"CORS_ORIGINS": "https://a.example;x"}, "CORS_ORIGINS has 'https://a.example;x'"),
    ],
)
def test_wrong_setting_is_named_with_what_to_do(edge: Stack, variables: dict[str, str], said: str):
    finished = check(edge, **{"PLAIN_HTTP": "yes"} | variables)

    assert finished.returncode != 0
    assert said in finished.stderr
    if "invalid network" not in said:  # nginx's own words
        assert ".env" in finished.stderr
        assert "docs/deploy.md" in finished.stderr


def test_networks_of_both_kinds_and_either_separator_are_taken(edge: Stack):
    proxies = "10.0.0.0/8,192.0.2.1  2001:db8::/32, ::1,10.0.0.0/8"
    hosts = "example.com, *.example.com,localhost 192.0.2.1"
    finished = check(edge, TRUSTED_PROXIES=proxies, ALLOWED_HOSTS=hosts)

    assert finished.returncode == 0, finished.stderr


def test_plain_http_that_was_not_chosen_is_not_served(edge: Stack):
    edge.run("docker", "compose", *edge.files, "rm", "--stop", "--force", "nginx")
    started = ("docker", "compose", *edge.files, "up", "--detach", "--wait", "--no-deps", "nginx")
    refused = edge.run(*started, PLAIN_HTTP="")
    [container] = edge.containers("nginx")
    log = edge.run("docker", "logs", container).stderr
    edge.compose("rm", "--stop", "--force", "nginx")

    assert refused.returncode != 0
    for word in ("PLAIN_HTTP=yes", "TRUSTED_PROXIES", "CERTIFICATES", "docs/deploy.md", ".env"):
        assert word in log


def test_host_that_is_not_ours_is_refused_and_never_redirected_to(edge: Stack, certificates: str):
    hosts = {"ALLOWED_HOSTS": "Service.example,*.service.example"}
    serve(edge, **hosts, PLAIN_HTTP="yes")
    plain = {
        name: ask(edge, name)
        for name in ("service.example", "WWW.Service.Example:80", "evil.example")
    }
    with edge.client(Host="192.0.2.1") as client:
        probe = client.get("/health")
    serve(edge, **hosts, CERTIFICATES=certificates)
    secure = {name: ask(edge, name) for name in ("www.service.example", "evil.example")}
    with edge.client(Host="192.0.2.1") as client:
        redirectless = client.get("/health")

    assert [each.status_code for each in plain.values()] == [200, 200, 421]
    assert [each.status_code for each in secure.values()] == [308, 421]
    for refused in (plain["evil.example"], secure["evil.example"]):
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert refused.json()["title"] == "Misdirected Request"
        assert "Location" not in refused.headers
    target = secure["www.service.example"].headers["Location"]
    assert target == f"https://www.service.example:{edge.variables['HTTPS_PORT']}{PATH}"
    # A load balancer asks by an address.
    assert (probe.status_code, redirectless.status_code) == (200, 200)


def ask(edge: Stack, host: str) -> httpx.Response:
    with edge.client(Host=host) as client:
        return client.get(PATH)


# sample: begin
def test_hosts_share_what_is_cached(edge: Stack):
    serve(edge, PLAIN_HTTP="yes")
    seen = []
    for host in ("one.example", "two.example"):
        with edge.client(Host=host) as client:
            seen.append(client.get(f"{RANKING}?limit=3").headers["X-Edge-Cache"])

    assert seen == ["MISS", "HIT"]


# sample: end


def test_every_response_over_https_has_hsts_once(edge: Stack, certificates: str):
    value = "max-age=31536000; includeSubDomains"
    serve(edge, CERTIFICATES=certificates, HSTS=value, ALLOWED_HOSTS="localhost")
    url = f"https://localhost:{edge.variables['HTTPS_PORT']}"
    with httpx.Client(base_url=url, verify=False, timeout=20) as client:
        responses = {
            "200": client.get(PATH),
            "HIT": [client.get(f"{RANKING}?limit=5") for _ in range(2)][1],  # sample
            "HEAD": client.head(PATH),
            "404": client.get("/metrics"),
            "413": client.post(PATH, content=b"x" * 1_100_000),
            "414": client.get(f"{PATH}?sort=" + "x" * 9000),
            "421": client.get(PATH, headers={"Host": "evil.example"}),
            "400": client.get(PATH, headers={"Host": "a b"}),
            "405": client.request("TRACE", PATH),
            "501": client.request("MKCOL", PATH),
        }
    plain = ask(edge, "localhost")

    got = {name: response.headers.get_list(HSTS) for name, response in responses.items()}
    assert got == {name: [value] for name in responses}
    assert responses["HIT"].headers["X-Edge-Cache"] == "HIT"  # sample
    for name in ("404", "413", "414", "421", "400", "405"):
        assert responses[name].status_code == int(name)
    assert (plain.status_code, HSTS in plain.headers) == (308, False)


def gets_through(client: httpx.Client) -> bool:
    return client.get(PATH).status_code == 200


APP, PREVIEW, OTHER = "https://app.example", "https://pr-7.example.dev", "https://evil.example"
LONG = f"https://{'a' * 63}.{'b' * 63}.{'c' * 63}.example:65535"
ALLOW = "Access-Control-Allow-Origin"


@pytest.mark.parametrize(
    ("variables", "allowed"),
    [
        ({}, {APP: None, OTHER: None}),
        ({"CORS_ORIGINS": APP}, {APP: APP, OTHER: APP}),  # so that no cache has to vary
        ({"CORS_ORIGINS": "*"}, {APP: "*", OTHER: "*"}),
        (
            {"CORS_ORIGINS": f"{APP}, http://[::1]:3000, {LONG}", "CORS_CREDENTIALS": "True"}
            | {"CORS_ORIGIN_PATTERN": r"https://pr-\d{1,3}\.example\.dev"},
            {APP: APP, PREVIEW: PREVIEW, "http://[::1]:3000": "http://[::1]:3000", OTHER: None},
        ),
    ],
)
def test_pages_that_may_call_the_service_can_read_what_nginx_responds(
    edge: Stack, variables: dict[str, str], allowed: dict[str, str | None]
):
    serve(edge, PLAIN_HTTP="yes", EDGE_RATE="5", **variables)
    for origin, expected in allowed.items():
        with edge.client(Origin=origin) as client:
            large = client.post(PATH, content=b"x" * 1_100_000)
            hidden = client.get("/metrics")
            flood = [client.get(PATH) for _ in range(40)][-1]
            wait_until(partial(gets_through, client), "its budget")

        assert (large.status_code, hidden.status_code, flood.status_code) == (413, 404, 429)
        for response in (large, hidden, flood):
            headers = response.headers
            assert headers.get(ALLOW) == expected
            exposed = headers.get("Access-Control-Expose-Headers")
            assert exposed == ("Retry-After, X-Request-ID" if expected else None)
            has_credentials = headers.get("Access-Control-Allow-Credentials")
            wanted = expected and "CORS_CREDENTIALS" in variables
            assert has_credentials == ("true" if wanted else None)
            policy = headers["Cross-Origin-Resource-Policy"]
            assert policy == ("cross-origin" if variables else "same-origin")


def test_what_the_service_tells_browsers_is_passed_on_once(edge: Stack):
    """As it has decided, although nginx would have said otherwise, and replaced where it did not."""
    serve(edge, PLAIN_HTTP="yes", CORS_ORIGINS=APP)
    said = {ALLOW: PREVIEW, "Access-Control-Expose-Headers": "X-Own", "Vary": "Origin"}
    said |= {"Referrer-Policy": "origin", "Content-Security-Policy": "default-src 'self'"}
    with edge.client(Origin=APP) as client:
        own = client.get(PATH, headers={"X-Echo": json.dumps(said)}).headers
        plain = client.get(PATH).headers

    for name, value in said.items():
        expected = "no-referrer" if name == "Referrer-Policy" else value
        assert own.get_list(name) == [expected]
    assert plain[ALLOW] == APP
    assert plain.get_list("Content-Security-Policy") == [
        "default-src 'none'; frame-ancestors 'none'"
    ]


def slow_post(edge: Stack, path: str, length: int, sent: int, proxied_for: str) -> socket.socket:
    """A body of which the last byte does not come."""
    client = socket.create_connection(("127.0.0.1", int(edge.variables["HTTP_PORT"])), 20)
    head = f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n"
    head += f"X-Forwarded-For: {proxied_for}\r\nX-Forwarded-Proto: https\r\n\r\n"
    client.settimeout(2)
    with suppress(OSError):  # it may be refused
        client.sendall(head.encode() + bytes(sent))
    return client


def gateways(edge: Stack) -> str:
    """What this machine is to nginx."""
    [network] = json.loads(edge.done("docker", "network", "inspect", f"{edge.project}_edge"))
    return ",".join(each["Gateway"] for each in network["IPAM"]["Config"] if "Gateway" in each)


@pytest.mark.parametrize(
    ("path", "length", "number", "clients"),
    [
        (PATH, 2**20, 400, 6),  # more than fit into the memory, were they accepted
        (PATH, 60_000, 700, 6),  # each client has a quarter of its connections for them
        ("/v1/books/1/cover", 5_000_000, 60, 1),  # sample
    ],
)
def test_slow_bodies_of_a_few_clients_stop_no_other(
    edge: Stack, path: str, length: int, number: int, clients: int
):
    serve(edge, TRUSTED_PROXIES=gateways(edge), EDGE_CONNECTIONS="100", EDGE_RATE="1000")
    other = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    ranking = f"{RANKING}?limit=9"  # sample
    with ExitStack() as attack, edge.client(**other) as client:
        client.get(ranking)  # sample
        for each in range(number):
            attacker = f"198.51.100.{each % clients}"
            attack.enter_context(slow_post(edge, path, length, length - 1, attacker))
        posts = [client.post(PATH, content=bytes(50_000)) for _ in range(20)]
        reads = [client.get(PATH) for _ in range(20)]
        # sample: begin
        cover = client.put("/v1/books/2/cover", content=bytes(4_000_000))
        stored = [client.get(ranking) for _ in range(20)]
        fresh = client.get(f"{RANKING}?limit=10&of={length}{path}")
        # sample: end

    assert {each.status_code for each in (*posts, *reads)} == {200}
    # sample: begin
    assert cover.status_code == 200
    assert {each.headers["X-Edge-Cache"] for each in stored} == {"HIT"}
    assert (fresh.status_code, fresh.headers["X-Edge-Cache"]) == (200, "MISS")
    # sample: end


def test_slow_bodies_of_many_clients_leave_room_for_requests_without(edge: Stack):
    serve(edge, TRUSTED_PROXIES=gateways(edge), EDGE_CONNECTIONS="100", EDGE_RATE="1000")
    other = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    with edge.client(**other) as client:
        with ExitStack() as attack:
            for number in range(700):
                address = f"198.51.100.{number % 40}"
                attack.enter_context(slow_post(edge, PATH, 60_000, 59_999, address))
            during = client.post(PATH, content=b"x")
            reads = [client.get(f"{PATH}?limit={limit}") for limit in (1, 2)]
            reads.append(client.get(f"{RANKING}?limit=11"))  # sample
        wait_until(lambda: client.post(PATH, content=b"x").status_code == 200, "room")

    assert during.status_code == 429
    assert during.headers["Retry-After"] == "1"
    assert {each.status_code for each in reads} == {200}


def test_bodies_and_the_cache_have_places_of_their_own_that_all_bodies_fit_into(edge: Stack):
    serve(edge, PLAIN_HTTP="yes")
    sizes = edge.inside("nginx", "df -m /run/bodies /run/cache /tmp").stdout
    mounted = re.findall(r"(?m)^tmpfs\s+(\d+).*\s(/\S+)$", sizes)

    assert {path: int(size) for size, path in mounted} == {
        "/run/bodies": 96,  # 16 covers of 5 MiB
        "/run/cache": 64,
        "/tmp": 16,
    }


@pytest.mark.skipif(not HAS_IPV6, reason="This kernel has no IPv6")
def test_nginx_is_published_for_ipv6_where_that_is_asked_for(edge: Stack):
    serve(edge, PLAIN_HTTP="yes")
    inside = edge.inside("nginx", "wget -q -O - http://[::1]:8080/health")
    responses = [
        httpx.get(f"http://{host}:{edge.variables['HTTP_PORT']}/health")
        for host in ("127.0.0.1", "[::1]")
    ]

    assert inside.returncode == 0, inside.stderr
    assert [response.status_code for response in responses] == [200, 200]


def test_kernel_without_ipv6_is_served_over_ipv4(edge: Stack):
    """As start.sh finds it: by a file of /proc."""
    text = (edge.folder / "docker" / "nginx" / "start.sh").read_text()
    (edge.folder / "docker" / "nginx" / "start.sh").write_text(text.replace("if_inet6", "nothing"))
    try:
        edge.compose(
            "up", "--detach", "--wait", "--no-deps", "--force-recreate", "nginx", PLAIN_HTTP="yes"
        )
        listening = edge.inside("nginx", "cat /run/conf/current/server.conf").stdout
        with edge.client() as client:
            response = client.get("/health")
    finally:
        (edge.folder / "docker" / "nginx" / "start.sh").write_text(text)
        edge.compose("rm", "--stop", "--force", "nginx")

    assert "[::]" not in listening
    assert response.status_code == 200


CLIENTS = """
pid /tmp/nginx.pid;
error_log stderr warn;
events {}
http {
    access_log off;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    scgi_temp_path /tmp/scgi;
    uwsgi_temp_path /tmp/uwsgi;
    include /edge/clients.conf;
    set_real_ip_from 0.0.0.0/0;
    real_ip_header X-Client;
    server {
        listen 8080;
        location / { return 200 "$client"; }
    }
}
"""


def some_addresses() -> list[IPv6Address]:
    """Every pattern of zero groups, with other groups of each length."""
    random.seed(7)
    return [
        IPv6Address(
            b"".join(
                (
                    random.randrange(1, 16 ** random.randint(1, 4)) if pattern >> group & 1 else 0
                ).to_bytes(2)
                for group in range(8)
            )
        )
        for pattern in range(256)
        for _ in range(2)
    ]


def test_client_is_the_64_network_however_its_address_is_written(edge: Stack, tmp_path: Path):
    (tmp_path / "nginx.conf").write_text(CLIENTS)
    tmp_path.chmod(0o755)
    port = free_port()
    source = edge.folder / "docker" / "nginx" / "clients.conf"
    container = edge.done(
        *("docker", "run", "--detach", "--rm", "--publish", f"127.0.0.1:{port}:8080"),
        *("--volume", f"{source}:/edge/clients.conf:ro", "--volume", f"{tmp_path}:/own:ro"),
        *("--label", f"com.docker.compose.project={edge.project}", "--entrypoint", "nginx"),
        *(edge.variables["NGINX_IMAGE"], "-c", "/own/nginx.conf", "-g", "daemon off;"),
    )
    wrong = {}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:

        def group(written: str) -> str:
            return client.get("/", headers={"X-Client": written}).text

        def is_up() -> bool:
            with suppress(httpx.TransportError):  # Docker accepts connections before nginx does
                return bool(group("192.0.2.1"))
            return False

        wait_until(is_up, "nginx")

        for number in some_addresses():
            groups = [int(text, 16) for text in number.exploded.split(":")]
            expected = ":".join(f"{group:x}" for group in groups[:4])
            for written in {number.compressed, number.exploded, number.exploded.upper()}:
                if (got := group(written)) != expected:
                    wrong[written] = (got, expected)
        ipv4 = {group(written) for written in ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1:80")}
    edge.done("docker", "rm", "--force", container)

    assert not wrong
    assert ipv4 == {"192.0.2.1"}
