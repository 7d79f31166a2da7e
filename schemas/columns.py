"""What every view and column of a run means: the one source of `--schema` and of comments."""

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
    """`score` is the unit of the measure in `against`: a cosine for CLIPScores."""
    meaning: str

    @property
    def comment(self) -> str:
        """The meaning with the unit, if there is one."""
        return f"{self.meaning} [{self.unit}]" if self.unit else self.meaning


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A view of a run."""

    name: str
    meaning: str
    """What one row is, and what it is good for."""
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
    ("attribute", TEXT, "", "what the subject says of the image: object, style, color, ..."),
    ("target", TEXT, "", "text that the images are scored against, beside the caption"),
    ("counterfactual", TEXT, "", "words in the subject's place, for counterfactual corruption"),
    ("slab", INTEGER, "", "number of the slab: components and windows of one unit"),
    ("part", TEXT, "", "half of the model: unet or text-encoder"),
    ("components", f"{TEXT}[]", "", "names of the slab's components"),
    ("windows", f"{TEXT}[]", "", "the slab's windows of steps, as start:stop"),
    ("ordinal", COUNT, "", "place of the unit in the plan's order, from 0"),
    ("unit_id", TEXT, "", "hash of all that determines the unit's scores"),
    ("chunk", INTEGER, "", "number of the chunk: the units that are committed together"),
    ("seed", COUNT, "", "seed of the initial latent"),
    ("draw", INTEGER, "", "number of the noise draw on the subject's tokens, from 0"),
    ("component", TEXT, "", "name of the place that is changed, as `dqf components` lists it"),
    ("kind", TEXT, "", f"what the component computes: {_KINDS}"),
    ("network_order", INTEGER, "", "place in the order of execution within its part, from 0"),
    ("layer", INTEGER, "", "text encoder: its layer; UNet: its block in the order down, mid, up"),
    ("num_parameters", COUNT, "parameters", "parameters of the component"),
    ("intervention", TEXT, "", f"which run is changed and by what: {_CHANGES}"),
    ("token", TEXT, "", "`all` in the UNet; a token role or position in the text encoder"),
    ("position", INTEGER, "tokens", "first restored position in the text encoder, from 0"),
    ("token_text", TEXT, "", "the token at that position"),
    ("step_start", INTEGER, "steps", "first denoising step at which the component is changed"),
    ("step_stop", INTEGER, "steps", "the step after the last one; steps are UNet evaluations"),
    ("against", TEXT, "", "the measure: caption, target, clean-image or clean-latent"),
    ("clean", REAL, "score", "measure of the clean run's image"),
    ("corrupted", REAL, "score", "measure of the corrupted run's image"),
    ("restored", REAL, "score", "measure of the changed run's image, whatever the intervention"),
    ("total_effect", REAL, "score", "clean - corrupted"),
    ("indirect_effect", REAL, "score", "restored - corrupted; clean - changed for ablations"),
    ("recovery", REAL, "fraction", "indirect / total effect; null where the total is < 0.01"),
    ("ie", REAL, "score", "mean indirect effect over the caption's seeds and draws"),
    ("te", REAL, "score", "mean total effect over the caption's seeds and draws"),
    ("num_trials", COUNT, "trials", "changed runs behind the row"),
    ("num_captions", COUNT, "captions", "captions behind the row: the clusters of the statistics"),
    ("mean_ie", REAL, "score", "mean indirect effect over captions, signed"),
    ("se_ie", REAL, "score", "standard error of mean_ie over captions"),
    ("mean_te", REAL, "score", "mean total effect over captions"),
    ("mean_recovery", REAL, "fraction", "mean over captions of each caption's mean recovery"),
    ("rank", COUNT, "", "place by mean_ie within attribute, part, intervention and against"),
    ("control", TEXT, "", f"the control compared with: {' or '.join(CONTROLS)}"),
    ("control_ie", REAL, "score", "mean indirect effect of the control"),
    ("se_control", REAL, "score", "standard error of control_ie over captions"),
    ("mean_difference", REAL, "score", "mean over captions of restoring less the control"),
    ("se_difference", REAL, "score", "standard error of mean_difference over captions"),
    ("generation", INTEGER, "", "0, and one more each time the chunk's failures are tried again"),
    ("error", TEXT, "", "type of the error that ended the unit"),
    ("message", TEXT, "", "the error's message"),
    ("traceback", TEXT, "", "where it was raised"),
    ("units", INTEGER, "units", "units of the chunk that this commit tried"),
    (
        "failures",
        'STRUCT(unit_id VARCHAR, "error" VARCHAR, message VARCHAR, traceback VARCHAR)[]',
        "",
        "those of them that failed",
    ),
)
"""Columns by name; where a view's differs, the view says so."""

_STATE = "attribute part component token step_start step_stop against"
_CAPTION = "caption subject attribute target counterfactual"
_SCORE = "unit_id caption_id seed draw part component intervention token position token_text "
_SCORE += "step_start step_stop against clean corrupted restored"
_MEANS = "mean_ie se_ie mean_te mean_recovery num_captions num_trials"


def _view(name: str, columns: str, meaning: str, **types: str) -> View:
    """Return a view of columns by name, of which `types` are of another type than usual."""
    found = [KNOWN[column] for column in columns.split()]
    typed = (replace(c, type=types.get(c.name, c.type)) for c in found)
    return View(name=name, meaning=meaning, columns=tuple(typed))


VIEWS = (
    _view("captions", f"caption_id {_CAPTION}", "One row a caption of the plan."),
    _view("slabs", "slab part components windows", "One row a slab of components and windows."),
    _view(
        "units",
        "ordinal unit_id chunk caption_id seed draw slab",
        "One row a unit of work of the plan, done or not.",
    ),
    _view(
        "components",
        "component part kind network_order layer num_parameters",
        "One row a traced component.",
    ),
    _view("scores", _SCORE, "One row a changed run and measure, as the workers wrote it."),
    _view("commits", "chunk generation units failures", "One row a committed chunk."),
    _view(
        "failures",
        "unit_id error message traceback chunk generation",
        "One row a unit that failed when it was last tried.",
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
        "One row a causal state, intervention and caption.",
    ),
    _view(
        "component_effects",
        f"{_STATE} intervention {_MEANS}",
        "One row a causal state and intervention: means over captions.",
    ),
    _view(
        "controlled_effects",
        f"{_STATE} control mean_ie control_ie se_control mean_difference se_difference "
        "num_captions",
        "One row a causal state and control: restoring beside it, caption by caption.",
    ),
    _view("ranking", f"rank {_STATE} intervention {_MEANS}", "`component_effects` with ranks."),
    _view(
        "causal_states",
        f"rank {_STATE} intervention {_MEANS}",
        "The rows of `ranking` for `restore` whose effect is above zero.",
    ),
)
"""The views of a run, each after those that it is computed from."""


def documented(names: Sequence[str] = ()) -> list[View]:
    """Return the views of these names, all if none; QueryRefused for a name that no view has."""
    known = {view.name: view for view in VIEWS}
    for name in names:
        if name not in known:
            raise QueryRefused(f"there is no view {name!r}: there are {', '.join(known)}")
    return [known[name] for name in names or known]
