"""A run with all that a report can show, and edits, made without any model.

Its texts are what an attacker or an emoji would put into them.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from jobs.runs.kept_images import LABELS, image_name, picked_units
from jobs.runs.parts import Failure
from jobs.runs.provenance import Manifest
from jobs.runs.run import IdentifiedUnit, Task
from jobs.runs.trace_run import TraceRun, create_run
from schemas.caption import Caption
from schemas.component import Component, Kind, Part
from schemas.intervention import Intervention, PatchKind, TokenRole
from schemas.manifest import MANIFEST_VERSION
from schemas.numerics import Numerics
from schemas.plan import TracePlan
from schemas.results import GroupResult
from tests.made_up.runs import score_row

HACK = "<img src=x onerror=\"window.hacked='{}'\">"
END_SCRIPT = "</script><script>window.hacked='script'</script>"
STEPS = 4
NOISE = 3.0
UNET = (
    ("unet.down_blocks.0.resnets.0", Kind.RESNET, 0),
    ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1", Kind.SELF_ATTENTION, 0),
    ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2", Kind.CROSS_ATTENTION, 0),
    ("unet.down_blocks.0.attentions.0.transformer_blocks.0.ff", Kind.FEED_FORWARD, 0),
    ("unet.mid_block.resnets.0", Kind.RESNET, 1),
    ("unet.up_blocks.0.resnets.0", Kind.RESNET, 2),
    ("unet.up_blocks.0.attentions.0.transformer_blocks.0.attn1", Kind.SELF_ATTENTION, 2),
    ("unet.up_blocks.0.attentions.0.transformer_blocks.0.attn2", Kind.CROSS_ATTENTION, 2),
    ("unet.up_blocks.0.attentions.0.transformer_blocks.0.ff", Kind.FEED_FORWARD, 2),
)
ODD_COMPONENT = f"text_encoder.{END_SCRIPT}"
TEXT = (
    ("text_encoder.layers.0.self_attn", Kind.SELF_ATTENTION, 0),
    ("text_encoder.layers.0.mlp", Kind.MLP, 0),
    ("text_encoder.layers.1.self_attn", Kind.SELF_ATTENTION, 1),
    (ODD_COMPONENT, Kind.MLP, 1),
    ("text_encoder.layers.0", Kind.LAYER, 0),
    ("text_encoder.layers.1", Kind.LAYER, 1),
)
STRONG = {"object": "unet.up_blocks.0.resnets.0", "text": "text_encoder.layers.0.self_attn"}
"""Components that carry everything in the made-up scores."""
ODD_ATTRIBUTE = HACK.format("attribute")
OBJECTS = ("cat", "dog", "cow", "pig", "bus", "car", "bee", "owl", "bat", "fox", "hat", "cup")
CAPTIONS = (
    *((f"a photo of a {name} in neon", name, "object") for name in OBJECTS),
    *((f"a {HACK.format(n)} of a \"cat\" & 'dog' {n}", "cat", ODD_ATTRIBUTE) for n in range(3)),
    ("صورة قطة على الطاولة", "قطة", "right-to-left"),
    ("a 🐱‍👤 in the 🌈 \u202edrawkcab\u202c", "🐱‍👤", "right-to-left"),
)
FAILURE = f"no such file {END_SCRIPT} {HACK.format('failure')}"
INTERVENTIONS = (Intervention.RESTORE, Intervention.OTHER_SEED, Intervention.OTHER_CAPTION)


def make_report_run(
    folder: Path,
    *,
    patches: tuple[PatchKind, ...] = (PatchKind.STATE,),
    noises: tuple[float, ...] = (NOISE,),
    captions: int | None = None,
) -> TraceRun:
    """Return a run of windows, tokens and controls, of all CAPTIONS or of the first ones; its last
    unit failed.

    A contribution has half its state's effect, and effects are proportional to the noise.
    """
    plan = TracePlan(
        scorer=HACK.format("scorer"),
        captions=tuple(
            Caption(caption=c, subject=s, attribute=a) for c, s, a in CAPTIONS[:captions]
        ),
        windows=("all", "each"),
        tokens=(TokenRole.LAST_SUBJECT, TokenRole.WORDS),
        interventions=INTERVENTIONS,
        patches=patches,
        references=("a photo of a bus",),
        numerics=Numerics.model_validate({"steps": STEPS, "noise_sigmas": noises}),
        chunk_units=4,
    )
    manifest = Manifest(
        model_hash="m", scorer_hash="s", versions={"dqf": HACK.format("version")},
        code_hash="c", git_commit="", created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    run = create_run(folder, plan, manifest, _components(), steps=STEPS)
    units = [row for chunk in range(run.num_chunks) for row in run.unit_rows(Task(chunk=chunk))]
    for chunk in range(run.num_chunks):
        _commit(run, chunk, failing=units[-1].unit_id)
    keep_images(run)
    return run


def _components() -> list[Component]:
    return [
        Component(name=name, part=part, kind=kind, order=order, layer=layer, num_parameters=1)
        for part, found in ((Part.DENOISER, UNET), (Part.TEXT_ENCODER, TEXT))
        for order, (name, kind, layer) in enumerate(found)
    ]


def _commit(run: TraceRun, chunk: int, *, failing: str) -> None:
    units = run.unit_rows(Task(chunk=chunk))
    failures = [
        Failure(unit_id=unit.unit_id, error="OSError", message=FAILURE, traceback="")
        for unit in units
        if unit.unit_id == failing
    ]
    rows = [row for unit in units if unit.unit_id != failing for row in _scores(unit)]
    run.commit(Task(chunk=chunk), rows, failures, units=len(units))


def _scores(row: IdentifiedUnit) -> list[dict[str, Any]]:
    unit = row.unit
    random = np.random.default_rng(int(row.unit_id[:12], 16))
    words = unit.caption.caption.split()
    tokens = [("all", None, None)]
    if unit.part is Part.TEXT_ENCODER:
        # One token a word, and the subject's first word stands for it.
        at = words.index(unit.caption.subject.split()[0]) if unit.caption.subject in words else 2
        tokens = [("last_subject", at + 1, f"{words[at]}</w>")]
        tokens += [(str(n + 1), n + 1, f"{word}</w>") for n, word in enumerate(words)]
        tokens += [(str(len(words) + 1), len(words) + 1, "<|endoftext|>")]
    return [
        score_row(
            row, component, intervention=intervention.value, token=token, position=position,
            token_text=text, step_start=start, step_stop=stop, measure=measure, patch_kind=patch,
            clean=0.4, corrupted=0.2,
            patched=0.2
            + unit.noise_sigmas / NOISE * _effect(component, intervention, stop - start) * (
                1.0 if token in ("all", "last_subject") else 0.3
            ) * (1.0 if patch is PatchKind.STATE else 0.5) + 0.01 * random.standard_normal(),
        )
        for component in unit.components
        for intervention in unit.interventions
        for patch in unit.patches
        for token, position, text in tokens
        for start, stop in unit.windows
        for measure in ("caption", "target")
    ]  # fmt: skip


def _effect(component: str, intervention: Intervention, width: int) -> float:
    if component not in STRONG.values():
        return -0.02 if "mid" in component else 0.0
    share = {Intervention.RESTORE: 1.0, Intervention.OTHER_SEED: 0.7}.get(intervention, 0.1)
    return 0.15 * share * width / STEPS


def keep_images(run: TraceRun) -> None:
    """Write images of solid color for the units whose images a run keeps."""
    for unit_id, unit in picked_units(run).items():
        roles = [("clean", None), ("corrupted", None)]
        roles += [(role, unit.components[0]) for role in ("best", "worst")]
        labels = {
            "unit_id": unit_id, "caption": unit.caption.caption, "subject": unit.caption.subject,
            "attribute": unit.caption.attribute, "part": unit.part.value, "seed": unit.seed,
            "draw": unit.draw, "measure": "target", "intervention": "restore",
            "images": [
                {"role": role, "score": 0.3, "component": component, "token": component and "all",
                 "step_start": component and 0, "step_stop": component and STEPS}
                for role, component in roles
            ],
        }  # fmt: skip
        text = PngInfo()
        text.add_text(LABELS, json.dumps(labels))
        path = Path(run.location, image_name(unit_id))
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (16 * len(roles), 16), "teal").save(path, pnginfo=text)


GROUPS = ("harmonic mean", "still_recognised", "concept", "kept", "general")


def make_report_edit(folder: Path) -> Path:
    """Return an edit's folder with an evaluation, written by hand."""
    odd = HACK.format("concept")
    concepts = [
        {"concept": concept, "target": target, "kind": "object", "mode": mode, "weight": 1.0,
         "prompts": []}
        for concept, target, mode in (("cat", "dog", "update"), (odd[:100], "", "remove"))
    ]  # fmt: skip
    matrix = {
        "name": HACK.format("matrix"), "shape": [4, 4], "rank": 2, "norm_before": 1.0,
        "relative_change": 0.5, "hash_before": "b", "hash_after": "a",
    }  # fmt: skip
    manifest = {
        "version": MANIFEST_VERSION, "model": "emoji-sd", "model_hash": "m", "concepts": concepts,
        "settings": {}, "located": {"component": "text_encoder.layers.0.self_attn"},
        "numerics": {}, "scorer": "s", "key_pairs": 1, "kept_keys": 0, "key_seconds": 0.0,
        "solve_seconds": 0.0, "scores": [], "untouched_change": None, "matrices": [matrix],
        "lora": "none", "versions": {}, "created": "",
    }  # fmt: skip
    (folder / "evaluation" / "images").mkdir(parents=True)
    (folder / "edit.json").write_text(json.dumps(manifest))
    results = [_result(group) for group in GROUPS]
    (folder / "evaluation" / "evaluation.json").write_text(json.dumps({"results": results}))
    for name in ("before_after.png", "evaluation/images/kept.png"):
        Image.new("RGB", (400, 200), "olive").save(folder / name)
    return folder


def _result(group: str) -> dict[str, Any]:
    share = {"harmonic mean": 0.9, "still_recognised": 0.05, "concept": 0.05, "kept": 0.85}.get(
        group
    )
    low, high = (None, None) if share is None else (share - 0.05, share + 0.05)
    row = GroupResult(
        group=group, names=2, images=8, before=0.95, after=share, after_low=low, after_high=high,
        of_right=share, of_right_low=low, of_right_high=high,
    )  # fmt: skip
    return asdict(row)


def make_report_sweep(folder: Path) -> Path:
    """Return a sweep's folder."""
    swept = [
        {
            "edit": f"kept-{n}-{HACK.format('sweep')}", "is_best": n < 2,
            "still_recognised": 0.1 * n, "kept": 0.9, "harmonic_mean": 0.9,
            "still_recognised_of_right": 0.1 * n, "kept_of_right": 0.8 + 0.05 * n if n < 2 else 0.7,
            "harmonic_of_right": 0.9, "harmonic_of_right_low": 0.85,
            "harmonic_of_right_high": 0.95, "as_replacement": None,
            "clip_before": 0.8, "clip_after": 0.8, "cmmd": 0.01 * n,
        }
        for n in range(3)
    ]  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text(json.dumps(swept))
    return folder
