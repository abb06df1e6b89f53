import asyncio
import gzip
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from fastapi import FastAPI, Request
from pydantic import ValidationError

from app.jobs import REGISTRY
from app.settings import Settings
from chassis.job_worker.registry import JobContext, Registry
from chassis.jobs.job import Job
from chassis.resources import Resources, open_resources
from chassis.telemetry import settings as telemetry_settings
from chassis.telemetry.settings import SentrySettings
from tests.conftest import client_of
from tests.jobs import working
from tests.process import ROOT, TIMEOUT
from tests.service import create_app

SECRETS = ("hunter2", "tr0ub4dor", "c00kie", "qu3ry", "b0dy", "l0cal", "/secret-path")


class Sentry:
    """Takes envelopes over HTTP, as Sentry does."""

    def __init__(self, port: int) -> None:
        self.dsn = f"http://key@127.0.0.1:{port}/1"
        self.envelopes: queue.Queue[bytes] = queue.Queue()

    async def event(self) -> tuple[dict[str, Any], str]:
        """The next one, and its whole envelope."""
        envelope = await asyncio.to_thread(self.envelopes.get, timeout=TIMEOUT)
        _, header, event, *_ = envelope.splitlines()
        assert json.loads(header)["type"] == "event"
        return json.loads(event), envelope.decode()


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            stand_in.envelopes.put(body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing: its lines are not ours."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        stand_in = Sentry(server.server_port)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield stand_in
        finally:
            server.shutdown()
            thread.join()


def failing_app(settings: Settings) -> FastAPI:
    app = create_app(settings)

    @app.post("/broken/{name}")
    async def broken(name: str, request: Request) -> None:
        local = (await request.body()).decode() + "l0cal"
        try:
            raise ValueError(f"password=hunter2 {len(local)}")
        except ValueError as error:
            raise RuntimeError("no route to mysql://root:tr0ub4dor@db") from error

    return app


async def test_unhandled_error_is_reported_without_secrets(settings: Settings, sentry: Sentry):
    settings.sentry = SentrySettings(dsn=sentry.dsn)
    headers = {
        "Authorization": "Bearer hunter2",
        "Cookie": "session=c00kie",
        "X-Request-ID": "the-one",
    }
    async with (
        open_resources(settings) as resources,
        client_of(failing_app(settings), resources) as client,
    ):
        response = await client.post("/broken/secret-path?q=qu3ry", headers=headers, content="b0dy")
        event, envelope = await sentry.event()

    assert response.status_code == 500
    assert event["transaction"] == "POST /broken/{name}"
    assert event["tags"] == {"request_id": "the-one"}
    assert (event["environment"], event["level"]) == ("development", "error")
    cause, error = event["exception"]["values"]
    assert (error["type"], error["value"]) == ("RuntimeError", "no route to mysql://root:***@db")
    assert (cause["type"], cause["value"]) == ("ValueError", "password=*** 9")
    assert error["stacktrace"]["frames"][-1]["function"] == "broken"
    assert event.keys().isdisjoint({"request", "user", "breadcrumbs", "extra"})
    assert [secret for secret in SECRETS if secret in envelope_without_source(event)] == []
    assert "Bearer" not in envelope


def envelope_without_source(event: dict[str, Any]) -> str:
    """Lines of code have the secrets that this test writes into them."""
    for exception in event["exception"]["values"]:
        for frame in exception["stacktrace"]["frames"]:
            for name in ("context_line", "pre_context", "post_context"):
                frame.pop(name, None)
    return json.dumps(event)


class Doomed(Job):
    name = "doomed"


async def test_error_of_a_job_is_reported(settings: Settings, sentry: Sentry):
    async def fail(context: JobContext, job: Doomed, key: str) -> None:
        raise RuntimeError("token=hunter2")

    settings.sentry = SentrySettings(dsn=sentry.dsn)
    registry = Registry({Doomed: fail}, {}, REGISTRY.templates)
    async with open_resources(settings) as resources, working(resources, registry):
        async with resources["sessions"].write() as session:
            await resources["outbox"].write(session, Doomed(), "doomed-1")
            await session.commit()
        event, _ = await sentry.event()

    assert event["transaction"] == "job doomed"
    assert event["tags"] == {"request_id": "doomed-1", "attempt": "1"}
    assert event["exception"]["values"][0]["value"] == "token=***"


async def test_expected_errors_are_not_reported(settings: Settings, sentry: Sentry):
    settings.sentry = SentrySettings(dsn=sentry.dsn)
    async with (
        open_resources(settings) as resources,
        client_of(create_app(settings), resources) as client,
    ):
        assert (await client.get("/v1/purchases/1")).status_code == 404
        assert (await client.get("/v1/purchases/x")).status_code == 422

    assert sentry.envelopes.empty()  # closing the resources has sent what there was


async def test_nothing_is_loaded_without_the_variable(resources: Resources):
    resources["error_reports"].send(RuntimeError("no one is told"), "GET /")
    modules = "app.main, app.jobs, chassis.resources"
    loaded = f"import sys, {modules}; sys.exit('sentry_sdk' in sys.modules)"
    command = [sys.executable, "-c", loaded]

    assert (await asyncio.to_thread(subprocess.run, command, cwd=ROOT)).returncode == 0


@pytest.mark.parametrize("dsn", ["sentry.example.com", "https://sentry.example.com/1"])
def test_dsn_that_is_none_is_refused(dsn: str):
    with pytest.raises(ValidationError, match="https://KEY@HOST/PROJECT"):
        SentrySettings(dsn=dsn)


def test_dsn_is_refused_where_the_sdk_is_not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(telemetry_settings, "find_spec", lambda name: None)
    with pytest.raises(ValidationError, match=r"install requirements-sentry\.lock"):
        SentrySettings(dsn="https://key@sentry.example.com/1")
