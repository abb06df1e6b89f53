from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as Plain

from chassis.telemetry.histogram import Histogram, add_up_all

BUCKETS = (0.1, 1, 10)
VALUES = (0, 0.1, 0.5, 1, 1.5, 10, 11, 0.05)


def test_batches_give_what_single_observations_give():
    samples = []
    for kind in (Plain, Histogram):
        registry = CollectorRegistry()
        histogram = kind("size", "Sizes", ["kind"], buckets=BUCKETS, registry=registry)
        for value in VALUES:
            histogram.labels("a").observe(value)
        add_up_all()
        histogram.labels("a").observe(2)  # this one has not been added up
        samples.append(
            [
                (sample.name, sample.labels, sample.value)
                for metric in registry.collect()
                for sample in metric.samples
                if not sample.name.endswith("_created")
            ]
        )

    assert samples[0] == samples[1]
    assert ("size_count", {"kind": "a"}, len(VALUES) + 1) in samples[1]
