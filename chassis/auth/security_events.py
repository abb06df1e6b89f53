"""Security events, for the analysis of an attack: each is a log line and counted, and those that
change something are rows of the audit log.
"""

import logging
from typing import Any, Literal, get_args

from sqlalchemy import event as events
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.addresses import MAX_ADDRESS
from chassis.auth.audit_model import AuditEvent
from chassis.auth.metrics import SecurityMetrics
from chassis.request_context import RequestContext, current_request
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
    "key_created",
    "key_revoked",
    "account_disabled",
    "account_enabled",
    "account_deleted",
    "address_verified",
    "address_changed",
    "password_reset",
    "totp_enabled",
    "totp_disabled",
    "recovery_code_used",
    "otp_refused",
    "mail_token_refused",
]
SUSPICIOUS: tuple[Event, ...] = ("locked_out", "token_reused")

AUDIT_EVENTS: Any = AuditEvent.__table__

log = logging.getLogger("app.security")


class SecurityEvents:
    """`audit` what a transaction changes, before its commit; `record` what is refused.

    No line and no row has a password, a token or an e-mail address; those of commands have no
    client.
    """

    def __init__(self, metrics: Metrics) -> None:
        # Each series starts at 0, so that its first event shows as an increase.
        counter = metrics.of(SecurityMetrics).security_events
        self._counters = {event: counter.labels(event) for event in get_args(Event)}

    async def audit(
        self,
        transaction: AsyncSession,
        event: Event,
        account: int,
        session: int | None = None,
        *,
        actor: int | None = None,
        **details: str,
    ) -> None:
        """A row of the audit log, which is there if the transaction is committed; the log line and
        the count follow the commit. `actor`: the account that did it, if that is another.
        """
        request = current_request.get()
        values = {
            "event": event,
            "account_id": account,
            "actor_id": actor or (None if request is None else account),
            "session_id": session,
            "client": (_client_of(request) or "")[:MAX_ADDRESS] or None,
            "request_id": None if request is None else request.id,
            "details": details,
        }
        await transaction.execute(insert(AUDIT_EVENTS).values(values))
        if actor is not None:
            details["by"] = str(actor)

        def record(_: object) -> None:
            self.record(event, account, session, **details)

        events.listen(transaction.sync_session, "after_commit", record, once=True)

    def record(
        self, event: Event, account: int | None = None, session: int | None = None, **details: str
    ) -> None:
        """`account` is None where there is none or it is unknown."""
        self._counters[event].inc()
        fields = {
            "event": event,
            "account": account,
            # As text: it has up to 63 bits, and many JSON parsers read 53.
            "session": None if session is None else str(session),
            "client": _client_of(current_request.get()),
            **details,
        }
        level = logging.WARNING if event in SUSPICIOUS else logging.INFO
        given = {name: value for name, value in fields.items() if value is not None}
        log.log(level, "Security event: %s", event.replace("_", " "), extra=given)


def _client_of(request: RequestContext | None) -> str | None:
    client = request and request.scope.get("client")
    return client[0] if client else None
