"""A chart of horizontal bars as SVG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH, _LABELS, _VALUES = 860, 250, 70
_LINE, _BAR, _TITLE, _GAP = 22, 15, 34, 18
_OURS, _THEIRS, _INK, _PAPER = "#2563eb", "#a8b3c4", "#1f2937", "#ffffff"


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar."""

    label: str
    value: float
    is_ours: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars on one scale."""

    title: str
    bars: Sequence[Bar]


def draw(panels: Sequence[Panel]) -> str:
    """Return the panels, one below the other, on a background that suits light and dark pages."""
    parts: list[str] = []
    top = _GAP
    for panel in panels:
        parts.append(_text(16, top + 14, panel.title, style="font-weight:600"))
        top += _TITLE
        most = max((bar.value for bar in panel.bars), default=1)
        for bar in panel.bars:
            parts.extend(_bar(bar, top, bar.value / most))
            top += _LINE
        top += _GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" font-family="sans-serif" font-size="13">'
    )
    paper = f'<rect width="{_WIDTH}" height="{top}" rx="8" fill="{_PAPER}"/>'
    return "\n".join([head, paper, *parts, "</svg>", ""])


def _bar(bar: Bar, top: int, share: float) -> list[str]:
    length: Final = share * (_WIDTH - _LABELS - _VALUES - 16)
    colour: Final = _OURS if bar.is_ours else _THEIRS
    return [
        _text(_LABELS - 8, top + 12, bar.label, style="text-anchor:end"),
        f'<rect x="{_LABELS}" y="{top}" width="{length:.1f}" height="{_BAR}" rx="2" fill="{colour}"/>',
        _text(_LABELS + length + 6, top + 12, f"{bar.value:,.0f}", style=""),
    ]


def _text(x: float, y: float, text: str, *, style: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{_INK}" style="{style}">{escape(text)}</text>'
