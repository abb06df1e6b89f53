"""`make lint`: python -m chassis.development.lint_migrations"""

import sys

from chassis.development.lint_migrations.read import lint
from chassis.migrations.revision import MIGRATIONS

if __name__ == "__main__":
    findings = lint(MIGRATIONS)
    for finding in findings:
        print(finding, file=sys.stderr)  # noqa: T201
    sys.exit(f"See docs/migrations.md: {len(findings)} in migrations" if findings else 0)
