from sqlalchemy import ColumnElement, case

from app.models import User


def login_hash(verify: bool | None) -> ColumnElement[str | None]:
    """A column for queries of users: the password's hash, NULL where the account cannot log in.

    A login then fails as if there were no account. A response of its own, even to the right
    password, would tell a stranger whether his registration was the first of an address.
    """
    may_log_in = User.verified_at.is_not(None) if verify else User.id.is_not(None)
    return case((may_log_in, User.password_hash)).label("password_hash")
