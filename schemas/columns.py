"""The meaning of every view and column of a run: the only source of `--schema` and of comments."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from schemas.component import Kind
from schemas.errors import QueryRefused
from schemas.intervention import CONTROLS, Intervention

TEXT, REAL, INTEGER, COUNT = "VARCHAR", "DOUBLE", "INTEGER", "BIGINT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a view."""

    name: str
    type: str
    """As DuckDB writes it."""
    unit: str
    """`score` is the unit of the row's measure: a cosine for CLIPScores."""
    meaning: str

    @property
    def comment(self) -> str:
        """The meaning, followed by the unit where the column has one."""
        return f"{self.meaning} [{self.unit}]" if self.unit else self.meaning


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A view of a run."""

    name: str
    meaning: str
    """What one row is, and what the view is used for."""
    columns: tuple[Column, ...]


def _columns(*listed: tuple[str, str, str, str]) -> dict[str, Column]:
    return {
        name: Column(name=name, type=kind, unit=unit, meaning=meaning)
        for name, kind, unit, meaning in listed
    }


_CHANGES = ", ".join(Intervention)
_KINDS = ", ".join(Kind)

KNOWN = _columns(
    ("caption_id", TEXT, "", "hash of the caption's content"),
    ("caption", TEXT, "", "the prompt"),
    ("subject", TEXT, "", "the words of the caption whose tokens are corrupted"),
    ("attribute", TEXT, "", "what the subject says about the image: object, style, color, ..."),
    ("target", TEXT, "", "text that the images are scored against besides the caption"),
    ("counterfactual", TEXT, "", "words in the subject's place, for counterfactual corruption"),
    ("slab", INTEGER, "", "number of the slab: components and windows of one unit"),
    ("part", TEXT, "", "half of the model: denoiser or text-encoder"),
    ("components", f"{TEXT}[]", "", "names of the slab's components"),
    ("windows", f"{TEXT}[]", "", "the slab's windows of steps, as start:stop"),
    ("ordinal", COUNT, "", "place of the unit in the plan's order, from 0"),
    ("unit_id", TEXT, "", "hash of all that determines the unit's scores"),
    ("chunk", INTEGER, "", "number of the chunk: the units that are committed together"),
    ("seed", COUNT, "", "seed of the initial latent"),
    ("draw", INTEGER, "", "number of the noise draw on the subject's tokens, from 0"),
    ("component", TEXT, "", "name of the place that is patched, as `dqf components` lists it"),
    ("kind", TEXT, "", f"what the component computes: {_KINDS}"),
    ("network_order", INTEGER, "", "place in the order of execution within its part, from 0"),
    (
        "layer",
        INTEGER,
        "",
        "text encoder: its layer; denoiser: its block in the order down, mid, up",
    ),
    ("num_parameters", COUNT, "parameters", "parameters of the component"),
    ("intervention", TEXT, "", f"which run is patched, and with what:  {_CHANGES}"),
    ("token", TEXT, "", "`all` in the denoiser; a token role or position in the text encoder"),
    ("position", INTEGER, "tokens", "first patched position in the text encoder, from 0"),
    ("token_text", TEXT, "", "the token at that position"),
    ("step_start", INTEGER, "steps", "first denoising step at which the component is patched"),
    (
        "step_stop",
        INTEGER,
        "steps",
        "the step after the last one; steps are evaluations of the denoiser",
    ),
    ("path", TEXT, "", "what of the subject is corrupted: tokens, the embeddings of its tokens"),
    ("patch_kind", TEXT, "", "what was copied: state, the whole output of the component"),
    ("estimate", TEXT, "", "where `patched` is from: exact, a run that was sampled"),
    ("measure", TEXT, "", "the measure: caption, target, clean-image or clean-latent"),
    ("clean", REAL, "score", "measure of the clean run's image"),
    ("corrupted", REAL, "score", "measure of the corrupted run's image"),
    ("patched", REAL, "score", "measure of the patched run's image, whatever the intervention"),
    ("total_effect", REAL, "score", "clean - corrupted"),
    ("indirect_effect", REAL, "score", "patched - corrupted; clean - patched for ablations"),
    ("recovery", REAL, "fraction", "indirect / total effect; null where the total is < 0.01"),
    ("ie", REAL, "score", "mean indirect effect over the caption's seeds and draws"),
    ("te", REAL, "score", "mean total effect over the caption's seeds and draws"),
    ("num_trials", COUNT, "trials", "patched runs behind the row"),
    (
        "num_captions",
        COUNT,
        "captions",
        "captions behind the row, which are the clusters of the statistics",
    ),
    ("mean_ie", REAL, "score", "mean indirect effect over captions, signed"),
    ("ie_low", REAL, "score", "lower end of mean_ie's 95 % interval: bootstrap over captions"),
    ("ie_high", REAL, "score", "upper end of mean_ie's 95 % interval"),
    ("se_ie", REAL, "score", "standard error of mean_ie over captions"),
    ("mean_te", REAL, "score", "mean total effect over captions"),
    ("te_low", REAL, "score", "lower end of mean_te's 95 % interval: bootstrap over captions"),
    ("te_high", REAL, "score", "upper end of mean_te's 95 % interval"),
    ("mean_recovery", REAL, "fraction", "mean_ie / mean_te; null where the total effect is noise"),
    (
        "recovery_low",
        REAL,
        "fraction",
        "lower end of mean_recovery's 95 % interval: bootstrap over captions",
    ),
    ("recovery_high", REAL, "fraction", "upper end of mean_recovery's 95 % interval"),
    ("num_seeds", COUNT, "seeds", "seeds behind the row"),
    ("num_draws", COUNT, "draws", "noise draws behind the row"),
    ("p_value", REAL, "probability", "two-sided p of mean_ie = 0, by flipping captions' signs"),
    (
        "q_value",
        REAL,
        "probability",
        "p after Benjamini-Hochberg over an attribute, part, intervention, measure",
    ),
    (
        "p_causal",
        REAL,
        "probability",
        "p of mean_ie > 0 and all controls passed: the largest one-sided p of these tests",
    ),
    (
        "q_causal",
        REAL,
        "probability",
        "p_causal after Benjamini-Hochberg over an attribute, part, intervention, measure",
    ),
    (
        "q_run",
        REAL,
        "probability",
        "p_causal after Benjamini-Hochberg over all states of the run with that intervention",
    ),
    (
        "rank",
        COUNT,
        "",
        "1 + the number of states whose interval lies above this one's: overlaps tie",
    ),
    ("controls", f"{TEXT}[]", "", "controls that were traced for the restored state"),
    ("is_causal", "BOOLEAN", "", "whether the restored state has q_causal < 0.05"),
    ("control", TEXT, "", f"the control compared with: {', '.join(CONTROLS)}"),
    ("control_ie", REAL, "score", "mean indirect effect of the control"),
    (
        "control_low",
        REAL,
        "score",
        "lower end of control_ie's 95 % interval: bootstrap over captions",
    ),
    ("control_high", REAL, "score", "upper end of control_ie's 95 % interval"),
    ("se_control", REAL, "score", "standard error of control_ie over captions"),
    ("p_control", REAL, "probability", "p-value of control_ie, as p_value"),
    ("q_control", REAL, "probability", "p_control after Benjamini-Hochberg, as q_value"),
    (
        "mean_difference",
        REAL,
        "score",
        "mean over captions of the restored effect minus the control's",
    ),
    (
        "difference_low",
        REAL,
        "score",
        "lower end of mean_difference's 95 % interval: bootstrap over captions",
    ),
    ("difference_high", REAL, "score", "upper end of mean_difference's 95 % interval"),
    ("se_difference", REAL, "score", "standard error of mean_difference over captions"),
    ("p_difference", REAL, "probability", "p-value of mean_difference, as p_value"),
    ("q_difference", REAL, "probability", "p_difference after Benjamini-Hochberg, as q_value"),
    ("attribute_a", TEXT, "", "one attribute of the pair"),
    ("attribute_b", TEXT, "", "the other one"),
    ("num_a", COUNT, "states", "causal states of attribute_a"),
    ("num_b", COUNT, "states", "causal states of attribute_b"),
    ("num_both", COUNT, "states", "causal states of both"),
    ("jaccard", REAL, "fraction", "num_both / states of either; null where neither has any"),
    (
        "jaccard_low",
        REAL,
        "fraction",
        "lower end of jaccard's 95 % interval: bootstrap over captions",
    ),
    ("jaccard_high", REAL, "fraction", "upper end of jaccard's 95 % interval"),
    ("num_components", COUNT, "components", "components that were restored"),
    (
        "gini",
        REAL,
        "fraction",
        "Gini index of components' positive effects: 0 all alike, 1 all in one",
    ),
    ("gini_low", REAL, "fraction", "lower end of gini's 95 % interval: bootstrap over captions"),
    ("gini_high", REAL, "fraction", "upper end of gini's 95 % interval"),
    (
        "effective_components",
        REAL,
        "components",
        "number of components that, with equal effects, would be as concentrated",
    ),
    (
        "effective_low",
        REAL,
        "components",
        "lower end of effective_components's 95 % interval: bootstrap over captions",
    ),
    ("effective_high", REAL, "components", "upper end of effective_components's 95 % interval"),
    ("generation", INTEGER, "", "number of times that the chunk's failures have been tried again"),
    ("error", TEXT, "", "type of the error that ended the unit"),
    ("message", TEXT, "", "the error's message"),
    ("traceback", TEXT, "", "where it was raised"),
    ("units", INTEGER, "units", "units of the chunk that this commit tried"),
    (
        "failures",
        'STRUCT(unit_id VARCHAR, "error" VARCHAR, message VARCHAR, traceback VARCHAR)[]',
        "",
        "the units among them that failed",
    ),
)
"""Columns by name; a view overrides what differs in it."""

_STATE = "attribute part component token step_start step_stop measure"
_CAPTION = "caption subject attribute target counterfactual"
_SCORE = (
    "unit_id caption_id seed draw part component intervention token position token_text "
    "step_start step_stop path patch_kind measure estimate clean corrupted patched"
)
_MEANS = (
    "mean_ie ie_low ie_high se_ie mean_te te_low te_high mean_recovery recovery_low "
    "recovery_high num_captions num_seeds num_draws num_trials p_value q_value "
    "p_causal q_causal q_run"
)
_CONTROLLED = (
    "mean_ie control_ie control_low control_high se_control p_control q_control "
    "mean_difference difference_low difference_high se_difference p_difference "
    "q_difference num_captions"
)
_OVERLAP = (
    "part measure attribute_a attribute_b num_a num_b num_both jaccard jaccard_low jaccard_high"
)
_CONCENTRATION = (
    "attribute part measure num_components gini gini_low gini_high "
    "effective_components effective_low effective_high"
)


def _view(name: str, columns: str, meaning: str, **types: str) -> View:
    """Return a view of the named columns; `types` gives the columns of another type than usual."""
    found = [KNOWN[column] for column in columns.split()]
    typed = (replace(c, type=types.get(c.name, c.type)) for c in found)
    return View(name=name, meaning=meaning, columns=tuple(typed))


VIEWS = (
    _view("captions", f"caption_id {_CAPTION}", "One row per caption of the plan."),
    _view("slabs", "slab part components windows", "One row per slab of components and windows."),
    _view(
        "units",
        "ordinal unit_id chunk caption_id seed draw slab",
        "One row per unit of work of the plan, done or not.",
    ),
    _view(
        "components",
        "component part kind network_order layer num_parameters",
        "One row per traced component.",
    ),
    _view("scores", _SCORE, "One row per patched run and measure, as the workers wrote it."),
    _view("commits", "chunk generation units failures", "One row per committed chunk."),
    _view(
        "failures",
        "unit_id error message traceback chunk generation",
        "One row per unit that failed when it was last tried.",
    ),
    _view("trials", f"{_SCORE} {_CAPTION}", "`scores` with the caption's columns."),
    _view(
        "effects",
        f"{_SCORE} {_CAPTION} total_effect indirect_effect recovery",
        "`trials` with its effects: the rows that everything below is computed from.",
    ),
    _view(
        "caption_effects",
        f"{_STATE} intervention caption_id ie te recovery num_trials",
        "One row per state, intervention and caption.",
    ),
    _view(
        "component_effects",
        f"{_STATE} intervention {_MEANS}",
        "One row per state and intervention: means over captions, intervals, tests.",
    ),
    _view(
        "ranking",
        f"rank {_STATE} intervention {_MEANS} controls is_causal",
        "`component_effects` with ranks and the verdict.",
    ),
    _view(
        "controlled_effects",
        f"{_STATE} control {_CONTROLLED}",
        "One row per restored state and control, over the captions that have both.",
    ),
    _view(
        "causal_states",
        f"rank {_STATE} intervention {_MEANS} controls",
        "The rows of `ranking` that are causal: their q_causal is under 0.05.",
    ),
    _view(
        "overlap",
        _OVERLAP,
        "One row per pair of attributes: how many causal states they share.",
    ),
    _view(
        "concentration",
        _CONCENTRATION,
        "One row per attribute, part and measure: in how few components its effects are.",
    ),
)
"""The views of a run, each after those that it is computed from."""


def documented(names: Sequence[str] = ()) -> list[View]:
    """Return the named views, by default all; QueryRefused for an unknown name."""
    known = {view.name: view for view in VIEWS}
    for name in names:
        if name not in known:
            raise QueryRefused(f"there is no view {name!r}: there are {', '.join(known)}")
    return [known[name] for name in names or known]
