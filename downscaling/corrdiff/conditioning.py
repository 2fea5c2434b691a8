"""What networks are given of a pair: coarse fields on the fine grid and static ones, standardised."""

import torch
from torch import Tensor, nn

from downscaling.corrdiff.batches import Batch
from downscaling.corrdiff.contract import Contract
from downscaling.corrdiff.interpolation import Upsample


class Conditioner(nn.Module):
    """Standardises fields of a contract's channels, and goes back to physical units.

    Args:
        contract: channels and statistics.
    """

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        self.inputs = contract.scaler("input")
        self.outputs = contract.scaler("output")
        self.static = contract.scaler("static")
        self.upsample = Upsample(contract.factor)
        names = [channel.name for channel in contract.outputs]
        self.classes = [names.index(name) for name in contract.probabilities]
        inputs = [channel.name for channel in contract.inputs]
        self.counterparts = [(names.index(name), inputs.index(name)) for name in names if name in inputs]

    def forward(self, batch: Batch) -> Tensor:
        """Conditions (B, inputs + static, H, W) of a batch; see :class:`~downscaling.corrdiff.batches.PairBatches`."""
        return torch.cat([self.upsample(self.inputs(batch["input"])), self.static(batch["static"])], dim=1)

    def inputs_as_outputs(self, batch: Batch) -> Tensor:
        """Interpolated inputs (B, K, H, W) in the units of standardised outputs; 0 for outputs that are no input."""
        fields = batch["static"].new_zeros(len(batch["static"]), self.outputs.n_channels, *batch["static"].shape[-2:])
        if self.counterparts:
            outputs, inputs = map(list, zip(*self.counterparts, strict=True))
            fields[:, outputs] = self.upsample(batch["input"][:, inputs])
            others = [place for place in range(fields.shape[1]) if place not in outputs]
            fields = self.outputs(fields)
            fields[:, others] = 0
        return fields

    def physical(self, z: Tensor) -> Tensor:
        """Physical fields (B, K, H, W) of standardised outputs; probabilities of classes are made to sum to 1."""
        fields = self.outputs.inverse(z)
        if self.classes:
            shares = fields[:, self.classes].clamp(min=0)
            total = shares.sum(dim=1, keepdim=True)
            fields[:, self.classes] = torch.where(total > 0, shares / total, 1 / len(self.classes))
        return fields
