"""The README that `make mine` leaves: it leads to a resource of one's own."""

import re
import sys
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.chassis.development.test_serve import served
from tests.project.test_make_mine import clone, make_mine, run_in


@pytest.mark.drill
async def test_readme_leads_to_a_resource_of_ones_own(tmp_path: Path, mariadb: URL):
    """Its commands as they stand there, but for the port, and with packages that are installed."""
    checkout = clone(tmp_path / "checkout")
    code, output = make_mine(checkout, "NAME=orders", "TITLE=Orders API", "SAMPLE=no")
    assert code == 0, output
    link_packages(checkout)
    [look_around] = commands(checkout, "Look around")
    add, request = commands(checkout, "Add a resource")
    token = look_around.partition("\ncurl ")[0]

    async with served(checkout) as service:
        looked = follow(checkout, look_around, service.url, mariadb)
    added = follow(checkout, add, service.url, mariadb)
    async with served(checkout) as service:
        requested = follow(checkout, f"{token}\n{request}", service.url, mariadb)

    assert looked.count('"title":"First"') == 2
    assert '"title":"Second"' in looked
    assert "written: app/models/order.py" in added
    assert "Next: make test ONLY=tests/app/test_orders.py" in added
    assert " passed in " in added
    assert requested.count('"number":"A-1"') == 2


def link_packages(checkout: Path) -> None:
    """So that `make` takes them for installed."""
    (checkout / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (checkout / ".venv" / name).symlink_to(Path(sys.prefix, name))
    (checkout / ".venv/run").touch()
    (checkout / ".venv/dev").touch()


def commands(checkout: Path, heading: str) -> list[str]:
    """The blocks of a section of README.md."""
    section = (checkout / "README.md").read_text().partition(f"\n## {heading}\n")[2]
    return re.findall(r"```sh\n(.*?)\n```", section.partition("\n## ")[0], re.DOTALL)


def follow(checkout: Path, block: str, url: str, mariadb: URL) -> str:
    done = run_in(checkout, mariadb, "bash", "-euc", block.replace("http://127.0.0.1:8000", url))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout
