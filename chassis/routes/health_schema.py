from typing import Literal

from pydantic import BaseModel, Field

from chassis.database.replica import ReplicaState

RedisState = Literal["ok", "full", "unavailable"]


class Health(BaseModel):
    status: Literal["ok"] = Field(examples=["ok"])


class Readiness(BaseModel):
    status: Literal["ready"] = Field(examples=["ready"])
    database: Literal["ok"] = Field(examples=["ok"])
    replica: ReplicaState | None = Field(
        None, description="Of several, the worst; omitted if there is none", examples=["ok"]
    )
    redis: RedisState = Field(description="The server of the cache", examples=["ok"])
    queue: RedisState | None = Field(
        None,
        description="The server of jobs and limits; omitted if it is that of the cache",
        examples=["ok"],
    )
