"""What goes through a limited-area model: samples, batches, and the fields that never change."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import torch
from torch import Tensor, nn

from ai4sim.named_tensor import NamedTensor

SAMPLE_DIMS = ["timestep", "lat", "lon", "features"]


@dataclass
class Item:
    """One sample, in physical units.

    Args:
        inputs: states at the input times (timestep, lat, lon, features), the last one at the initial time.
        forcing: what is known of the target times without forecasting (timestep, lat, lon, features); entry i is valid
            at the time of outputs entry i.
        outputs: states at the target times (timestep, lat, lon, features); the features of the inputs, and behind them
            diagnostics that are forecast but not fed back.
        validity_times: of the outputs.

    Raises:
        ValueError: dimensions or features of the three do not fit together.
    """

    inputs: NamedTensor
    forcing: NamedTensor | None
    outputs: NamedTensor
    validity_times: list[datetime]

    def __post_init__(self) -> None:
        if self.inputs.names != self.outputs.names:
            raise ValueError(f"dimensions differ: inputs {self.inputs.names}, outputs {self.outputs.names}")
        n_inputs = len(self.inputs.feature_names)
        if self.outputs.feature_names[:n_inputs] != self.inputs.feature_names:
            raise ValueError(
                f"the outputs' features must begin with the inputs': inputs {self.inputs.feature_names}, "
                f"outputs {self.outputs.feature_names}"
            )
        steps = self.outputs.dim_size("timestep")
        if self.forcing is not None and self.forcing.dim_size("timestep") != steps:
            raise ValueError(f"{self.forcing.dim_size('timestep')} forcing steps for {steps} output steps")
        if len(self.validity_times) != steps:
            raise ValueError(f"{len(self.validity_times)} validity times for {steps} output steps")


@dataclass
class ItemBatch:
    """Samples of the same sizes, float32, with "batch" as first dimension; otherwise as :class:`Item`."""

    inputs: NamedTensor
    forcing: NamedTensor | None
    outputs: NamedTensor
    validity_times: list[list[datetime]]

    @classmethod
    def collate(cls, items: list[Item]) -> "ItemBatch":
        """Put samples together; they stay as they are."""

        def stacked(tensors: list[NamedTensor]) -> NamedTensor:
            return NamedTensor.collate_fn(tensors).type_(torch.float32)

        forcings = [item.forcing for item in items if item.forcing is not None]
        return cls(
            stacked([item.inputs for item in items]),
            stacked(forcings) if forcings else None,
            stacked([item.outputs for item in items]),
            [item.validity_times for item in items],
        )

    @property
    def batch_size(self) -> int:
        """Number of samples."""
        return self.inputs.dim_size("batch")

    @property
    def num_input_steps(self) -> int:
        """Number of input states."""
        return self.inputs.dim_size("timestep")

    @property
    def num_pred_steps(self) -> int:
        """Number of target times."""
        return self.outputs.dim_size("timestep")

    def map(self, function: Any) -> "ItemBatch":
        """The batch with a function applied to all its NamedTensors."""
        forcing = None if self.forcing is None else function(self.forcing)
        return replace(self, inputs=function(self.inputs), forcing=forcing, outputs=function(self.outputs))


class Statics(nn.Module):
    """Fields that never change, as buffers that go where the model goes but not into its checkpoint.

    Args:
        grid_statics: (lat, lon, features); the features ``x`` and ``y`` are the coordinates scaled to [0, 1],
            ``border_mask`` is 1 where the boundary is prescribed.

    Attributes:
        feature_names: of the static fields.
    """

    fields: Tensor
    border_mask: Tensor
    interior_mask: Tensor
    meshgrid: Tensor

    def __init__(self, grid_statics: NamedTensor) -> None:
        super().__init__()
        if grid_statics.names != ["lat", "lon", "features"]:
            raise ValueError(f"statics must be (lat, lon, features), not {grid_statics.names}")
        self.feature_names = grid_statics.feature_names
        data = grid_statics.tensor.to(torch.float32)
        border = data[..., [self.feature_names.index("border_mask")]]
        xy = data[..., [self.feature_names.index("x"), self.feature_names.index("y")]].permute(2, 0, 1)
        self.register_buffer("fields", data, persistent=False)
        self.register_buffer("border_mask", border, persistent=False)
        self.register_buffer("interior_mask", 1 - border, persistent=False)
        self.register_buffer("meshgrid", xy.contiguous(), persistent=False)

    @property
    def grid_statics(self) -> NamedTensor:
        """All fields (lat, lon, features)."""
        return NamedTensor(self.fields, ["lat", "lon", "features"], self.feature_names)

    @property
    def grid_shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.fields.shape[0], self.fields.shape[1]
