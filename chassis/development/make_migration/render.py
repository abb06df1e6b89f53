"""How operations are written as Python: without names of this service, for both databases."""

import re
from typing import Any, Literal

from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import _repr_type
from sqlalchemy import TypeDecorator

MAX_IDENTIFIER = 64  # MariaDB's; a longer name is shortened where `op.f` marks it

CONSTANTS = {
    "ID": 'sa.BigInteger().with_variant(sa.Integer(), "sqlite")',
    "TIME": 'sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")',
    "LONG_TEXT": 'sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")',
}


def render_item(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
    """A type of the models as its type in the database: models change, migrations do not."""
    if kind == "type" and isinstance(item, TypeDecorator):
        return _repr_type(item.impl_instance, context)
    return False


def tidy(code: str) -> str:
    """For the template: the body of a function without Alembic's decoration."""
    code = re.sub(r" *# ### .*\n?", "", code)
    code = re.sub(r",? (schema=None|unique=False)(?=[,)])", "", code)
    code = re.sub(r"(\bop|batch_op)\.f\('([^']*)'\)", _plain_name, code)
    # MariaDB's dialect has two names here.
    code = re.sub(
        r"\.with_variant\(([^\n]*?\)), 'mariadb'\)\.with_variant\(\1, 'mysql'\)",
        r".with_variant(\1, 'mysql', 'mariadb')",
        code,
    )
    for name, text in CONSTANTS.items():
        code = code.replace(text.replace('"', "'"), name)
    return code.strip()


def constants(*bodies: str) -> str:
    used = [name for name in CONSTANTS if re.search(rf"\b{name}\b", "".join(bodies))]
    return "".join(f"{name} = {CONSTANTS[name]}\n" for name in used)


def _plain_name(match: re.Match[str]) -> str:
    return match[0] if len(match[2]) > MAX_IDENTIFIER else repr(match[2])
