"""The tests of a model family, for anyone's: inherit `FamilyTests` and say how to build a pipeline.

    class TestMine(FamilyTests):
        family = MyFamily()

        def build(self) -> MyPipeline: ...

The pipeline is small and has random weights; pytest collects the tests of the class.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from engine.editing.delta import replaced, weights_of
from engine.editing.editable import default_components, editable, editable_components
from engine.editing.keys import pair_keys
from engine.editing.lora import factorize, loadable_parts, without_loader, write_lora
from engine.editing.pairs import prompt_pairs
from engine.editing.solve import solve_edit
from engine.model.components import Site, list_components, list_sites, sites_of
from engine.model.families.known import FAMILIES
from engine.model.hooks import count_rows, patched
from engine.model.model import Diffusion, Family
from engine.model.opening import from_pipeline, open_model, open_skeleton
from engine.model.sampling import encode, generate
from engine.model.shapes import component_shapes
from engine.model.vocabulary import Phrasebook
from engine.testing.pipelines import open_pipeline, pipeline_image
from engine.testing.plans import oracle_differences, random_plan
from engine.testing.slopes import linear_effects
from engine.tracing.interventions import CLEAN, CORRUPTED, Patch, Reference, reference_runs
from engine.tracing.lockstep import run_references
from engine.tracing.text_runs import TextRow, encode_rows
from schemas.caption import Caption
from schemas.component import PAPER_KINDS, Kind, Part
from schemas.concept import Concept
from schemas.edit_settings import EditSettings, RoleWeights
from schemas.intervention import Intervention, PatchKind, allows
from schemas.numerics import Numerics
from schemas.unit import Unit

NEAR = 1e-4
"""Largest difference of images and latents that is rounding."""
SAME = 1e-5
"""Largest difference, relative to their size, of rows of one batch that hold the same numbers:
kernels of some processors round a row by its place in the batch."""
MOVED = 1e-3
"""Least difference of latents that is a change."""
LITTLE = (1e-2, 1e-3, 1e-4)
"""Noises in sigmas; a model's activations follow one of them in proportion."""
WORDS = Phrasebook(openings=("",), modifiers=("",), endings=("",), objects=("apple", "boat"))
"""A few words, where an edit needs some."""
ENTRIES = (Kind.TEXT_PROJECTION, Kind.POOLED_PROJECTION)


class FamilyTests:
    """Invariants of tracing and editing that a family keeps."""

    family: ClassVar[Family]
    numerics: ClassVar[Numerics] = Numerics(steps=2, guidance=4.0)
    caption: ClassVar[Caption] = Caption(
        caption="a photo of a red apple by the sea", subject="red apple", attribute="object"
    )
    pipeline_options: ClassVar[dict[str, Any]] = {}
    """Arguments with which the pipeline's call draws the same image as dqf."""

    def build(self) -> Any:
        """Return a small diffusers pipeline with random weights."""
        raise NotImplementedError

    def open_pipeline(self, folder: Path) -> Any:
        """Return the pipeline of a folder, as diffusers opens it."""
        return open_pipeline(folder)

    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Return the folder of the pipeline."""
        folder = tmp_path_factory.mktemp("family") / type(self).__name__
        self.build().save_pretrained(folder)
        return folder

    @pytest.fixture(scope="class")
    def model(self, folder: Path) -> Diffusion:
        """Return the opened model."""
        return open_model(str(folder), device="cpu")

    def unit(self, part: Part = Part.DENOISER) -> Unit:
        """Return a unit of the whole run."""
        return Unit(
            caption=self.caption,
            seed=3,
            draw=0,
            part=part,
            components=(),
            windows=((0, self.numerics.steps),),
        )

    def run(self, model: Diffusion, patches: Sequence[Patch], path: str = "both") -> torch.Tensor:
        """Return the final latents of the clean, the corrupted and patched runs, in one batch."""
        numerics = self.numerics.model_copy(update={"path": path})
        unit = self.unit()
        runs: list[Reference] = reference_runs(unit, numerics)
        with torch.inference_mode():
            cond = encode_rows(model, unit, [TextRow(run=run) for run in runs], numerics)
            past, latents_RChw = run_references(
                model, runs, cond, patches=patches, numerics=numerics
            )
        return torch.cat([past.final, latents_RChw])

    def moved_at_the_first_step(self, model: Diffusion, names: Sequence[str]) -> list[bool]:
        """Return whether restoring each component at the first step alone moves the latents."""
        sites = sites_of(model, names)
        patches = [replace(self.patch([sites[name]]), window=(0, 1)) for name in names]
        latents = self.run(model, patches)
        return [not _is_same(latent, latents[CORRUPTED]) for latent in latents[2:]]

    def patch(
        self, sites: Sequence[Site], intervention: Intervention = Intervention.RESTORE
    ) -> Patch:
        """Return the patch of components in all steps."""
        is_restored = intervention.changes_corrupted
        return Patch(
            component="several",
            sites=tuple(sites),
            intervention=intervention,
            window=(0, self.numerics.steps),
            base=CORRUPTED if is_restored else CLEAN,
            sources=(CLEAN,) if is_restored else (),
        )

    def test_the_family_is_known_by_its_pipeline(self) -> None:
        """An index that names the pipeline opens with the family."""
        assert type(FAMILIES[self.family.pipeline]) is type(self.family)

    def test_the_image_is_the_pipelines(self, folder: Path, model: Diffusion) -> None:
        """diffusers' own pipeline draws the same image."""
        text, numerics, options = self.caption.caption, self.numerics, self.pipeline_options
        pipeline = self.open_pipeline(folder)
        expected = pipeline_image(pipeline, text, seed=3, numerics=numerics, **options)
        got = generate(model, [text], seeds=[3], numerics=numerics)
        assert float((got - expected).abs().max()) < NEAR
        assert float(expected.std()) > MOVED

    def test_a_skeleton_has_the_same_components_in_order(
        self, folder: Path, model: Diffusion
    ) -> None:
        """Configs alone say what is there; the order is that of execution."""
        skeleton = open_skeleton(str(folder))
        components = list_components(model)
        assert list_components(skeleton) == components
        assert set(component_shapes(skeleton)) == {c.name for c in components}
        ran: list[str] = []
        sites = list_sites(model)
        handles = [
            site.module.register_forward_hook(lambda *_, name=site.component.name: ran.append(name))
            for site in sites
        ]
        once = self.numerics.model_copy(update={"steps": 1, "guidance": 1.0})
        generate(model, [self.caption.caption], seeds=[0], numerics=once)
        for handle in handles:
            handle.remove()
        own = f"{self.family.denoiser}."
        ran.sort(key=lambda name: not name.startswith(own))
        assert ran == [component.name for component in components]

    def test_nothing_restored_is_the_corrupted_run(self, model: Diffusion) -> None:
        """A patch of no component changes nothing."""
        clean, corrupted, patched = self.run(model, [self.patch([])])
        assert _is_same(patched, corrupted)
        assert float((clean - corrupted).abs().max()) > MOVED

    def test_all_that_carries_text_restored_is_the_clean_run(self, model: Diffusion) -> None:
        """The text's entries, or all modules of a UNet, hold all that the caption says."""
        for path in ("tokens", "pooled", "both") if self.family.has_pooled else ("tokens",):
            sites = [site for site in list_sites(model) if self._carries(site, path)]
            clean, corrupted, patched = self.run(model, [self.patch(sites)], path)
            assert float((clean - corrupted).abs().max()) > MOVED / 10, path
            assert _is_same(patched, clean), path

    def _carries(self, site: Site, path: str) -> bool:
        entries = {"tokens": ENTRIES[:1], "pooled": ENTRIES[1:], "both": ENTRIES}[path]
        component = site.component
        has_entries = self.family.denoiser != "unet"
        return component.part is Part.DENOISER and (
            component.kind in (entries if has_entries else PAPER_KINDS)
        )

    def test_dead_components_move_nothing_and_live_ones_something(self, model: Diffusion) -> None:
        """Restoring a dead one is the corrupted run; removing a live one is not the clean run."""
        sites = [s for s in list_sites(model) if s.component.part is Part.DENOISER]
        live = [s for s in sites if not s.component.is_dead and s.component.kind in PAPER_KINDS]
        dead = [s for s in sites if s.component.is_dead]
        patches = [
            *(self.patch([site]) for site in dead),
            *(self.patch([site], Intervention.ZERO) for site in live),
        ]
        latents = self.run(model, patches)
        for site, latent in zip(dead, latents[2:], strict=False):
            assert _is_same(latent, latents[CORRUPTED]), site.component.name
        for site, latent in zip(live, latents[2 + len(dead) :], strict=True):
            moved = float((latent - latents[CLEAN]).abs().max())
            assert moved > NEAR, site.component.name
            assert not _is_same(latent, latents[CLEAN]), site.component.name

    def test_dead_components_of_text_encoders_change_no_row(self, model: Diffusion) -> None:
        """Zeros in a dead one leave the conditioning as it is; in a live one they do not."""
        clean = encode(model, [self.caption.caption])
        for site in list_sites(model):
            component = site.component
            if component.part is not Part.TEXT_ENCODER or component.kind not in PAPER_KINDS:
                continue
            with patched({site.spot: torch.zeros_like}):
                changed = encode(model, [self.caption.caption])
            is_same = torch.equal(changed.text_RLD, clean.text_RLD)
            if clean.pooled_RP is not None and changed.pooled_RP is not None:
                is_same &= torch.equal(changed.pooled_RP, clean.pooled_RP)
            assert is_same == component.is_dead, component.name

    def test_rows_are_independent(self, model: Diffusion) -> None:
        """The other rows of a batch move a row by rounding alone."""
        sites = [s for s in list_sites(model) if s.component.part is Part.DENOISER][::9]
        together = self.run(model, [self.patch([site]) for site in sites])
        for site, latent in zip(sites[:2], together[2:], strict=False):
            alone = self.run(model, [self.patch([site])])[2]
            assert float((alone - latent).abs().max()) < NEAR * _size(alone), site.component.name

    def test_the_oracle_agrees(self, model: Diffusion) -> None:
        """Runs made one at a time, with hooks of their own, draw the images of a random plan."""
        for part in Part:
            plan = random_plan(model, self.caption, self.numerics, part=part)
            differences = oracle_differences(model, plan)
            drawn = [c for c in list_components(model) if c.name in plan.unit.components]
            made = [
                allows(intervention, PatchKind.STATE, component, self.caption)
                for intervention in plan.unit.interventions
                for component in drawn
            ]
            assert len(differences) == 2 + sum(made) + 2  # the references, and the set twice
            assert max(differences.values()) < NEAR, (plan, differences)

    def test_a_screen_is_right_to_first_order(self, model: Diffusion) -> None:
        """Slopes pass through every part: what little noise does at one step is what they say.

        A model where a noise moves too much shows it at a smaller one, and where it moves no more
        than rounding does, at a larger.
        """
        for part in Part:
            names = [c.name for c in list_components(model) if c.part is part and not c.is_dead]
            steps, is_denoiser = self.numerics.steps, part is Part.DENOISER
            unit = replace(
                self.unit(part),
                components=tuple(names[:: max(1, len(names) // 8)]),
                windows=((steps - 1, steps), (0, 1)) if is_denoiser else ((0, steps),),
            )
            off: list[float] = []
            for noise in LITTLE:
                numerics = self.numerics.model_copy(update={"noise_sigmas": noise})
                found = linear_effects(model, unit, numerics)
                size = float(found.exact_P.norm())
                off.append(float((found.estimated_P - found.exact_P).norm()) / size)
                if off[-1] < 0.1:
                    break
            assert min(off) < 0.1, (part, off)

    def test_an_edit_says_the_replacement(self, model: Diffusion) -> None:
        """Where the denoiser takes the text in, one edited prompt says what the other said; the
        text encoders alone are run."""
        name = (*default_components(model), editable_components(model)[0].name)[0]
        concept = Concept(concept="apple", replacement="boat", prompts=("a photo of {}",))
        settings = EditSettings(
            components=(name,), ridge=1e-12, preserve=0.0, roles=RoleWeights(pads=0.0)
        )
        runs: list[int] = []
        with count_rows(model.denoiser, runs.append):
            solved = solve_edit(model, [concept], book=WORDS, settings=settings)
            target = editable(model, name)
            pairs = prompt_pairs([concept], book=WORDS)
            keys = pair_keys(model, target, pairs, roles=settings.roles, edited={})
        assert runs == []
        assert solved.weights.keys() == target.projections.keys()
        for matrix, layer in target.projections.items():
            said = keys.key_PD @ layer.weight.double().T
            now = keys.key_PD @ solved.weights[matrix].double().T
            wanted = said + keys.changes[matrix]
            assert float(keys.changes[matrix].norm()) > MOVED, matrix
            assert float((now - wanted).norm()) < 1e-2 * float(keys.changes[matrix].norm()), matrix

    def test_an_edits_lora_is_the_edited_weights(
        self, folder: Path, model: Diffusion, tmp_path: Path
    ) -> None:
        """diffusers draws the same image with the LoRA, wherever it has a loader for a part."""
        pytest.importorskip("peft")
        own = weights_of(model)
        changes = {name: _change(own[name]) for name in self.edited_matrices(model)}
        factors = {name: factorize(change, own[name]) for name, change in changes.items()}
        if not factors:
            names = [component.name for component in editable_components(model)]
            assert without_loader(model, names) == list(dict.fromkeys(map(part_of, names)))
            return
        write_lora(tmp_path, factors, model=model)
        text, numerics = [self.caption.caption], self.numerics
        before = generate(model, text, seeds=[3], numerics=numerics)
        with replaced(model, {n: (own[n].double() + c).float() for n, c in changes.items()}):
            after = generate(model, text, seeds=[3], numerics=numerics)
        pipeline = self.open_pipeline(folder)
        pipeline.load_lora_weights(str(tmp_path))
        loaded = from_pipeline(
            pipeline, name=model.name, family=self.family, device=model.device, dtype=model.dtype
        )
        got = generate(loaded, text, seeds=[3], numerics=numerics)
        assert float((after - before).abs().max()) > MOVED
        assert float((got - after).abs().max()) < NEAR

    def edited_matrices(self, model: Diffusion) -> list[str]:
        """Return the matrices of one component of each kind, in parts that diffusers can load."""
        of_kind = {(part_of(c.name), c.kind): c.name for c in editable_components(model)}
        loaded = loadable_parts(model)
        return [
            matrix
            for (part, _), name in of_kind.items()
            if part in loaded
            for matrix in editable(model, name).projections
        ]


def part_of(name: str) -> str:
    """Return the part of the pipeline that a component or a matrix is in."""
    return name.split(".")[0]


def _change(weight: torch.Tensor) -> torch.Tensor:
    """Return a random change of rank 2, a third of the weight's norm."""
    rng = torch.Generator().manual_seed(len(weight))
    up, down = (
        torch.randn(shape, generator=rng, dtype=torch.float64)
        for shape in ((weight.shape[0], 2), (2, weight.shape[1]))
    )
    change = up @ down
    return change * float(weight.norm() / change.norm()) / 3


def _is_same(latent: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two rows of a batch differ by rounding alone."""
    return float((latent - other).abs().max()) < SAME * _size(other)


def _size(latent: torch.Tensor) -> float:
    """Return the largest magnitude of a latent, at least 1: rounding grows with it."""
    return max(1.0, float(latent.abs().max()))
