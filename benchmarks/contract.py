"""A running service against its own OpenAPI document, by requests that Schemathesis generates.

It runs as a program: this reads its report, and its text for people.
"""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

CONFIG = Path(__file__).with_name("schemathesis.toml")
ROOT = CONFIG.parent.parent


@dataclass(frozen=True)
class Login:
    username: str
    password: str


# The dictionaries of schemathesis.toml know this account: there must be one.
VISITOR = Login("visitor@example.com", "correct horse battery")


@dataclass(frozen=True)
class Report:
    requests: int
    accepted: dict[str, int]  # requests with a 2xx or 3xx response, by operation
    findings: int
    text: str  # each finding with a curl line that repeats it


async def check_contract(url: str, folder: Path, login: Login | None, *options: str) -> Report:
    """Try every operation, with the options of `schemathesis run`; `folder` takes its files.

    Raises RuntimeError where it could not run, or could not log in.
    """
    path = folder / "report.json"
    path.unlink(missing_ok=True)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "--no-color"),
        *("run", f"{url}/openapi.json", "--report", "json", "--report-json-path", str(path)),
        *options,
        cwd=folder,
        env=os.environ | {"COLUMNS": "100"} | _login(url, login),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    text = output.decode()
    report = json.loads(path.read_text()) if path.exists() else {}
    if not report.get("complete") or report["errors"] or report["auth"]["reauth_broke"]:
        raise RuntimeError(f"Schemathesis did not finish:\n{text}")
    return Report(
        requests=report["test_cases"]["generated"],
        accepted={
            operation: sum(phase["accepted"] for phase in phases.values())
            for operation, phases in report["valid_rates"].items()
        },
        findings=report["test_cases"]["unique_failures"],
        text=text,
    )


def _login(url: str, login: Login | None) -> dict[str, str]:
    """The variables by which Schemathesis loads contract_login.py."""
    if login is None:
        return {}
    return {
        "SCHEMATHESIS_HOOKS": "benchmarks.contract_login",
        "PYTHONPATH": str(ROOT),
        "CONTRACT_URL": url,
        "CONTRACT_USERNAME": login.username,
        "CONTRACT_PASSWORD": login.password,
    }
