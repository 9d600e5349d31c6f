"""Contact sheets and training curves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tools.phantom.figures import loss_curves, losses_of, tiled


def test_pictures_stand_in_rows_with_white_between() -> None:
    page = np.asarray(tiled([Image.new("RGB", (4, 4), (k, 0, 0)) for k in range(5)], columns=3, gap=1))
    assert page.shape == (9, 14, 3)
    assert page[0, 0].tolist() == [0, 0, 0]
    assert page[0, 4].tolist() == [255, 255, 255]
    assert page[5, 5].tolist() == [4, 0, 0]
    assert page[5, 10].tolist() == [255, 255, 255], "the last row is not full"


def test_a_curve_has_the_mean_of_every_ten_steps(tmp_path: Path) -> None:
    steps = [(0, 0.0), (1, 1.0), (2, 99.0), *((k, float(k)) for k in range(2, 25))]
    lines = [json.dumps({"step": step, "loss": loss}) for step, loss in steps]
    (tmp_path / "losses.jsonl").write_text("\n".join(lines))
    figure = loss_curves([{"one": losses_of(tmp_path)}, {"two": [1.0] * 10}])
    (line,) = figure.axes[0].lines
    assert np.asarray(line.get_xydata()).tolist() == [[5.0, pytest.approx(4.5)], [15.0, pytest.approx(14.5)]]
    assert [text.get_text() for axes in figure.axes for text in axes.get_legend().get_texts()] == ["one", "two"]
