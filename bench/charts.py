"""Bar charts as SVG, written by hand: small enough to read, and no library to install."""

from dataclasses import dataclass
from html import escape

WIDTH, LABELS, BAR, ROW, TOP = 720, 130, 470, 30, 56
OURS, OTHERS, INK, SOFT = "#1f6feb", "#b6bec9", "#1f2328", "#59636e"


@dataclass(frozen=True)
class Bar:
    """One row. `note` stands beside the bar: the value as it is to be read."""

    label: str
    value: float
    note: str
    ours: bool = False


def chart(title: str, subtitle: str, bars: list[Bar]) -> str:
    """Horizontal bars, longest to the full width; shorter is better everywhere here."""
    height = TOP + ROW * len(bars) + 14
    most = max((bar.value for bar in bars), default=0.0) or 1.0
    rows = [_row(bar, TOP + ROW * number, most) for number, bar in enumerate(bars)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" role="img" aria-label="{escape(title)}" '
            'font-family="system-ui, sans-serif" font-size="13">',
            f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#ffffff"/>',
            f'<text x="16" y="24" font-size="15" font-weight="600" fill="{INK}">'
            f"{escape(title)}</text>",
            f'<text x="16" y="43" fill="{SOFT}">{escape(subtitle)}</text>',
            *rows,
            "</svg>\n",
        ]
    )


def _row(bar: Bar, y: int, most: float) -> str:
    length = max(1.0, BAR * bar.value / most)
    weight = ' font-weight="600"' if bar.ours else ""
    return (
        f'<text x="{LABELS}" y="{y + 19}" text-anchor="end" fill="{INK}"{weight}>'
        f"{escape(bar.label)}</text>"
        f'<rect x="{LABELS + 10}" y="{y + 4}" width="{length:.1f}" height="{ROW - 8}" rx="3" '
        f'fill="{OURS if bar.ours else OTHERS}"/>'
        f'<text x="{LABELS + 18 + length:.1f}" y="{y + 19}" fill="{INK}"{weight}>'
        f"{escape(bar.note)}</text>"
    )
