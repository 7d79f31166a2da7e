"""`dqf rank`: components by their causal scores."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options.arguments import RunArgument
from cli.options.captions import KnownOption, MinTotalEffectOption, caption_filter
from cli.options.completion import attributes, runs
from cli.options.panels import WHAT, choice, option
from cli.options.part import part_option
from cli.options.runs import run_location
from cli.printing.answers import say_unscored
from cli.printing.lines import say, say_folded
from cli.printing.output import Format, FormatOption, print_table
from cli.printing.ranking import columns_beyond, columns_joined, columns_of, print_ranking
from schemas.component import Part
from schemas.intervention import CONTROLS, Intervention, PatchKind

if TYPE_CHECKING:
    from jobs.query.opened import Views
    from jobs.query.rank import Choice
    from jobs.runs.trace_run import TraceRun
    from schemas.caption_filter import CaptionFilter


class Shown(StrEnum):
    """The tables that `dqf rank` can print."""

    STATES = "states"
    OVERLAP = "overlap"
    CONCENTRATION = "concentration"


def rank(
    run: RunArgument,
    attribute: Annotated[
        str | None,
        option("Only this attribute.", panel=WHAT, default="all", autocompletion=attributes),
    ] = None,
    part: Annotated[Part | None, part_option("Only this part", default="both")] = None,
    measure: Annotated[
        str,
        option("caption, target, clean-image, clean-latent or margin.", panel=WHAT),
    ] = "target",
    intervention: Annotated[
        Intervention,
        choice(
            "Intervention whose effects are ranked, a control or ablation too",
            Intervention,
            panel=WHAT,
            metavar="INTERVENTION",
        ),
    ] = Intervention.RESTORE,
    patch: Annotated[
        PatchKind | None,
        choice(
            "Kind of patch",
            PatchKind,
            panel=WHAT,
            metavar="PATCH",
            default="each, in rankings of their own",
        ),
    ] = None,
    noise: Annotated[
        float | None,
        option(
            "Only this noise, in standard deviations of the embeddings.",
            panel=WHAT,
            default="each, in rankings of their own",
        ),
    ] = None,
    beyond: Annotated[
        Intervention | None,
        choice(
            "Rank by the effect of restoring beyond that of a control",
            CONTROLS,
            panel=WHAT,
            metavar="CONTROL",
        ),
    ] = None,
    as_published: Annotated[
        float | None,
        typer.Option(
            metavar="THRESHOLD",
            help="Rank by the mean restored score, as the paper does; a state that reaches this "
            "score counts as causal.",
        ),
    ] = None,
    show: Annotated[
        Shown,
        typer.Option(
            metavar="TABLE",
            help="The states; the overlap of attributes' causal states; the concentration "
            "of effects on few components.",
        ),
    ] = Shown.STATES,
    screened: Annotated[
        str | None,
        option(
            "The screened run that chose RUN's states (--from-run): its estimates are joined with "
            "the exact effects.",
            "--with",
            panel=WHAT,
            metavar="SCREENED",
            default="exact effects alone",
            autocompletion=runs,
        ),
    ] = None,
    known: KnownOption = None,
    min_te: MinTotalEffectOption = None,
    top: Annotated[int, typer.Option(min=1, help="Number of states of each ranking.")] = 10,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="One sentence for each attribute; neither limits nor notes."
        ),
    ] = False,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Rank components by their mean indirect effect, for each attribute and part.

    Intervals are of 95 %; ranks tie where intervals overlap; a state is causal where
    q_causal < 0.05 (docs/statistics.md). Sentences say what that comes to before the table, and how
    to read it after the table; with another format they go to stderr. Names are short: --format csv
    has them as --component takes them.
    """
    from jobs.query import rank as ranking
    from jobs.query.select import opened_views
    from jobs.query.words import in_short, notes, verdicts
    from jobs.runs.trace_run import open_run
    from schemas.errors import PlanError

    opened = open_run(run_location(run))
    choice = ranking.Choice(
        attribute=attribute,
        part=part.value if part else None,
        measure=measure,
        intervention=beyond or intervention,
        patch_kind=patch.value if patch else None,
        noise_sigmas=noise,
    )
    ranking.check_choice(opened, choice)
    if beyond:
        ranking.check_control(beyond)
    if as_published is not None:
        ranking.check_threshold(as_published, choice)
    only = caption_filter(opened, known, min_te)
    if screened is not None:
        if beyond or as_published is not None or show is not Shown.STATES:
            raise PlanError(
                "--with ranks indirect effects: leave out --beyond, --as-published and --show"
            )
        other = open_run(run_location(screened))
        return _print_joined(opened, other, choice, only, output_format, top=top, quiet=quiet)
    if not quiet:
        say_unscored(opened)
    with opened_views(opened, only=only) as views:
        if as_published is not None:
            found = ranking.ranked_as_published(views, choice, threshold=as_published, top=top)
            return print_table(ranking.without_one_noise(opened, found), output_format)
        sentences = in_short(views, choice) if quiet else verdicts(views, choice)
        reading = [] if quiet else notes(views, choice)
        if output_format is Format.TABLE and show is Shown.STATES:
            _print_states(views, choice, sentences, is_beyond=beyond is not None, top=top)
            return _say_all(reading)
        if show is Shown.OVERLAP:
            table = ranking.overlaps(views, choice)
        elif show is Shown.CONCENTRATION:
            table = ranking.concentrations(views, choice)
        elif beyond:
            table = ranking.ranked_beyond(views, choice, top=top)
        else:
            table = ranking.ranked(views, choice, columns=ranking.SHOWN, top=top)
    print_table(ranking.without_one_noise(opened, table), output_format)
    for sentence in sentences + reading:
        say(sentence, err=True)


def _print_joined(
    exact: "TraceRun",
    screened: "TraceRun",
    choice: "Choice",
    only: "CaptionFilter",
    output_format: Format,
    *,
    top: int,
    quiet: bool,
) -> None:
    """Print the states of a run with joined effects, and what was screened and what exact."""
    import pyarrow as pa

    from jobs.query import joined
    from jobs.query.rank import without_one_noise
    from schemas.errors import PlanError
    from schemas.short_names import short_names

    with joined.opened_with(exact, screened, only) as views:
        rows = joined.joined(views, choice)
    if not rows:
        raise PlanError(f"no state of run {exact.name} has two exact captions among those read")
    said = [] if quiet else joined.sentences(exact, screened, rows)
    shown = joined.leading(rows, top=top)
    table = without_one_noise(exact, pa.Table.from_pylist(shown).select(list(joined.COLUMNS)))
    if output_format is not Format.TABLE:
        print_table(table, output_format)
        for sentence in said:
            say(sentence, err=True)
        return
    for sentence in said:
        say_folded(sentence)
    names = short_names([component.name for component in exact.components])
    effect = f"indirect effect by {choice.measure}, {choice.intervention}, joined"
    print_ranking(table.to_pylist(), effect=effect, columns=columns_joined(names))


def _say_all(sentences: list[str]) -> None:
    """Print sentences, after an empty line if there are any."""
    for sentence in [""] * bool(sentences) + sentences:
        say_folded(sentence)


def _print_states(
    views: "Views", choice: "Choice", sentences: list[str], *, is_beyond: bool, top: int
) -> None:
    """Print the findings in sentences, then the leading states with short names."""
    from jobs.query import rank as ranking
    from schemas.short_names import short_names

    names = short_names([component.name for component in views.run.components])
    if is_beyond:
        last, found = None, ranking.ranked_beyond(views, choice, top=top)
        effect = f"indirect effect beyond the control {choice.intervention}, by {choice.measure}"
    else:
        shown = (*ranking.SHOWN, "intervention", "recovery_low", "recovery_high", "q_run")
        found = ranking.ranked(views, choice, columns=shown, top=top)
        last = ranking.last_ranks(views, choice, found.to_pylist())
        effect = f"indirect effect by {choice.measure}, {choice.intervention}"
    for sentence in sentences:
        say_folded(sentence)
    say("")
    rows = ranking.without_one_noise(views.run, found).to_pylist()
    columns = columns_beyond(names) if last is None else columns_of(names, last, rows)
    print_ranking(rows, effect=effect, columns=columns)
