"""Packing: the part files of a group of chunks become one file while readers continue."""

from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import compress

from jobs.runs.parts import (
    GROUP_CHUNKS,
    CorruptPart,
    PartContent,
    pack_name,
    part_name,
    read_commits,
    read_part,
    write_part,
)
from jobs.runs.run import Run

READERS = 16
"""Files that are read in parallel, since each read from a bucket waits."""


def group_chunks(run: Run[object], group: int) -> range:
    """Return the chunks of a group."""
    return range(group * GROUP_CHUNKS, min((group + 1) * GROUP_CHUNKS, run.num_chunks))


def pack(run: Run[object], group: int) -> None:
    """Pack a group whose chunks are all committed; CorruptPart if one, or the pack, is damaged.

    Damaged files are moved to the quarantine, so that their chunks can be traced again.
    """
    if run.storage.exists(pack_name(group)):
        _check_pack(run, group)
    else:
        content = write_part(_parts(run, group), run_id=run.id, schema=run.schema)
        run.storage.create(pack_name(group), content)
    for chunk in group_chunks(run, group):
        run.storage.remove(part_name(chunk))


def _parts(run: Run[object], group: int) -> Iterator[PartContent]:
    for chunk in group_chunks(run, group):
        yield _checked_part(run, chunk, 0)


def _checked_part(run: Run[object], chunk: int, generation: int) -> PartContent:
    """Return a part of the run; CorruptPart: it is damaged and was moved to the quarantine."""
    name = part_name(chunk, generation)
    try:
        return read_part(run.storage.read(name), name, run_id=run.id, schema=run.schema)
    except CorruptPart:
        _set_aside(run, name, (chunk,), generation)
        raise


def _check_pack(run: Run[object], group: int) -> None:
    """Raise CorruptPart for a pack whose footer is damaged or lacks a chunk, and move it away."""
    name, chunks = pack_name(group), group_chunks(run, group)
    try:
        (path,) = run.storage.local([name])
        commits = read_commits(path, name, run_id=run.id, schema=run.schema)
        committed = {commit.chunk for commit in commits}
        if not committed.issuperset(chunks):
            raise CorruptPart(f"{name} lacks chunks")
    except CorruptPart:
        _set_aside(run, name, chunks, 0)
        raise


def _set_aside(run: Run[object], name: str, chunks: Container[int], generation: int) -> None:
    """Move a damaged file to the quarantine, after the later generations that its failures led to.

    Its units are traced again and may then succeed: a later generation would count them twice.
    """
    later = [key for key in run.live().parts if key[0] in chunks and key[1] > generation]
    for key in sorted(later, reverse=True):
        run.quarantine(part_name(*key))
    run.quarantine(name)


def tidy(run: Run[object]) -> list[str]:
    """Remove leftovers of killed processes, and return the damaged files that were moved away.

    Every unpacked part is read, and the footer of every pack; packed parts are removed.
    """
    run.storage.remove_leftovers()
    damaged = list(_damaged_packs(run))
    for name in run.live().packed:
        run.storage.remove(name)
    return damaged + list(_damaged_parts(run))


def _damaged_packs(run: Run[object]) -> Iterator[str]:
    packs = run.live().packs

    def is_damaged(group: int) -> bool:
        with suppress(FileNotFoundError):  # another driver has moved it away meanwhile
            try:
                _check_pack(run, group)
            except CorruptPart:
                return True
        return False

    with ThreadPoolExecutor(READERS) as pool:
        yield from compress(packs.values(), pool.map(is_damaged, packs))


def _damaged_parts(run: Run[object]) -> Iterator[str]:
    live = run.live()
    keys = sorted(live.parts)

    def is_damaged(key: tuple[int, int]) -> bool:
        chunk, generation = key
        # Later generations of a lost part do not follow from the part that will replace it.
        before = (chunk, generation - 1) in live.parts or (generation == 1 and live.has(chunk))
        if generation and not before:
            _set_aside(run, part_name(*key), (chunk,), generation)
            return True
        with suppress(FileNotFoundError):  # moved away above, or packed by another driver meanwhile
            try:
                _checked_part(run, chunk, generation)
            except CorruptPart:
                return True
        return False

    with ThreadPoolExecutor(READERS) as pool:
        yield from compress((part_name(*key) for key in keys), pool.map(is_damaged, keys))
