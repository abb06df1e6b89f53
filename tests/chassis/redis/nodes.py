"""Valkey servers that take over from each other: watched by Sentinels, or as a cluster."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from redis import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from chassis.development.private_servers import valkey_program
from chassis.development.server_process import Server, probe, reserve
from tests.process import TIMEOUT, free_port

PASSWORD = "of the servers, with a /"
SENTINEL_PASSWORD = "of the Sentinels: @"
PRIMARY = "mymaster"
LOST_AFTER = 1000  # ms; then a server that is silent is replaced
PATIENCE = 60_000  # ms
SLOTS = [0, 5461, 10923, 16384]  # of the three primaries of a cluster
NAMESPACE = "shop"
SLOT = key_slot(NAMESPACE.encode())


@dataclass
class Node:
    server: Server
    port: int
    password: str = PASSWORD

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def call(self, *command: Any) -> Any:
        with Redis(port=self.port, password=self.password) as redis:
            redis.response_callbacks.clear()  # which make dicts of texts
            return redis.execute_command(*command)

    def says(self, *command: Any, text: str) -> bool:
        try:
            return text.encode() in self.call(*command)
        except RedisError:
            return False

    def wait_for(self, *command: Any, text: str) -> None:
        wait_for(lambda: self.says(*command, text=text), f"{text} of {self.server.log.name}")


@dataclass
class Nodes:
    """`primary` has the keys of NAMESPACE, and `replica` takes over."""

    url: str
    primary: Node
    replica: Node
    sentinels: list[Node] = field(default_factory=list)
    cluster: list[Node] = field(default_factory=list)

    @property
    def another(self) -> Node:
        """A primary of other keys of the cluster."""
        return next(node for node in self.cluster[:3] if node is not self.primary)

    def keep_primary(self) -> None:
        """A machine that is busy for a moment is no server that is lost."""
        for sentinel in self.sentinels:
            sentinel.call("SENTINEL", "SET", PRIMARY, "down-after-milliseconds", PATIENCE)
        for node in self.cluster:
            node.call("CONFIG", "SET", "cluster-node-timeout", PATIENCE)

    def promote(self) -> None:
        """As operators do before they stop the primary, which lives on as a replica."""
        if self.sentinels:
            self.sentinels[0].call("SENTINEL", "FAILOVER", PRIMARY)
        else:
            self.replica.call("CLUSTER", "FAILOVER")

    @property
    def is_replaced(self) -> bool:
        return self.replica.says("INFO", text="role:master")


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Where no event loop runs."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"waited {TIMEOUT} s for {what}"
        time.sleep(0.02)


@contextmanager
def running_node(folder: Path, *options: str) -> Iterator[Node]:
    with reserve(folder, "valkey") as place:
        command = ["--dir", str(place.folder), "--save", "", "--appendonly", "no"]
        command += ["--requirepass", PASSWORD, "--primaryauth", PASSWORD]
        command += ["--repl-diskless-sync-delay", "0", *options]
        with _running(command, place.log) as node:
            yield node


@contextmanager
def running_sentinel(folder: Path, primary: Node) -> Iterator[Node]:
    with reserve(folder, "sentinel") as place:
        configuration = place.folder / "sentinel.conf"
        lines = [
            f"dir {place.folder}",
            f'requirepass "{SENTINEL_PASSWORD}"',
            f'sentinel sentinel-pass "{SENTINEL_PASSWORD}"',
            f"sentinel monitor {PRIMARY} 127.0.0.1 {primary.port} 2",
            f'sentinel auth-pass {PRIMARY} "{PASSWORD}"',
            f"sentinel down-after-milliseconds {PRIMARY} {LOST_AFTER}",
            f"sentinel failover-timeout {PRIMARY} 5000",
        ]
        configuration.write_text("\n".join(lines))
        with _running([str(configuration), "--sentinel"], place.log) as node:
            node.password = SENTINEL_PASSWORD
            yield node


@contextmanager
def _running(options: Sequence[str], log: BinaryIO) -> Iterator[Node]:
    port = free_port()
    program = valkey_program()
    server = Server(
        url=f"redis://127.0.0.1:{port}",
        source=program,
        command=[program, *options, "--bind", "127.0.0.1", "--port", str(port)],
        is_ready=lambda: probe(("127.0.0.1", port), b"PING\r\n").startswith(b"-NOAUTH"),
        log=log,
    )
    server.start()
    try:
        yield Node(server, port)
    finally:
        server.stop()


@contextmanager
def watched_servers(folder: Path) -> Iterator[Nodes]:
    """Two servers that three Sentinels watch."""
    with ExitStack() as stack:
        primary = stack.enter_context(running_node(folder / "primary"))
        following = ("--replicaof", "127.0.0.1", str(primary.port))
        replica = stack.enter_context(running_node(folder / "replica", *following))
        replica.wait_for("INFO", text="master_link_status:up")
        sentinels = [
            stack.enter_context(running_sentinel(folder / f"sentinel-{number}", primary))
            for number in range(3)
        ]
        for sentinel in sentinels:
            sentinel.wait_for("INFO", "sentinel", text="slaves=1,sentinels=3")
        hosts = ",".join(sentinel.host for sentinel in sentinels)
        login = f"sentinel_password={quote(SENTINEL_PASSWORD)}"
        url = f"redis+sentinel://:{quote(PASSWORD, safe='')}@{hosts}/{PRIMARY}/0?{login}"
        yield Nodes(url, primary, replica, sentinels)


@contextmanager
def cluster(folder: Path) -> Iterator[Nodes]:
    """Three primaries and a replica of each."""
    with ExitStack() as stack:
        clustered = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(LOST_AFTER))
        buses = [free_port() for _ in range(6)]
        nodes = [
            stack.enter_context(
                running_node(folder / f"node-{bus}", *clustered, "--cluster-port", str(bus))
            )
            for bus in buses
        ]
        primaries, replicas = nodes[:3], nodes[3:]
        for number, primary in enumerate(primaries):
            primary.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            primary.call("CLUSTER", "ADDSLOTSRANGE", SLOTS[number], SLOTS[number + 1] - 1)
        for other in nodes[1:]:
            other.call("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, buses[0])
        for each in nodes:
            each.wait_for("CLUSTER", "INFO", text="cluster_known_nodes:6")
        for primary, replica in zip(primaries, replicas, strict=True):
            replica.call("CLUSTER", "REPLICATE", primary.call("CLUSTER", "MYID"))
        for replica in replicas:
            replica.wait_for("INFO", text="master_link_status:up")
        for each in nodes:
            each.wait_for("CLUSTER", "INFO", text="cluster_state:ok")
        owner = next(number for number in range(3) if SLOTS[number + 1] > SLOT)
        hosts = ",".join(each.host for each in nodes)
        url = f"redis+cluster://:{quote(PASSWORD, safe='')}@{hosts}"
        yield Nodes(url, primaries[owner], replicas[owner], cluster=nodes)
