"""Forecast values that stay within physical bounds, however the network changes them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ai4sim.errors import InputError
from weather_forecast.lam.parameters import Parameter

_EDGE = 1e-4  # of the standardised unit: how near to a bound a value may come before it is moved off


class Bounds(nn.Module):
    """Adds changes to a standardised state so that bounded features stay within their bounds.

    ``X' = c(c^-1(X) + delta)`` with c a softplus above a lower bound, or a sigmoid between two; plain addition for all
    other features.

    Args:
        names: of the state's features.
        bounds: lower and upper bound in physical units by feature; None where there is none.
    """

    lower: Tensor
    width: Tensor

    def __init__(self, names: Sequence[str], bounds: Mapping[str, tuple[float | None, float | None]]) -> None:
        super().__init__()
        for name, (lower, upper) in bounds.items():
            if name not in names:
                raise InputError(f"bounds are given for {name!r}, which is not forecast; valid are {', '.join(names)}")
            if lower is None or (upper is not None and upper <= lower):
                raise InputError(f"bounds of {name!r}: [{lower}, {upper}]; give a lower one and maybe a larger upper")
        self.bounds = {name: tuple(pair) for name, pair in bounds.items()}
        self.one_sided = [names.index(name) for name, (_, upper) in bounds.items() if upper is None]
        self.two_sided = [names.index(name) for name, (_, upper) in bounds.items() if upper is not None]
        self.names = list(names)
        self.register_buffer("lower", torch.zeros(len(names)), persistent=False)
        self.register_buffer("width", torch.ones(len(names)), persistent=False)

    def build(self, mean: Tensor, std: Tensor) -> None:
        """Set the bounds in standardised units from mean and standard deviation of the features, (F,) each."""
        for name, (lower, upper) in self.bounds.items():
            i = self.names.index(name)
            self.lower[i] = (float(lower or 0.0) - mean[i]) / std[i]
            if upper is not None:
                self.width[i] = (float(upper) - float(lower or 0.0)) / std[i]

    def forward(self, state: Tensor, change: Tensor) -> Tensor:
        """The state (..., F) plus its change, within the bounds."""
        result = state + change
        if not self.bounds:
            return result
        columns = list(result.unbind(-1))
        for i in self.one_sided:
            above = (state[..., i] - self.lower[i]).clamp(min=_EDGE)
            # inverse of softplus, in the form that is exact for large values
            free = above + torch.log(-torch.expm1(-above))
            columns[i] = self.lower[i] + functional.softplus(free + change[..., i])
        for i in self.two_sided:
            edge = _EDGE / self.width[i]
            part = ((state[..., i] - self.lower[i]) / self.width[i]).clamp(min=edge, max=1 - edge)
            # 4/width is the slope of the logit in the middle: small changes there are taken as they are
            free = torch.logit(part) + change[..., i] * 4 / self.width[i]
            columns[i] = self.lower[i] + self.width[i] * torch.sigmoid(free)
        return torch.stack(columns, dim=-1)


class Limits(nn.Module):
    """Keeps forecasts within what is physical: no negative rain, no humidity above 100 %.

    In training nothing is done: where a value is cut off, nothing can be learnt.

    Args:
        names: of the features; their limits are those of :data:`weather_forecast.lam.config.FIELDS`.
        mean: (F,) of the features.
        std: (F,) of the features.
    """

    lower: Tensor
    upper: Tensor

    def __init__(self, names: Sequence[str], mean: Tensor, std: Tensor) -> None:
        super().__init__()
        fields = [Parameter.parse(name).field for name in names]
        lower = torch.tensor([-torch.inf if field.lower is None else field.lower for field in fields]).to(mean)
        upper = torch.tensor([torch.inf if field.upper is None else field.upper for field in fields]).to(mean)
        self.register_buffer("lower", (lower - mean) / std, persistent=False)
        self.register_buffer("upper", (upper - mean) / std, persistent=False)

    def forward(self, features: Tensor, start: int = 0) -> Tensor:
        """Standardised features (..., n) within their limits; the first of them is number `start`."""
        if self.training:
            return features
        part = slice(start, start + features.shape[-1])
        return features.clamp(self.lower[part], self.upper[part])
