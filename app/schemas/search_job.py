from chassis.jobs.job import Job


class RebuildWords(Job):
    """After a change of an author's name: the search words of books with ids above `after`."""

    name = "rebuild_words"

    author_id: int
    version: int  # of the author
    after: int = 0

    @property
    def key(self) -> str:
        return f"words-{self.author_id}-{self.version}-{self.after}"
