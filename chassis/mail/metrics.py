from prometheus_client import CollectorRegistry, Counter


class MailMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        mails = Counter(
            "mails_total",
            "Mails by the final response of the mail server",
            ["result"],
            registry=registry,
        )
        self.mails = {result: mails.labels(result) for result in ("sent", "refused")}
