<%!
from chassis.development.make_migration.render import constants, tidy
%>\
<%
up, down = tidy(upgrades), tidy(downgrades)
%>\
"""${message}"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql
${imports if imports else ""}

revision: str = ${repr(up_revision)}
down_revision: str | Sequence[str] | None = ${repr(down_revision)}
branch_labels: str | Sequence[str] | None = ${repr(branch_labels)}
depends_on: str | Sequence[str] | None = ${repr(depends_on)}

${constants(up, down)}

def upgrade() -> None:
    ${up if up else "pass"}


def downgrade() -> None:
    ${down if down else "pass"}
