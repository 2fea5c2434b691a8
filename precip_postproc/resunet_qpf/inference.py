"""From fields of any size to probabilities: in one pass, or by overlapping tiles that are blended."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ai4sim.errors import InputError
from ai4sim.tiling import Tiling, one_pass_inference, tiled_inference


@dataclass(frozen=True)
class Inference:
    """How whole fields are forecast.

    Args:
        tile: rows and columns of a tile; the whole field at once where there is none.
        stride: from one tile to the next; by default half a tile.
        window: weights of a tile, see :func:`ai4sim.tiling.window_weights`.
        pad: how the field goes on beyond its border.
        batch_size: tiles at once.
    """

    tile: int | None = None
    stride: int | None = None
    window: Literal["tent", "hann", "gaussian", "constant", "crop"] = "tent"
    pad: Literal["replicate", "reflect", "zeros"] = "replicate"
    batch_size: int = 16

    def __post_init__(self) -> None:
        if self.tile is None and self.stride is not None:
            raise InputError("model.inference.stride needs model.inference.tile")

    def run(self, call: Callable[[Tensor], Tensor], fields: Tensor, multiple: int) -> Tensor:
        """What a network says of fields.

        Args:
            call: maps (b, C, rows, columns) to probabilities (b, K, rows, columns).
            fields: (C, H, W).
            multiple: of the network's grid.

        Returns:
            (K, H, W) on the device of the fields.
        """
        if self.tile is None:
            return one_pass_inference(call, fields, multiple=multiple, pad=self.pad, output_device=fields.device)
        shape = (int(fields.shape[-2]), int(fields.shape[-1]))
        tiling = Tiling(shape, tile=self.tile, stride=self.stride, window=self.window, multiple=multiple, pad=self.pad)
        return tiled_inference(call, fields, tiling, batch_size=self.batch_size, output_device=fields.device)
