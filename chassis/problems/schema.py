from pydantic import BaseModel, Field


class FieldError(BaseModel):
    loc: list[str | int] = Field(examples=[["query", "limit"]])
    msg: str = Field(examples=["Input should be less than or equal to 100"])
    type: str = Field(examples=["less_than_equal"])


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["Order 7 does not exist"])
    instance: str = Field(examples=["/v1/orders/7"])
    request_id: str | None = Field(examples=["0e6a5b0c8c1f4e0f9d0f3a4c1b2d3e4f"])
    errors: list[FieldError] | None = Field(None, description="The first 20 faults of a request")
