"""Bar charts as SVG, for light and dark pages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import log10
from pathlib import Path

BAR, GAP, GROUP_GAP = 15, 3, 18  # px
LEFT, RIGHT, TOP, WIDTH = 130, 70, 74, 760
FONT = "font-family='system-ui, sans-serif' font-size='12'"


@dataclass(frozen=True)
class Theme:
    text: str
    grid: str
    colours: Mapping[str, str]  # by design


LIGHT = Theme(
    "#1f2328",
    "#d1d9e0",
    {
        "limit": "#8c959f",
        "bare": "#afb8c1",
        "before": "#cf222e",
        "literature": "#bf8700",
        "ours": "#0969da",
    },
)
DARK = Theme(
    "#e6edf3",
    "#3d444d",
    {
        "limit": "#7d8590",
        "bare": "#545d68",
        "before": "#f85149",
        "literature": "#d29922",
        "ours": "#4493f8",
    },
)


def write(
    folder: Path,
    name: str,
    title: str,
    values: Mapping[str, Mapping[str, float]],
    names: Mapping[str, str],
) -> None:
    """`values` by group and design; `names` of the designs, for the legend."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, theme in (("light", LIGHT), ("dark", DARK)):
        (folder / f"{name}-{suffix}.svg").write_text(_draw(title, values, names, theme), "utf-8")


def picture(folder: str, name: str, description: str) -> str:
    """The Markdown that shows both."""
    return (
        "<picture>\n"
        f'  <source media="(prefers-color-scheme: dark)" srcset="{folder}/{name}-dark.svg">\n'
        f'  <img alt="{escape(description)}" src="{folder}/{name}-light.svg">\n'
        "</picture>"
    )


def _draw(
    title: str,
    values: Mapping[str, Mapping[str, float]],
    names: Mapping[str, str],
    theme: Theme,
) -> str:
    every = [value for group in values.values() for value in group.values() if value > 0]
    low, high = int(log10(min(every))), log10(max(every)) + 0.05

    def x(value: float) -> float:
        return LEFT + (log10(max(value, 10**low)) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    body: list[str] = []
    y = TOP
    for group, bars in values.items():
        middle = y + len(bars) * (BAR + GAP) / 2 + 2
        body.append(text(LEFT - 10, middle, group, theme, anchor="end"))
        for design, value in bars.items():
            body.append(
                f"<rect x='{LEFT}' y='{y}' width='{max(1, x(value) - LEFT):.1f}' height='{BAR}'"
                f" rx='2' fill='{theme.colours[design]}'/>"
            )
            body.append(text(x(value) + 6, y + BAR - 3, figure(value), theme))
            y += BAR + GAP
        y += GROUP_GAP
    grid = [10**power for power in range(low, int(high) + 1)]
    lines = [
        f"<line x1='{x(value):.1f}' x2='{x(value):.1f}' y1='{TOP - 6}' y2='{y - GROUP_GAP}'"
        f" stroke='{theme.grid}'/>"
        for value in grid
    ]
    head = [
        text(LEFT, 20, f"{title} (logarithmic scale)", theme, weight="600"),
        *_legend([design for design in names if _is_drawn(design, values)], names, theme),
    ]
    content = "\n".join([*head, *lines, *body])
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {y}' width='{WIDTH}'"
        f" height='{y}' role='img' aria-label='{escape(title, quote=True)}' {FONT}>\n"
        f"{content}\n</svg>\n"
    )


def _is_drawn(design: str, values: Mapping[str, Mapping[str, float]]) -> bool:
    return any(design in bars for bars in values.values())


def _legend(designs: Sequence[str], names: Mapping[str, str], theme: Theme) -> list[str]:
    """In two columns of rows below the title."""
    parts: list[str] = []
    x = float(LEFT)
    for design in designs:
        parts.append(
            f"<rect x='{x:.0f}' y='36' width='12' height='12' rx='2'"
            f" fill='{theme.colours[design]}'/>"
        )
        parts.append(text(x + 17, 46, names[design], theme))
        x += 17 + 7 * len(names[design]) + 16
    return parts


def text(
    x: float, y: float, text: str, theme: Theme, anchor: str = "start", weight: str = "400"
) -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' fill='{theme.text}' text-anchor='{anchor}'"
        f" font-weight='{weight}'>{escape(text)}</text>"
    )


def figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"
