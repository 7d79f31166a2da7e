"""Figures: valid Vega-Lite of the right rows, names that fit, colors that can be told apart."""

import math
from dataclasses import asdict, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
import vl_convert
from PIL import ImageColor

from jobs.query.select import opened_views, run_query
from jobs.report.edits import edit_sections, measure_rows
from jobs.report.figures.data import ALPHA, FigureData, Row, capped, read_figure_data
from jobs.report.figures.edits import edits, pareto
from jobs.report.figures.known import FIGURES
from jobs.report.figures.labels import KIND_NAMES, places
from jobs.report.figures.style import DARK, KIND_COLORS, LIGHT, Theme, config
from jobs.report.figures.tokens import place_name
from jobs.report.plot import Drawing, draw_figure
from jobs.report.words import answers, findings
from jobs.runs.parts import part_name
from jobs.runs.trace_run import TraceRun
from schemas.component import TEXT_ENTRIES, Component, Kind, Part
from schemas.component_set import Curve
from schemas.errors import PlanError, StoreError
from schemas.intervention import PatchKind
from tests.jobs.query.test_damage import rewritten
from tests.made_up.report_run import (
    OBJECTS,
    STEPS,
    STRONG,
    make_report_edit,
    make_report_run,
    make_report_sweep,
)
from tests.made_up.set_run import make_set_run, set_of
from tests.made_up.small_run import commit_scores, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TraceRun:
    return make_report_run(tmp_path_factory.mktemp("runs") / "r")


@pytest.fixture(scope="module")
def data(run: TraceRun) -> FigureData:
    with opened_views(run) as views:
        return read_figure_data(views)


@pytest.fixture(scope="module")
def set_data(tmp_path_factory: pytest.TempPathFactory) -> FigureData:
    """Return the data of a run of sets, whose figure the other run has not."""
    sets = (
        *(set_of(f"top-{n}", n, curve=Curve.TOP) for n in (1, 2, 3)),
        *(set_of(f"random-{n}", n, curve=Curve.RANDOM, first=3) for n in (1, 2, 3)),
        set_of("greedy", 2, curve=Curve.GREEDY),
    )
    run = make_set_run(
        tmp_path_factory.mktemp("runs") / "sets",
        sets,
        lambda each, *_: len(each.members) / 3 if each.curve is not Curve.RANDOM else 0.1,
    )
    with opened_views(run) as views:
        return read_figure_data(views)


def test_the_curves_of_sets_are_said(set_data: FigureData) -> None:
    (sentence,) = findings("sets", FIGURES["sets"].rows(set_data)).values()
    assert "restored together, the first of 1 0.33 (0.33 to 0.33) and of 3 1.00" in sentence
    assert "random sets of the same kinds of 3 0.10" in sentence
    assert "the greedy set of 2 0.67" in sentence
    assert "corrupted together" in sentence


def group(data: FigureData, part: str, intervention: str = "restore") -> list[Row]:
    wanted = {"attribute": "object", "part": part, "measure": "target"}
    wanted["intervention"] = intervention
    return [row for row in data.states if all(row[k] == v for k, v in wanted.items())]


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_valid_and_holds_its_rows(
    data: FigureData, set_data: FigureData, name: str
) -> None:
    rows = FIGURES[name].rows(set_data if name == "sets" else data)
    assert rows
    FIGURES[name].draw(rows).to_dict()  # Altair checks it against Vega-Lite's schema
    spec = FIGURES[name].spec(rows)
    assert spec["datasets"]["rows"] == rows
    assert all(findings(name, rows).values())


def test_overlaps_say_whether_effects_differ_in_more_than_size() -> None:
    pair = {
        "part": "denoiser", "measure": "target", "attribute_a": "object", "attribute_b": "style",
        "num_a": 4, "num_b": 1, "num_both": 1, "jaccard": 0.25, "jaccard_low": None,
        "patch_kind": "state", "noise_sigmas": "",
    }  # fmt: skip
    for q, said in (
        (0.01, "Jaccard index 0.25. Their effects over components differ in more than size"),
        (0.4, "are not found to differ in more than size (q 0.4)."),
        (None, "Jaccard index 0.25."),
    ):
        (sentence,) = findings("overlaps", [{**pair, "q_differs": q}]).values()
        assert said in sentence
        assert ("Their effects" in sentence) == (q is not None)


def test_figures_of_edits_are_valid(tmp_path: Path) -> None:
    folders = make_report_edit(tmp_path / "edit"), make_report_sweep(tmp_path / "sweep")
    sections = edit_sections(folders)
    measured = measure_rows(sections)
    assert {row["group"] for row in measured} == {"harmonic mean", "kept", "still_recognised"}
    edits(measured).to_dict()
    pareto([asdict(result) for result in sections[1].swept]).to_dict()


def test_rows_are_the_views(run: TraceRun, data: FigureData) -> None:
    ranked = run_query(run, "SELECT count(*) AS n FROM ranking")["n"].to_pylist()
    assert [len(data.states)] == ranked
    assert not data.cut
    causal = run_query(
        run, "SELECT count(*) AS n FROM causal_states WHERE attribute = 'object'"
    ).to_pylist()[0]["n"]
    survivors = [
        r for r in data.states
        if r["attribute"] == "object" and r["intervention"] == "restore" and r["survives"] == "yes"
    ]  # fmt: skip
    assert len(survivors) == causal > 0
    assert all(row["q"] < ALPHA for row in survivors)


def test_each_component_is_drawn_once_at_its_widest_window(data: FigureData) -> None:
    main = [row for row in group(data, "denoiser") if row["main"]]
    assert len(main) == len({row["component"] for row in main}) == 9
    assert {row["steps"] for row in main} == {f"0:{STEPS}"}
    assert {row["token"] for row in group(data, "text-encoder") if row["main"]} == {"last_subject"}
    assert max(main, key=lambda row: row["mean"])["component"] == STRONG["object"]


def test_windows_and_controls_are_numbered(data: FigureData) -> None:
    windows = [row for row in group(data, "denoiser") if row["window"] is not None]
    assert {(row["window"], row["steps"]) for row in windows} == {
        (n, f"{n}:{n + 1}") for n in range(STEPS)
    }
    first = [row for row in data.states if row["controlled"] == 1 and row["measure"] == "target"]
    own = [row for row in first if row["attribute"] == "object" and row["part"] == "denoiser"]
    effects = {row["intervention"]: row["mean"] for row in own}
    assert effects["restore"] > effects["other-seed"] > effects["other-caption"]
    assert len({row["state"] for row in own}) == 1


def test_too_many_states_are_cut_by_whole_components_and_said() -> None:
    states: list[Row] = [
        {"attribute": "object", "part": "denoiser", "measure": "target", "intervention": "restore",
         "patch_kind": "state", "noise_sigmas": "", "component": f"c{c}",
         "mean": (0.01 * c if w == 3 else 0.0), "main": w == 0 or None}
        for c in range(100) for w in range(1000)
    ]  # fmt: skip
    kept, cut = capped(states, 20_000)
    assert 19_000 <= len(kept) <= 20_000
    assert sum(row["main"] is True for row in kept) == 100
    whole = {row["component"] for row in kept if row["main"] is None}
    assert whole == {f"c{c}" for c in range(100 - len(whole), 100)}
    assert cut.startswith(f"{len(kept):,} of 100,000 states are in this page")
    assert capped(states[:20_000], 20_000) == (states[:20_000], "")


def test_tokens_are_aligned_at_the_subject(run: TraceRun, data: FigureData) -> None:
    rows = [
        row for row in data.tokens
        if row["attribute"] == "object" and row["measure"] == "target"
        and row["intervention"] == "restore" and row["component"] == STRONG["text"]
    ]  # fmt: skip
    assert [row["place"] for row in rows] == [
        *(f"\N{MINUS SIGN}{n}" for n in (4, 3, 2, 1)), "subject", "+1", "+2", "end",
    ]  # fmt: skip
    (subject,) = [row for row in rows if row["place"] == "subject"]
    assert subject["text"] in OBJECTS
    # The subject is the fifth of "a photo of a cat in neon": the mean there, taken from the scores.
    query = """SELECT avg(patched - corrupted) AS mean FROM trials WHERE position = 5
      AND token = '5' AND attribute = 'object' AND measure = 'target' AND intervention = 'restore'
      AND component = $component"""
    expected = run_query(run, query, {"component": STRONG["text"]})["mean"].to_pylist()
    assert [subject["mean"]] == pytest.approx(expected)
    assert place_name(1, 9) == "pad 9+"


def test_answers_name_what_survives_and_say_when_nothing_can_be_said(
    data: FigureData, tmp_path: Path
) -> None:
    by_part = {answer.part: answer for answer in answers(data, "target", ["object"])}
    assert by_part["denoiser"].survivors > 0
    assert "The strongest is up 0 resnet 0" in by_part["denoiser"].sentence
    assert by_part["denoiser"].strongest.startswith("up 0 resnet 0")
    (other, _) = answers(data, "target", ["right-to-left"])
    assert other.survivors == 0
    assert "Nothing can be said: with 2 captions no p-value is under 0.25" in other.sentence
    small = make_run(tmp_path / "r")
    for chunk in range(small.num_chunks):
        commit_scores(small, chunk)
    with opened_views(small) as views:
        found = answers(read_figure_data(views), "target", ["object", "style"])
    assert all("Nothing can be said" in answer.sentence for answer in found)


def test_no_two_components_have_one_cell_or_one_name() -> None:
    kinds = (
        (Kind.RESNET, "resnets"), (Kind.SELF_ATTENTION, "attn1"), (Kind.CROSS_ATTENTION, "attn2"),
        (Kind.FEED_FORWARD, "ff"),
    )  # fmt: skip
    blocks = ("down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1")
    names = [
        (f"unet.{block}.resnets.{n}" if inner == "resnets" else
         f"unet.{block}.attentions.{n}.transformer_blocks.0.{inner}", kind, layer)
        for layer, block in enumerate(blocks)
        for n in range(2)
        for kind, inner in kinds
    ]  # fmt: skip
    components = [
        Component(name=name, part=Part.DENOISER, kind=kind, order=n, layer=layer, num_parameters=1)
        for n, (name, kind, layer) in enumerate(names)
    ]
    first, *others = components
    # All text entries together come in the order of the first of them, and are not drawn.
    bound = replace(first, name=TEXT_ENTRIES, kind=Kind.CROSS_ATTENTION, order=2)
    drawn = places([first, bound, *others])
    assert len({(place.x, place.y) for place in drawn.values()}) == len(components) == 40
    assert len({place.label for place in drawn.values()}) == 40
    assert {place.x for place in drawn.values() if place.block == "down 0"} == {0, 1}
    depth = {place.block: place.y for place in drawn.values() if place.letter == "R"}
    assert depth["down 0"] == depth["up 1"] < depth["down 1"] == depth["up 0"] < depth["mid"]


def test_states_and_contributions_are_never_in_one_ranking(tmp_path: Path) -> None:
    run = make_report_run(
        tmp_path / "r", patches=(PatchKind.STATE, PatchKind.CONTRIBUTION), captions=8
    )
    with opened_views(run) as views:
        data = read_figure_data(views)
    for name in ("network", "ranking", "timesteps", "tokens", "words", "controls"):
        figure = FIGURES[name]
        assert "patch_kind" in figure.chosen_by
        rows = {
            kind: [r for r in figure.rows(data) if r["patch_kind"] == kind] for kind in PatchKind
        }
        of_state, of_contribution = rows.values()
        assert len(of_state) == len(of_contribution) > 0
        means = [
            np.mean([row["mean"] for row in of_kind if row["component"] in STRONG.values()])
            for of_kind in (of_state, of_contribution)
        ]
        assert means[1] / means[0] == pytest.approx(0.5, abs=0.1), name
        assert all("contributions" in text for text in findings(name, of_contribution).values())
        assert not any("contribution" in text for text in findings(name, of_state).values())
    answered = answers(data, "target", ["object"])
    assert [answer.part for answer in answered] == [
        *("denoiser", "denoiser, contributions"),
        *("text encoder", "text encoder, contributions"),
    ]
    picture = draw_figure(run, "ranking", Drawing(patch="contribution"))
    assert "contributions" in picture.description
    with pytest.raises(PlanError, match="no patch 'gradient': it has state, contribution"):
        draw_figure(run, "ranking", Drawing(patch="gradient"))


def test_noises_are_never_in_one_figure(tmp_path: Path) -> None:
    run = make_report_run(tmp_path / "r", noises=(3.0, 1.5), captions=3)
    with opened_views(run) as views:
        data = read_figure_data(views)
    for name in ("network", "ranking", "timesteps", "tokens", "words", "controls"):
        figure = FIGURES[name]
        assert "noise_sigmas" in figure.chosen_by
        strong, weak = (
            [row for row in figure.rows(data) if row["noise_sigmas"] == noise]
            for noise in ("3", "1.5")
        )
        assert len(strong) + len(weak) == len(figure.rows(data))
        means = [
            np.mean([row["mean"] for row in rows if row["component"] in STRONG.values()])
            for rows in (weak, strong)
        ]
        assert means[0] / means[1] == pytest.approx(0.5, abs=0.1), name
        assert all("noise 1.5" in text for text in findings(name, weak).values())
    assert [answer.part for answer in answers(data, "target", ["object"])] == [
        *("denoiser, noise 1.5", "denoiser, noise 3"),
        *("text encoder, noise 1.5", "text encoder, noise 3"),
    ]
    assert "noise 3:" in draw_figure(run, "ranking", Drawing()).description
    assert "noise 1.5:" in draw_figure(run, "ranking", Drawing(noise=1.5)).description
    with pytest.raises(PlanError, match=r"has no noise 2: it has 3, 1\.5"):
        draw_figure(run, "ranking", Drawing(noise=2.0))


def test_every_kind_of_component_has_a_color() -> None:
    assert {*KIND_NAMES.values()} == {*KIND_COLORS}


def test_depth_is_that_of_whole_layers(data: FigureData) -> None:
    rows = {row["component"]: row["depth"] for row in group(data, "text-encoder") if row["main"]}
    assert {name: depth for name, depth in rows.items() if depth is not None} == {
        "text_encoder.layers.0": 0, "text_encoder.layers.1": 1,
    }  # fmt: skip
    assert not [row for row in group(data, "denoiser") if row["depth"] is not None]


def effect_row(number: int, mean: float, **more: object) -> Row:
    """Return a state with any mean that every figure of effects can draw."""
    name = f"c{number}"
    return {
        "component": name, "label": name, "state": name, "kind": "resnet", "letter": "R",
        "token": "all", "steps": f"{number}:{number + 1}", "window": number, "order": number,
        "mean": mean, "low": mean - 0.1, "high": mean + 0.1, "q": 0.01, "recovery": None,
        "captions": 8, "survives": "yes" if mean > 0.1 else "no", "x": 1.0 * number, "y": 0.0,
        "block": "down 0", "place": name, "place_order": number, "text": name,
        "word": f"{number}|w", "caption": "a w", **more,
    }  # fmt: skip


def drawn(name: str, rows: list[Row], theme: Theme = LIGHT) -> list[ElementTree.Element]:
    """Return the groups of marks of a drawn figure."""
    spec = {**FIGURES[name].spec(rows), "config": config(theme)}
    if spec["width"] == "container":
        spec["width"] = 800
    groups = ElementTree.fromstring(vl_convert.vegalite_to_svg(spec)).iter()
    return [group for group in groups if "role-mark" in group.get("class", "")]


def luminance(color: str) -> float:
    """Return the relative luminance of WCAG 2.2."""
    shares = np.array(ImageColor.getrgb(color)[:3]) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize("name", ["network", "timesteps", "tokens", "words", "overlaps"])
def test_what_is_written_on_a_cell_can_be_read(name: str, theme: Theme) -> None:
    rows = [effect_row(n, (n - 20) / 20) for n in range(41)]
    if name == "overlaps":
        shares = {"num_a": 1, "num_b": 1, "num_both": 1, "jaccard_low": None, "jaccard_high": None}
        rows = [
            {"attribute_a": f"a{n}", "attribute_b": "b", "jaccard": n / 40, **shares}
            for n in range(41)
        ]
    groups = drawn(name, rows, theme)
    (cells,) = (g for g in groups if "mark-rect" in g.get("class", "") and not g.get("aria-hidden"))
    marks = [group for group in groups if len(group) == len(cells)][-1]
    assert len(cells) == 41
    assert len({cell.get("fill") for cell in cells}) > 20
    for cell, mark in zip(cells, marks, strict=True):
        lower, upper = sorted(luminance(one.get("fill", "")) for one in (cell, mark))
        assert (upper + 0.05) / (lower + 0.05) >= 4.5, (cell.get("fill"), mark.get("fill"))


def dots(rows: list[Row], name: str) -> list[str]:
    """Return the opacity of each cell's dot."""
    (points,) = (group for group in drawn(name, rows) if "mark-symbol" in group.get("class", ""))
    return [point.get("opacity", "1") for point in points]


def test_a_map_marks_what_survives() -> None:
    rows = [effect_row(n, 0.5, survives="no" if n % 3 else "yes") for n in range(6)]
    assert dots(rows, "timesteps") == ["1", "0", "0", "1", "0", "0"]
    # Places in a caption are not tested: an interval above zero marks them, and the figure says so.
    places = [effect_row(n, mean) for n, mean in enumerate((-0.5, 0.05, 0.2, 0.0))]
    for row in places:
        del row["survives"]
    assert dots(places, "tokens") == ["0", "0", "1", "0"]
    assert "no correction" in FIGURES["tokens"].spec(places)["title"]["text"][0]
    assert FIGURES["timesteps"].spec(rows)["title"]["text"] == ["dot: survives"]


def test_a_survivor_whose_interval_reaches_zero_is_explained() -> None:
    chosen = dict(
        attribute="object", part="denoiser", measure="target", intervention="restore",
        patch_kind="state", noise_sigmas="",
    )  # fmt: skip
    rows = [effect_row(n, 0.5 - n / 10, rank=1, **chosen) for n in range(3)]
    (plain,) = findings("ranking", rows).values()
    assert "reaches zero" not in plain
    rows[1]["low"] = -0.01
    (said,) = findings("ranking", rows).values()
    assert "One state that survives has an interval that reaches zero" in said


# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
BLINDNESS = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(color: str, blindness: str | None) -> np.ndarray:
    """Return a color in CIELAB as somebody with this blindness sees it."""
    rgb = np.array([int(color[n : n + 2], 16) / 255 for n in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    if blindness:
        linear = np.clip(np.array(BLINDNESS[blindness]) @ linear, 0, 1)
    x, y, z = (math.copysign(abs(v) ** (1 / 3), v) for v in XYZ @ linear / XYZ.sum(1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize("blindness", [None, *BLINDNESS])
def test_effects_of_opposite_sign_are_distinguished_by_color_blind_people(
    theme: Theme, blindness: str | None
) -> None:
    colors = [lab(color, blindness) for color in theme.diverging]
    middle = len(colors) // 2
    for n in range(1, middle + 1):
        below, above = colors[middle - n], colors[middle + n]
        # Twice the distance that is just noticeable side by side, at the weakest step.
        assert np.linalg.norm(below - above) > (5 if n == 1 else 15)
        for outer, inner in ((below, colors[middle - n + 1]), (above, colors[middle + n - 1])):
            away = outer[0] - inner[0]
            assert away < 0 if theme is LIGHT else away > 0


def test_scores_of_no_component_are_one_sentence(tmp_path: Path) -> None:
    run = make_report_run(tmp_path / "r")
    path = Path(run.location, part_name(0))

    def renamed(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index("component")
        names = pa.array(["foo"] * len(table))
        return table.set_column(place, table.schema.field(place), names)

    rewritten(path, renamed)
    with (
        opened_views(run) as views,
        pytest.raises(StoreError, match=r"scores of 'foo', which is none of its .* --repair"),
    ):
        read_figure_data(views)
