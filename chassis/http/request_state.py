"""`scope["state"]`, typed: the resources of a worker, as its requests find them.

The lifespan yields them (chassis/resources.py), and uvicorn copies the mapping for each request. A
room declares the keys that it reads in a TypedDict, from which `Resources` inherits, so mypy checks
both sides of `state: HttpState = scope["state"]`. `settings` is ChassisSettings in `Resources`.
"""

from chassis.auth.credentials import AuthState
from chassis.browsers.response_headers import ResponseHeaders
from chassis.cache.cache import Cache
from chassis.database.engines import Sessions
from chassis.idempotency.requests import IdempotencyStore
from chassis.limits.load_shedding import AdmissionController
from chassis.limits.route_limits import LimitsState
from chassis.request_context import InFlight
from chassis.telemetry.access_log import LogState
from chassis.telemetry.error_reports import ErrorReports
from chassis.telemetry.metrics import Metrics


class HttpState(AuthState, LimitsState, LogState):
    metrics: Metrics
    error_reports: ErrorReports
    response_headers: ResponseHeaders
    sessions: Sessions
    cache: Cache
    admission: AdmissionController
    in_flight: InFlight
    idempotency: IdempotencyStore
