from typing import ClassVar

from pydantic import BaseModel


class Job(BaseModel):
    """Work that must happen, as services write it into the outbox.

    A row keeps `name`, so the class may be renamed, and the fields as JSON.
    """

    name: ClassVar[str]
