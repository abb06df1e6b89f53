from typing import Literal

from pydantic import BaseModel, Field

from chassis.schemas.fields import Body


class TokensRead(BaseModel):
    """As RFC 6749, section 5.1."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - its kind, not a secret
    expires_in: int = Field(description="Seconds until the access token ends", examples=[900])
    refresh_token: str = Field(description="Good for one refresh")


class TokenRefresh(Body):
    refresh_token: str = Field(max_length=100, examples=["kQ0bQz4k3vJ1..."])
