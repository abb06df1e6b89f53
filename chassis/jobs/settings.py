from pathlib import Path

from pydantic import BaseModel, Field, SecretStr

from chassis.settings.redis_urls import RedisUrl
from chassis.settings.types import Seconds


class JobsSettings(BaseModel):
    url: RedisUrl | None = Field(
        None,
        description="URL of the Redis server of limits, locks and wake-ups, which must evict "
        "nothing; else that of REDIS_URL",
    )
    password: SecretStr | None = Field(None, description="Password, where that URL has none")
    replicas: int = Field(1, ge=0, description="Job workers that share the database")
    concurrency: int = Field(10, ge=1, description="Jobs that a job worker runs at once")
    timeout: Seconds = Field(30, description="Longest time for one job, s")
    attempts: int = Field(12, ge=1, description="Attempts before a job is put aside as dead")
    backoff: Seconds = Field(
        5, description="Wait after the first failure, s; it doubles each time, up to an hour"
    )
    graceful_timeout: Seconds = Field(20, description="Time for running jobs at a stop, s")
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="Port on which a job worker shows its metrics"
    )
    heartbeat: Path | None = Field(
        None, description="File that a job worker touches while it lives, for health checks"
    )
