"""What a type checker must refuse."""

from api_client import AuthenticatedClient
from api_client.api.users import get_current_user, update_current_user
from api_client.models import UserRead, UserUpdate

client = AuthenticatedClient("", "")
user = get_current_user.sync(client=client)
print(user.name)  # it may be a Problem
if isinstance(user, UserRead):
    print(user.nmae)
update_current_user.sync(client=client, body=UserUpdate(name=7))
