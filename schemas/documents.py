"""Reading JSON and YAML that users and other programs wrote, within limits.

Every failure is one sentence that names the document, raised as the caller's error class.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, TypeGuard, TypeVar, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from schemas.errors import DqfError, first_line
from schemas.printable import shown

MOST_BYTES = 512 * 2**20
"""Largest JSON document: a plan of a million captions has 100 MB."""
MOST_YAML_BYTES = 4 * 2**20
"""Largest YAML document; reading YAML takes a hundred times as long as JSON."""
MOST_NODES = 2_000_000
"""Values of a YAML document, those that are repeated by `*name` counted each time."""
NOT_DECIMAL = re.compile(r"tag:yaml\.org,2002:(?:int|float)(?:[-+]?0[0-7]+|[-+]?0[bx].*|.*[:_].*)")
"""Tag and text of a number that is another one than it looks like: 010 is 8, 1:30 is 90, 1_0 is
10."""

SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
T = TypeVar("T")


def read_json(content: bytes | str, name: str, *, error: type[DqfError]) -> object:
    """Return the value of a JSON document; `error`: as `json_value`."""
    check_size(content, name, most=MOST_BYTES, error=error)
    try:
        return json_value(content)
    except JsonError as problem:
        raise error(f"{name} {problem}") from problem


class JsonError(ValueError):
    """A text that is not a JSON document; the message is what a sentence says of it."""


def json_value(content: bytes | str) -> object:
    """Return the value of JSON.

    JsonError: it is not JSON, is nested more than 200 deep, names a field twice, or has NaN,
    infinity, a number of more than 4,300 digits, or bytes that are not UTF-8.
    """
    try:
        document = from_json(content, allow_inf_nan=False)
    except (ValueError, RecursionError) as problem:
        raise JsonError(f"is not JSON: {first_line(problem)}") from problem
    # Python's own reader shows every field and number, but accepts more than JSON.
    json.loads(content, object_pairs_hook=_refuse_repeated, parse_float=_refuse_infinite)
    return document


def unique_fields(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields of a JSON object; JsonError if one is given twice: one would be lost."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        _refuse_repeated(pairs)
    return fields


def _refuse_infinite(number: str) -> None:
    if math.isinf(float(number)):
        raise JsonError("has a number that is too large")


def _refuse_repeated(pairs: Sequence[tuple[str, Any]]) -> None:
    if len(dict(pairs)) < len(pairs):
        name = next(name for name, count in Counter(n for n, _ in pairs).items() if count > 1)
        raise JsonError(f"gives the field {shown(name)} twice")


def read_yaml(content: bytes | str, name: str, *, error: type[DqfError]) -> object:
    """Return the value of a YAML document of plain types; `error`: as for `yaml_root`."""
    loader = SafeLoader(checked_text(content, name, most=MOST_YAML_BYTES, error=error))
    root = yaml_root(loader, name, error=error)
    return None if root is None else yaml_value(loader, root, name, error=error)


def yaml_root(loader: Any, name: str, *, error: type[DqfError]) -> yaml.Node | None:
    """Return the root of the document that a loader reads, None if it is empty.

    `error`: it is not YAML, is more than one document, names a field twice, or grows beyond
    MOST_NODES by repetitions.
    """
    try:
        root = loader.get_single_node()
        size = 0 if root is None else _size(root)
    except (yaml.YAMLError, RecursionError, ValueError) as problem:
        raise error(_not_yaml(problem, name)) from problem
    if size > MOST_NODES:
        raise error(f"{name} repeats values to more than {MOST_NODES:,}: write them out")
    return root


def yaml_value(loader: Any, node: yaml.Node, name: str, *, error: type[DqfError]) -> object:
    """Return the value of a node; `error`: a date, number or tag in it cannot be read."""
    try:
        return loader.construct_object(node, deep=True)
    except Exception as problem:  # `!!bool x` raises KeyError, `!!timestamp x` AttributeError, ...
        line = f"{name}, line {node.start_mark.line + 1}"
        if isinstance(problem, (yaml.MarkedYAMLError, RecursionError)):
            raise error(_not_yaml(problem, name)) from problem
        raise error(f"{line}: a value is not of the type that it says") from problem


def checked_text(content: bytes | str, name: str, *, most: int, error: type[DqfError]) -> str:
    """Return the text of a document without its byte order mark; `error`: it is not UTF-8."""
    check_size(content, name, most=most, error=error)
    if isinstance(content, str):
        return content
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise error(f"{name}, line {line}: not UTF-8 text: save it as UTF-8") from problem


def check_size(content: bytes | str, name: str, *, most: int, error: type[DqfError]) -> None:
    """Raise `error` if a document is larger than `most` bytes or characters."""
    if len(content) > most:
        raise error(f"{name} has {len(content) / 2**20:,.0f} MiB, at most {most >> 20} are read")


def is_mapping(document: object) -> TypeGuard[Mapping[str, object]]:
    """Return whether a document has named fields.

    YAML may name one by a number, which whoever checks the names refuses.
    """
    return isinstance(document, Mapping)


def parsed(kind: type[T], content: object, name: str, *, error: type[DqfError]) -> T:
    """Return plain data as a dataclass or another type; `error` says which field is wrong.

    A field that the dataclass does not have is an error too: it would be lost.
    """
    if is_mapping(content) and hasattr(kind, "__dataclass_fields__"):
        names = {field.name for field in fields(kind)}  # pyright: ignore[reportArgumentType]
        if unknown := sorted(str(key) for key in content.keys() - names):
            raise error(f"{name} has the unknown field {shown(unknown[0])}")
    try:
        return _adapter(kind).validate_python(content)
    except ValidationError as problem:
        raise error(f"{name}: {first_message(problem)}") from problem


def checked(kind: type[T], given: T, *, error: type[DqfError]) -> T:
    """Return a dataclass that a caller made, with every field of its declared type.

    `error`: it is not of `kind`, or a field is of another type or out of its range.
    """
    if not isinstance(given, kind):
        raise error(f"give {kind.__name__}(...), not {shown(given)}")
    hints = get_type_hints(kind)
    values = {name: getattr(given, name) for name in hints}
    for name, value in values.items():
        if isinstance(value, bool) and hints[name] is not bool:
            raise error(f"{name} is {value}: give a number or text")
    try:
        return _adapter(kind).validate_python(values)
    except ValidationError as problem:
        raise error(first_message(problem)) from problem


def parsed_rows(
    kind: type[T], content: object, name: str, *, error: type[DqfError]
) -> tuple[T, ...]:
    """Return a list of plain data as rows of a dataclass; `error` says which row is wrong.

    Every field must be there, also one that has a default: a row without it is of another version.
    """
    names = [field.name for field in fields(kind)]  # pyright: ignore[reportArgumentType]
    read: list[T] = []
    for place, row in enumerate(parsed(list[dict[str, object]], content, name, error=error), 1):
        if missing := [field for field in names if field not in row]:
            raise error(f"{name}, row {place}, has no field {missing[0]!r}")
        read.append(parsed(kind, row, f"{name}, row {place}", error=error))
    return tuple(read)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def first_message(error: ValidationError) -> str:
    """Return the first error, with the field's name and value, in one sentence."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message} (got {shown(first['input'])})" if where else message


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Return the field of the first error, without places in a list, and what is wrong with it."""
    first = error.errors(include_url=False)[0]
    field = ".".join(part for part in first["loc"] if isinstance(part, str))
    return field, first["msg"].removeprefix("Value error, ")


def _not_yaml(problem: Exception, name: str) -> str:
    where = getattr(problem, "problem_mark", None)
    line = f", line {where.line + 1}" if where else ""
    what = getattr(problem, "problem", None) or first_line(problem)
    what = "nested too deeply" if isinstance(problem, RecursionError) else what
    return f"{name}{line}: not YAML: {what}"


def _size(root: yaml.Node) -> int:
    """Return how many values a document has when each repetition counts; a cycle is endless."""
    sizes: dict[int, int] = {}
    opened: set[int] = set()
    left = [(root, False)]
    while left:
        node, is_last = left.pop()
        parts = _parts(node)
        if is_last:
            # A part that was opened and has no size yet holds this one: the document is endless.
            sizes[id(node)] = 1 + sum(sizes.get(id(part), MOST_NODES + 1) for part in parts)
        elif id(node) not in opened:
            opened.add(id(node))
            left.append((node, True))
            left += [(part, False) for part in parts if id(part) not in opened]
    return sizes[id(root)]


def _parts(node: yaml.Node) -> list[yaml.Node]:
    """Return the values inside a node; YAMLError: it names a field twice, so that one would be
    lost, or is a number that YAML 1.1 reads in another base or past a `_`."""
    if isinstance(node, yaml.ScalarNode) and NOT_DECIMAL.fullmatch(node.tag + node.value):
        said = f"{node.value} is a number in no decimal digits: write it in them, or in quotes"
        raise yaml.MarkedYAMLError(problem=said, problem_mark=node.start_mark)
    if isinstance(node, yaml.SequenceNode):
        return node.value
    if not isinstance(node, yaml.MappingNode):
        return []
    names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    for name, count in Counter(names).items():
        if count > 1 and name != "<<":
            said = f"the field {shown(name)} is given twice"
            raise yaml.MarkedYAMLError(problem=said, problem_mark=node.start_mark)
    return [part for pair in node.value for part in pair]
