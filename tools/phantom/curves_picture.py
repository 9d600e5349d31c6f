"""The picture of curves on the README: `python -m tools.phantom.curves_picture RUN/curves.json docs/pictures`.

One carrier's panel of what `vlmend compare --curves` wrote, as the page `curves.html` draws it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vlmend.report.tradeoff import tradeoff_figure

if __name__ == "__main__":
    run, folder = map(Path, sys.argv[1:])
    told = json.loads(run.read_text())
    tradeoff_figure(told["carriers"][:1]).savefig(folder / "curves.png", dpi=150)
