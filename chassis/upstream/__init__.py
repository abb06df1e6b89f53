"""Requests to other services: a client with limits and retries, and circuit breakers."""
