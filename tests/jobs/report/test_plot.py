"""`dqf plot`: figures as files, what they are asked for, and what they refuse."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from jobs.query.select import opened_views, run_query
from jobs.report.figures.tokens import caption_rows
from jobs.report.plot import Drawing, draw_figure
from jobs.runs.trace_run import TraceRun
from schemas.caption_filter import CaptionFilter
from schemas.errors import PlanError
from tests.made_up.report_run import CAPTIONS, ODD_ATTRIBUTE, STRONG, make_report_run
from tests.made_up.small_run import commit_scores, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TraceRun:
    return make_report_run(tmp_path_factory.mktemp("runs") / "r")


def test_figures_are_saved_for_papers(run: TraceRun, tmp_path: Path) -> None:
    starts = {"png": b"\x89PNG", "svg": b"<svg", "pdf": b"%PDF"}
    paths = [tmp_path / "new" / f"ranking.{suffix}" for suffix in starts]
    picture = draw_figure(run, "ranking", Drawing(attributes=("object",)))
    for path in paths:
        picture.save(path)
    assert "up 0 resnet 0" in picture.description
    for path, start in zip(paths, starts.values(), strict=True):
        assert path.read_bytes().startswith(start)
    svg = (tmp_path / "new" / "ranking.svg").read_text()
    assert "up 0 resnet 0 [0:4]" in svg
    assert "object, denoiser, restored, scored against target" in svg
    asked = (run, "ranking")
    with pytest.raises(PlanError, match=r"saved as \.png, \.svg, \.pdf"):
        picture.save(tmp_path / "ranking.jpg")
    with pytest.raises(PlanError, match="no figure 'rankings': there are network, ranking"):
        draw_figure(run, "rankings", Drawing())
    with pytest.raises(PlanError, match="a title has at most 1000 characters, not 1001"):
        draw_figure(*asked, Drawing(title="x" * 1001))
    with pytest.raises(PlanError, match="no attribute 'color': it has object"):
        draw_figure(*asked, Drawing(attributes=("object", "color")))
    with pytest.raises(PlanError, match="no measure 'x': it has caption, target"):
        draw_figure(*asked, Drawing(measure="x"))
    nobody = CaptionFilter.parsed("target:9", None, measures=("target",))
    with pytest.raises(PlanError, match="nothing to draw in the figure 'ranking'"):
        draw_figure(*asked, Drawing(only=nobody))


SIGNS = ("+", "0", "\N{MINUS SIGN}")


def texts(path: Path, where: str = "") -> list[str]:
    """Return the texts of an SVG, or those of the groups whose class has a word."""
    groups = ElementTree.fromstring(path.read_text()).iter("{http://www.w3.org/2000/svg}g")
    return [
        "".join(text.itertext())
        for group in groups
        if "mark-text" in group.get("class", "") and where in group.get("class", "")
        for text in group
    ]


def plotted(run: TraceRun, name: str, folder: Path, **more: Any) -> Path:
    """Return the SVG of a figure of a run."""
    path = folder / "figure.svg"
    draw_figure(run, name, Drawing(**more)).save(path)
    return path


def test_a_ranking_has_as_many_states_as_asked(run: TraceRun, tmp_path: Path) -> None:
    svg = plotted(run, "ranking", tmp_path, top=3, part="denoiser", width=600)
    states = [text for text in texts(svg, "axis-label") if "[" in text]
    assert len(states) == 3
    narrow = float(ElementTree.fromstring(svg.read_text()).get("width", ""))
    wide = plotted(run, "ranking", tmp_path, top=3, part="denoiser", width=800)
    assert float(ElementTree.fromstring(wide.read_text()).get("width", "")) == narrow + 200
    assert "filled: survives; hollow: does not" in texts(wide)


def test_a_title_replaces_what_is_drawn_or_leaves_it_out(run: TraceRun, tmp_path: Path) -> None:
    own = "object, denoiser, restored, scored against target"
    assert own in texts(plotted(run, "network", tmp_path))
    named = texts(plotted(run, "network", tmp_path, title="<b>Figure</b> 3"))
    assert "<b>Figure</b> 3" in named
    assert own not in named
    assert own not in texts(plotted(run, "network", tmp_path, title=""))


def test_attributes_are_panels_with_one_scale(run: TraceRun, tmp_path: Path) -> None:
    both = ("object", ODD_ATTRIBUTE)
    svg = plotted(run, "ranking", tmp_path, attributes=both, part="denoiser", title="Both")
    found = texts(svg)
    assert {f"{name}, denoiser, restored, scored against target" for name in both} <= {*found}
    assert "Both" in found
    assert found.count("mean indirect effect") == 2
    ticks = [text for text in texts(svg, "axis-label") if text.startswith(SIGNS)]
    assert ticks[: len(ticks) // 2] == ticks[len(ticks) // 2 :]
    colored = texts(plotted(run, "network", tmp_path, attributes=both), "legend-label")
    assert len(colored) == 3  # both ends of the one scale, and zero


def test_the_tokens_of_one_caption_are_its_own_words(run: TraceRun, tmp_path: Path) -> None:
    caption, subject, _ = CAPTIONS[3]
    svg = plotted(run, "words", tmp_path, caption=caption)
    words = [f"{w}*" if w == subject else w for w in caption.split()]
    axis = texts(svg, "axis-label")
    assert [text for text in axis if text in {*words, "end"}] == [*words, "end"]
    assert f"object, text encoder, restored, scored against target: {caption}" in texts(svg)
    with opened_views(run) as views:
        rows = caption_rows(views, run.plan.captions[3:4])
    chosen = {"component": STRONG["text"], "measure": "target", "intervention": "restore"}
    at = words.index(f"{subject}*")
    of_subject = [row for row in rows if row["position"] == at + 1]
    (row,) = [row for row in of_subject if all(row[name] == chosen[name] for name in chosen)]
    query = """SELECT avg(patched - corrupted) AS mean FROM trials
      WHERE caption = $caption AND token = $token AND component = $component
        AND measure = $measure AND intervention = $intervention"""
    values = {"caption": caption, "token": str(at + 1), **chosen}
    assert run_query(run, query, values)["mean"].to_pylist() == pytest.approx([row["mean"]])
    with pytest.raises(PlanError, match="has no caption 'a photo of a bee in bronze': it has 'a p"):
        plotted(run, "words", tmp_path, caption="a photo of a bee in bronze")
    first = texts(plotted(run, "words", tmp_path), "axis-label")
    assert f"{CAPTIONS[0][1]}*" in first


@pytest.mark.parametrize(
    ("name", "more", "option"),
    [
        ("overlaps", {"attributes": ("object",)}, "attribute"),
        ("overlaps", {"intervention": "restore"}, "intervention"),
        ("overlaps", {"width": 300}, "width"),
        ("controls", {"intervention": "restore"}, "intervention"),
        ("network", {"top": 3}, "top"),
        ("tokens", {"caption": "a cat"}, "caption"),
        ("ranking", {"caption": "a cat"}, "caption"),
    ],
)
def test_an_option_that_a_figure_ignores_is_an_error(
    run: TraceRun, tmp_path: Path, name: str, more: dict[str, Any], option: str
) -> None:
    with pytest.raises(PlanError, match=f"{name!r} does not use --{option}: leave it out"):
        plotted(run, name, tmp_path, **more)


def test_depth_is_drawn_layer_by_layer(run: TraceRun, tmp_path: Path) -> None:
    assert {"0", "1", "layer"} <= {*texts(plotted(run, "depth", tmp_path))}
    with pytest.raises(PlanError, match="needs streams or whole layers"):
        plotted(run, "depth", tmp_path, part="denoiser")


def test_a_figure_that_was_not_traced_says_what_it_needs(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    for chunk in range(run.num_chunks):
        commit_scores(run, chunk)
    with pytest.raises(PlanError, match="needs several windows of steps"):
        draw_figure(run, "timesteps", Drawing())
