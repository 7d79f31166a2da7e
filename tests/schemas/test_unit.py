"""Units of a plan with several noises are those of the plans with one, noise by noise."""

from schemas.caption import Caption
from schemas.component import Part
from schemas.numerics import Numerics
from schemas.plan import TracePlan
from schemas.unit import Units, plan_units

HASHES = {"model_hash": "m", "scorer_hash": "s"}


def units_of(numerics: Numerics) -> Units:
    """Return the units of two captions, two draws and two slabs."""
    plan = TracePlan(
        scorer="s",
        captions=tuple(
            Caption(caption=f"a {s}", subject=s, attribute="object") for s in ("cat", "dog")
        ),
        parts=(Part.TEXT_ENCODER,),
        noise_draws=2,
        slab_components=1,
        numerics=numerics,
    )
    return plan_units(plan, names={Part.TEXT_ENCODER: ("a", "b")}, steps=50)


def test_each_noise_has_the_units_of_a_plan_of_that_noise() -> None:
    swept = units_of(Numerics(noise_sigmas=(10.0, 0.5)))
    ids = swept.ids(**HASHES)
    assert len(swept) == len(set(ids)) == 2 * 2 * 2 * 2
    for noise in (10.0, 0.5):
        single = units_of(Numerics(noise_sigmas=noise))
        own = [n for n, unit in enumerate(swept) if unit.noise_sigmas == noise]
        assert [swept[n] for n in own] == list(single)
        assert [ids[n] for n in own] == list(single.ids(**HASHES))


def test_the_slabs_of_one_noise_come_before_the_next_noise() -> None:
    swept = list(units_of(Numerics(noise_sigmas=(10.0, 0.5))))
    order = [(unit.draw, unit.noise_sigmas, unit.components) for unit in swept[:8]]
    assert order == [
        (draw, noise, (name,)) for draw in (0, 1) for noise in (10.0, 0.5) for name in "ab"
    ]
    assert {unit.caption.subject for unit in swept[:8]} == {"cat"}


def test_units_without_noise_in_sigmas_say_so() -> None:
    for numerics in (Numerics(noise_absolute=0.1), Numerics(corruption="counterfactual")):
        assert {unit.noise_sigmas for unit in units_of(numerics)} == {0.0}
