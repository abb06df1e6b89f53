from typing import Literal

from pydantic import BaseModel, Field

ReplicaState = Literal["unknown", "ok", "lagging", "unavailable"]


class Health(BaseModel):
    status: Literal["ok"] = Field(examples=["ok"])


class Readiness(BaseModel):
    status: Literal["ready"] = Field(examples=["ready"])
    database: Literal["ok"] = Field(examples=["ok"])
    replica: ReplicaState | None = Field(
        None, description="Left out where there is none", examples=["ok"]
    )
    redis: Literal["ok", "unavailable"] = Field(examples=["ok"])
