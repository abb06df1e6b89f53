from prometheus_client import CollectorRegistry, Counter


class SecurityMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.security_events = Counter(
            "security_events_total",
            "Security events of accounts, passwords, sessions, roles and API keys",
            ["event"],
            registry=registry,
        )
