"""Work that must happen, as services write it into the outbox."""

from typing import ClassVar

from pydantic import BaseModel


class Job(BaseModel):
    """`name` is what the row keeps, so that the class may be renamed."""

    name: ClassVar[str]


class SendWelcome(Job):
    name = "send_welcome"

    user_id: int


class RebuildWords(Job):
    """An author has a new name: the search words of the books with ids above `after`."""

    name = "rebuild_words"

    author_id: int
    version: int  # of the author
    after: int = 0

    @property
    def key(self) -> str:
        return f"words-{self.author_id}-{self.version}-{self.after}"
