"""From physical units to what networks see and back: a transform, and the removal of mean and scale, per channel."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ai4sim.errors import InputError

Transform = Literal["none", "sqrt", "sqrt_dry", "log1p", "log_eps"]
TRANSFORMS: tuple[str, ...] = get_args(Transform)
EPSILON = 0.1
"""Amount, in the variable's units, below which ``log_eps`` is nearly linear."""
DRY = 0.5
"""How far below 0 the transform ``sqrt_dry`` puts what is dry: as far as the root of 0.25 units is above; for mm."""


def transform(x: Tensor, name: str) -> Tensor:
    """A variable with a long tail, made less skewed; amounts below 0 are taken as 0.

    Args:
        x: physical values.
        name: ``none``, ``sqrt``, ``sqrt_dry`` (the same, but -0.5 where there is nothing: what is a little wrong about
            0 stays 0 then, and does not become drizzle), ``log1p`` (of 1 + x), or ``log_eps`` (of 1 + x / 0.1).
    """
    if name == "none":
        return x
    amount = x.clamp(min=0)
    if name == "sqrt":
        return amount.sqrt()
    if name == "sqrt_dry":
        return torch.where(amount == 0, -DRY, amount.sqrt())
    return torch.log1p(amount if name == "log1p" else amount / EPSILON)


def restore(z: Tensor, name: str) -> Tensor:
    """Inverse of :func:`transform`; what is below its range becomes 0."""
    if name == "none":
        return z
    z = z.clamp(min=0)
    if name in ("sqrt", "sqrt_dry"):
        return z.square()
    return torch.expm1(z) * (1.0 if name == "log1p" else EPSILON)


def transforms_of(names: Sequence[str], chosen: Mapping[str, str]) -> list[str]:
    """The transform of every channel.

    Raises:
        InputError: an unknown channel or transform.
    """
    for name, value in chosen.items():
        if name not in names:
            raise InputError(f"data.transforms names {name!r}, which is no channel; there are {', '.join(names)}")
        if value not in TRANSFORMS:
            raise InputError(f"data.transforms.{name} is {value!r}; valid are {', '.join(TRANSFORMS)}")
    return [chosen.get(name, "none") for name in names]


class ChannelScaler(nn.Module):
    """Transforms and standardises the channels of fields: z = (t(x) - mean) / std, in single precision.

    Args:
        transforms: name of the transform of every channel.
        mean: of the transformed channels.
        std: of the transformed channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, transforms: Sequence[str], mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.transforms = tuple(transforms)
        self.n_channels = len(self.transforms)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Standardised fields (B, C, H, W) of physical ones."""
        if any(name != "none" for name in self.transforms):
            x = torch.stack([transform(x[:, i], name) for i, name in enumerate(self.transforms)], dim=1)
        return (x - self.mean) / self.std

    def inverse(self, z: Tensor) -> Tensor:
        """Physical fields (B, C, H, W) of standardised ones."""
        x = z * self.std + self.mean
        if any(name != "none" for name in self.transforms):
            x = torch.stack([restore(x[:, i], name) for i, name in enumerate(self.transforms)], dim=1)
        return x
