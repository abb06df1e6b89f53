"""The resource that these tests request of an image: a clone that has another names it here."""

# The path of its list, which is public and cached; editors write.
PATH = "/v1/notes"
TABLE = "notes"
TEXT = "title"  # of its fields the one that tests fill
OTHERS = {"text": "A note"}  # what a new one needs as well
# sample: begin
PATH, TABLE, TEXT = "/v1/authors", "authors", "name"
OTHERS = {}
RANKING = "/v1/rankings/books"  # which nginx stores
# sample: end


def new(text: str) -> dict[str, str]:
    """The body of a POST."""
    return {TEXT: text} | OTHERS


def change(text: str) -> dict[str, str]:
    """The body of a PATCH."""
    return {TEXT: text}
