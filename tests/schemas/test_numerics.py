"""The noise of a plan: one standard deviation, or several that are traced one by one."""

import pytest
from pydantic import ValidationError

from schemas.numerics import Numerics


@pytest.mark.parametrize(
    ("given", "sweep"),
    [(2, (2.0,)), ("1e-3", (0.001,)), ([3], (3.0,)), ([10, 1, 3.5], (10.0, 1.0, 3.5))],
)
def test_a_sweep_is_what_was_given_in_its_order(given: object, sweep: tuple[float, ...]) -> None:
    numerics = Numerics.model_validate({"noise_sigmas": given})
    assert numerics.sweep == sweep
    assert [numerics.at(noise).sweep for noise in sweep] == [(noise,) for noise in sweep]
    assert Numerics.model_validate_json(numerics.model_dump_json()) == numerics


def test_a_list_of_one_is_that_one() -> None:
    one = Numerics.model_validate({"noise_sigmas": [3]})
    assert one == Numerics() == one.at(3.0)
    assert one.model_dump()["noise_sigmas"] == 3.0


def test_noise_that_is_not_in_sigmas_has_no_sigmas() -> None:
    assert Numerics(noise_absolute=0.5).sweep == (0.0,)
    assert Numerics(corruption="counterfactual").sweep == (0.0,)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "there is no value"),
        ([3, 1, 3.0], "3 is there twice"),
        ([1, 0], "greater than 0"),
        ([1, -2.5], "greater than 0"),
        (0, "greater than 0"),
        ([1, float("nan")], "finite number"),
        (float("inf"), "finite number"),
        ([1, "loud"], "valid number"),
        ([[1, 3]], "valid number"),
        ({"a": 1}, "valid number"),
        (None, "valid number"),
    ],
)
def test_noises_that_cannot_be_traced_are_refused(given: object, said: str) -> None:
    with pytest.raises(ValidationError, match=said) as error:
        Numerics.model_validate({"noise_sigmas": given})
    (only,) = error.value.errors()
    assert only["loc"] == ("noise_sigmas",)


@pytest.mark.parametrize("pixels", [0, 20, 16_392, 10**9])
def test_a_side_has_a_bounded_number_of_pixels(pixels: int) -> None:
    for side in ("height", "width"):
        with pytest.raises(ValidationError, match=side):
            Numerics.model_validate({side: pixels})
    assert Numerics.model_validate({"height": 16_384}).height == 16_384
