"""Engines, sessions, transactions, timing, replicas, keyset pages."""
