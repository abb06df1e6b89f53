"""Make .venv with the locked packages: python3 make_venv.py requirements-embedded.lock

It needs Python 3.11 or newer; uv is used where it is installed. Debian and Ubuntu ship Python
without pip: there it is taken from its package, unpacked below var/.
"""

import importlib.util
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from chassis.development import debian_packages

ROOT = Path(__file__).parent
VENV = ROOT / ".venv"
PYTHON = str(VENV / "bin" / "python")
PIP = ROOT / "var" / "pip"


def main(*locks: str) -> None:
    print(
        f"Installing {' and '.join(locks)} into .venv, with Python {sys.version.split()[0]} ...",
        flush=True,
    )
    required = [option for lock in locks for option in ("-r", lock)]
    if uv := shutil.which("uv"):
        run(uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(VENV))
        run(uv, "pip", "install", "--quiet", "--python", PYTHON, "--require-hashes", *required)
        return
    has_pip = importlib.util.find_spec("ensurepip") is not None
    venv.create(VENV, symlinks=True, with_pip=has_pip)
    pip = ["-m", "pip"] if has_pip else [f"{pip_wheel()}/pip"]
    options = ["-qq", "--disable-pip-version-check", "--no-input"]
    run(PYTHON, *pip, "install", *options, "--require-hashes", *required)


def pip_wheel() -> Path:
    if not PIP.exists():
        debian_packages.unpack(["python3-pip-whl"], PIP, print)
    return next(PIP.glob("usr/share/python-wheels/pip-*.whl"))


def run(*command: str) -> None:
    subprocess.run(command, check=True, cwd=ROOT)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or "see above").strip().splitlines()[-1]
        sys.exit(f"Cannot make .venv: {error.cmd[0]} failed: {reason}")
    except (FileNotFoundError, StopIteration, subprocess.TimeoutExpired) as error:
        sys.exit(f"Cannot make .venv without pip: install python3-venv, or uv ({error})")
    except OSError as error:
        sys.exit(f"Cannot make .venv: {error.filename}: {error.strerror}")
