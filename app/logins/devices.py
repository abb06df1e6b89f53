"""The client of a login, as its account is shown it in the list of sessions."""

from typing import TypedDict

from chassis.addresses import MAX_ADDRESS
from chassis.request_context import current_request

MAX_USER_AGENT = 200  # characters


class Device(TypedDict):
    user_agent: str | None
    address: str | None  # as a trusted proxy reports it


def device_of_request() -> Device:
    request = current_request.get()
    if request is None:
        return Device(user_agent=None, address=None)
    client = request.scope.get("client")
    fields = [value for name, value in request.scope["headers"] if name == b"user-agent"]
    # Anybody may send anything: without control characters, it is a line of text.
    text = "".join(filter(str.isprintable, b" ".join(fields).decode("latin-1")))
    return Device(
        user_agent=text.strip()[:MAX_USER_AGENT] or None,
        address=client[0][:MAX_ADDRESS] if client else None,
    )
