from typing import Literal

from pydantic import BaseModel, Field


class Health(BaseModel):
    status: Literal["ok"] = Field(examples=["ok"])


class Readiness(BaseModel):
    status: Literal["ready"] = Field(examples=["ready"])
    database: Literal["ok"] = Field(examples=["ok"])
    redis: Literal["ok", "unavailable"] = Field(examples=["ok"])
