"""The clients of one worker for a server of the Redis protocol: pooled and shared."""
