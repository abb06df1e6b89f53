"""Tests of what has nothing to do with the kind of database run on one of them."""

import pytest

mariadb_only = pytest.mark.parametrize("empty_database", ["mariadb"], indirect=True)
sqlite_only = pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
