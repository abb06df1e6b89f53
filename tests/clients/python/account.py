"""Register, log in and change one's name. Arguments: URL, e-mail address, password."""

import sys

from api_client import AuthenticatedClient, Client
from api_client.api.tokens import create_tokens
from api_client.api.users import create_user, get_current_user, update_current_user
from api_client.models import (
    BodyCreateTokens,
    Problem,
    TokensRead,
    UserCreate,
    UserRead,
    UserUpdate,
)

url, email, password = sys.argv[1:]
anonymous = Client(url)

registration = UserCreate(email=email, name="Ada", password=password)
user = create_user.sync(client=anonymous, body=registration, idempotency_key="once")
assert isinstance(user, UserRead)

again = create_user.sync(client=anonymous, body=registration)
assert isinstance(again, Problem)
assert again.status == 409

form = BodyCreateTokens(username=email, password=password, grant_type="password")
tokens = create_tokens.sync(client=anonymous, body=form)
assert isinstance(tokens, TokensRead)
client = AuthenticatedClient(url, tokens.access_token)

shown = get_current_user.sync_detailed(client=client)
etag = shown.headers["ETag"]
changed = update_current_user.sync(client=client, body=UserUpdate(name="Grace"), if_match=etag)
assert isinstance(changed, UserRead)
assert changed.name == "Grace"

stale = update_current_user.sync(client=client, body=UserUpdate(name="Edsger"), if_match=etag)
assert isinstance(stale, Problem)
assert stale.status == 412

invalid = update_current_user.sync(client=client, body=UserUpdate(name=""))
assert isinstance(invalid, Problem)
assert invalid.errors
assert invalid.errors[0].loc == ["body", "name"]
