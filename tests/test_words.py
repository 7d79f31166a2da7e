"""The word list of the house: patterns that docstrings, help, messages and pages do not use.

`make check` runs it. What reads well instead is in CONTRIBUTING.md and in the second column here.
"""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LISTED = {
    r"\banew\b": "again",
    r"\bbeside\b": "besides, next to, compared with",
    r"\btold\b": "said, known, distinguished: name who does what",
    r"(?<!`)\bof right\b(?! before)": "of images right before",
    r"\bnone if none\b": "say what is returned by default",
    r"^\W*What no \w+ \w+ is\b": "a noun as the subject",
    r'"""(What|Who|Whatever)\b': "A docstring names a thing by a noun, not by a relative clause.",
    r"\b(one|a) (row|line|column|file) an? [a-z]": "`a` for each is misread: one row per caption.",
    r"\bif none(?=[.;,|)\"]| \|)": "It does not say what is missing: by default.",
    r"\bbut for (the|a|an|its|what)\b": "It means `were it not for`: except for.",
    r"\botherwise than\b": "It is taken for `or else`: differently from.",
    r"\b(go|goes|going|gone|went) on\b": "A run or a command continues, and continues training.",
    r"\breturn what\b": "A noun says what is returned: the function, the words, the columns.",
    r'"""(How (often|long|hard)|Those of|Theirs?\b|Of (fewer|the|a)\b)': "Its noun is missing.",
    r"\b(it|they|counts?|exists?) no more\b": "It is a quantity elsewhere: no longer.",
    r"\b(is|are) not (safety|protection|substitute|anchor)\b": "The article is missing: not a.",
    r"\bright before (images|and)\b": "Half of the phrase `over images right before` is missing.",
    r"(?<!there )\b(is|are) no (?!longer\b|more\b|smaller\b|larger\b|fewer\b)[.`a-z]": "is not a",
    r"colour|neighbour|behaviour|favour(?!ite)|honour|labour\b|\bgrey\b": "American spelling",
    r"(?<!still[_-])recognis(?!ed_of_right)|(?<!prom)(?:normal|summar|optim|minim|maxim|factor)is(?=e|i)":
    "American spelling",
    r"(?:vector|initial|general|token|student|quant|serial|random|organ|character)is(?=e[ds]?\b|ing)":
    "American spelling",
    r"\blabelled\b|\bmodelled\b|\bcancelled\b|\bcentred?\b|\bjudgement|\bmisspelt\b|\blearnt\b":
    "American spelling",
    r"\btowards\b|\bbackwards\b|\bafterwards\b|\bwhilst\b|\blicences?\b": "American spelling",
}  # fmt: skip
SKIPPED = ("engine/reference/emoji-", "tests/", "CHANGELOG.md")
"""The embedded models, whose names are data; tests; the past."""
DATA = re.compile(r'== "colour"')
"""Lines of code that read `colour` from a user's file."""
MEANT = re.compile(r"|".join(LISTED), flags=re.IGNORECASE | re.MULTILINE)


def found(text: str) -> list[str]:
    """Return the lines of a text that the list names, with their number."""
    return [
        f"{number}: {line.strip()}"
        for number, line in enumerate(text.splitlines(), start=1)
        if not DATA.search(line) and MEANT.search(re.sub(r"(?i)still_recognised\w*", "", line))
    ]


def pages_and_code() -> list[str]:
    """Return the files whose English counts."""
    listed = subprocess.run(
        ["git", "ls-files", "*.py", "*.md", "*.html", "*.js", "*.yaml", "Makefile"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    return [name for name in listed if not name.startswith(SKIPPED)]


def test_no_page_and_no_module_uses_what_is_listed() -> None:
    wrong = [
        f"{name}:{line}" for name in pages_and_code() for line in found((ROOT / name).read_text())
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "line",
    [
        '"""What no concept says is protected."""',
        "Rows of a batch, none if none is given.",
        "The edit is solved anew.",
        "The key lies beside the value.",
        "What the UNet is told of the captions.",
        "kept of right",
        "this folder is no edit",
        "names that are no text",
        "in other colours",
        "the concept is still recognised",
        "a normalised key",
        '"""What a user asks of an attack."""',
        "| `parts/` | one row a prompt and seed |",
        "Denoising steps; the model's own if none.",
        "nothing is asked twice but for the commit",
        "DuckDB reads a file otherwise than Arrow",
        "The same command goes on where it was cut short.",
        "temporary files count no more",
        "an edit is not safety barrier",
        "the share over images right before and after",
        "--out x.jpg is no .png file",
        '"""Return what a figure shows, for the text above it."""',
        "out of memory: going on with 4 rows",
        '"""How long a bucket may be silent."""',
        '"""Those of the units."""',
    ],
)
def test_a_line_of_each_kind_is_found(line: str) -> None:
    assert found(line) == [f"1: {line}"]


@pytest.mark.parametrize(
    "line",
    [
        "there is no run at runs/x",
        "`still_recognised` is the share of images that still show the concept",
        "besides the caption",
        "p is no smaller than 0.05",
        "it is no longer there",
        "a promise",
        "a shell or, if none is open, stdin",
        "one file appears",
        "there is no more memory",
        "`of right before` counts images that the unedited model draws right",
    ],
)
def test_plain_lines_pass(line: str) -> None:
    assert found(line) == []
