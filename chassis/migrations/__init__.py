"""Running migrations, and telling whether the database has the schema that this code needs.
chassis/development/make_migration writes them.
"""
