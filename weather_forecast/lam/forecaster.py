"""A network, what it is fed, and how it is stepped: from windows of fields to forecasts, in physical units."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ai4sim.errors import InputError
from ai4sim.named_tensor import NamedTensor
from ai4sim.normalization import Normalizer
from weather_forecast.lam.bounds import Bounds, Limits
from weather_forecast.lam.domain import DatasetInfo
from weather_forecast.lam.items import SAMPLE_DIMS, ItemBatch, Statics
from weather_forecast.lam.networks.base import LamNetwork
from weather_forecast.lam.strategies import Change, Strategy

Boundary = Literal["truth", "host", "none"]
LEAST_SPREAD = 1e-3  # of a forecast, in units of the usual change: the logarithm of none is not finite
BATCH_DIMS = ["batch", *SAMPLE_DIMS]


@dataclass(frozen=True, eq=False)
class Window:
    """A batch of windows, standardised; features last.

    Attributes:
        states: (B, n_inputs, lat, lon, F) input states.
        targets: (B, T, lat, lon, F_out) states and diagnostics at the target times, NaN where they are missing.
        forcing: (B, T, lat, lon, F_forcing) at the target times.
        host: (B, T, lat, lon, F) the host's fields in the state's channels, standardised as the state is; None where
            the data have no host. Channels without a counterpart are NaN.
    """

    states: Tensor
    targets: Tensor
    forcing: Tensor
    host: Tensor | None


class Forecaster(nn.Module):
    """Steps a network through time on a limited area.

    Args:
        network: takes states, statics and forcing, gives what the strategy makes the next state of.
        info: names, grid and statistics of the data.
        strategy: how outputs become states.
        n_inputs: number of input states.
        boundary: where the border's values come from: ``truth`` (hindcasts), ``host``, or ``none``.
        bounds: physical bounds by feature.
        mask_on_nan: accept missing values: they are fed as 0, with one more channel that says where.
        checkpoint_steps: recompute each step's activations in the backward pass instead of keeping them.
        spread: the network gives a standard deviation of each forecast feature beside it, see :meth:`distribution`.
        clip: keep forecasts within physical limits, see :class:`~weather_forecast.lam.bounds.Limits`.

    Raises:
        InputError: the boundary needs a host and the data have none.
    """

    def __init__(
        self,
        network: LamNetwork,
        info: DatasetInfo,
        strategy: Strategy,
        *,
        n_inputs: int = 1,
        boundary: Boundary = "truth",
        bounds: dict[str, tuple[float | None, float | None]] | None = None,
        mask_on_nan: bool = False,
        checkpoint_steps: bool = False,
        spread: bool = False,
        clip: bool = True,
    ) -> None:
        super().__init__()
        self.network, self.info, self.strategy = network, info, strategy
        self.n_inputs, self.mask_on_nan, self.checkpoint_steps = n_inputs, mask_on_nan, checkpoint_steps
        self.spread = spread
        n_outputs = len(info.outputs)
        self.states = Normalizer(n_outputs).fit(*_moments(info.state_statistics, info.outputs))
        self.changes = Normalizer(n_outputs).fit(*_moments(info.difference_statistics, info.outputs))
        self.solar = Normalizer(1).fit(*_moments(info.solar_statistics, ["toa_radiation"]))
        self.forcings: Normalizer | None = None
        if info.forcing_statistics is not None:
            self.forcings = Normalizer(len(info.forcing)).fit(*_moments(info.forcing_statistics, info.forcing))
        statics = NamedTensor(
            info.static_fields(), ["lat", "lon", "features"], ["x", "y", "geopotential", "border_mask"]
        )
        self.statics = Statics(statics)
        self.bounds = Bounds(info.state, bounds or {})
        self.bounds.build(self.states.mean, self.states.std)
        self.limits = Limits(info.outputs, self.states.mean, self.states.std) if clip else None
        self.boundary: Boundary = "none"
        self.set_boundary(boundary)

    @staticmethod
    def channels(
        info: DatasetInfo, n_inputs: int, *, mask_on_nan: bool = False, spread: bool = False
    ) -> tuple[int, int]:
        """Numbers of channels that a network takes and gives."""
        n_statics = 4
        n_in = n_inputs * len(info.state) + n_statics + len(info.forcing_features) + int(mask_on_nan)
        return n_in, len(info.outputs) * (2 if spread else 1)

    def set_boundary(self, boundary: Boundary) -> None:
        """Choose where the border's values come from.

        Raises:
            InputError: unknown choice, or a host that the data do not have.
        """
        if boundary not in ("truth", "host", "none"):
            raise InputError(f"boundary {boundary!r} is unknown; choose truth, host or none")
        needs_host = boundary == "host" or self.strategy.uses_host
        if needs_host and not self.info.host_matches():
            raise InputError(
                "boundary host needs fields of the host with the names of forecast ones, such as arp_z_500hpa for "
                f"aro_z_500hpa; the forcing has {self.info.forcing or 'none'}"
            )
        self.boundary = boundary

    def window(self, batch: dict[str, Tensor]) -> Window:
        """Standardise a batch as the loader gives it.

        Args:
            batch: ``state`` (B, n_inputs + T, lat, lon, F_out) in physical units, ``forcing`` (the same with the
                host's fields, where there are any), ``clock`` (B, T, 4) and ``toa_radiation`` (B, T, lat, lon) in
                W m-2 at the target times.
        """
        states = self.states(batch["state"])
        n_state = len(self.info.state)
        targets = states[:, self.n_inputs :]
        solar = self.solar(batch["toa_radiation"].unsqueeze(-1))
        clock = batch["clock"][:, :, None, None].expand(*solar.shape[:-1], -1)
        parts, host = [clock, solar], None
        if self.forcings is not None:
            fields = batch["forcing"][:, self.n_inputs :]
            parts.insert(0, self.forcings(fields))
            if pairs := self.info.host_matches():
                own, theirs = (list(index) for index in zip(*pairs, strict=True))
                host = torch.full_like(targets[..., :n_state], torch.nan)
                host[..., own] = (fields[..., theirs] - self.states.mean[own]) / self.states.std[own]
        return Window(states[:, : self.n_inputs, ..., :n_state], targets, torch.cat(parts, dim=-1), host)

    def item_batch(self, batch: dict[str, Tensor], times: Any) -> ItemBatch:
        """The batch with names, standardised: what observers and plugins look at."""
        window = self.window(batch)
        n_state = len(self.info.state)
        return ItemBatch(
            NamedTensor(window.states, BATCH_DIMS, self.info.state),
            NamedTensor(window.forcing, BATCH_DIMS, self.info.forcing_features),
            NamedTensor(window.targets, BATCH_DIMS, self.info.outputs[: n_state + len(self.info.diagnostics)]),
            times,
        )

    def forward(self, window: Window, n_steps: int | None = None) -> Tensor:
        """Forecast.

        Args:
            window: standardised batch.
            n_steps: number of steps; by default all that there are targets for.

        Returns:
            (B, n_steps, lat, lon, F_out), standardised.
        """
        return self.distribution(window, n_steps)[0]

    def distribution(self, window: Window, n_steps: int | None = None) -> tuple[Tensor, Tensor | None]:
        """Forecast and its standard deviation, where the network gives one.

        The forecast alone is fed back; its standard deviation is what the network says of its error at that lead time,
        in units of the usual change over a step and through a softplus.

        Args:
            window: standardised batch.
            n_steps: number of steps; by default all that there are targets for.

        Returns:
            (B, n_steps, lat, lon, F_out) each, standardised; None for a network without spread.
        """
        n_steps = window.forcing.shape[1] if n_steps is None else n_steps
        n_state = len(self.info.state)
        history = list(window.states.unbind(1))
        outputs = []
        for k in range(n_steps):
            outside = self._outside(window, k)
            arguments = (history, window.forcing[:, k], outside)
            if self.checkpoint_steps and torch.is_grad_enabled():
                result = checkpoint(self.step, *arguments, use_reentrant=False)
            else:
                result = self.step(*arguments)
            outputs.append(result)
            history = [*history[1:], result[..., :n_state]]
        forecast = torch.stack(outputs, dim=1)
        if not self.spread:
            return forecast, None
        mean, raw = forecast.chunk(2, dim=-1)
        return mean, self.changes.std * (functional.softplus(raw) + LEAST_SPREAD)

    def _outside(self, window: Window, k: int) -> Tensor | None:
        """The state outside at a target time, NaN where it is not known; None when nothing comes in."""
        if self.strategy.uses_host:
            return self._host(window, k)
        if self.boundary == "none" or not self.strategy.uses_boundary:
            return None
        if self.boundary == "host":
            return self._host(window, k)
        return window.targets[:, k, ..., : len(self.info.state)]

    @staticmethod
    def _host(window: Window, k: int) -> Tensor:
        assert window.host is not None, "set_boundary refuses data without a host"
        return window.host[:, k]

    def step(self, history: list[Tensor], forcing: Tensor, outside: Tensor | None) -> Tensor:
        """The next state and its diagnostics (B, lat, lon, F_out), and the network's values for their spread behind."""
        n_state, n_outputs = len(self.info.state), len(self.info.outputs)
        statics = self.statics.fields.expand(forcing.shape[0], -1, -1, -1)
        border = self.statics.border_mask
        if outside is not None:
            known = torch.isfinite(outside)
            border = border * known
            outside = torch.where(known, outside, 0)
        diagnostics: list[Tensor] = []
        raw_spread: list[Tensor] = []

        def advance(state: Tensor) -> Tensor:
            parts = [*history[:-1], state, statics, forcing]
            x = torch.cat(parts, dim=-1)
            if self.mask_on_nan:
                missing = torch.isnan(x)
                x = torch.cat([torch.where(missing, 0, x), missing.any(-1, keepdim=True).to(x)], dim=-1)
            # states stay in full precision, whatever autocast does to the layers
            y = self.network.on_grid(x).to(state.dtype)
            diagnostics[:] = [self._limited(y[..., n_state:n_outputs], n_state)]
            raw_spread[:] = [y[..., n_outputs:]]
            return y[..., :n_state]

        last = history[-1]
        if self.mask_on_nan:
            last = torch.where(torch.isnan(last), 0, last)
        change = Change(self.changes.mean[:n_state], self.changes.std[:n_state], self._add)
        state = self.strategy.step(advance, last, outside, border, change)
        more = [part for part in (*diagnostics, *raw_spread) if part.shape[-1]]
        return torch.cat([state, *more], dim=-1) if more else state

    def _add(self, state: Tensor, change: Tensor) -> Tensor:
        return self._limited(self.bounds(state, change))

    def _limited(self, features: Tensor, start: int = 0) -> Tensor:
        return features if self.limits is None else self.limits(features, start)

    def physical(self, forecast: Tensor) -> Tensor:
        """A standardised forecast (..., F_out) in physical units."""
        return self.states.inverse(forecast)

    def physical_spread(self, spread: Tensor) -> Tensor:
        """The standard deviation (..., F_out) of a standardised forecast in physical units."""
        return spread * self.states.std


def _moments(statistics: Any, names: list[str]) -> tuple[Any, Any]:
    return statistics.mean, statistics.usable_std(names)
