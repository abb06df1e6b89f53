"""Small additions to asyncio: background tasks, timeouts, single flight, backoff."""
