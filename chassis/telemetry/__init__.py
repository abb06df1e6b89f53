"""Metrics over all workers, logs and traces."""
