"""Text encoders and denoiser in turn on one device; without a GPU, the turns are what is seen."""

from pathlib import Path

import pytest
import torch
from torch import nn

from engine.model.families.joint_attention import Flux
from engine.model.offload import HOST, must_share, take_turns
from engine.model.opening import from_pipeline, open_model
from engine.model.sampling import generate
from schemas.numerics import Numerics
from tests.models.transformers import build_flux
from tests.rounding import assert_near

SMALL = Numerics(steps=2, guidance=3.5, height=16, width=16)


def test_each_phase_has_the_device_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    encoders, denoiser = [nn.Linear(2, 2), nn.Linear(2, 2)], nn.Linear(2, 2)
    names = {encoders[0]: "first", encoders[1]: "second", denoiser: "denoiser"}
    seen: list[tuple[str, str]] = []
    monkeypatch.setattr(
        "engine.model.offload._move", lambda module, to: seen.append((names[module], to.type))
    )
    device = torch.device("meta")
    take_turns([encoders, [denoiser]], device)
    encoders[1](torch.zeros(1, 2))
    assert seen == [("denoiser", "cpu"), ("first", "meta"), ("second", "meta")]
    seen.clear()
    denoiser(torch.zeros(1, 2))
    assert seen == [("first", "cpu"), ("second", "cpu"), ("denoiser", "meta")]


def test_a_module_is_moved_in_inference_mode_and_stays_editable() -> None:
    module = nn.Linear(2, 2)
    take_turns([[module], [nn.Linear(2, 2)]], torch.device("meta"))
    with torch.inference_mode():
        module(torch.zeros(1, 2, device="meta"))
    assert module.weight.device.type == "meta"
    assert not module.weight.is_inference()


def test_images_are_those_of_a_model_that_does_not_share() -> None:
    drawn = [
        generate(
            from_pipeline(
                build_flux(guidance_embeds=True),
                name="flux",
                family=Flux(),
                device=HOST,
                dtype=torch.float32,
                shares=shares,
            ),
            ["a red apple"],
            seeds=[0],
            numerics=SMALL,
        )
        for shares in (False, True)
    ]
    # Weights that moved lie elsewhere, where a kernel may add in another order.
    assert_near(*drawn)


@pytest.mark.parametrize(("offload", "shared"), [(True, 1), (False, 0), (None, 1)])
def test_it_can_be_asked_for_and_refused(
    offload: bool | None, shared: int, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[object] = []
    monkeypatch.setattr("engine.model.opening.must_share", lambda *_: True)
    monkeypatch.setattr("engine.model.opening.take_turns", lambda *given: turns.append(given))
    open_model(str(tiny_sd), offload=offload)
    assert len(turns) == shared


def test_a_cpu_shares_nothing() -> None:
    assert not must_share({"transformer": 10**15}, HOST)
