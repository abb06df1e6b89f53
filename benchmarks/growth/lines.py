"""Line charts as SVG, for light and dark pages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from pathlib import Path

from benchmarks.comparison.chart import DARK, FONT, LIGHT, Theme, figure, text

WIDTH, PLOT = 760, 300  # px
LEFT, RIGHT, TOP, BOTTOM = 66, 24, 34, 44
LEGEND_ROW, LEGEND_COLUMNS = 18, 2
LIGHT_COLOURS = ("#0969da", "#cf222e", "#1a7f37", "#bf8700", "#8250df", "#57606a", "#bf3989")
DARK_COLOURS = ("#4493f8", "#f85149", "#3fb950", "#d29922", "#ab7df8", "#9198a1", "#db61a2")


@dataclass(frozen=True)
class Chart:
    """`lines` have their points by x; in `pairs` the second one is dashed, in the same colour."""

    name: str
    title: str
    x: str
    lines: Mapping[str, Mapping[float, float]]
    logarithmic: bool = True
    pairs: bool = False


@dataclass(frozen=True)
class Scale:
    low: float
    high: float
    start: float  # px
    end: float
    logarithmic: bool

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = log10(value), log10(low), log10(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        if self.logarithmic:
            return [10.0**power for power in range(ceil(log10(self.low)), _floor(self.high) + 1)]
        step = 10.0 ** _floor(self.high)
        step = next(part for part in (step / 5, step / 2, step) if self.high / part <= 8)
        return [step * number for number in range(int(self.high / step) + 1)]


def _floor(value: float) -> int:
    return floor(log10(value) + 1e-9)


def write(folder: Path, chart: Chart) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, theme, colours in (("light", LIGHT, LIGHT_COLOURS), ("dark", DARK, DARK_COLOURS)):
        path = folder / f"growth-{chart.name}-{suffix}.svg"
        path.write_text(_draw(chart, theme, colours), "utf-8")


def _draw(chart: Chart, theme: Theme, colours: Sequence[str]) -> str:
    rows = ceil(len(chart.lines) / LEGEND_COLUMNS)
    top = TOP + rows * LEGEND_ROW + 8
    height = top + PLOT + BOTTOM
    across, up = _scales(chart, top)
    parts = [text(LEFT, 20, _title(chart), theme, weight="600"), *_grid(across, up, top, theme)]
    parts.append(text(WIDTH - RIGHT, height - 8, chart.x, theme, anchor="end"))
    for number, (name, points) in enumerate(chart.lines.items()):
        colour = colours[(number // 2 if chart.pairs else number) % len(colours)]
        dash = " stroke-dasharray='5 4'" if chart.pairs and number % 2 else ""
        stroke = f"stroke='{colour}' stroke-width='2'{dash}"
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points.items())
        parts.append(f"<polyline points='{path}' fill='none' {stroke}/>")
        parts += [
            f"<circle cx='{across(x):.1f}' cy='{up(y):.1f}' r='3' fill='{colour}'/>"
            for x, y in points.items()
        ]
        left = LEFT + number % LEGEND_COLUMNS * (WIDTH - LEFT) / LEGEND_COLUMNS
        y = TOP + number // LEGEND_COLUMNS * LEGEND_ROW + 6
        parts.append(f"<line x1='{left:.0f}' x2='{left + 22:.0f}' y1='{y}' y2='{y}' {stroke}/>")
        parts.append(text(left + 28, y + 4, name, theme))
    content = "\n".join(parts)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}'"
        f" height='{height}' role='img' aria-label='{escape(chart.title, quote=True)}' {FONT}>\n"
        f"{content}\n</svg>\n"
    )


def _title(chart: Chart) -> str:
    return f"{chart.title} (logarithmic scales)" if chart.logarithmic else chart.title


def _scales(chart: Chart, top: float) -> tuple[Scale, Scale]:
    places = [x for points in chart.lines.values() for x in points]
    values = [y for points in chart.lines.values() for y in points.values()]
    low, high = 0.0, max(values) * 1.15
    if chart.logarithmic:  # whole decades: what hardly grows shall not look as if it did
        low, high = 10.0 ** _floor(min(values)), 10.0 ** ceil(log10(max(values)))
    across = Scale(
        min(places), max(places), LEFT + 6, WIDTH - RIGHT, chart.logarithmic and min(places) > 0
    )
    up = Scale(low, high, top + PLOT, top, chart.logarithmic)
    return across, up


def _grid(across: Scale, up: Scale, top: float, theme: Theme) -> list[str]:
    parts: list[str] = []
    for value in up.ticks():
        y = up(value)
        parts.append(
            f"<line x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y:.1f}' y2='{y:.1f}'"
            f" stroke='{theme.grid}'/>"
        )
        parts.append(text(LEFT - 8, y + 4, figure(value), theme, anchor="end"))
    for value in across.ticks():
        x = across(value)
        parts.append(
            f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{top}' y2='{top + PLOT}' stroke='{theme.grid}'/>"
        )
        anchor = "end" if x > WIDTH - RIGHT - 1 else "middle"  # else it is cut off
        parts.append(text(x, top + PLOT + 18, figure(value), theme, anchor=anchor))
    return parts
