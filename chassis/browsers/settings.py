import re
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from chassis.settings.types import Count

ANY_ORIGIN = "https://anybody.invalid"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2


def words(text: str) -> list[str]:
    """Those of a list that is separated by commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def _check_origins(text: str) -> str:
    for origin in words(text):
        if origin != "*" and (wanted := _as_browsers_send(origin)) != origin:
            advice = f"; write {wanted}" if wanted else ""
            raise PydanticCustomError(
                "origins",
                f"has `{origin}`, which is no origin such as https://app.example.com{advice}",
            )
    return text


def _as_browsers_send(origin: str) -> str | None:
    """The origin of this URL, in the form of the Origin header; None if it has none."""
    try:
        parts = urlsplit(origin)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode()
    except ValueError:
        return None
    if not (parts.scheme and host) or parts.username is not None or set(host) & set("*?{}"):
        return None
    host = f"[{host}]" if ":" in host else host
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, usual) else "")


def _check_pattern(text: str) -> str:
    try:
        re.compile(text.encode("ascii"))  # as the header is, with which it is compared
    except (re.error, UnicodeEncodeError) as error:
        raise PydanticCustomError("pattern", f"is no regular expression: {error}") from None
    return text


def _check_names(text: str) -> str:
    for name in words(text):
        if not _TOKEN.fullmatch(name):
            raise PydanticCustomError("names", f"has `{name}`, which is no name of a header")
    return text


class CorsSettings(BaseModel):
    origins: Annotated[str, AfterValidator(_check_origins)] = Field(
        "",
        description="Origins whose pages may call the API from a browser, comma-separated, such as "
        "https://app.example.com; `*`: all",
    )
    origin_pattern: Annotated[str, AfterValidator(_check_pattern)] = Field(
        "",
        description="Regular expression for further ones, which must match the whole origin, such "
        r"as https://[a-z0-9-]+\.preview\.example\.com",
    )
    credentials: bool = Field(
        False, description="Let these pages send cookies; tokens in headers do not need it"
    )
    headers: Annotated[str, AfterValidator(_check_names)] = Field(
        "",
        description="Request headers that they may send besides the service's own, such as X-A,X-B",
    )
    max_age: Count = Field(600, description="Time for which browsers keep a preflight response, s")

    @model_validator(mode="after")
    def refuse_everybody_with_cookies(self) -> Self:
        everybody = "*" in words(self.origins) or re.fullmatch(self.origin_pattern, ANY_ORIGIN)
        if self.credentials and everybody:
            raise PydanticCustomError(
                "named",
                "CORS_CREDENTIALS: would let every site act with the cookies of its visitors, as "
                "CORS_ORIGINS is `*` or CORS_ORIGIN_PATTERN matches everything; name the origins",
            )
        return self
