"""What a network must be to forecast a limited area."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from enum import Enum
from typing import Any, ClassVar

from torch import Tensor, nn

from ai4sim.errors import InputError


class ModelType(Enum):
    """Families of networks; they differ in the layout of their tensors."""

    CONVOLUTIONAL = "convolutional"
    TRANSFORMER = "transformer"
    GRAPH = "graph"


@dataclass(frozen=True)
class Grid:
    """Where the points of a regular grid are.

    Args:
        x: (lat, lon) planar coordinate to the east, km: projected, or longitude times the cosine of the mean latitude.
        y: (lat, lon) planar coordinate to the north, km.
    """

    x: Tensor
    y: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.x.shape[0], self.x.shape[1]


def make_settings(kind: type[Any], given: Mapping[str, Any] | None = None) -> Any:
    """A dataclass of settings from a mapping.

    Raises:
        InputError: a key is no setting; names the nearest one.
    """
    given = dict(given or {})
    known = [field.name for field in fields(kind)]
    for key in given:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"{kind.__name__} has no setting {key!r}; there are {', '.join(known)}{hint}")
    return kind(**given)


class LamNetwork(nn.Module, ABC):
    """A network that takes the channels of a grid and gives the channels of the same grid, one step.

    Subclasses name a frozen dataclass of their settings, of which :func:`make_settings` refuses unknown keys, and make
    their layers in :meth:`build`. Networks get
    and give (batch, features, lat, lon), graph networks (batch, ngrid, features) with rows outer, columns inner.

    Args:
        in_channels: number of input channels.
        out_channels: number of output channels.
        input_shape: rows and columns of the grid.
        settings: of :attr:`settings_kls`; its defaults when absent.
        grid: positions of the points; only graph networks need it.
    """

    settings_kls: ClassVar[type]
    model_type: ClassVar[ModelType]
    onnx_supported: ClassVar[bool] = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        input_shape: tuple[int, int],
        settings: Any = None,
        grid: Grid | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.input_shape = in_channels, out_channels, input_shape
        self.settings = self.settings_kls() if settings is None else settings
        self.build(grid)

    @abstractmethod
    def build(self, grid: Grid | None) -> None:
        """Make the layers, from the channels, ``input_shape`` and ``settings`` that are set by now.

        Args:
            grid: positions of the points, None where the caller has none.
        """

    @property
    def features_last(self) -> bool:
        """Whether the channels are the last dimension of what goes in and comes out."""
        return self.model_type is ModelType.GRAPH

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """One step, in the network's own layout."""

    def on_grid(self, x: Tensor) -> Tensor:
        """One step from (batch, lat, lon, in_channels) to (batch, lat, lon, out_channels), for any network.

        What comes out is on the grid again, so that losses, figures and writers see one layout.
        """
        if self.features_last:
            result: Tensor = self(x.flatten(1, 2))
            return result.unflatten(1, self.input_shape)
        return self(x.movedim(-1, 1)).movedim(1, -1)
