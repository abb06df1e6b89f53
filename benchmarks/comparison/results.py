"""Medians of samples, and the machine on which they were taken, as JSON."""

import importlib.metadata
import json
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.comparison.cpus import ALL
from benchmarks.comparison.measure import CLIENTS, Plan, Sample, Samples
from benchmarks.service import ROOT

RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = (
    *("fastapi", "starlette", "pydantic", "uvicorn", "uvloop", "httptools", "gunicorn"),
    *("sqlalchemy", "asyncmy", "redis", "hiredis", "httpx2", "orjson"),
)


@dataclass(frozen=True)
class Range:
    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """Half of the whole, as a part of the median."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


@dataclass(frozen=True)
class Summary:
    rate: Range
    p50: Range
    p95: Range
    p99: Range
    cpu: Range
    errors: int
    rounds: int


def summary_of(samples: Sequence[Sample]) -> Summary:
    def over_rounds(name: str) -> Range:
        values = [getattr(sample, name) for sample in samples]
        return Range(median(values), min(values), max(values))

    names = [field.name for field in fields(Sample) if field.name != "errors"]
    return Summary(
        **{name: over_rounds(name) for name in names},
        errors=sum(sample.errors for sample in samples),
        rounds=len(samples),
    )


def summaries(samples: Samples) -> dict[tuple[str, str], Summary]:
    return {key: summary_of(taken) for key, taken in samples.items()}


def machine() -> dict[str, Any]:
    """No name and no path of it."""
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.machine(),
        "cpus": len(ALL),
        "memory_gib": round(int(memory[1]) / 2**20) if memory else None,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def write(
    path: Path,
    results: Mapping[tuple[str, str], Summary],
    versions: Mapping[str, str],
    plan: Plan,
    more: Mapping[str, Any],
) -> None:
    nested: dict[str, dict[str, Any]] = {}
    for (label, name), summary in results.items():
        nested.setdefault(label, {})[name] = asdict(summary)
    document = {
        "clients": CLIENTS,
        "plan": asdict(plan),
        "units": {"rate": "1/s", "p50, p95, p99": "ms", "cpu": "µs per response", "memory": "MiB"},
        **more,
        "results": nested,
    }
    write_document(path, versions, document)


def write_document(path: Path, versions: Mapping[str, str], content: Mapping[str, Any]) -> None:
    """`content`, after when, where and with what it was measured."""
    installed = {name: importlib.metadata.version(name) for name in PACKAGES}
    document = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": machine(),
        "versions": {**versions, **installed},
        **content,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rounded(document), indent=1, ensure_ascii=False) + "\n")


def rounded(value: Any) -> Any:
    """Every float of it with two decimals."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return round(value, 2) if isinstance(value, float) else value


def commit() -> str:
    """What was measured; with a plus where the work tree differs from it."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "app", "chassis")
    return git("rev-parse", "--short", "HEAD") + "+" * bool(changed)
