"""What single pages promise: the README's length, citation and tools, controls, and figures."""

import re
import tomllib

import yaml

from schemas.intervention import CONTROLS, Intervention
from tests.docs.shown import ROOT

README = (ROOT / "README.md").read_text()
FIGURE = re.compile(r"\b0\.\d{3}\b")


def section(page: str, title: str) -> str:
    """Return the text of a section of a page."""
    text = page if page == README else (ROOT / "docs" / page).read_text()
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_cells(table: str) -> list[str]:
    """Return the first cell of each row after a table's head, without emphasis and links."""
    rows = re.findall(r"^\| ?(.*?) \|", table, flags=re.MULTILINE)[1:]
    return [re.sub(r"\*\*|\[|\]\(.*\)| \(.*", "", cell) for cell in rows]


def test_the_readme_is_under_150_lines() -> None:
    assert len(README.splitlines()) < 150


def test_the_readme_cites_what_the_citation_file_says() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (paper,) = citation["references"]
    cited = " ".join(README.split("**Cite**")[1].split())
    names = [f"{a['family-names']}, {a['given-names']}" for a in paper["authors"]]
    for text in (citation["title"], citation["authors"][0]["name"], paper["title"]):
        assert f"{{{text}}}" in cited
    assert f"author={{{' and '.join(names)}}}" in cited
    assert f"year={{{paper['year']}}}" in cited
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == project["version"]
    assert f"version={{{project['version']}}}" in cited


def test_every_tool_of_the_readme_has_its_sources() -> None:
    tools = first_cells(section(README, "Other tools"))
    assert tools[0] == "dqf"
    assert len(tools) > 4
    described = " ".join(first_cells(section("other-tools.md", "What they do")))
    assert [tool for tool in tools if tool not in described] == []


def test_the_glossary_has_one_sentence_for_every_intervention() -> None:
    rows = re.findall(
        r"^\| `(.+)` \| (.+) \|$", section("glossary.md", "Interventions"), flags=re.MULTILINE
    )
    assert sorted(name for name, _ in rows) == sorted(Intervention)
    assert {name for name, text in rows if text.startswith("Control")} == set(CONTROLS)


def test_the_recipes_have_no_figure_that_is_not_in_the_measured_tables() -> None:
    recipes = section("editing.md", "Recipes for 5, 50 and 300 concepts")
    measured = section("editing.md", "What it reaches")
    figures = set(FIGURE.findall(recipes))
    assert len(figures) > 5
    rows = re.findall(r"^\| emoji-sd \| (?:10|50) \|.*", measured, flags=re.MULTILINE)
    assert figures <= set(FIGURE.findall("\n".join(rows)))
    seconds = re.findall(r"[\d.]+ s\b", recipes)
    assert seconds
    assert set(seconds) <= set(
        re.findall(r"[\d.]+ s\b", section("benchmarks.md", "Editing at full width"))
    )
