"""The grammar of windows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import PlanError
from schemas.window import expand_windows


@pytest.mark.parametrize(
    ("spec", "windows"),
    [
        ("all", [(0, 4)]),
        ("each", [(0, 1), (1, 2), (2, 3), (3, 4)]),
        ("from", [(0, 4), (1, 4), (2, 4), (3, 4)]),
        ("until", [(0, 1), (0, 2), (0, 3), (0, 4)]),
        ("sliding:1", [(0, 1), (1, 2), (2, 3), (3, 4)]),
        ("sliding:3", [(0, 3), (1, 4)]),
        ("sliding:4", [(0, 4)]),
        ("0:1", [(0, 1)]),
        ("1:3", [(1, 3)]),
        ("0:4", [(0, 4)]),
        ("03:04", [(3, 4)]),
    ],
)
def test_a_spec_expands(spec: str, windows: list[tuple[int, int]]) -> None:
    assert expand_windows([spec], 4) == tuple(windows)


def test_windows_are_sorted_and_none_comes_twice() -> None:
    windows = expand_windows(["sliding:2", "3:4", "from", "all", "until"], 4)
    assert windows == (
        (0, 1), (0, 2), (0, 3), (0, 4), (1, 3), (1, 4), (2, 4), (3, 4),
    )  # fmt: skip
    assert expand_windows([], 4) == ()


@pytest.mark.parametrize("spec", ["all", "each", "from", "until", "sliding:1", "0:1"])
def test_one_step_has_one_window(spec: str) -> None:
    assert expand_windows([spec], 1) == ((0, 1),)


@pytest.mark.parametrize(
    "spec",
    ["", "All", "all ", "every", "sliding", "sliding:", "sliding:x", "sliding:-1", "sliding:1:2",
     "1", "1:", ":2", "1:2:3", "-1:2", "1-2", "1:2 "],
)  # fmt: skip
def test_what_is_no_window_is_refused_with_the_grammar(spec: str) -> None:
    with pytest.raises(PlanError, match=r"unknown window .* give all, each, from, until, sl"):
        expand_windows(["all", spec], 4)


@pytest.mark.parametrize("spec", ["sliding:0", "sliding:5"])
def test_a_width_that_does_not_fit_is_refused(spec: str) -> None:
    with pytest.raises(PlanError, match=f"window {spec} does not fit 4 steps: give 1 to 4"):
        expand_windows([spec], 4)


@pytest.mark.parametrize("spec", ["2:2", "3:1", "0:5", "4:5", "0:0"])
def test_an_empty_window_or_one_past_the_end_is_refused(spec: str) -> None:
    with pytest.raises(PlanError, match=f"window {spec} is empty or reaches past .* 4 steps"):
        expand_windows([spec], 4)


@given(
    steps=st.integers(1, 60),
    specs=st.lists(st.sampled_from(["all", "each", "from", "until", "sliding:1"]), min_size=1),
)
def test_every_window_has_a_step_and_lies_within_the_run(steps: int, specs: list[str]) -> None:
    windows = expand_windows(specs, steps)
    assert list(windows) == sorted(set(windows))
    assert all(0 <= start < stop <= steps for start, stop in windows)
