"""Packing: the parts of a whole group of chunks become one file, while readers read."""

from collections.abc import Iterator

from jobs.parts import (
    GROUP_CHUNKS,
    CorruptPart,
    PartContent,
    live_parts,
    pack_name,
    part_name,
    read_part,
    write_part,
)
from jobs.store import Run


def group_chunks(run: Run, group: int) -> range:
    """Return the chunks of a group."""
    return range(group * GROUP_CHUNKS, min((group + 1) * GROUP_CHUNKS, run.num_chunks))


def pack(run: Run, group: int) -> None:
    """Pack a group whose chunks are all committed; CorruptPart if one is damaged.

    A damaged part is moved out of the way, so that its chunk can be traced again.
    """
    if not run.storage.exists(pack_name(group)):
        content = write_part(_parts(run, group), run_id=run.id)
        run.storage.create(pack_name(group), content)
    for chunk in group_chunks(run, group):
        run.storage.remove(part_name(chunk))


def _parts(run: Run, group: int) -> Iterator[PartContent]:
    for chunk in group_chunks(run, group):
        yield checked_part(run, part_name(chunk))


def checked_part(run: Run, name: str) -> PartContent:
    """Return a part of the run; a damaged one is moved to the quarantine, CorruptPart."""
    try:
        return read_part(run.storage.read(name), name, run_id=run.id)
    except CorruptPart:
        run.quarantine(name)
        raise


def tidy(run: Run) -> list[str]:
    """Remove what killed processes left, and return the damaged parts that were moved away.

    Every part that is not packed is read, and parts that a pack took the place of are removed.
    """
    run.storage.remove_leftovers()
    live = live_parts(run.storage)
    for name in live.packed:
        run.storage.remove(name)
    damaged: list[str] = []
    for name in live.parts.values():
        try:
            checked_part(run, name)
        except CorruptPart:
            damaged.append(name)
        except FileNotFoundError:
            continue  # another driver has packed it meanwhile
    return damaged
