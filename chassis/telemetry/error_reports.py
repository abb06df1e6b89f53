"""Reports of unhandled errors to Sentry; its SDK is loaded only if SENTRY_DSN is set."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

from chassis.request_context import current_request
from chassis.tasks.background import closing
from chassis.telemetry.log_lines import hide_secrets, is_secret
from chassis.telemetry.settings import SentrySettings


class ErrorReports:
    """Sends errors with their tracebacks, without secrets, as log lines have them.

    A report names the route or the job and has the request id. It has no headers, bodies, queries,
    paths, users or local variables. A thread of the SDK sends it; while Sentry is slow or away,
    reports are dropped. See docs/observability.md.
    """

    def __init__(self, settings: SentrySettings, environment: str, release: str) -> None:
        self._client: Any = None
        if settings.dsn is None:
            return
        self._event_of = import_module("sentry_sdk.utils").event_from_exception
        self._client = import_module("sentry_sdk").Client(
            dsn=settings.dsn.get_secret_value(),
            environment=environment,
            release=release,
            default_integrations=False,  # they patch other modules, and collect more than this
            auto_enabling_integrations=False,
            auto_session_tracking=False,
            include_local_variables=False,
            before_send=lambda event, hint: scrub(event),
        )

    def send(self, error: BaseException, source: str, **tags: object) -> None:
        """`source`: the route or job; it and the kind of the error group reports."""
        if self._client is None:
            return
        mechanism = {"type": "generic", "handled": False}
        event, hint = self._event_of(
            error, client_options=self._client.options, mechanism=mechanism
        )
        if (request := current_request.get()) is not None:
            tags |= {"request_id": request.id}
            if request.trace_id is not None:
                tags |= {"trace_id": request.trace_id}
        tags_as_text = {name: str(value) for name, value in tags.items()}
        event |= {"level": "error", "transaction": source, "tags": tags_as_text}
        self._client.capture_event(event, hint)

    def close(self) -> None:
        """Send what is left, for a short time."""
        if self._client is not None:
            self._client.close()


def scrub(value: Any) -> Any:
    """The same, without secrets in texts and in fields whose names say that they have one."""
    if isinstance(value, dict):
        return {
            name: "***" if is_secret(name) and isinstance(each, str) else scrub(each)
            for name, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [scrub(each) for each in value]
    return hide_secrets(value) if isinstance(value, str) else value


@asynccontextmanager
async def open_error_reports(
    settings: SentrySettings, environment: str, release: str
) -> AsyncIterator[ErrorReports]:
    async with closing(ErrorReports(settings, environment, release)) as reports:
        yield reports
