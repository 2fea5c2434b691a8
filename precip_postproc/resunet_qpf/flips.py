"""Mirrored patches: fields turn around, and with them the signs of slopes and winds, in physical units."""

from collections.abc import Sequence

import torch
from torch import Tensor

from precip_postproc.resunet_qpf.predictors import EASTWARD, NORTHWARD

Batch = dict[str, Tensor]


def flip(fields: Tensor, observed: Tensor, channels: Sequence[str], *, rows: bool) -> tuple[Tensor, Tensor]:
    """Mirror fields.

    Args:
        fields: (B, C, H, W) physical units.
        observed: (B, H, W).
        channels: names of the fields.
        rows: turn the order of the rows, and with it north and south; else that of the columns, east and west.

    Returns:
        Fields and observed amounts, new tensors.
    """
    turned = NORTHWARD if rows else EASTWARD
    signs = torch.tensor([-1.0 if name in turned else 1.0 for name in channels], device=fields.device)
    axis = -2 if rows else -1
    return fields.flip(axis) * signs[:, None, None], observed.flip(axis)


def random_flips(batch: Batch, channels: Sequence[str], generator: torch.Generator | None = None) -> Batch:
    """Mirror half of the batches from south to north, and half of them from west to east.

    Args:
        batch: with ``fields`` and ``observed``.
        channels: names of the fields.
        generator: of the random numbers; by default torch's own.
    """
    fields, observed = batch["fields"], batch["observed"]
    for rows in (True, False):
        if torch.rand((), generator=generator) < 0.5:
            fields, observed = flip(fields, observed, channels, rows=rows)
    return {**batch, "fields": fields, "observed": observed}
