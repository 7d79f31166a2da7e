"""The shell of `dqf query`: statements end with `;`, commands begin with a dot."""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb
from platformdirs import user_state_path
from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import SqlLexer  # pyright: ignore[reportMissingTypeStubs]

from cli.printing.answers import column_rows, example_rows, show, view_rows
from cli.printing.lines import say, say_lines
from cli.printing.output import Format, print_rows
from cli.printing.streams import StdoutLost
from engine.files import open_regular
from schemas.documentation import VIEWS_OF, View
from schemas.errors import DqfError
from schemas.printable import message

if TYPE_CHECKING:
    from jobs.query.opened import Filters
    from jobs.runs.run import Run

WELCOME = "A statement ends with ;  .help lists the commands, Tab completes, Ctrl-D leaves."
WORD = re.compile(r"[\w.]+")
SURROGATE = re.compile("[\ud800-\udfff]")
"""A typed byte that is not UTF-8, as Python reads it."""


@dataclass(slots=True, kw_only=True)
class Shell:
    """The state of a session between lines."""

    runs: "Mapping[str, Run[Any]]"
    only: "Filters"
    """Which captions are read of each run."""
    output_format: Format
    is_open: bool = True

    @property
    def nouns(self) -> dict[str, str]:
        """The kind of each run by its name in SQL."""
        return {name: run.noun for name, run in self.runs.items()}


def run_shell(runs: "Mapping[str, Run[Any]]", output_format: Format, *, only: "Filters") -> None:
    """Answer statements and commands from the terminal until the user leaves."""
    shell = Shell(runs=runs, only=only, output_format=output_format)
    session: PromptSession[str] = PromptSession(
        message="dqf> ",
        prompt_continuation="...> ",
        multiline=Condition(lambda: not is_complete(get_app().current_buffer.text)),
        history=_history(),
        lexer=PygmentsLexer(SqlLexer),
        completer=SqlCompleter(shell.nouns),
    )
    session.default_buffer.on_text_changed += _show_wrong_bytes
    say(WELCOME, err=True)
    while shell.is_open:
        try:
            answer(shell, session.prompt().strip())
            sys.stdout.flush()
        except EOFError:
            return
        except KeyboardInterrupt:
            say("canceled", err=True)
        except StdoutLost:
            raise
        except DqfError as error:
            say_lines(message(f"dqf: {error}", has_lines=error.has_lines), err=True)


def _show_wrong_bytes(buffer: Buffer) -> None:
    """Replace what is not UTF-8 by the mark for it, which a history file and DuckDB take."""
    text = SURROGATE.sub("\ufffd", buffer.text)
    if text != buffer.text:
        buffer.document = Document(text, buffer.cursor_position)


def is_complete(text: str) -> bool:
    """Return whether Enter ends the input: it is empty, a command, or a statement with its `;`."""
    if not text.strip() or text.lstrip().startswith("."):
        return True
    kinds = [kind for kind in duckdb.tokenize(text) if kind[1] != duckdb.token_type.comment]
    start = kinds[-1][0] if kinds else 0
    return text.encode()[start : start + 1] == b";"


def answer(shell: Shell, text: str) -> None:
    """Answer one input; DqfError if it cannot be answered."""
    if text.startswith("."):
        name, _, argument = text.rstrip("; ").partition(" ")
        if name not in COMMANDS:
            raise DqfError(f"no command {name}: there are {', '.join(COMMANDS)}")
        COMMANDS[name][1](shell, argument.strip())
    elif text:
        show(shell.runs, text, shell.output_format, only=shell.only)


def _tables(shell: Shell, _: str) -> None:
    rows: list[dict[str, object]] = [
        {"run": name, "view": view.name, "meaning": view.meaning}
        for name, noun in shell.nouns.items()
        for view in VIEWS_OF[noun]
    ]
    print_rows(rows, Format.TABLE)


def _schema(_: Shell, argument: str) -> None:
    print_rows(column_rows(argument.split()) if argument else view_rows(), Format.TABLE)


def _format(shell: Shell, argument: str) -> None:
    if argument not in list(Format):
        raise DqfError(f"no format {argument!r}: there are {', '.join(Format)}")
    shell.output_format = Format(argument)


def _examples(_: Shell, __: str) -> None:
    print_rows(example_rows(), Format.TABLE)


def _example(shell: Shell, argument: str) -> None:
    from jobs.query.examples import example_sql

    sql = example_sql(argument, shell.nouns)
    say_lines(sql, err=True)
    show(shell.runs, sql, shell.output_format, only=shell.only)


def _help(_: Shell, __: str) -> None:
    rows: list[dict[str, object]] = [
        {"command": name, "does": does} for name, (does, _) in COMMANDS.items()
    ]
    print_rows(rows, Format.TABLE)


def _quit(shell: Shell, _: str) -> None:
    shell.is_open = False


COMMANDS: dict[str, tuple[str, Callable[[Shell, str], None]]] = {
    ".tables": ("list the views", _tables),
    ".schema": ("describe the columns of views, or of all: .schema ranking", _schema),
    ".format": (f"choose how results are shown: {', '.join(Format)}", _format),
    ".examples": ("list the example queries", _examples),
    ".example": ("show and run one: .example recovery", _example),
    ".help": ("list the commands", _help),
    ".quit": ("leave, as Ctrl-D does", _quit),
}


class SqlCompleter(Completer):
    """Completes commands, keywords, functions, runs, views, and columns after a view's name."""

    def __init__(self, runs: Mapping[str, str]) -> None:
        """Complete statements over `runs`, which maps a run's name in SQL to its kind."""
        views = [view for noun in dict.fromkeys(runs.values()) for view in VIEWS_OF[noun]]
        self._columns = {view.name: [c.name for c in view.columns] for view in views}
        self._runs = runs
        self._words = _described(runs, views)

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """Yield the completions of the word before the cursor."""
        text = document.text_before_cursor.lstrip()
        word = document.get_word_before_cursor(pattern=WORD)
        if text.startswith("."):
            yield from _matching(text, {name: does for name, (does, _) in COMMANDS.items()})
        elif "." in word:
            before, _, begun = word.rpartition(".")
            yield from _matching(begun, dict.fromkeys(self._after(before.rpartition(".")[2]), ""))
        elif word:
            yield from _matching(word, self._words)

    def _after(self, name: str) -> list[str]:
        """Return the words that may follow a name and a dot; an alias may stand for any view."""
        if name in self._runs:
            return list(self._columns)
        columns = self._columns.get(name)
        return columns or sorted({column for view in self._columns.values() for column in view})


def _matching(begun: str, words: dict[str, str]) -> Iterator[Completion]:
    for word, meaning in words.items():
        if word.lower().startswith(begun.lower()):
            yield Completion(word, start_position=-len(begun), display_meta=meaning)


def _described(runs: Mapping[str, str], views: Sequence[View]) -> dict[str, str]:
    """Return all words of the language with their meaning, those of the runs first."""
    words = {view.name: view.meaning for view in views}
    words |= {column.name: column.meaning for view in views for column in view.columns}
    words |= runs
    with duckdb.connect() as connection:
        keywords = connection.execute(
            "SELECT upper(keyword_name) FROM duckdb_keywords() ORDER BY 1"
        ).fetchall()
        functions = connection.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() "
            "WHERE function_type IN ('scalar', 'aggregate', 'macro') "
            "AND regexp_full_match(function_name, '[a-z]\\w*') ORDER BY 1"
        ).fetchall()
    words |= {word: "" for (word,) in keywords}
    return words | {name: "function" for (name,) in functions if name not in words}


def _history() -> History:
    """Return the history in the user's state folder, or in memory if that cannot be used."""
    folder = user_state_path("dqf")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "query_history"
        path.touch(mode=0o600)
        open_regular(path).close()
    except OSError as error:
        say(f"no history is kept: {error}", err=True)
        return InMemoryHistory()
    return _FileHistory(str(path))


class _FileHistory(FileHistory):
    """A history whose file may have no room: a statement is answered even so."""

    def store_string(self, string: str) -> None:
        """Append a statement."""
        with suppress(OSError):
            super().store_string(string)
