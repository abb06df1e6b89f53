"""Runs certbot for DOMAIN, in a volume where each ACME server has a state of its own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

VOLUME = Path("/var/tmp")
CHALLENGES = VOLUME / "challenges"
CERTBOT_TIMEOUT = 600  # s
ROOM = 1024 * 1024  # bytes; without it a certificate could be made and not be stored

DOMAINS = os.environ["DOMAIN"].lower().replace(",", " ").split()
EMAIL = os.environ.get("ACME_EMAIL", "")
SERVER = os.environ["ACME_SERVER"]
# A change of the server, as from staging to production, gets a certificate of the other one.
STATE = VOLUME / "certbot" / re.sub(r"[^A-Za-z0-9.]+", "-", SERVER)
NAME = "certificate"  # certbot's, for what belongs together


def check_settings() -> None:
    label = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"
    wrong = [name for name in DOMAINS if not re.fullmatch(rf"{label}(\.{label})+", name)]
    if wrong or not DOMAINS:
        fault = (
            f"DOMAIN has {wrong[0]!r}, which is no full name of a host"
            if wrong
            else "DOMAIN is empty"
        )
        sys.exit(f"acme: {fault}; set DOMAIN=example.com,www.example.com, say, in .env")


def run_certbot(options: list[str]) -> None:
    """Raise RuntimeError with what it says."""
    if shutil.disk_usage(VOLUME).free < ROOM:
        raise RuntimeError(f"No space left in {VOLUME}")
    repair()
    CHALLENGES.mkdir(exist_ok=True)
    CHALLENGES.chmod(0o755)
    command = ["certbot", "certonly", "--non-interactive", "--agree-tos", "--webroot"]
    command += ["--webroot-path", str(CHALLENGES), "--server", SERVER, "--cert-name", NAME]
    command += [
        "--config-dir",
        str(STATE),
        "--work-dir",
        "/tmp/certbot",
        "--logs-dir",
        "/tmp/certbot",
    ]
    command += ["--max-log-backups", "0", "--keep-until-expiring", "--renew-with-new-domains"]
    command += ["--email", EMAIL] if EMAIL else ["--register-unsafely-without-email"]
    command += [word for domain in DOMAINS for word in ("--domain", domain)] + options
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=CERTBOT_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"certbot timed out after {CERTBOT_TIMEOUT} s") from None
    if re.search("accountDoesNotExist|Account .* not found", done.stdout):
        # Servers forget accounts, those for trials first: the next try makes another one.
        shutil.rmtree(STATE / "accounts", ignore_errors=True)
    if done.returncode != 0:
        raise RuntimeError(done.stdout)


def repair() -> None:
    """Remove a state that certbot would stumble over: a run that was killed left half of it."""
    live, stored = STATE / "live" / NAME, STATE / "renewal" / f"{NAME}.conf"
    names = ("cert", "chain", "fullchain", "privkey")
    try:
        whole = all((live / f"{name}.pem").stat().st_size for name in names)
        whole = whole and stored.stat().st_size > 0
    except FileNotFoundError:
        whole = False
    if not whole:
        stored.unlink(missing_ok=True)
        for folder in ("live", "archive"):
            shutil.rmtree(STATE / folder / NAME, ignore_errors=True)
    for left in (CHALLENGES / ".well-known" / "acme-challenge").glob("*"):
        left.unlink()
