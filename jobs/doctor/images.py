"""Faults of the images that a run keeps."""

from jobs.doctor.findings import Fault
from jobs.runs.kept_images import FOLDER, IMAGE_NAME, picked_units, read_images
from jobs.runs.trace_run import TraceRun
from schemas.errors import StoreError, first_line


def image_faults(run: TraceRun) -> list[Fault]:
    """Return the faults of the files of kept images; every file is read whole."""
    picked = picked_units(run)
    texts: dict[str, str] = {}
    for file in run.storage.files(FOLDER):
        match = IMAGE_NAME.fullmatch(file.name)
        if match is None:
            continue
        if match["unit_id"] not in picked:
            texts[file.name] = "belongs to no unit whose images are kept"
            continue
        try:
            read_images(run.storage.read(file.name), match["unit_id"])
        except StoreError as error:
            texts[file.name] = first_line(error)
    return [Fault(check="images", name=n, text=f"{n} {text}") for n, text in texts.items()]
