"""The results of a run in words: the answer for each attribute, and the finding of each figure."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.query.noises import under
from jobs.query.words import patched
from jobs.report.figures.data import ALPHA, GROUP, FigureData, Row, group_of
from jobs.report.figures.known import FIGURES
from jobs.report.figures.parts import UNDEFINED_SHARE
from schemas.intervention import Intervention, PatchKind

PARTS = {"denoiser": "denoiser", "text-encoder": "text encoder"}
CONCENTRATED = ("attribute", "part", "measure", "patch_kind", "noise_sigmas")
"""Fields of GROUP that identify a row of `concentration`."""
NAMED = 3
"""The number of survivors that a sentence names."""
INTERVENTIONS = {
    "restore": "restored",
    "corrupt": "corrupted in the clean run",
    "zero": "set to zero in the clean run",
    "mean": "set to its mean in the clean run",
    "resample": "taken from an unrelated caption in the clean run",
    "swap": "given the corrupted text in the clean run",
    "empty-text": "given the text of the empty caption in the clean run",
    "skip": "left out of the clean run",
    "other-seed": "restored from another seed (control)",
    "other-caption": "restored from an unrelated caption (control)",
    "other-draw": "restored from another corrupted draw (control)",
    "matched": "restored from the caption with its counterfactual (control)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to where one part of the model keeps an attribute."""

    attribute: str
    part: str
    captions: int
    states: int
    """Number of states that were restored."""
    survivors: int
    sentence: str
    total_effect: str
    """The mean total effect with its interval."""
    strongest: str
    """The surviving state with the largest effect, "" if nothing survives."""
    effect: str
    """The indirect effect of this state with its interval."""
    share: str
    """This effect as a share of the total effect; "" if nothing survives."""
    spread: str
    """The effective number of components with its interval, and the number of components."""


def effect_text(row: Row, name: str = "mean", low: str = "low", high: str = "high") -> str:
    """Return an effect with its interval."""
    if row[low] is None or row[high] is None:
        return f"{_signed(row[name])} (no interval)"
    return f"{_signed(row[name])} ({_signed(row[low])} to {_signed(row[high])})"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def answers(data: FigureData, measure: str, attributes: Sequence[str]) -> list[Answer]:
    """Return the answers for every attribute, in this order, part, kind of patch and noise, by one
    measure."""
    groups = _groups(data.states)
    noises = dict.fromkeys(row["noise_sigmas"] for row in data.states)
    chosen = [
        groups.get((attribute, part, measure, Intervention.RESTORE, patch_kind, noise), [])
        for attribute in attributes
        for part in PARTS
        for patch_kind in PatchKind
        for noise in noises
    ]
    return [_answer(rows, data.concentration) for rows in chosen if rows]


def in_short(answered: Sequence[Answer]) -> str:
    """Return in one sentence which attributes have survivors, and the strongest of each part."""
    attributes = dict.fromkeys(answer.attribute for answer in answered)
    strongest = defaultdict[str, list[str]](list)
    for answer in answered:
        if answer.survivors:
            strongest[answer.attribute].append(f"{answer.strongest} ({answer.part})")
    of_all = f"of {len(attributes)} attribute" + ("" if len(attributes) == 1 else "s")
    if not strongest:
        return f"No state survives, {of_all}."
    each = "; ".join(f"{name}: {' and '.join(states)}" for name, states in strongest.items())
    return f"States survive for {len(strongest)} {of_all}; the strongest are {each}."


def _groups(states: Sequence[Row]) -> dict[tuple[Any, ...], list[Row]]:
    groups = defaultdict[tuple[Any, ...], list[Row]](list)
    for row in states:
        groups[group_of(row)].append(row)
    return groups


def _answer(rows: list[Row], concentration: Sequence[Row]) -> Answer:
    best = max(rows, key=lambda row: row["mean"])
    survivors = sorted((r for r in rows if r["survives"] == "yes"), key=lambda r: -r["mean"])
    leader = survivors[0] if survivors else None
    spreads = [
        row for row in concentration if all(row[name] == best[name] for name in CONCENTRATED)
    ]
    return Answer(
        attribute=best["attribute"],
        part=PARTS[best["part"]] + patched(best["patch_kind"]) + under(best["noise_sigmas"]),
        captions=best["captions"],
        states=len(rows),
        survivors=len(survivors),
        sentence=_sentence(rows, survivors, best),
        total_effect=effect_text(best, "mean_te", "te_low", "te_high"),
        strongest=leader["state"] if leader else "",
        effect=effect_text(leader) if leader else "",
        share=(share_text(leader) or UNDEFINED_SHARE) if leader else "",
        spread=_spread(spreads[0]) if spreads else "",
    )


def share_text(row: Row) -> str:
    """Return the share of the total effect, "" where the total effect may be zero."""
    if row["recovery"] is None:
        return ""
    return f"{100 * row['recovery']:.0f} %".replace("-", "\N{MINUS SIGN}")


def _spread(row: Row) -> str:
    if row["effective_components"] is None:
        return ""
    text = f"{row['effective_components']:.1f}"
    if row["effective_low"] is not None:
        text += f" ({row['effective_low']:.1f} to {row['effective_high']:.1f})"
    return f"{text} of {row['num_components']}"


def _sentence(rows: Sequence[Row], survivors: Sequence[Row], best: Row) -> str:
    if not survivors:
        return _nothing(rows, best)
    leader = survivors[0]
    share = share_text(leader)
    of_total = f", {share} of the total effect" if share else ""
    if len(rows) == len(survivors):
        count = f"All {len(rows)} states that were restored carry it."
    else:
        carry = "carries" if len(survivors) == 1 else "carry"
        count = f"{len(survivors)} of {len(rows)} states {carry} it."
    text = f"{count} The strongest is {leader['state']}: {effect_text(leader)}{of_total}."
    tied = [row["state"] for row in survivors[1:] if row["rank"] == leader["rank"]]
    if tied:
        text += f" Its interval overlaps with {_listed(tied)}: their order is open."
    elif len(survivors) > 1:
        text += f" Next: {_listed([row['state'] for row in survivors[1:]])}."
    unsure = [row["state"] for row in survivors if row["low"] is None or row["low"] <= 0]
    if unsure:
        text += f" The interval of {_listed(unsure)} reaches zero though q is under {ALPHA}."
    return text


def _nothing(rows: Sequence[Row], best: Row) -> str:
    captions = f"{best['captions']} caption" + ("s" if best["captions"] != 1 else "")
    # The smallest p-value of a one-sided sign-flip test: one of all 2^n flips is as extreme.
    if (smallest := 2.0 ** -best["captions"]) >= ALPHA:
        return (
            f"Nothing can be said: with {captions} no p-value is under {smallest:.3g}, so that no "
            f"effect can be distinguished from chance. The largest, of {best['state']}, is "
            f"{effect_text(best)}."
        )
    if best["te_low"] is not None and best["te_low"] <= 0:
        return (
            f"Nothing can be said. In {captions} the corruption did not surely lower the score "
            f"(total effect {effect_text(best, 'mean_te', 'te_low', 'te_high')}), so that there "
            "is little to restore."
        )
    return (
        f"Nothing can be said: of {len(rows)} states none survives in {captions}. The largest "
        f"effect, of {best['state']}, is {effect_text(best)}."
    )


def _listed(names: Sequence[str]) -> str:
    if len(names) > NAMED:
        names = [*names[:NAMED], f"{len(names) - NAMED} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def findings(name: str, rows: Sequence[Row]) -> dict[str, str]:
    """Return a sentence about each choice of the figure `name`, for readers who do not see it.

    `rows` are all rows that the figure may show. A key holds the choice's values, joined by `|`.
    """
    fields = FIGURES[name].chosen_by
    groups = defaultdict[str, list[Row]](list)
    for row in rows:
        groups["|".join(row[field] for field in fields)].append(row)
    words = {
        "controls": _controls,
        "overlaps": _overlaps,
        "ranking": _ranked,
        "sets": _together,
        "tokens": _placed,
        "words": _worded,
    }
    return {key: words.get(name, _effects)(of_choice) for key, of_choice in groups.items()}


def choice_text(row: Row, fields: Sequence[str] = GROUP) -> str:
    """Return the values of the fields by which a row was chosen, in words."""
    words = {
        "attribute": row.get("attribute"),
        "part": PARTS[row["part"]],
        "intervention": INTERVENTIONS.get(row.get("intervention", "")),
        "measure": f"scored against {row['measure']}",
        "patch_kind": patched(row["patch_kind"]).removeprefix(", "),
        "noise_sigmas": under(row["noise_sigmas"]).removeprefix(", "),
    }
    return ", ".join(str(text) for field, text in words.items() if text and field in fields)


def _effects(rows: Sequence[Row]) -> str:
    best, least = max(rows, key=lambda r: r["mean"]), min(rows, key=lambda r: r["mean"])
    survivors = sum(row["survives"] == "yes" for row in rows)
    text = (
        f"{choice_text(best)}: the largest mean indirect effect is that of {best['state']}, "
        f"{effect_text(best)}"
    )
    if len(rows) > 1:
        text += f", the lowest that of {least['state']}, {effect_text(least)}"
    return f"{text}. {survivors} of {len(rows)} survive."


def _ranked(rows: Sequence[Row]) -> str:
    first = sorted((r for r in rows if r["rank"] == 1), key=lambda r: -r["mean"])
    names = _listed([f"{row['state']}, {effect_text(row)}" for row in first])
    choice = choice_text(first[0])
    if len(first) == 1:
        return (
            f"{choice}: first of {len(rows)} is {names}; no other interval reaches it."
            f"{_across_zero(rows)}"
        )
    return (
        f"{choice}: of {len(rows)} states {len(first)} share the first rank, as their "
        f"intervals overlap: {names}.{_across_zero(rows)}"
    )


def _across_zero(rows: Sequence[Row]) -> str:
    """Return why a state survives though its interval reaches zero; "" if there is none."""
    survivors = [row for row in rows if row["survives"] == "yes" and row["low"] is not None]
    count = sum(row["low"] <= 0 for row in survivors)
    if not count:
        return ""
    of_them = "One state that survives has" if count == 1 else f"{count} states that survive have"
    return (
        f" {of_them} an interval that reaches zero: the test asks only whether the effect is above "
        "zero, the interval leaves out both ends."
    )


def _placed(rows: Sequence[Row]) -> str:
    best = max(rows, key=lambda row: row["mean"])
    return (
        f"{choice_text(best)}: the largest mean indirect effect is that of {best['label']} at the "
        f"place {best['place']}, {effect_text(best)}."
    )


def _worded(rows: Sequence[Row]) -> str:
    best = max(rows, key=lambda row: row["mean"])
    return (
        f"{choice_text(best)}, caption \N{LEFT DOUBLE QUOTATION MARK}{best['caption']}"
        f"\N{RIGHT DOUBLE QUOTATION MARK}: the largest mean indirect effect is that of "
        f"{best['label']} at {best['word'].partition('|')[2]}, {effect_text(best)}."
    )


def _controls(rows: Sequence[Row]) -> str:
    leading = [row for row in rows if row["controlled"] == 1]
    runs = {row["intervention"]: effect_text(row) for row in leading}
    restored = [row for row in rows if row["intervention"] == "restore"]
    survivors = sum(row["survives"] == "yes" for row in restored)
    others = "; ".join(f"{INTERVENTIONS[i]} {text}" for i, text in runs.items() if i != "restore")
    first = leading[0]
    where = choice_text(first, ("attribute", "part", "patch_kind", "noise_sigmas"))
    return (
        f"{where}: {first['state']} has {runs['restore']} restored; {others}. "
        f"Of the {len(restored)} leading states {survivors} survive."
    )


def _together(rows: Sequence[Row]) -> str:
    """Return the shares of the largest first set, random ones of its size and a greedy set."""
    chosen = choice_text(rows[0], ("attribute", "part", "measure", "patch_kind", "noise_sigmas"))
    sentences: list[str] = []
    for intervention, done in (("restore", "restored"), ("corrupt", "corrupted")):
        of_run = [row for row in rows if row["intervention"] == intervention]
        firsts = sorted((r for r in of_run if r["curve"] == "top"), key=lambda r: r["size"])
        if not firsts:
            continue
        shares = [_share_of(firsts[0])] + [_share_of(firsts[-1])] * (len(firsts) > 1)
        text = f"{done} together, the first {' and '.join(shares)} of the total effect"
        for row in of_run:
            if row["curve"] == "random" and row["size"] == firsts[-1]["size"]:
                text += f"; random sets of the same kinds {_share_of(row)}"
            elif row["curve"] == "greedy":
                text += f"; the greedy set {_share_of(row)}"
        sentences.append(text)
    return f"{chosen}: {'. '.join(sentences)}."


def _share_of(row: Row) -> str:
    """Return the size of a set and its share with the interval."""
    ends = "" if row["low"] is None else f" ({row['low']:.2f} to {row['high']:.2f})"
    return f"of {row['size']} {row['mean']:.2f}{ends}"


def _overlaps(rows: Sequence[Row]) -> str:
    return " ".join(
        f"{row['attribute_a']} ({row['num_a']} states) and {row['attribute_b']} ({row['num_b']}) "
        f"share {row['num_both']}, Jaccard index {row['jaccard']:.2f}"
        + (
            f" ({row['jaccard_low']:.2f} to {row['jaccard_high']:.2f})."
            if row["jaccard_low"] is not None
            else "."
        )
        + _profiles(row)
        for row in rows
        if row["jaccard"] is not None
    )


def _profiles(row: Row) -> str:
    """Return whether a pair's effects differ in more than size, "" where that is unknown."""
    if row["q_differs"] is None:
        return ""
    found = "differ" if row["q_differs"] < ALPHA else "are not found to differ"
    return f" Their effects over components {found} in more than size (q {row['q_differs']:.2g})."
