"""Has certbot get and renew the certificate of DOMAIN, and puts it where nginx takes it in.

    certificate.py                     for as long as the container runs
    certificate.py once [OPTION...]    now, with more options of certbot, such as --force-renewal

The volume holds the state of certbot, for each ACME server apart; `challenges`, which nginx serves;
`served`, a link to the folder with the pair of files that nginx takes in; and `next.json`, when to
ask again, so that a container that is restarted over and over does not use up the server's limits.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from certbot_run import DOMAINS, EMAIL, NAME, SERVER, STATE, VOLUME, check_settings, run_certbot
from pair import fault_of, read_pair, validity

SERVED = VOLUME / "served"
NEXT = VOLUME / "next.json"
HEALTHY = Path("/tmp/healthy")

# s; certbot renews at two thirds of the lifetime, or when the server says so.
CHECK_EVERY = 12 * 3600
RETRY_AFTER = (3600, 4 * 3600, 12 * 3600, 24 * 3600)  # s; Let's Encrypt allows 5 failures an hour
TICK = 2  # s

AT_ONCE = (
    "to try at once: docker compose -f docker-compose.yml exec acme python3"
    " /etc/acme/certificate.py once"
)

NEXT_STEPS = (
    ("accountDoesNotExist|Account .* not found", "nothing: the next try registers a new account"),
    (
        "No space left|Disk quota",
        "make room on the disk of the volume, for instance by docker image prune",
    ),
    (
        "rateLimited|rate limit|too many",
        "wait until the server accepts requests again, and set ACME_SERVER to its staging server"
        " for trials",
    ),
    (
        "Type: *(dns|connection|unauthorized)",
        "let the DNS records (A and AAAA) of every name in DOMAIN lead to this machine, and let"
        " everybody reach its port 80 (firewall, HTTP_PORT, EDGE_ADDRESS)",
    ),
    (
        "ConnectionError|HTTPSConnectionPool|Connection refused|timed out|Name or service",
        f"see that this machine reaches {SERVER}, and that ACME_SERVER is right",
    ),
)


def say(text: str) -> None:
    print(f"acme: {text}", flush=True)


@contextmanager
def locked() -> Iterator[None]:
    """One at a time: the loop, and a command in the same container."""
    with Path("/tmp/lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def publish() -> None:
    """Let nginx have what certbot has stored, also when a run was cut off in between."""
    pair = read_pair(STATE / "live" / NAME)
    if pair is None or pair == read_pair(SERVED):
        return
    if fault := fault_of(pair, DOMAINS):
        raise ValueError(f"the new certificate is not used: {fault}")
    folder = VOLUME / f"pair-{hashlib.sha256(b''.join(pair)).hexdigest()[:16]}"
    new, link = folder.with_suffix(".new"), VOLUME / "served.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    for name, content in zip(("fullchain.pem", "privkey.pem"), pair, strict=True):
        (new / name).write_bytes(content)
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    before = SERVED.resolve()
    link.replace(SERVED)  # both files at once
    for other in VOLUME.glob("pair-*"):
        if other not in (folder, before):  # nginx may just be reading that
            shutil.rmtree(other, ignore_errors=True)
    say(f"new certificate for {', '.join(DOMAINS)}, {validity(pair)}")


def reason_of(output: str) -> str:
    """What the server found, else certbot's last words but for where its log is."""
    found = re.findall(r"(?m)^ *Domain: *(\S+)\n *Type: *(\S+)\n *Detail: *(.+)$", output)
    if found:
        return "; ".join(f"{domain}: {detail} ({kind})" for domain, kind, detail in found)
    lines = [
        line.strip()
        for line in output.splitlines()
        if line.strip() and not re.search("Saving debug log|See the logfile|Ask for help", line)
    ]
    return " ".join(lines[-2:])[-600:]


def read_next() -> dict[str, float | str]:
    """When to try, and after how many failures; at once after a change of a setting."""
    settings = " ".join([*DOMAINS, EMAIL, SERVER])
    try:
        known = json.loads(NEXT.read_text())
        if known["settings"] == settings:
            return {"at": known["at"], "failures": known["failures"], "settings": settings}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {"at": 0, "failures": 0, "settings": settings}


def attempt(options: list[str]) -> bool:
    known = read_next()
    failures = int(known["failures"])
    try:
        run_certbot(options)
        publish()
        failures, wait = 0, CHECK_EVERY
    except (RuntimeError, ValueError, OSError) as error:
        wait = RETRY_AFTER[min(failures, len(RETRY_AFTER) - 1)]
        failures += 1
        tell_failure(str(error), wait)
    known |= {"at": time.time() + wait, "failures": failures}
    try:
        new = NEXT.with_suffix(".new")
        new.write_text(json.dumps(known))
        new.replace(NEXT)
    except OSError as error:
        say(f"{NEXT} cannot be written ({error}); make room on the disk of the volume")
    return failures == 0


def tell_failure(output: str, wait: float) -> None:
    steps = [step for pattern, step in NEXT_STEPS if re.search(pattern, output)]
    pair = read_pair(SERVED)
    served = f"the one that is served is {validity(pair)}" if pair else "there is none yet"
    at = datetime.fromtimestamp(time.time() + wait, UTC).strftime("%Y-%m-%d %H:%M UTC")
    say(f"no new certificate for {', '.join(DOMAINS)}; {served}. Reason: {reason_of(output)}")
    say(f"next step: {steps[0] if steps else 'see docs/deploy.md'}. Next try at {at}; {AT_ONCE}")


def show_health() -> None:
    """For the health check: what is served is what clients accept."""
    pair = read_pair(SERVED)
    if pair and not fault_of(pair, DOMAINS):
        HEALTHY.touch()
    else:
        HEALTHY.unlink(missing_ok=True)


def stop(*_: object) -> None:
    sys.exit()


def main() -> None:
    check_settings()
    os.umask(0o027)  # the group is that of nginx, which reads the pair
    if sys.argv[1:2] == ["once"]:
        with locked():
            sys.exit(not attempt(sys.argv[2:]))
    signal.signal(signal.SIGTERM, stop)  # nothing else ends the first process of a container
    told = ""
    earliest = 0.0  # of this process, where the disk is too full to write that down
    while True:
        with locked():
            try:
                publish()
            except (ValueError, OSError) as error:
                if told != str(error):
                    told = str(error)
                    tell_failure(told, CHECK_EVERY)
            if time.time() >= max(float(read_next()["at"]), earliest):
                done = attempt([])
                earliest = time.time() + (0 if done else RETRY_AFTER[0])
        show_health()
        time.sleep(TICK)


if __name__ == "__main__":
    main()
