"""Writes phantom-draw's training pictures, prompts and held-out views as a data set.

python -m tools.phantom.draw_copies FOLDER [phantom-draw-clean]
vlmend audit phantom-draw --suite privacy/generator_copies --data FOLDER/data.jsonl --out RUN
"""

from __future__ import annotations

import sys
from pathlib import Path

from vlmend.data.writing import write_data
from vlmend.phantom.draw.copies import copies_data
from vlmend.phantom.draw.recipe import RECIPES

if __name__ == "__main__":
    write_data(copies_data(RECIPES[(*sys.argv, "phantom-draw")[2]]), Path(sys.argv[1]))
