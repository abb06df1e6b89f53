from pydantic import BaseModel, Field

from chassis.settings.types import Count


class CacheSettings(BaseModel):
    enabled: bool = Field(True, description="Cache responses and values in Redis")
    namespace: str = Field(
        "", min_length=1, description="Prefix of all keys in Redis; else the name of the service"
    )
    max_value: Count = Field(262_144, description="Largest cached value, bytes")
