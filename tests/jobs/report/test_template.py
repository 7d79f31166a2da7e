"""Pages: texts are escaped, commands within them are code, the answer comes before its notes."""

from pathlib import Path

from jobs.report.index import Entry
from jobs.report.template import rendered
from jobs.report.write import write_report
from tests.made_up.noises import make_swept_run


def test_a_command_in_a_sentence_is_code_and_stays_text() -> None:
    found = "Not evaluated yet: `dqf edit evaluate 'a <b>'` measures it; `alone."
    entries = [Entry(name="cats", kind="edit", found=found)]
    page = rendered("index.html", {"script": ""}, entries=entries).decode()
    assert "yet: <code>dqf edit evaluate &#39;a &lt;b&gt;&#39;</code> measures it; `alone." in page


def test_how_to_read_the_numbers_comes_after_the_answer(tmp_path: Path) -> None:
    run = make_swept_run(tmp_path / "run")
    page = write_report(run, [], tmp_path / "report.html").path.read_text()
    note = page.index("<li>object, text-encoder, noise 3: activations of another corrupted draw")
    assert page.index("In short") < page.index("The same in numbers") < note
