"""Figures of matplotlib as files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def encoded(figure: Figure, format: str, **settings: Any) -> bytes:
    """A figure as the bytes of a file: equal figures give equal files, and letters stay letters in an SVG.

    Args:
        figure: The figure.
        format: "png", "svg" or "pdf".
        **settings: More for ``savefig``.
    """
    import matplotlib

    sink = io.BytesIO()
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(format)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "unilayers"}):
        figure.savefig(sink, format=format, metadata=undated, **settings)
    return sink.getvalue()
