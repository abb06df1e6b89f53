"""Work that must happen, as services write it into the outbox."""

from typing import ClassVar

from pydantic import BaseModel


class Job(BaseModel):
    """`name` is what the row keeps, so that the class may be renamed."""

    name: ClassVar[str]


class SendWelcome(Job):
    name = "send_welcome"

    user_id: int
