"""Write the rules of docker/prometheus as custom resources, which the Prometheus operator takes.

    python -m chassis.development.prometheus_rule

Without those of stack.yml, which are about the one machine and the exporters of Compose.
"""

import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SOURCES = ROOT / "docker" / "prometheus"
RESOURCES = ROOT / "deploy" / "kubernetes" / "components" / "prometheus" / "rules.yaml"

# One for each file, as names of groups are unique within a file.
RESOURCE = """\
# Made of docker/prometheus/{name}.yml by `make kubernetes`: change the rules there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: {name}
spec:
{groups}"""


def render() -> str:
    """As text, so that comments stay."""
    resources = []
    for name in ("rules", "alerts"):
        text = (SOURCES / f"{name}.yml").read_text("utf-8")
        groups = text[text.index("groups:\n") :]
        resources.append(RESOURCE.format(name=name, groups=textwrap.indent(groups, "  ")))
    return "---\n".join(resources)


if __name__ == "__main__":
    RESOURCES.write_text(render(), "utf-8")
