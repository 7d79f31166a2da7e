"""Every column of a run's tables and views as a field of Arrow: its type, unit and meaning.

Parquet files hold the metadata of their fields, so that they document themselves.
"""

from typing import Any

import pyarrow as pa

from schemas.component import Kind
from schemas.intervention import CONTROLS, Intervention

UNIT, MEANING = b"unit", b"meaning"
"""Keys of a field's metadata. The unit `score` is that of the row's measure: a cosine for
CLIPScores."""

TEXT, REAL, INTEGER, COUNT = pa.string(), pa.float64(), pa.int32(), pa.int64()
TEXTS = pa.list_(TEXT)
FAILURES = pa.list_(
    pa.struct([(name, TEXT) for name in ("unit_id", "error", "message", "traceback")])
)

_CHANGES = ", ".join(Intervention)
_KINDS = ", ".join(Kind)


def column(
    name: str, kind: pa.DataType, meaning: str, *, unit: str = "", nullable: bool = False
) -> "pa.Field[Any]":
    """Return a field that holds its unit and meaning as metadata."""
    metadata = {MEANING: meaning, **({UNIT: unit} if unit else {})}
    return pa.field(name, kind, nullable=nullable, metadata=metadata)


def estimate(name: str, meaning: str, *, unit: str = "score") -> "pa.Field[Any]":
    """Return the field of a number that may be unknown."""
    return column(name, REAL, meaning, unit=unit, nullable=True)


def _interval(name: str, *, of: str, unit: str = "score") -> "tuple[pa.Field[Any], ...]":
    end = f"end of {of}'s 95 % interval"
    return (
        estimate(f"{name}_low", f"lower {end}: bootstrap over captions", unit=unit),
        estimate(f"{name}_high", f"upper {end}", unit=unit),
    )


COLUMNS = {
    field.name: field
    for field in (
        column("caption_id", TEXT, "hash of the caption's content"),
        column("caption", TEXT, "the prompt"),
        column("subject", TEXT, "the words of the caption whose tokens are corrupted"),
        column(
            "attribute", TEXT, "what the subject says about the image: object, style, color, ..."
        ),
        column(
            "target",
            TEXT,
            "text that the images are scored against besides the caption",
            nullable=True,
        ),
        column(
            "counterfactual",
            TEXT,
            "words in the subject's place, for counterfactual corruption",
            nullable=True,
        ),
        column(
            "slab",
            INTEGER,
            "number of the slab, the components and windows that one unit patches: how the work "
            "was cut, which changes no score",
        ),
        column("part", TEXT, "half of the model: denoiser or text-encoder"),
        column("set_name", TEXT, "name of a set of components that are patched together"),
        column(
            "curve",
            TEXT,
            "how `dqf trace sets RUN` chose a set: top, the first of a ranking; random, drawn, of "
            "the same kinds; greedy, the first without what the others make superfluous; null for "
            "a set that a user named",
            nullable=True,
        ),
        column("size", COUNT, "components of the set", unit="components"),
        column("num_sets", COUNT, "sets behind the row", unit="sets"),
        column("components", TEXTS, "names of the slab's components"),
        column("windows", TEXTS, "the slab's windows of steps, as start:stop"),
        column("ordinal", COUNT, "place of the unit in the plan's order, from 0"),
        column(
            "unit_id",
            TEXT,
            "hash of all that determines the scores of the unit, the piece of work that one worker "
            "does at a time: one caption, seed, draw and slab",
        ),
        column(
            "chunk",
            INTEGER,
            "number of the chunk, the units that are written together in one file: how the work "
            "was stored, which changes no score",
        ),
        column("seed", COUNT, "seed of the initial latent"),
        column("draw", INTEGER, "number of the noise draw on the subject's tokens, from 0"),
        column(
            "noise_sigmas",
            REAL,
            "standard deviation of the noise on the subject's tokens, in those of the embeddings; "
            "0 where the noise is absolute or the corruption is a counterfactual",
            unit="sigmas",
        ),
        column(
            "component",
            TEXT,
            "name of the place that is patched, as `dqf components MODEL` lists it",
        ),
        column("kind", TEXT, f"what the component computes: {_KINDS}"),
        column("network_order", INTEGER, "place in the order of execution within its part, from 0"),
        column(
            "layer",
            INTEGER,
            "text encoder: its layer; denoiser: its block in the order down, mid, up",
        ),
        column("num_parameters", COUNT, "parameters of the component", unit="parameters"),
        column("has_contribution", pa.bool_(), "whether it returns its input plus what it adds"),
        column("is_cut_point", pa.bool_(), "whether its state holds everything upstream"),
        column("intervention", TEXT, f"which run is patched, and with what: {_CHANGES}"),
        column(
            "token", TEXT, "`all` in the denoiser; a token role or position in the text encoder"
        ),
        column(
            "position",
            INTEGER,
            "first patched position in the text encoder, from 0",
            unit="tokens",
            nullable=True,
        ),
        column("token_text", TEXT, "the token at that position", nullable=True),
        column(
            "step_start",
            INTEGER,
            "first denoising step at which the component is patched",
            unit="steps",
        ),
        column(
            "step_stop",
            INTEGER,
            "the step after the last one; steps are evaluations of the denoiser",
            unit="steps",
        ),
        column("path", TEXT, "what is corrupted of the subject: tokens, pooled or both"),
        column(
            "patch_kind",
            TEXT,
            "what was copied: state, the whole output; contribution, what is added to the input",
        ),
        column(
            "estimate",
            TEXT,
            "where `patched` is from: exact, a sampled run; attribution or relp, a gradient",
        ),
        column(
            "measure", TEXT, "the measure: caption, target, clean-image, clean-latent or margin"
        ),
        column("clean", REAL, "measure of the clean run's image", unit="score"),
        column("corrupted", REAL, "measure of the corrupted run's image", unit="score"),
        column(
            "patched",
            REAL,
            "measure of the patched run's image, whatever the intervention",
            unit="score",
        ),
        estimate("total_effect", "clean - corrupted"),
        estimate("indirect_effect", "patched - corrupted; clean - patched for ablations"),
        estimate(
            "recovery", "indirect / total effect; null where the total is < 0.01", unit="fraction"
        ),
        estimate("ie", "mean indirect effect over the caption's seeds and draws"),
        estimate("te", "mean total effect over the caption's seeds and draws"),
        column("num_trials", COUNT, "patched runs behind the row", unit="trials"),
        column(
            "num_captions",
            COUNT,
            "captions behind the row, which are the clusters of the statistics",
            unit="captions",
        ),
        estimate("mean_ie", "mean indirect effect over captions, signed"),
        *_interval("ie", of="mean_ie"),
        estimate("se_ie", "standard error of mean_ie over captions"),
        estimate("mean_te", "mean total effect over captions"),
        *_interval("te", of="mean_te"),
        estimate(
            "mean_recovery",
            "mean_ie / mean_te; null where the total effect is noise",
            unit="fraction",
        ),
        *_interval("recovery", of="mean_recovery", unit="fraction"),
        column("num_seeds", COUNT, "seeds behind the row", unit="seeds"),
        column("num_draws", COUNT, "noise draws behind the row", unit="draws"),
        estimate(
            "p_value", "two-sided p of mean_ie = 0, by flipping captions' signs", unit="probability"
        ),
        estimate(
            "q_value",
            "p after Benjamini-Hochberg over a part, attribute, measure, patch, noise and "
            "intervention",
            unit="probability",
        ),
        estimate(
            "p_causal",
            "p of mean_ie > 0 and all controls passed: the largest one-sided p of these tests",
            unit="probability",
        ),
        estimate(
            "q_causal",
            "p_causal after Benjamini-Hochberg over the states that q_value is over",
            unit="probability",
        ),
        estimate(
            "q_run",
            "p_causal after Benjamini-Hochberg over all states of the run with that intervention",
            unit="probability",
        ),
        column(
            "rank",
            COUNT,
            "1 + the number of states whose interval lies above this one's: overlaps tie",
        ),
        column("controls", TEXTS, "controls that were traced for the restored state"),
        column("is_causal", pa.bool_(), "whether the restored state has q_causal < 0.05"),
        column("control", TEXT, f"the control compared with: {', '.join(CONTROLS)}"),
        estimate("control_ie", "mean indirect effect of the control"),
        *_interval("control", of="control_ie"),
        estimate("se_control", "standard error of control_ie over captions"),
        estimate("p_control", "p-value of control_ie, as p_value", unit="probability"),
        estimate("q_control", "p_control after Benjamini-Hochberg, as q_value", unit="probability"),
        estimate(
            "mean_difference", "mean over captions of the restored effect minus the control's"
        ),
        *_interval("difference", of="mean_difference"),
        estimate("se_difference", "standard error of mean_difference over captions"),
        estimate("p_difference", "p-value of mean_difference, as p_value", unit="probability"),
        estimate(
            "q_difference", "p_difference after Benjamini-Hochberg, as q_value", unit="probability"
        ),
        column("attribute_a", TEXT, "one attribute of the pair"),
        column("attribute_b", TEXT, "the other one"),
        column("num_a", COUNT, "causal states of attribute_a", unit="states"),
        column("num_b", COUNT, "causal states of attribute_b", unit="states"),
        column("num_both", COUNT, "causal states of both", unit="states"),
        estimate(
            "jaccard", "num_both / states of either; null where neither has any", unit="fraction"
        ),
        *_interval("jaccard", of="jaccard", unit="fraction"),
        estimate(
            "similarity",
            "cosine of the attributes' mean effects over components, their sizes aside",
            unit="fraction",
        ),
        estimate(
            "similarity_ceiling",
            "similarity that two attributes of one profile would have, by split halves",
            unit="fraction",
        ),
        estimate(
            "p_differs",
            "p of component x attribute: that the profiles are the same up to their size",
            unit="probability",
        ),
        estimate(
            "q_differs",
            "p_differs after Benjamini-Hochberg over all pairs of the run",
            unit="probability",
        ),
        column("num_components", COUNT, "components that were restored", unit="components"),
        estimate(
            "gini",
            "Gini index of components' positive effects: 0 all alike, 1 all in one",
            unit="fraction",
        ),
        *_interval("gini", of="gini", unit="fraction"),
        estimate(
            "effective_components",
            "number of components that, with equal effects, would be as concentrated",
            unit="components",
        ),
        *_interval("effective", of="effective_components", unit="components"),
        estimate(
            "effective_share", "effective_components / num_components: 1 all alike", unit="fraction"
        ),
        estimate(
            "noise_low", "share that 2.5 % of draws of noise alone are below", unit="fraction"
        ),
        estimate("noise_high", "share that 2.5 % of these draws are above", unit="fraction"),
        estimate(
            "p_noise",
            "two-sided p of effective_share, of the hypothesis that nothing has an effect",
            unit="probability",
        ),
        column(
            "generation", INTEGER, "number of times that the chunk's failures have been tried again"
        ),
        column("error", TEXT, "type of the error that ended the unit"),
        column("message", TEXT, "the error's message"),
        column("traceback", TEXT, "where it was raised"),
        column("units", INTEGER, "units of the chunk that this commit tried", unit="units"),
        column("failures", FAILURES, "the units among them that failed"),
    )
}


def fields(names: str) -> "list[pa.Field[Any]]":
    """Return the columns of these names, which are separated by spaces."""
    return [COLUMNS[name] for name in names.split()]
