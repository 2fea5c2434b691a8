"""What every column network has in common: physical units in and out, statistics inside."""

from torch import Tensor, nn

from ai4sim.normalization import Normalizer, Scale
from weather_forecast.gwd.layout import ColumnLayout


class ColumnNetwork(nn.Module):
    """A map from one column's state to its gravity-wave tendencies, both in physical units.

    ``forward`` takes (B, n_inputs) and returns (B, n_outputs) in m s-2, in the order of the layout. The statistics
    are buffers (``inputs``, ``outputs``) that the training sets once and the checkpoint carries.

    Args:
        layout: order and number of the features; 63 levels and the two scalars of the public data by default.
    """

    def __init__(self, layout: ColumnLayout | None = None) -> None:
        super().__init__()
        self.layout = layout or ColumnLayout()
        self.inputs = Normalizer(self.layout.n_inputs)
        self.outputs = Scale(self.layout.n_outputs)

    def check_inputs(self, x: Tensor) -> None:
        """Refuse columns of another layout.

        Raises:
            ValueError: the last axis of ``x`` is not ``n_inputs`` long.
        """
        if x.shape[-1] != self.layout.n_inputs:
            raise ValueError(
                f"{type(self).__name__} was built for {self.layout.n_inputs} inputs "
                f"({self.layout.n_levels} levels), got {x.shape[-1]}"
            )


class StandardizedNetwork(ColumnNetwork):
    """A network that sees standardised inputs and returns scaled tendencies; subclasses define ``body``."""

    def body(self, z: Tensor) -> Tensor:
        """Scaled tendencies (B, n_outputs) of standardised columns ``z`` (B, n_inputs)."""
        raise NotImplementedError(f"{type(self).__name__} does not define body()")

    def forward(self, x: Tensor) -> Tensor:
        """Tendencies (B, n_outputs) in m s-2 of columns ``x`` (B, n_inputs) in physical units."""
        self.check_inputs(x)
        return self.outputs.inverse(self.body(self.inputs(x)))
