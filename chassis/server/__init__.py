"""The Gunicorn worker and its HTTP protocol: connections, timeouts, draining, a watchdog."""
