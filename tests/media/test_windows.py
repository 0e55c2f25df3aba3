"""Windows cover a sound of any duration, and their cross-fade leaves no seam."""

from __future__ import annotations

import numpy as np
import pytest

from foleypref.media.windows import OVERLAP_S, cross_fade, windows_for


@pytest.mark.parametrize(
    ("duration", "any_length", "window", "num", "seconds"),
    [
        (3.0, False, None, 1, 8.0),  # a model of one length makes that; the rest is cut off
        (9.0, False, None, 2, 8.0),
        (3.0, True, None, 1, 3.0),
        (12.0, True, None, 1, 12.0),  # half as much again fits into one window
        (13.0, True, None, 2, 6.75),  # then equal windows, no longer than the model's length
        (13.0, True, 20.0, 1, 13.0),
        (100.0, True, 30.0, 4, 25.375),
    ],
)
def test_windows_cover_the_video(duration, any_length, window, num, seconds):
    windows = windows_for(duration, 8.0, any_length, window)
    assert (len(windows.starts), windows.seconds) == (num, pytest.approx(seconds))
    assert windows.starts[-1] + windows.seconds >= duration - 1e-9
    if any_length:
        assert windows.starts[-1] + windows.seconds == pytest.approx(duration)


def test_a_window_is_refused_where_the_model_has_but_one_length():
    with pytest.raises(ValueError, match="8 s at a time"):
        windows_for(9.0, 8.0, False, 4.0)
    with pytest.raises(ValueError, match="longer than 1 s"):
        windows_for(9.0, 8.0, True, 0.5)


def test_windows_join_to_a_constant():
    ones = [np.ones(400, np.float32)] * 3
    starts = [0.0, 4.0 - OVERLAP_S, 8.0 - 2 * OVERLAP_S]
    np.testing.assert_allclose(cross_fade(ones, starts, 100), 1.0, atol=1e-6)
