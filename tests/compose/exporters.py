"""Images of the profile `observability`: official ones, or Debian's programs under their names."""

import re
from pathlib import Path

from tests.compose.stack import Stack

# Image, Debian's package and program, and where the official image has it.
PROGRAMS = {
    "prom/alertmanager": ("prometheus-alertmanager", "/bin/alertmanager"),
    "prom/node-exporter": ("prometheus-node-exporter", "/bin/node_exporter"),
    "prom/blackbox-exporter": ("prometheus-blackbox-exporter", "/bin/blackbox_exporter"),
    "prom/mysqld-exporter": ("prometheus-mysqld-exporter", "/bin/mysqld_exporter"),
    "oliver006/redis_exporter": ("prometheus-redis-exporter", "/redis_exporter"),
    "nginx/nginx-prometheus-exporter": (
        "prometheus-nginx-exporter",
        "/usr/bin/nginx-prometheus-exporter",
    ),
    "ghcr.io/google/mtail": ("mtail", "/usr/bin/mtail"),
}
DOCKERFILE = """
FROM debian:trixie-slim AS all
RUN apt-get update --quiet --quiet \
 && apt-get install --quiet --yes --no-install-recommends {packages} busybox \
 && ln -s /bin/busybox /usr/local/bin/wget && ln -s /usr/bin/amtool /bin/ || true \
 && mkdir /alertmanager && chown 65534:65534 /alertmanager
"""


def have_images(stack: Stack) -> None:
    """Where no registry can be reached, Debian's packages: one layer for all of them."""
    compose = Path("docker-compose.yml").read_text()
    images = {name: re.findall(f"image: ({name}:.*)", compose)[0] for name in PROGRAMS}
    missing = {name: image for name, image in images.items() if not _is_here(stack, image)}
    if not missing:
        return
    packages = " ".join(package for package, _ in PROGRAMS.values())
    lines = [DOCKERFILE.format(packages=packages)]
    for number, (package, program) in enumerate(PROGRAMS.values()):
        lines += [f"FROM all AS program{number}"]
        lines += [f"RUN [ -e {program} ] || ln -s /usr/bin/{package} {program}"]
        lines += [f'ENTRYPOINT ["{program}"]']
    (stack.folder / "exporters").mkdir(exist_ok=True)
    (stack.folder / "exporters" / "Dockerfile").write_text("\n".join(lines) + "\n")
    for number, name in enumerate(PROGRAMS):
        if name in missing:
            build = ("docker", "build", "--quiet", "--target", f"program{number}")
            stack.done(*build, "--tag", missing[name], "exporters")


def _is_here(stack: Stack, image: str) -> bool:
    if stack.run("docker", "image", "inspect", image).returncode == 0:
        return True
    return stack.run("timeout", "60", "docker", "pull", "--quiet", image).returncode == 0
