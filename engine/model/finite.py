"""Outputs that are not finite: the run, the network, and what to try."""

from collections.abc import Sequence

import torch

from schemas.errors import NotFinite


def refuse_not_finite(
    values_R: torch.Tensor, *, runs: Sequence[str], network: str, dtype: torch.dtype
) -> None:
    """Raise NotFinite if a row of a network's output, of any shape, is NaN or infinite.

    `runs` names the run of each row, `dtype` the type that the network computes in.
    """
    is_finite_R = values_R.isfinite().flatten(1).all(dim=1)
    if bool(is_finite_R.all()):
        return
    bad = [run for run, is_finite in zip(runs, is_finite_R.tolist(), strict=True) if not is_finite]
    others = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    shown = str(dtype).removeprefix("torch.")
    raise NotFinite(
        f"{network} gives values that are not finite in {shown}: {bad[0]}{others}; "
        + (
            "its input is too large, for example after large noise or an edit that changes much"
            if dtype is torch.float32
            else "try --dtype float32"
        )
    )
