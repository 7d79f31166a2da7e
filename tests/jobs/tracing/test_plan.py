"""Plans: every input that cannot be run is refused with a sentence that says where it is wrong."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from diffusers import PNDMScheduler

from engine.model.opening import new_scheduler, open_model
from jobs.input.captions import pick, read_captions
from jobs.input.probes import probe_names, probe_set, with_version
from jobs.tracing.cost import plan_cost
from jobs.tracing.plan import check_plan, make_plan, read_options, read_plan
from schemas.caption import Caption
from schemas.component import TEXT_ENTRIES, Kind, Part, names_by_part
from schemas.errors import DqfError, ModelUnavailable, PlanError, UnknownComponent
from schemas.numerics import Numerics
from schemas.unit import alternatives, plan_units
from tests.models.language_models import build_qwen_image

CAT = {"caption": "a cat", "subject": "cat", "attribute": "object"}


def test_the_three_formats_read_the_same(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("caption,subject,attribute,target\na cat,cat,object,\n")
    (tmp_path / "c.jsonl").write_text(
        '{"caption": "a cat", "subject": "cat", "attribute": "object"}\n\n'
    )
    pq.write_table(pa.Table.from_pylist([CAT]), tmp_path / "c.parquet")
    for suffix in ("csv", "jsonl", "parquet"):
        assert read_captions(tmp_path / f"c.{suffix}") == (Caption(**CAT),)


@pytest.mark.parametrize("spelling", ["Object", "object ", " OBJECT\t"])
def test_an_attribute_has_one_spelling(spelling: str, tmp_path: Path) -> None:
    """Its captions would be ranked in two halves, the print of which looks the same."""
    rows = [CAT, {"caption": "a dog", "subject": "dog", "attribute": spelling}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    for captions in (rows, read_captions(tmp_path / "c.parquet")):
        with pytest.raises(PlanError, match=r"attributes 'object' and .* write one as the other"):
            make_plan({"captions": captions})
    assert make_plan({"captions": [{**CAT, "attribute": spelling}]}).captions


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.txt", "", "are read from .csv, .jsonl, .parquet or .yaml"),
        ("c.csv", "", "holds no caption"),
        ("c.csv", "caption,subject,attribute\n", "holds no caption"),
        ("c.csv", "caption,subject\na cat,cat\n", "no column 'attribute'"),
        ("c.csv", "caption,subject,attribute\na cat,dog,object\n", "line 2.*'dog' does not occur"),
        ("c.csv", "caption,subject,attribute\na cat,cat,\n", "line 2.*attribute"),
        ("c.csv", "caption,subject,attribute\na cat,cat\n", "line 2.*attribute"),
        ("c.jsonl", "{nope\n", "line 1: not JSON"),
        ("c.jsonl", json.dumps({**CAT, "attribute": " "}), "line 1: attribute ' ' is blank"),
        (
            "c.csv",
            f"caption,subject,attribute\na cat,cat,{'x' * 201}\n",
            "attribute: String should have at most 200",
        ),
        ("c.jsonl", "[1]\n", "line 1: not a JSON object"),
        ("c.parquet", "nope", "not a Parquet file"),
        (
            "c.csv",
            "caption,subject,attribute,targte\na cat,cat,object,\n",
            "unknown column.*targte",
        ),
    ],
)
def test_bad_caption_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(PlanError, match=message):
        read_captions(tmp_path / name)


@pytest.mark.parametrize("other", ["a CAT", "a  cat ", "a\tcat"])
def test_captions_of_the_same_tokens_are_refused(
    tiny_sd: Path, tiny_scorer: Path, other: str
) -> None:
    """Each would count as a caption of its own, and intervals would be too narrow."""
    again = {**CAT, "caption": other, "subject": "CAT" if "CAT" in other else "cat"}
    fields = {"model": str(tiny_sd), "scorer": str(tiny_scorer), "captions": [CAT, again]}
    with pytest.raises(PlanError, match="are the same tokens to the model: leave one out"):
        check_plan(make_plan(fields))
    named = [CAT, {**again, "attribute": "style"}, {**again, "target": "a big cat"}]
    assert check_plan(make_plan({**fields, "captions": named})).plan.captions == tuple(
        Caption(**caption) for caption in named
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("numerics: {steps: true}", "numerics.steps"),
        ("seeds: [0, yes]", r"seeds\[1\]"),
        ("options: {light: [on, off]}", r"options.light\[0\]"),
    ],
)
def test_a_truth_value_in_a_plan_is_no_number_and_no_word(
    text: str, place: str, tmp_path: Path
) -> None:
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(PlanError, match=rf"plan.yaml has true at {place}: .* in quotes$"):
        read_plan(tmp_path / "plan.yaml")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="no such file"):
        read_captions(tmp_path / "c.csv")


def test_a_plan_file_names_captions_relative_to_itself(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("caption,subject,attribute\na cat,cat,object\n")
    (tmp_path / "plan.yaml").write_text("captions: c.csv\nnumerics: {steps: 3}\nseeds: [4]\n")
    plan = make_plan(read_plan(tmp_path / "plan.yaml"))
    assert plan.captions == (Caption(**CAT),)
    assert (plan.numerics.steps, plan.seeds, plan.scorer) == (3, (4,), "builtin:emoji-sd")


@pytest.mark.parametrize("text", ["- a\n", "{", "a: [", ""])
def test_bad_plan_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(PlanError):
        read_plan(tmp_path / "plan.yaml")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sedes": [1]}, "sedes"),
        ({"numerics": {"steps": 0}}, "steps"),
        ({"numerics": 3}, "mapping"),
        ({"seeds": [-1]}, "seeds"),
        ({"parts": ["vae"]}, "parts"),
        ({"kinds": ["conv"]}, "kinds"),
        ({"numerics": {"height": 30}}, "height"),
        ({"interventions": []}, "interventions"),
    ],
)
def test_bad_fields_are_named(fields: dict, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        make_plan({"captions": [CAT], **fields})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"components": ["unet.mid_block.resnet.0"]}, UnknownComponent, "unet.mid_block.resnets.0"),
        ({"captions": [{**CAT, "caption": "cat " * 60}]}, PlanError, "limit"),
        ({"numerics": {"negative_prompt": "blurry " * 60}}, PlanError, "^negative prompt .*limit"),
        (
            {"references": ["a dog " * 60], "interventions": ["resample"]},
            PlanError,
            "^reference 'a dog .*limit",
        ),
        (
            {"captions": [{**CAT, "target": "a cat " * 60}]},
            PlanError,
            "the scorer reads",
        ),
        ({"parts": ["denoiser"], "components": ["text_encoder.layers.0.mlp"]}, PlanError, "denois"),
        ({"model": "no-such-model"}, ModelUnavailable, "emoji-sd"),
        (
            {"windows": ["each", "48:51"]},
            PlanError,
            "48:51 is empty or reaches past the last of 50",
        ),
        ({"windows": ["every"]}, PlanError, "unknown window 'every'"),
        ({"measures": ["target", "lips"]}, PlanError, "unknown measure 'lips'.*clean-image"),
        ({"numerics": {"scheduler": "dimm"}}, PlanError, "unknown scheduler 'dimm'.*ddim"),
        (
            {"numerics": {"corruption": "counterfactual"}},
            PlanError,
            "'a cat' has no counterfactual",
        ),
        (
            {
                "numerics": {"corruption": "counterfactual"},
                "captions": [{**CAT, "counterfactual": "hippopotamus"}],
            },
            PlanError,
            "'hippopotamus' does not have as many tokens as 'cat'",
        ),
        (
            {
                "numerics": {"corruption": "counterfactual"},
                "captions": [{**CAT, "counterfactual": "CAT"}],
            },
            PlanError,
            "'CAT' does not have as many tokens as 'cat' in .*, has the same ones",
        ),
        ({"interventions": ["other-caption"]}, PlanError, "no reference is unrelated to 'a cat'"),
        ({"interventions": ["matched"]}, PlanError, "matched needs captions with a counterfactual"),
        (
            {
                "interventions": ["matched"],
                "captions": [CAT, {**CAT, "counterfactual": "hippopotamus"}],
            },
            PlanError,
            "'hippopotamus' does not have as many tokens as 'cat'",
        ),
        (
            {
                "interventions": ["restore", "other-draw"],
                "numerics": {"corruption": "counterfactual"},
                "captions": [{**CAT, "counterfactual": "hat"}],
            },
            PlanError,
            "other-draw needs corruption by noise",
        ),
        (
            {"interventions": ["swap"], "kinds": ["resnet"], "parts": ["denoiser"]},
            PlanError,
            "no component to trace can be used with intervention swap",
        ),
        ({"interventions": ["other-seed"], "parts": ["text-encoder"]}, PlanError, "other-seed"),
        ({"kinds": ["resnet", "stream_text"]}, PlanError, "no component of kind stream_text"),
        ({"numerics": {"path": "pooled"}}, PlanError, "path pooled: .* leave out --path"),
        ({"numerics": {"scheduler": "flow-heun"}}, PlanError, "give one of ddim, ddpm"),
        (
            {"components": ["unet.mid_block.resnets.0..unet.mid_block"]},
            UnknownComponent,
            "its ends are not of one kind",
        ),
    ],
)
def test_a_plan_is_checked_against_its_model(
    tiny_sd: Path, change: dict, error: type[DqfError], message: str
) -> None:
    plan = make_plan({"model": str(tiny_sd), "captions": [CAT], **change})
    with pytest.raises(error, match=message):
        check_plan(plan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kinds": ["block"]}, "kind block: .* trace stream_image, stream_text"),
        ({"kinds": ["cross_attn"]}, "no component of kind cross_attn: it has feed_forward"),
        ({"numerics": {"scheduler": "ddim"}}, "give one of dpm.*, unipc, flow-euler, flow-heun"),
    ],
)
def test_a_plan_is_checked_against_a_transformer(
    tiny_sd3: Path, change: dict, message: str
) -> None:
    plan = make_plan({"model": str(tiny_sd3), "captions": [CAT], **change})
    with pytest.raises(PlanError, match=message):
        check_plan(plan)


def test_an_attention_that_reads_no_padding_swaps_its_text_and_takes_no_empty_one(
    tmp_path: Path,
) -> None:
    build_qwen_image().save_pretrained(tmp_path / "model")
    fields = {"model": str(tmp_path / "model"), "captions": [CAT], "parts": ["denoiser"]}
    swapped = check_plan(make_plan({**fields, "interventions": ["swap"]})).components
    assert {component.kind for component in swapped} >= {Kind.JOINT_ATTENTION}
    with pytest.raises(PlanError, match=r"empty-text: .* or trace swap"):
        check_plan(make_plan({**fields, "interventions": ["empty-text"]}))


def test_dead_components_are_traced_only_by_name(tiny_sd3: Path) -> None:
    fields = {"model": str(tiny_sd3), "captions": [CAT], "parts": ["denoiser"]}
    dead = "transformer.transformer_blocks.2.attn.text"
    default = check_plan(make_plan(fields)).components
    named = check_plan(make_plan({**fields, "components": [dead]})).components
    assert dead not in {component.name for component in default}
    assert "transformer.transformer_blocks.1.attn.text" in {c.name for c in default}
    assert [component.name for component in named] == [dead]


def test_consecutive_components_become_one(tiny_sd: Path) -> None:
    fields = {"model": str(tiny_sd), "captions": [CAT], "kinds": ["resnet"], "parts": ["denoiser"]}
    *single, bound = check_plan(make_plan(fields)).components
    *pairs, same = check_plan(make_plan({**fields, "consecutive": 2})).components
    assert bound == same
    assert bound.name == TEXT_ENTRIES
    assert [c.name for c in single if c.is_cut_point] == [single[-1].name]
    assert [c.name for c in pairs if c.is_cut_point] == [pairs[-1].name]
    assert len(pairs) == len(single) - 1
    for first, second, pair in zip(single, single[1:], pairs, strict=False):
        assert pair.name == f"{first.name}..{second.name}"
        assert pair.num_parameters == first.num_parameters + second.num_parameters


RED = {"caption": "a red cat", "subject": "red", "attribute": "color", "target": "a red cat"}
BLUE = {"caption": "a blue dog", "subject": "blue", "attribute": "color", "target": "a blue dog"}


def test_options_of_the_margin_are_the_subjects_or_those_of_a_file(tmp_path: Path) -> None:
    fields = {"captions": [RED, BLUE], "measures": ["margin"]}
    plan = make_plan(fields)
    assert plan.options == {"color": ("red", "blue")}
    assert alternatives(plan, plan.captions[0]) == ("a blue cat",)
    (tmp_path / "options.yaml").write_text("color: [Red, green, pink]\n")
    listed = make_plan({**fields, "options": read_options(tmp_path / "options.yaml")})
    assert alternatives(listed, listed.captions[0]) == ("a green cat", "a pink cat")
    assert make_plan(plan.model_dump()) == plan


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"captions": [RED]}, "another option than 'red'"),
        ({"captions": [CAT, RED, BLUE]}, "another option than 'cat'"),
        ({"captions": [RED | {"target": "a cat"}, BLUE]}, "'a cat' does not say 'red'"),
        ({"captions": [RED], "options": {"style": ["neon"]}}, "'style', which no caption has"),
        ({"captions": [RED, BLUE], "options": {"color": [""]}}, "options"),
        ({"captions": [RED, BLUE], "options": {"color": "red"}}, "options"),
        ({"captions": [RED], "measures": ["target"], "options": {"color": ["a"]}}, "add margin"),
    ],
)
def test_options_that_cannot_be_compared_are_refused(
    tiny_sd: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        check_plan(make_plan({"model": str(tiny_sd), "measures": ["margin"], **fields}))


def test_an_option_file_is_a_mapping(tmp_path: Path) -> None:
    (tmp_path / "options.yaml").write_text("[red, blue]\n")
    with pytest.raises(PlanError, match="not a mapping of attributes"):
        read_options(tmp_path / "options.yaml")
    with pytest.raises(PlanError, match=r"none\.yaml"):
        read_options(tmp_path / "none.yaml")


ATTENTION = "unet.mid_block.attentions.0.transformer_blocks.0.attn1"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"patches": ["contribution"]}, "attn1"),
        ({"patches": ["contribution"], "kinds": ["mlp"], "parts": ["text-encoder"]}, "mlp"),
        ({"patches": ["contribution"], "kinds": ["resnet", "feed_forward"]}, "ff"),
        ({"patches": ["contribution"], "components": [ATTENTION]}, ATTENTION),
        ({"patches": ["state", "contribution"], "components": [ATTENTION]}, ATTENTION),
    ],
)
def test_a_contribution_of_what_adds_its_whole_output_is_refused(
    tiny_sd: Path, fields: dict[str, Any], named: str
) -> None:
    plan = make_plan({"model": str(tiny_sd), "captions": [CAT], "parts": ["denoiser"], **fields})
    with pytest.raises(PlanError, match=rf"{named} adds its whole output"):
        check_plan(plan)


def test_states_and_contributions_are_traced_where_there_are_both(tiny_sd: Path) -> None:
    fields = {"model": str(tiny_sd), "captions": [CAT], "parts": ["denoiser"]}
    both = check_plan(make_plan({**fields, "patches": ["state", "contribution"]}))
    with_one = sum(component.has_contribution for component in both.components)
    assert 0 < with_one < len(both.components)
    assert plan_cost(both).patched_runs == len(both.components) + with_one
    alone = check_plan(make_plan({**fields, "patches": ["contribution"], "kinds": ["resnet"]}))
    assert TEXT_ENTRIES not in {component.name for component in alone.components}


def test_steps_are_the_schedulers_evaluations(tiny_sd: Path) -> None:
    fields = {"model": str(tiny_sd), "captions": [CAT]}
    for scheduler, steps in (("ddim", 10), ("pndm", 11), ("heun", 19)):
        plan = make_plan({**fields, "numerics": {"scheduler": scheduler, "steps": 10}})
        assert check_plan(plan).steps == steps


def test_a_models_own_scheduler_counts_as_it_steps(tiny_sd: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_sd, folder)
    PNDMScheduler(skip_prk_steps=False).save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "PNDMScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    plan = make_plan({"model": str(folder), "captions": [CAT], "numerics": {"steps": 10}})
    own = new_scheduler(open_model(str(folder)), Numerics(steps=10))
    assert check_plan(plan).steps == len(own.timesteps) == 19


def test_references_are_taken_from_the_captions_where_they_are_needed(tiny_sd: Path) -> None:
    dog = {"caption": "a dog", "subject": "dog", "attribute": "object"}
    fields = {"model": str(tiny_sd), "captions": [CAT, dog]}
    assert make_plan(fields).references == ()
    plan = make_plan({**fields, "interventions": ["restore", "other-caption"]})
    assert plan.references == ("a cat", "a dog")
    assert check_plan(plan).components
    with pytest.raises(PlanError, match=r"^references are read by .*mean.* alone: ask"):
        make_plan({**fields, "references": ["a dog"]})


@pytest.mark.parametrize("slab", [(1, 1), (3, 2), (70, 25)])
def test_units_partition_every_combination(tiny_sd: Path, slab: tuple[int, int]) -> None:
    fields = {
        "model": str(tiny_sd),
        "captions": [CAT],
        "seeds": [0, 1],
        "windows": ["each", "all"],
        "numerics": {"steps": 5},
        "slab_components": slab[0],
        "slab_windows": slab[1],
    }
    planned = check_plan(make_plan(fields))
    names = names_by_part(planned.components)
    combinations = Counter(
        (unit.seed, unit.part, component, window)
        for unit in plan_units(planned.plan, names=names, steps=planned.steps)
        for component in unit.components
        for window in unit.windows
    )
    assert set(combinations.values()) == {1}
    unet, text = len(names[Part.DENOISER]), len(names[Part.TEXT_ENCODER])
    assert len(combinations) == 2 * (6 * unet + text)


def test_probe_sets_are_balanced_and_large() -> None:
    for name in probe_names():
        captions = probe_set(name)
        assert len({caption.id for caption in captions}) == len(captions)
        counts = Counter(caption.attribute for caption in captions)
        assert {"object", "style", "color", "viewpoint"} <= set(counts)
        assert min(counts.values()) >= 44
        assert set(Counter(c.attribute for c in pick(captions, each=3)).values()) == {3}


def test_a_probe_set_has_a_version_that_a_plan_may_insist_on() -> None:
    # Another version means other captions: add what changed to CHANGELOG.md.
    assert with_version("sd") == with_version("sd@c7f0a1f2") == "sd@c7f0a1f2"
    assert re.fullmatch(r"emoji-sd@[0-9a-f]{8}", with_version("emoji-sd"))
    with pytest.raises(PlanError, match="probe set sd is of version c7f0a1f2 here, not 00000000"):
        with_version("sd@00000000")


def test_an_unknown_probe_set_names_the_others() -> None:
    with pytest.raises(PlanError, match="emoji-sd, sd"):
        probe_set("sdd")


@pytest.mark.parametrize(
    "repeated",
    [
        {"captions": [CAT, CAT]},
        {"captions": [CAT], "seeds": [1, 2, 1]},
        {"captions": [CAT], "tokens": ["words", "each"]},
        {"captions": [CAT], "windows": ["all", "all"]},
    ],
)
def test_what_would_count_twice_is_refused(repeated: dict[str, object]) -> None:
    with pytest.raises(PlanError, match="leave one out"):
        make_plan(repeated)


@pytest.mark.parametrize(
    ("numerics", "message"),
    [
        ({"occurrence": "second"}, "occurrence: Input should be 'all', 'first' or 'last'"),
        ({"noise_sigmas": float("inf")}, "noise_sigmas: .* finite number"),
        ({"noise_sigmas": []}, "noise_sigmas: there is no value: give one or several"),
        ({"noise_sigmas": [3, 1, 3]}, "noise_sigmas: 3 is there twice: leave one out"),
        ({"noise_sigmas": [3, -1]}, r"noise_sigmas: .* greater than 0 \(got \[3, -1\]\)"),
        (
            {"noise_sigmas": [3, 1], "noise_absolute": 0.5},
            "^noise_sigmas has several values, but noise_absolute takes its place: leave",
        ),
        (
            {"noise_sigmas": [3, 1], "corruption": "counterfactual"},
            "^noise_sigmas has several values, but corruption counterfactual adds no noise: leave",
        ),
        ({"noise_absolute": float("nan")}, "noise_absolute: .* finite number"),
        ({"guidance": float("nan")}, "guidance: "),
    ],
)
def test_numbers_and_words_of_numerics_are_checked(numerics: dict, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        make_plan({"captions": [CAT], "numerics": numerics})


@pytest.mark.parametrize(("model", "noise"), [("emoji-dit", 8.0), ("sd-1.4", 3.0)])
def test_a_plan_has_the_noise_of_its_model_unless_one_is_given(model: str, noise: float) -> None:
    fields = {"model": model, "captions": [CAT]}
    assert make_plan(fields).numerics.noise_sigmas == noise
    given = {**fields, "numerics": {"noise_sigmas": 2}}
    assert make_plan(given).numerics.noise_sigmas == 2.0
