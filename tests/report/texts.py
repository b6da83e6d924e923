"""Whether the texts of a figure can be read."""

import itertools

import numpy as np
from matplotlib.text import Text


def overlaps(figure, texts=None) -> list[tuple[str, str]]:
    """Pairs of texts that cover each other, and texts that leave the figure."""
    figure.draw_without_rendering()
    texts = [t for t in texts or figure.findobj(Text) if t.get_text().strip() and t.get_visible()]
    # Of the text alone: an annotation's own extent has its arrow in it.
    boxes = {t: Text.get_window_extent(t) for t in texts}
    found = [
        (a.get_text(), b.get_text())
        for a, b in itertools.combinations(texts, 2)
        if boxes[a].padded(-1).overlaps(boxes[b].padded(-1))
    ]
    page = figure.bbox.padded(1)
    outside = [t for t in texts if not np.all(page.contains(*p) for p in boxes[t].corners())]
    return found + [(t.get_text(), "the margin") for t in outside]
