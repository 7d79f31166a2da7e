"""Named example queries: common first questions about a run."""

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.errors import QueryRefused
from schemas.views import identifier

OTHER = "{other}"
"""Placeholder for the second run's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A query that ships with dqf."""

    name: str
    answers: str
    """The question."""
    read: str
    """How to read the result."""
    sql: str
    of: str = "run"
    """The kind of run that it reads, by its noun."""

    @property
    def num_runs(self) -> int:
        """Number of runs that it takes."""
        return 2 if OTHER in self.sql else 1


EXAMPLES = (
    Example(
        name="top-components",
        answers="Which components carry each attribute?",
        read="The five largest effects of each attribute and part; overlapping intervals tie.",
        sql="""
SELECT attribute, part, measure, noise_sigmas, patch_kind, rank, component, token,
  step_start, step_stop, mean_ie, ie_low, ie_high, q_causal, is_causal
FROM ranking
WHERE intervention = 'restore'
QUALIFY row_number() OVER (
  PARTITION BY attribute, part, measure, noise_sigmas, patch_kind ORDER BY mean_ie DESC) <= 5
ORDER BY attribute, part, measure, noise_sigmas, patch_kind, mean_ie DESC, component
""",
    ),
    Example(
        name="layer-by-timestep",
        answers="Where in the network, and when in denoising, is an attribute decided?",
        read="One row per layer, one column per first step: mean indirect effect over components.",
        sql="""
PIVOT (
  SELECT attribute, part, measure, noise_sigmas, patch_kind, layer, step_start, mean_ie
  FROM component_effects JOIN components USING (component, part)
  WHERE intervention = 'restore')
ON step_start USING avg(mean_ie)
GROUP BY attribute, part, measure, noise_sigmas, patch_kind, layer
ORDER BY attribute, part, measure, noise_sigmas, patch_kind, layer
""",
    ),
    Example(
        name="layer-by-token",
        answers="At which token and layer of the text encoder does an attribute sit?",
        read="One row per layer and kind, one column per token: mean indirect effect.",
        sql="""
PIVOT (
  SELECT attribute, measure, noise_sigmas, patch_kind, layer, kind, token, mean_ie
  FROM component_effects JOIN components USING (component, part)
  WHERE intervention = 'restore' AND part = 'text-encoder')
ON token USING avg(mean_ie)
GROUP BY attribute, measure, noise_sigmas, patch_kind, layer, kind
ORDER BY attribute, measure, noise_sigmas, patch_kind, layer, kind
""",
    ),
    Example(
        name="kinds",
        answers="Do attentions, MLPs or resnets carry more?",
        read="Mean and best indirect effect over the components of a kind; compare in one part.",
        sql="""
SELECT part, kind, attribute, measure, noise_sigmas, patch_kind,
  count(DISTINCT component) AS num_components, avg(mean_ie) AS mean_ie, max(mean_ie) AS best_ie
FROM component_effects JOIN components USING (component, part)
WHERE intervention = 'restore'
GROUP BY ALL
ORDER BY attribute, measure, noise_sigmas, patch_kind, part, mean_ie DESC
""",
    ),
    Example(
        name="recovery",
        answers="How much of the total effect does restoring one component bring back?",
        read="Quantiles over captions, seeds, draws; 1 is all of it, below 0 makes it worse.",
        sql="""
SELECT attribute, part, measure, noise_sigmas, patch_kind, count(recovery) AS num_trials,
  quantile_cont(recovery, 0.1) AS q10, median(recovery) AS q50,
  quantile_cont(recovery, 0.9) AS q90, avg((recovery > 0.5)::INTEGER) AS share_over_half
FROM effects
WHERE intervention = 'restore'
GROUP BY ALL
ORDER BY attribute, part, measure, noise_sigmas, patch_kind
""",
    ),
    Example(
        name="captions",
        answers="Which captions does the best component of each attribute work on, or fail?",
        read="Effects of the leading component, caption by caption; look for outliers.",
        sql="""
SELECT attribute, part, measure, noise_sigmas, patch_kind, component, caption, ie, te,
  recovery, num_trials
FROM caption_effects
JOIN captions USING (caption_id, attribute)
SEMI JOIN (
  FROM ranking QUALIFY row_number() OVER (
    PARTITION BY attribute, part, measure, noise_sigmas, patch_kind, intervention
    ORDER BY mean_ie DESC) = 1) USING (
  attribute, part, component, token, step_start, step_stop, measure, noise_sigmas, patch_kind,
  intervention)
WHERE intervention = 'restore'
ORDER BY attribute, part, measure, noise_sigmas, patch_kind, ie DESC
""",
    ),
    Example(
        name="seed-agreement",
        answers="Do two seeds agree on which components matter?",
        read="Correlation over components of the effects of the two first seeds; 1 is agreement.",
        sql="""
WITH by_seed AS (
  SELECT attribute, part, measure, noise_sigmas, patch_kind, seed, component, token,
    step_start, step_stop, avg(indirect_effect) AS ie
  FROM effects WHERE intervention = 'restore' GROUP BY ALL),
numbered AS (
  SELECT *, rank() OVER (PARTITION BY attribute, part, measure, noise_sigmas, patch_kind,
    component, token, step_start, step_stop ORDER BY seed) AS number
  FROM by_seed)
SELECT attribute, part, measure, noise_sigmas, patch_kind, a.seed AS seed_a, b.seed AS seed_b,
  count(*) AS num_states, corr(a.ie, b.ie) AS correlation, avg(abs(a.ie - b.ie)) AS mean_difference
FROM numbered AS a
JOIN numbered AS b USING (
  attribute, part, measure, noise_sigmas, patch_kind, component, token, step_start, step_stop)
WHERE a.number = 1 AND b.number = 2
GROUP BY ALL
ORDER BY attribute, part, measure, noise_sigmas, patch_kind, seed_a, seed_b
""",
    ),
    Example(
        name="controls",
        answers="Does restoring do more than its control does?",
        read="mean_difference is paired by caption: what is special to the clean run's activation.",
        sql="""
SELECT attribute, part, measure, noise_sigmas, patch_kind, control, component, token,
  step_start, step_stop, mean_ie, control_ie, q_control, mean_difference, difference_low,
  difference_high, q_difference
FROM controlled_effects
ORDER BY attribute, part, measure, noise_sigmas, patch_kind, control, mean_difference DESC
""",
    ),
    Example(
        name="noises",
        answers="Does a state do more under a stronger noise?",
        read="mean_difference is paired by caption: the same draws under both noises of a run.",
        sql="""
SELECT attribute, part, measure, component, token, step_start, step_stop, patch_kind,
  weak.noise_sigmas AS weak_noise, strong.noise_sigmas AS strong_noise,
  avg(weak.ie) AS weak_ie, avg(strong.ie) AS strong_ie,
  avg(strong.ie - weak.ie) AS mean_difference,
  stddev_samp(strong.ie - weak.ie) / sqrt(count(*)) AS se_difference, count(*) AS num_captions
FROM caption_effects AS weak
JOIN caption_effects AS strong USING (
  attribute, part, measure, component, token, step_start, step_stop, patch_kind, intervention,
  caption_id)
WHERE intervention = 'restore' AND weak.noise_sigmas < strong.noise_sigmas
GROUP BY ALL
ORDER BY attribute, part, measure, weak_noise, strong_noise, mean_difference DESC
""",
    ),
    Example(
        name="corruption",
        answers="Does the corrupted run lose the attribute?",
        read="Of several noises: take the weakest whose total effect is near the largest.",
        sql="""
WITH lost AS (
  SELECT attribute, part, measure, noise_sigmas, avg(clean) AS clean, avg(corrupted) AS corrupted,
    avg(total_effect) AS total_effect
  FROM effects
  GROUP BY ALL)
SELECT *, total_effect / max(total_effect) OVER (PARTITION BY attribute, part, measure)
  AS share_of_largest
FROM lost
ORDER BY ALL
""",
    ),
    Example(
        name="failures",
        answers="What went wrong, how often, and is it one caption or all?",
        read="One row per error; one caption behind many failures is a fault of the caption.",
        sql="""
SELECT error, split_part(message, chr(10), 1) AS first_line, count(*) AS num_units,
  count(DISTINCT caption_id) AS num_captions, min(unit_id) AS for_example
FROM failures LEFT JOIN units USING (unit_id)
GROUP BY ALL
ORDER BY num_units DESC, error
""",
    ),
    Example(
        name="chunks",
        answers="How far is each chunk of work, and what does it hold?",
        read="Units planned, scored, failed and left, chunk by chunk.",
        sql="""
WITH scored AS (SELECT DISTINCT unit_id, true AS is_scored FROM scores)
SELECT chunk, count(*) AS planned, count(is_scored) AS scored,
  count(failures.unit_id) AS failed,
  count(*) FILTER (is_scored IS NULL AND failures.unit_id IS NULL) AS left_to_do
FROM units
LEFT JOIN scored USING (unit_id)
LEFT JOIN failures USING (unit_id, chunk)
GROUP BY chunk
ORDER BY chunk
""",
    ),
    Example(
        name="shared-components",
        answers="Which components are causal for several attributes?",
        read="None: knowledge is specific to its attribute, or there are too few captions to tell.",
        sql="""
SELECT part, measure, noise_sigmas, patch_kind, component, token, step_start, step_stop,
  count(*) AS num_attributes, list(attribute ORDER BY attribute) AS attributes,
  avg(mean_ie) AS mean_ie
FROM causal_states
GROUP BY ALL
HAVING num_attributes > 1
ORDER BY num_attributes DESC, mean_ie DESC, component
""",
    ),
    Example(
        name="overlap",
        answers="How far do the causal sets of two attributes overlap?",
        read="jaccard is 1 for the same set, 0 for none in common; null if neither has a state. "
        "q_differs under 0.05: the effects differ in more than size.",
        sql="""
FROM overlap
ORDER BY part, measure, noise_sigmas, patch_kind, jaccard DESC, attribute_a, attribute_b
""",
    ),
    Example(
        name="concentration",
        answers="Is knowledge in few components or spread over many?",
        read="effective_components of num_components carry the effect; gini 1 is all in one. "
        "A share between noise_low and noise_high is that of noise.",
        sql="""
FROM concentration
ORDER BY part, measure, noise_sigmas, patch_kind, effective_components, attribute
""",
    ),
    Example(
        name="set-curves",
        answers="How many components together carry an attribute?",
        read="Shares of the total effect by size; random sets of the same kinds are the control.",
        sql="""
SELECT attribute, part, measure, noise_sigmas, patch_kind, intervention, curve, size, num_sets,
  mean_recovery, recovery_low, recovery_high, num_captions
FROM set_curves
ORDER BY attribute, part, measure, noise_sigmas, patch_kind, intervention DESC, curve DESC, size
""",
    ),
    Example(
        name="sets",
        answers="What does each set do, and which components are in it?",
        read="The largest recovery first; components that are patched together are in one row.",
        sql="""
SELECT attribute, set_name, part, measure, noise_sigmas, patch_kind, intervention, size,
  mean_ie, ie_low, ie_high, mean_recovery, num_captions, components
FROM set_effects
JOIN (
  SELECT attribute, set_name, list(component ORDER BY component, step_start) AS components
  FROM set_members GROUP BY ALL) USING (attribute, set_name)
ORDER BY attribute, measure, noise_sigmas, patch_kind, intervention DESC, mean_ie DESC, set_name
""",
    ),
    Example(
        name="compare-runs",
        answers="What differs between two runs?",
        read="Each state's mean indirect effect in both runs, the largest difference first.",
        sql=f"""
SELECT attribute, part, measure, component, token, step_start, step_stop, patch_kind, intervention,
  a.noise_sigmas AS first_noise, b.noise_sigmas AS other_noise,
  a.mean_ie AS first_ie, b.mean_ie AS other_ie, b.mean_ie - a.mean_ie AS difference,
  a.rank AS first_rank, b.rank AS other_rank
FROM ranking AS a
JOIN {OTHER}.ranking AS b USING (
  attribute, part, measure, component, token, step_start, step_stop, patch_kind, intervention)
ORDER BY abs(difference) DESC, component
""",
    ),
    Example(
        name="agreement-of-runs",
        answers="Do two runs agree on which components matter?",
        read="Correlation of the mean effects of the states that both runs have; 1 is agreement.",
        sql=f"""
SELECT attribute, part, measure, patch_kind, intervention, a.noise_sigmas AS first_noise,
  b.noise_sigmas AS other_noise, count(*) AS num_states, corr(a.mean_ie, b.mean_ie) AS correlation,
  corr(a.rank, b.rank) AS rank_correlation
FROM ranking AS a
JOIN {OTHER}.ranking AS b USING (
  attribute, part, measure, component, token, step_start, step_stop, patch_kind, intervention)
GROUP BY ALL
ORDER BY attribute, part, measure, patch_kind, intervention, first_noise, other_noise
""",
    ),
    Example(
        name="concepts-that-survive",
        answers="Which concepts does the edited model still draw?",
        read="The worst first; `dqf edit results EDIT --by concept` adds bounds and verdicts.",
        of="evaluation",
        sql="""
SELECT edit, concept, kind, still_recognised, recognized, right_before, moved
FROM concepts
ORDER BY still_recognised DESC NULLS LAST, right_before, edit, concept
""",
    ),
    Example(
        name="prompts-that-survive",
        answers="In which prompts does a concept survive?",
        read="One row per prompt whose edited images still show the concept, most images first.",
        of="evaluation",
        sql="""
SELECT subject AS concept, "group", prompt, count(*) AS images,
  count(*) FILTER (chosen_after = name) AS still_recognised
FROM images
WHERE chosen_before = name AND subject = name AND nearest_concept IS NULL
GROUP BY ALL
HAVING still_recognised > 0
ORDER BY still_recognised DESC, concept, prompt
""",
    ),
    Example(
        name="attacks-that-succeed",
        answers="Which attacks bring a concept back?",
        read="Share of images that show the concept, in the edited and in the unedited model.",
        of="attack",
        sql="""
PIVOT attacks ON side IN ('unedited', 'edited') USING avg(success)
GROUP BY concept, attack
ORDER BY edited DESC, concept, attack
""",
    ),
)


def example(name: str) -> Example:
    """Return the example of that name; QueryRefused if there is none."""
    found: Mapping[str, Example] = {known.name: known for known in EXAMPLES}
    if name not in found:
        raise QueryRefused(f"no example {name!r}: there are {', '.join(found)}")
    return found[name]


def example_sql(name: str, runs: Mapping[str, str]) -> str:
    """Return an example's SQL for `runs`, which maps a run's name in SQL to its kind.

    QueryRefused: there are too few, or the example reads another kind of run.
    """
    known = example(name)
    if len(runs) < known.num_runs:
        raise QueryRefused(f"example {name!r} compares two runs: name both")
    for run, noun in runs.items():
        if noun != known.of:
            raise QueryRefused(f"example {name!r} is of kind {known.of}, and {run} of kind {noun}")
    return known.sql.strip().replace(OTHER, identifier([*runs][known.num_runs - 1]))
