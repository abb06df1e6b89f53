"""Where no registry can be reached: the same programs out of packages, under the official names."""

import re

from tests.compose.stack import Stack


def named(stack: Stack, name: str) -> str:
    """With the tag that docker-compose.yml has."""
    text = (stack.folder / "docker-compose.yml").read_text()
    [image] = set(re.findall(f"image: ({name}:.*)", text))
    return str(image)


def have(stack: Stack, name: str, dockerfile: str) -> None:
    """The image of docker-compose.yml is here, can be pulled, or is made."""
    image = named(stack, name)
    if stack.run("docker", "image", "inspect", image).returncode == 0:
        return
    if stack.run("timeout", "120", "docker", "pull", "--quiet", image).returncode == 0:
        return
    folder = stack.folder / "images" / re.sub(r"\W", "-", image)
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text(dockerfile)
    stack.done("docker", "build", "--quiet", "--tag", image, str(folder))


def debian(*packages: str, entrypoint: str) -> str:
    return (
        "FROM debian:trixie-slim\nRUN apt-get update --quiet"
        f" && apt-get install --quiet --yes --no-install-recommends {' '.join(packages)}\n"
        f'ENTRYPOINT ["{entrypoint}"]\n'
    )
