"""What `make lint` says about migrations, which it runs without a database."""

from pathlib import Path

import pytest

from chassis.development.lint_migrations.read import Finding, lint
from chassis.migrations.revision import MIGRATIONS

HEAD = """
import sqlalchemy as sa
from alembic import op
from chassis.migrations.online import may_break, may_lock

revision = "{revision}"
down_revision = {before}

def upgrade():
{body}

def downgrade():
    pass
"""
FIRST = """
    op.create_table(
        "goods",
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("title", sa.String(50), nullable=False),
        sa.Column("year", sa.Integer),
        sa.Column("price", sa.Numeric(8, 2)),
        sa.Column("note", sa.Text),
    )
    op.create_table("notes", sa.Column("id", sa.BigInteger), sa.Column("words", sa.Text))
    op.execute("CREATE FULLTEXT INDEX ix_words ON notes (words)")
    op.create_index("ix_year", "goods", ["year"], unique=True)
"""
TYPE = 'op.alter_column("goods", "{}", type_={}, existing_nullable=True)'


def linted(folder: Path, body: str) -> list[Finding]:
    (folder / "versions").mkdir()
    first = HEAD.format(revision="0001", before=None, body=FIRST)
    second = HEAD.format(revision="0002", before='"0001"', body=f"    {body}")
    (folder / "versions" / "0001_first.py").write_text(first)
    (folder / "versions" / "0002_second.py").write_text(second)
    return lint(folder)


def test_migrations_of_this_service_are_fine():
    assert lint(MIGRATIONS) == []


@pytest.mark.parametrize(
    "step",
    [
        'op.add_column("goods", sa.Column("pages", sa.Integer))',
        'op.add_column("goods", sa.Column("n", sa.Integer, server_default="7", nullable=False))',
        'op.create_index("ix_title", "goods", ["title"])',
        TYPE.format("title", "sa.String(60)"),
        'op.alter_column("goods", "year", server_default="1900", existing_type=sa.Integer())',
        'op.alter_column("goods", "year", nullable=True, existing_type=sa.Integer())',
        'op.create_table("new", sa.Column("id", sa.Integer)); op.drop_column("new", "id")',
        'op.create_table("t", sa.Column("id", sa.Integer)); op.execute("ALTER TABLE t ADD x INT")',
        "op.bulk_insert(sa.table('goods', sa.column('id')), [{'id': 1}])",
        'assert op.get_bind().dialect.name == "mariadb"',
        'assert op.get_bind().execute(sa.text("SELECT id FROM goods")).all() == []',
    ],
)
def test_step_that_old_code_and_writers_survive_is_silent(tmp_path: Path, step: str):
    assert linted(tmp_path, step) == []


@pytest.mark.parametrize(
    ("step", "harm", "what"),
    [
        ('op.drop_table("goods")', "breaks", "goods is dropped"),
        ('op.rename_table("goods", "works")', "breaks", "goods is renamed"),
        ('op.drop_column("goods", "year")', "breaks", "goods.year is dropped"),
        (
            'op.alter_column("goods", "year", new_column_name="at", existing_type=sa.Integer())',
            "breaks",
            "goods.year is renamed",
        ),
        (
            'op.add_column("goods", sa.Column("pages", sa.Integer, nullable=False))',
            "breaks",
            "goods.pages is NOT NULL without a default",
        ),
        (
            'op.alter_column("goods", "year", nullable=False, existing_type=sa.Integer())',
            "breaks",
            "goods.year becomes NOT NULL",
        ),
        (
            'op.alter_column("goods", "title", server_default=None, existing_type=sa.String(50))',
            "breaks",
            "goods.title loses its default",
        ),
        (TYPE.format("title", "sa.String(40)"), "breaks", "VARCHAR(40) instead of VARCHAR(50)"),
        (TYPE.format("year", "sa.SmallInteger()"), "breaks", "SMALLINT instead of INTEGER"),
        (TYPE.format("price", "sa.Numeric(9, 1)"), "breaks", "NUMERIC(9, 1) instead of"),
        (TYPE.format("year", "sa.String(60)"), "breaks", "VARCHAR(60) instead of INTEGER"),
        (TYPE.format("year", "sa.BigInteger()"), "locks", "goods.year becomes BIGINT"),
        (TYPE.format("title", "sa.String(64)"), "locks", "goods.title becomes VARCHAR(64)"),
        (TYPE.format("title", "sa.Text()"), "locks", "goods.title becomes TEXT"),
        (TYPE.format("price", "sa.Numeric(9, 2)"), "locks", "goods.price becomes NUMERIC(9, 2)"),
        ('op.create_unique_constraint("u", "goods", ["title"])', "breaks", "a unique index"),
        ('op.create_index("u", "goods", ["title"], unique=True)', "breaks", "a unique index"),
        ('op.create_check_constraint("c", "goods", "year > 0")', "breaks", "gets a CHECK"),
        ('op.create_check_constraint("c", "goods", "year > 0")', "locks", "gets a CHECK"),
        (
            'op.create_foreign_key("f", "goods", "notes", ["id"], ["id"])',
            "breaks",
            "goods gets a foreign key",
        ),
        (
            'op.add_column("goods", sa.Column("n", sa.BigInteger, sa.ForeignKey("notes.id")))',
            "locks",
            "goods.n has a foreign key",
        ),
        (
            'op.add_column("goods", sa.Column("n", sa.Integer, sa.Computed("id", persisted=True)))',
            "locks",
            "goods.n is stored",
        ),
        (
            'op.add_column("notes", sa.Column("n", sa.Integer))',
            "locks",
            "notes has a FULLTEXT index",
        ),
        (
            'op.create_index("f", "goods", ["note"], mariadb_prefix="FULLTEXT")',
            "locks",
            "a FULLTEXT index",
        ),
        ('op.drop_constraint("u", "goods", type_="unique")', "breaks", "loses a constraint"),
        ('op.drop_index("ix_year", "goods")', "breaks", "loses an index"),
        ('op.execute("ALTER TABLE goods DROP year")', "breaks", "cannot be judged"),
        (
            'op.get_bind().execute(sa.text("DROP TABLE goods"))',
            "breaks",
            "cannot be judged",
        ),
        ('op.execute("UPDATE goods SET year = 1")', "locks", "locks all rows"),
        ("op.get_bind().execute(sa.text('SELECT 1')).one()", "breaks", "without a database"),
        (
            'b = op.batch_alter_table("goods").__enter__(); b.drop_column("year")',
            "breaks",
            "goods.year is dropped",
        ),
    ],
)
def test_step_that_harms_is_named_with_its_line(tmp_path: Path, step: str, harm: str, what: str):
    found = linted(tmp_path, step)

    assert {finding.line for finding in found} == {10}
    assert [str(each) for each in found if what in each.harm.what and each.harm.kind == harm]
    assert all(str(each).startswith("0002_second.py:10: ") for each in found)


def test_step_that_says_why_is_silent(tmp_path: Path):
    step = """with may_break("nothing has read it since 2.3"):
        op.drop_column("goods", "year")
    with may_lock("goods has 300 rows"):
        op.alter_column("goods", "title", type_=sa.String(300), existing_nullable=False)
        op.drop_column("goods", "note")"""

    found = linted(tmp_path, step)

    assert [(each.line, each.harm.what) for each in found] == [(14, "goods.note is dropped")]


def test_reason_has_to_be_given(tmp_path: Path):
    [found] = linted(tmp_path, 'may_break(" ").__enter__()')

    assert "say why this step does no harm" in str(found)
