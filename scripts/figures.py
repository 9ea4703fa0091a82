"""How pictures of the documentation are drawn: colours that colour-blind readers tell apart, the same bytes twice."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib import pyplot, rc_context
from matplotlib.figure import Figure

from embedgrad_cli.storage.files import write_atomically

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito's
MARKERS = "osD^vP"
# The same figures give the same file, and its text is text.
SETTINGS: Any = {"svg.hashsalt": "embedgrad", "svg.fonttype": "none"}


def save(figure: Figure, file: Path) -> None:
    """Write an SVG file, and close the figure."""
    content = BytesIO()
    with rc_context(SETTINGS):
        figure.savefig(content, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, content.getvalue())


def file_name(*words: str) -> str:
    """A picture's name beside its page: "pictures/results-a-model-sst2.svg"."""
    return "pictures/" + re.sub(r"\W+", "-", "-".join(words).lower()) + ".svg"
