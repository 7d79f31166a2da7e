"""The index of runs and edits: what each found, links that lead somewhere, damage that is named."""

import re
import shlex
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest

from jobs.report.index import Entry, write_index
from jobs.report.write import write_report
from tests.made_up.report_run import HACK, make_report_edit, make_report_sweep
from tests.made_up.small_run import commit_scores, make_run

ODD = HACK.format("run")[:60].replace("/", "")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two runs, a damaged one, an edit, a sweep and a folder that is
    neither."""
    home = tmp_path_factory.mktemp("home")
    for name in ("small", ODD):
        run = make_run(home / "runs" / name)
        for chunk in range(run.num_chunks):
            commit_scores(run, chunk)
    write_report(run, [], home / "runs" / ODD / "report.html")
    (home / "runs" / "broken").mkdir()
    (home / "runs" / "broken" / "plan.json").write_text("{")
    (home / "runs" / "notes").mkdir()
    make_report_edit(home / "edits" / "cats")
    make_report_sweep(home / "edits" / "swept")
    return home


@pytest.fixture(scope="module")
def entries(home: Path) -> dict[str, Entry]:
    found = write_index(home / "runs", home / "edits", home / "reports.html")
    return {entry.name: entry for entry in found}


def test_every_run_and_edit_has_an_entry(entries: dict[str, Entry]) -> None:
    kinds = {name: entry.kind for name, entry in entries.items()}
    assert kinds == {
        "small": "trace", ODD: "trace", "broken": "run", "cats": "edit", "swept": "sweep"
    }  # fmt: skip
    assert entries["small"].found == "No state survives, of 2 attributes."
    assert entries["cats"].found.startswith("5 % of the images of 2 concepts still show them")
    assert "2 are beaten by no other" in entries["swept"].found
    assert "plan.json" in entries["broken"].problem


def test_links_lead_to_files_and_commands_to_runs(home: Path, entries: dict[str, Entry]) -> None:
    page = (home / "reports.html").read_text()
    links = [unquote(unescape(link)) for link in re.findall('href="([^"]*)"', page)]
    assert links == [f"runs/{ODD}/report.html", "edits/cats/before_after.png"]
    assert all((home / link).is_file() for link in links)
    assert not entries[ODD].command
    command, verb, place = shlex.split(entries["small"].command)
    assert (command, verb, Path(place)) == ("dqf", "report", home / "runs" / "small")


def test_names_are_shown_as_text(home: Path, entries: dict[str, Entry]) -> None:
    page = (home / "reports.html").read_text()
    assert ODD in entries
    assert ODD not in page
    assert "<img" not in page


def test_an_index_of_nothing_says_so(tmp_path: Path) -> None:
    assert write_index(tmp_path / "runs", tmp_path / "edits", tmp_path / "index.html") == []
    assert "No runs and no edits here." in (tmp_path / "index.html").read_text()
