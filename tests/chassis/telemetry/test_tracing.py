import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.collector import collecting
from tests.databases import mariadb_only
from tests.process import ROOT, running, wait_until

REVISION = "SELECT version_num FROM alembic_version"


def attributes(span: Span) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in span.attributes}


@mariadb_only
async def test_every_worker_sends_traces_that_go_on_those_of_its_clients(
    environment: dict[str, Any], tmp_path: Path
):
    ids = [secrets.token_hex(16) for _ in range(20)]
    parent = "b7ad6b7169203331"
    with collecting() as collector:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": 100}
        async with running(tmp_path / "log", **environment | variables) as service:
            for id in ids:
                async with service.client() as client:
                    headers = {"traceparent": f"00-{id}-{parent}-01"}
                    await client.get("/health/ready", headers=headers)
            async with service.client() as client:
                await client.get("/v1/purchases/7", headers={"X-Request-ID": "alone"})
            await wait_until(lambda: all(collector.trace(id) for id in ids), "all traces")
            await service.wait_for("GET /v1/purchases/7")
            lines = {line.get("trace_id"): line for line in service.lines}

        for id in ids:
            spans = collector.trace(id)
            request = spans["GET /health/ready"]
            assert request.parent_span_id.hex() == parent
            assert attributes(spans["SET"])["db.system.name"] == "redis"
            select = attributes(spans["SELECT"])
            assert select["db.query.text"] in ("SELECT 1", REVISION)  # the latter at first
            assert select["db.system.name"] == environment["DATABASE_URL"].partition("+")[0]
            assert lines[id]["message"] == "GET /health/ready 200"
    assert not service.messages("Unhandled")


def test_neither_traces_nor_their_exporter_are_imported_while_off(environment: dict[str, Any]):
    code = """
import sys
from tests.service import create_app
create_app()
parts = ("opentelemetry.sdk.trace", "opentelemetry.exporter")
print([name for name in sys.modules if name.startswith(parts)])
"""
    variables = {name: str(value) for name, value in environment.items()}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=variables, capture_output=True, text=True
    )

    assert (done.stdout, done.stderr) == ("[]\n", "")
