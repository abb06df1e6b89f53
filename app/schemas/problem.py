from pydantic import BaseModel, ConfigDict, Field


class FieldError(BaseModel):
    loc: list[str | int] = Field(examples=[["query", "limit"]])
    msg: str = Field(examples=["Input should be less than or equal to 100"])
    type: str = Field(examples=["less_than_equal"])


class Problem(BaseModel):
    """An error, as RFC 9457 wants it."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str | None
    errors: list[FieldError] | None = Field(None, description="The first 20 faults of a request")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "Book 7 does not exist",
                    "instance": "/v1/books/7",
                    "request_id": "0e6a5b0c8c1f4e0f9d0f3a4c1b2d3e4f",
                }
            ]
        }
    )
