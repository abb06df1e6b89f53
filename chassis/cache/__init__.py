"""A read-through cache in Redis, invalidated by tags: reads after a write see no older data."""
