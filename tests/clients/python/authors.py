"""List, create and change as an editor. Arguments: URL, e-mail address, password."""

import sys

from api_client import AuthenticatedClient, Client
from api_client.api.authors import create_author, get_author, get_authors, update_author
from api_client.api.books import create_book, get_books
from api_client.api.tokens import create_tokens
from api_client.models import (
    AuthorCreate,
    AuthorRead,
    AuthorUpdate,
    BodyCreateTokens,
    BookCreate,
    BookRead,
    PageAuthorRead,
    PageBookRead,
    Problem,
    TokensRead,
)

url, email, password = sys.argv[1:]
form = BodyCreateTokens(username=email, password=password)
tokens = create_tokens.sync(client=Client(url), body=form)
assert isinstance(tokens, TokensRead)
client = AuthenticatedClient(url, tokens.access_token)

body = AuthorCreate(name="Mary Shelley")
author = create_author.sync(client=client, body=body, idempotency_key="shelley")
repeated = create_author.sync(client=client, body=body, idempotency_key="shelley")
assert isinstance(author, AuthorRead)
assert repeated == author

page = get_authors.sync(client=client, limit=1)
assert isinstance(page, PageAuthorRead)
assert [each.id for each in page.items] == [author.id]

etag = get_author.sync_detailed(author.id, client=client).headers["ETag"]
named = AuthorUpdate(name="Mary W. Shelley")
changed = update_author.sync(author.id, client=client, body=named, if_match=etag)
assert isinstance(changed, AuthorRead)
assert (changed.name, changed.version) == ("Mary W. Shelley", author.version + 1)

book = create_book.sync(client=client, body=BookCreate(title="Lodore", author_ids=[author.id]))
assert isinstance(book, BookRead)
assert book.published_year is None
found = get_books.sync(client=client, q="lodore", sort="title")
assert isinstance(found, PageBookRead)
assert [(each.title, each.authors[0].name) for each in found.items] == [
    ("Lodore", "Mary W. Shelley")
]

missing = get_author.sync(author.id + 1, client=client)
assert isinstance(missing, Problem)
assert (missing.status, missing.title) == (404, "Not Found")
assert missing.request_id
