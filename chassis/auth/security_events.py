"""Security events, for the analysis of an attack: each is a log line and counted."""

import logging
from typing import Literal, get_args

from chassis.auth.metrics import SecurityMetrics
from chassis.request_context import current_request
from chassis.telemetry.metrics import Metrics

Event = Literal[
    "registered",
    "login",
    "login_failed",
    "locked_out",
    "token_reused",
    "refresh_refused",
    "session_ended",
    "password_refused",
    "password_changed",
    "role_changed",
    "address_verified",
    "address_changed",
    "password_reset",
    "mail_token_refused",
]
SUSPICIOUS: tuple[Event, ...] = ("locked_out", "token_reused")

log = logging.getLogger("app.security")


class SecurityEvents:
    """Record events after the commit, or where a request is refused.

    No line has a password, a token or an e-mail address; lines of commands have no client.
    """

    def __init__(self, metrics: Metrics) -> None:
        # Each series starts at 0, so that its first event shows as an increase.
        counter = metrics.of(SecurityMetrics).security_events
        self._counters = {event: counter.labels(event) for event in get_args(Event)}

    def record(
        self, event: Event, account: int | None = None, session: int | None = None, **details: str
    ) -> None:
        """`account` is None where there is none or it is unknown."""
        self._counters[event].inc()
        request = current_request.get()
        client = request and request.scope.get("client")
        fields = {
            "event": event,
            "account": account,
            # As text: it has up to 63 bits, and many JSON parsers read 53.
            "session": None if session is None else str(session),
            "client": client and client[0],
            **details,
        }
        level = logging.WARNING if event in SUSPICIOUS else logging.INFO
        given = {name: value for name, value in fields.items() if value is not None}
        log.log(level, "Security event: %s", event.replace("_", " "), extra=given)
