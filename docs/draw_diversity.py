"""Draws docs/diversity.svg from the table "different of 5" of docs/reproduction.md.

    python docs/draw_diversity.py

Owns: the picture's look. Does not own: figures: all of them are read from the table. Thread rule: the main
thread alone.
"""

import itertools
import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
TITLE = "**Over temperatures: different of 5**"
# Row of the table -> (label, colour), from bottom to top.
LINES = {
    "base, sampling": ("before tuning", "#777777"),
    "OTOFT": ("otoft, 4 passes of one reply", "#c26a00"),
    "POEXFT, random numbers": ("poexft, random numbers, 1 pass", "#3465a4"),
    "POEXFT, aligned numbers, 8 passes": ("poexft, aligned, 8 passes", "#2f7d32"),
}
WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 440, 40, 252  # of the plot
LOW, HIGH = 1.0, 5.0  # different answers


def read_table(text: str) -> tuple[list[float], dict[str, list[tuple[float, float]]]]:
    """Temperatures, and the mean and half interval of every row at each."""
    rows = [row for row in text.split(TITLE)[1].strip().split("\n\n")[0].splitlines() if row.startswith("|")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    temperatures = [float(cell.removeprefix("t = ")) for cell in cells[0][1:]]
    pair = re.compile(r"([\d.]+) ± ([\d.]+)")
    return temperatures, {
        row[0]: [tuple(map(float, pair.fullmatch(cell).groups())) for cell in row[1:]]
        for row in cells[2:]
        if "-" not in row  # measured at some temperatures alone
    }


def draw(text: str) -> str:
    """The picture, from the text of docs/reproduction.md."""
    temperatures, figures = read_table(text)
    span = temperatures[-1] - temperatures[0]
    x_of = lambda t: LEFT + 20 + (RIGHT - LEFT - 40) * (t - temperatures[0]) / span
    y_of = lambda value: BOTTOM - (BOTTOM - TOP) * (min(max(value, LOW), HIGH) - LOW) / (HIGH - LOW)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="sans-serif" font-size="13" fill="#333333">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" font-size="14">Different answers among five, to prompts that tuning never '
        "saw</text>",
    ]
    for value in range(int(LOW), int(HIGH) + 1):
        y = y_of(value)
        out.append(f'<path d="M{LEFT} {y:.1f}H{RIGHT}" stroke="#dddddd"/>')
        out.append(f'<text x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{value}</text>')
    for temperature in temperatures:
        x = x_of(temperature)
        out.append(f'<text x="{x:.1f}" y="{BOTTOM + 20}" text-anchor="middle">{temperature}</text>')
    middle = (LEFT + RIGHT) / 2
    out.append(f'<text x="{middle:.1f}" y="{BOTTOM + 40}" text-anchor="middle">sampling temperature</text>')
    labels = []
    for row, (label, colour) in LINES.items():
        points = [(x_of(t), *pair) for t, pair in zip(temperatures, figures[row])]
        path = "L".join(f"{x:.1f} {y_of(mean):.1f}" for x, mean, _ in points)
        out.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        for x, mean, half in points:
            bar = f"M{x:.1f} {y_of(mean - half):.1f}V{y_of(mean + half):.1f}"
            out.append(f'<path d="{bar}" stroke="{colour}" stroke-opacity="0.4" stroke-width="4"/>')
            out.append(f'<circle cx="{x:.1f}" cy="{y_of(mean):.1f}" r="3.5" fill="{colour}"/>')
        labels.append([y_of(points[-1][1]) + 4, label, colour])
    for lower, upper in itertools.pairwise(labels):  # labels of lines that end close to each other
        upper[0] = min(upper[0], lower[0] - 16)
    for y, label, colour in labels:
        out.append(f'<text x="{RIGHT + 8}" y="{y:.1f}" fill="{colour}">{label}</text>')
    return "\n".join([*out, "</svg>", ""])


if __name__ == "__main__":
    text = (FOLDER / "reproduction.md").read_text(encoding="utf-8")
    (FOLDER / "diversity.svg").write_text(draw(text), encoding="utf-8")
