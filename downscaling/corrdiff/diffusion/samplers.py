"""Samples of a distribution from noise, by means of its denoiser.

All solve dx/ds = (x - D(x; s)) / s from a large noise level s down to 0 (Karras et al. 2022, eq. 3).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal, Protocol

import torch
from torch import Tensor

from ai4sim.errors import InputError
from downscaling.corrdiff.diffusion.schedule import Schedule

Denoise = Callable[[Tensor, Tensor], Tensor]
"""Maps noisy images (B, C, H, W) and their noise levels (B,) to expected images (B, C, H, W)."""

State = Literal["float64", "float32"]
STATES: Final = {"float64": torch.float64, "float32": torch.float32}
LARGEST_CHURN: Final = math.sqrt(2) - 1


class Noise(Protocol):
    """Where random numbers come from."""

    def draw(self) -> Tensor:
        """The next random numbers (B, C, H, W), of scale 1."""


class Sampler(ABC):
    """Turns noise into samples. Subclasses are chosen in the configuration.

    Attributes:
        schedule: noise levels.
        state: type in which the images are kept between calls of the denoiser.
    """

    schedule: Schedule
    state: State

    @property
    @abstractmethod
    def calls(self) -> int:
        """How often the denoiser is called for a sample."""

    def sample(self, denoise: Denoise, noise: Noise) -> Tensor:
        """Draw samples; the caller chooses the inference mode and the precision of the network.

        Args:
            denoise: the denoiser.
            noise: first gives what the samples are made of, then what the sampler adds on its way, if it does.

        Returns:
            (B, C, H, W) in the type ``state``.

        Raises:
            ValueError: a denoiser that gives another shape.
        """
        times = self.schedule.times()
        x = times[0] * noise.draw().to(STATES[self.state])

        def call(x: Tensor, sigma: float) -> Tensor:
            denoised = denoise(x, x.new_full((len(x),), sigma))
            if denoised.shape != x.shape:
                raise ValueError(f"the denoiser gave the shape {tuple(denoised.shape)} for images {tuple(x.shape)}")
            return denoised.to(x.dtype)

        return self._go(call, x, times, noise)

    @abstractmethod
    def _go(self, call: Callable[[Tensor, float], Tensor], x: Tensor, times: list[float], noise: Noise) -> Tensor:
        """From the first noise level to 0."""


def _require_state(state: str) -> None:
    if state not in STATES:
        raise InputError(f"unknown state {state!r}; valid are {', '.join(STATES)}")


@dataclass(frozen=True)
class HeunSampler(Sampler):
    """Heun's method, of second order, with or without fresh noise (Karras et al. 2022, Algorithms 1 and 2).

    Without ``s_churn`` the same first noise gives the same sample. Karras et al. use 40, 0.05, 50 and 1.003 for images.

    Args:
        schedule: noise levels.
        s_churn: how much noise is replaced on the way, in all; at every step it raises the noise level by the factor
            s_churn/N, at most sqrt(2) - 1.
        s_min: smallest noise level at which it is.
        s_max: largest; by default there is none.
        s_noise: standard deviation of the fresh noise; slightly above 1 against a loss of detail.
        state: type of the images, see `Sampler`.

    Raises:
        InputError: a negative s_churn or s_min, an s_noise that is not above 0, an s_max below s_min.
    """

    schedule: Schedule = field(default_factory=Schedule)
    s_churn: float = 0.0
    s_min: float = 0.0
    s_max: float | None = None
    s_noise: float = 1.0
    state: State = "float64"

    def __post_init__(self) -> None:
        _require_state(self.state)
        for name, value in (("s_churn", self.s_churn), ("s_min", self.s_min)):
            if not value >= 0:
                raise InputError(f"{name} is {value:g}; expected at least 0")
        if not self.s_noise > 0:
            raise InputError(f"s_noise is {self.s_noise:g}; expected above 0")
        if self.s_max is not None and not self.s_max >= self.s_min:
            raise InputError(f"s_min and s_max are {self.s_min:g} and {self.s_max:g}; expected s_min <= s_max")

    @property
    def calls(self) -> int:
        """2 N - 1: the last step, to 0, is one of Euler's."""
        return 2 * self.schedule.num_steps - 1

    def _go(self, call: Callable[[Tensor, float], Tensor], x: Tensor, times: list[float], noise: Noise) -> Tensor:
        churn = min(self.s_churn / self.schedule.num_steps, LARGEST_CHURN)
        for start, end in pairwise(times):
            time = start
            if churn > 0 and self.s_min <= start and (self.s_max is None or start <= self.s_max):
                time = start * (1 + churn)
                fresh = noise.draw().to(x.dtype)
                x = x + math.sqrt(time**2 - start**2) * self.s_noise * fresh
            slope = (x - call(x, time)) / time
            ahead = x + (end - time) * slope
            if end > 0:
                slope = (slope + (ahead - call(ahead, end)) / end) / 2
                ahead = x + (end - time) * slope
            x = ahead
        return x


@dataclass(frozen=True)
class EulerSampler(Sampler):
    """Euler's method, of first order: samples have too little spread, see `sampler_report`.

    Args:
        schedule: noise levels.
        state: type of the images, see `Sampler`.
    """

    schedule: Schedule = field(default_factory=Schedule)
    state: State = "float64"

    def __post_init__(self) -> None:
        _require_state(self.state)

    @property
    def calls(self) -> int:
        """N."""
        return self.schedule.num_steps

    def _go(self, call: Callable[[Tensor, float], Tensor], x: Tensor, times: list[float], noise: Noise) -> Tensor:
        for start, end in pairwise(times):
            x = x + (end - start) / start * (x - call(x, start))
        return x


@dataclass(frozen=True)
class DpmSolver2M(Sampler):
    """DPM-Solver++(2M): of second order with one call a step (Lu et al. 2022, arXiv 2211.01095, Algorithm 2).

    Args:
        schedule: noise levels.
        state: type of the images, see `Sampler`.
    """

    schedule: Schedule = field(default_factory=Schedule)
    state: State = "float64"

    def __post_init__(self) -> None:
        _require_state(self.state)

    @property
    def calls(self) -> int:
        """N."""
        return self.schedule.num_steps

    def _go(self, call: Callable[[Tensor, float], Tensor], x: Tensor, times: list[float], noise: Noise) -> Tensor:
        before: tuple[Tensor, float] | None = None
        for start, end in pairwise(times[:-1]):
            denoised = call(x, start)
            step = math.log(start / end)
            target = denoised
            if before is not None:
                # extrapolated to the middle of the step
                last, last_step = before
                target = denoised + step / (2 * last_step) * (denoised - last)
            x = end / start * x - math.expm1(-step) * target
            before = denoised, step
        return call(x, times[-2])
