"""The scripts of operators run with bash 3.2, which is what macOS has, or with any sh."""

import re
import subprocess

import pytest

from tests.process import ROOT

SCRIPTS = [
    path
    for folder in ("clients", "docker")
    for path in sorted((ROOT / folder).rglob("*.sh"))
    if path.is_file()
]
# What came with bash 4 or later, and what 3.2 gets wrong.
NEWER = {
    "mapfile, readarray": r"\b(mapfile|readarray)\b",
    "associative arrays and references": r"\b(declare|local|typeset)\s+-[a-zA-Z]*[Ang]",
    "change of case": r"\$\{[^}]*(,,|\^\^|[^/#%]\^\})",
    "transformation": r"\$\{[^}]*@[A-Za-z]\}",
    "both outputs appended or piped": r"&>>|\|&",
    "coproc": r"\bcoproc\b",
    "wait -n": r"\bwait\s+-n\b",
    "printf of a time or into an array": r"%\([^)]*\)T|printf\s+-v\s*\S+\[",
    "test of a variable": r"(\[\[?|\btest)\s+(!\s+)?-[vR]\b",
    "negative index": r"\$\{\w+\[-|\$\{\w+:\s*-?\d+:\s*-",
    "newer variables": r"\b(BASHPID|EPOCHSECONDS|EPOCHREALTIME|SRANDOM)\b",
    "newer options": r"\bshopt\s+-s\s+(globstar|inherit_errexit|lastpipe)|\bread\s+[^|;]*-t\s*0?\.",
    "case in a substitution without its parenthesis": r"(?s)\$\(\s*case\b[^\n]*\n\s*[^(\s][^\n]*\)",
    "fall through": r";;?&",
}
# Where `set -u` is on, 3.2 takes an empty array for an unset variable.
GUARDED = re.compile(r"\$\{(\w+)\[@\]\+\"\$\{\1\[@\]\}\"\}")
ARRAY = re.compile(r"\$\{(\w+)\[[@*]\]\}")
NEVER_EMPTY = {"compose", "options", "paths", "views"}  # `views` after a test of its length


def code(path: str) -> str:
    """Without comments."""
    return re.sub(r"(?m)(^|\s)#.*$", "", (ROOT / path).read_text())


@pytest.mark.parametrize("path", [str(path.relative_to(ROOT)) for path in SCRIPTS])
def test_script_has_nothing_that_bash_3_2_does_not_know(path: str):
    text = code(path)

    assert [name for name, pattern in NEWER.items() if re.search(pattern, text)] == []
    assert set(ARRAY.findall(GUARDED.sub("", text))) <= NEVER_EMPTY


@pytest.mark.parametrize(
    "line",
    [
        *("mapfile -t x", "declare -A x", "local -n x=y", "echo ${x,,}", "echo ${x^^}", "${x^}"),
        *("echo ${x@Q}", "a &>>b", "a |& b", "coproc a", "wait -n", "printf '%(%F)T' -1"),
        *("printf -v x[1] a", "[[ -v x ]]", "echo ${x[-1]}", "echo $BASHPID", "a) b ;;&"),
        *("${x:0:-1}", "declare -gA x", "x=$(case $y in\n a) b ;;\nesac)"),
    ],
)
def test_what_it_does_not_know_is_found(line: str):
    assert any(re.search(pattern, line) for pattern in NEWER.values())


@pytest.mark.parametrize("path", [str(path.relative_to(ROOT)) for path in SCRIPTS])
def test_script_parses(path: str):
    shell = (ROOT / path).read_text().partition("\n")[0].rpartition("/")[2].split()[-1]
    command = ["sh" if shell == "sh" else "bash", "-n", str(ROOT / path)]

    assert subprocess.run(command, capture_output=True, text=True, check=False).stderr == ""
