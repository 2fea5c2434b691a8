"""Whether a sampler gives every scale of the residual its spread."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ai4sim.errors import InputError
from downscaling.corrdiff.diffusion.closed_form import spread_gain
from downscaling.corrdiff.diffusion.samplers import Sampler

TOLERANCE: Final = 0.10
"""Error of a band's spread above which there is a warning."""
MEAN_BAND: Final = "domain mean"


def residual_modes(residual: Tensor, spacing_km: float) -> tuple[Tensor, Tensor]:
    """Standard deviation of every orthonormal Fourier mode of fields: the root of the mean of abs(FFT)².

    White noise of standard deviation 1 has 1 in all modes.

    Args:
        residual: (n, C, H, W), scaled as the diffusion sees it.
        spacing_km: distance of points.

    Returns:
        Standard deviations (C, H W), and wavelengths (H W,) in km, infinite for the mean.
    """
    height, width = residual.shape[-2:]
    power = torch.fft.fft2(residual.double(), norm="ortho").abs().square().mean(0)
    rows, columns = (torch.fft.fftfreq(size, spacing_km, dtype=torch.float64) for size in (height, width))
    wavelengths = 1 / torch.hypot(rows[:, None], columns)
    return power.sqrt().flatten(1), wavelengths.flatten()


def octave_of(wavelengths: Tensor, finest: float) -> Tensor:
    """Numbers of octaves: 0 up to twice the finest wavelength, 1 up to four times, ...; infinite for the mean.

    Waves that are shorter, as those along the diagonals of a grid are, belong to the first. That of the length of the
    domain belongs to the last, which it ends.
    """
    octave = torch.ceil(torch.log2(wavelengths / finest) - 1e-9) - 1
    return octave.clamp(min=0).where(wavelengths.isfinite(), math.inf)


@dataclass(frozen=True)
class Band:
    """What a sampler makes of the modes in a band of wavelengths.

    Attributes:
        channel: of the residual.
        shortest: wavelength, which the band does not hold, unless it is the first; infinite for the domain's mean.
        longest: wavelength, twice the shortest.
        std: root-mean-square of the modes' standard deviations.
        gain: ratio of the samples' standard deviation to the true one, over the band.
        units: of the wavelengths.
    """

    channel: str
    shortest: float
    longest: float
    std: float
    gain: float
    units: str = "km"

    @property
    def wrong(self) -> bool:
        """Whether the spread is off by more than a tenth."""
        return abs(self.gain - 1) > TOLERANCE

    @property
    def name(self) -> str:
        """Wavelengths, as text."""
        return MEAN_BAND if math.isinf(self.longest) else f"{self.shortest:.4g}-{self.longest:.4g} {self.units}"


@dataclass(frozen=True)
class SamplerReport:
    """Spread of samples by scale.

    Attributes:
        bands: of every channel, from short waves to long ones.
        advice: what is wrong with the sampler's settings, and what to do.
    """

    bands: tuple[Band, ...]
    advice: tuple[str, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Bands that are wrong, and the advice."""
        wrong = (
            f"{band.channel}, {band.name}: samples have {band.gain:.0%} of the residual's standard deviation"
            for band in self.bands
            if band.wrong
        )
        return *wrong, *self.advice

    def __str__(self) -> str:
        """A table, in which bands that are wrong are marked, and the advice below it."""
        head = ("channel", "wavelengths", "mode std", "gain", "")
        body = [(b.channel, b.name, f"{b.std:.4g}", f"{b.gain:.3f}", "!" if b.wrong else "") for b in self.bands]
        widths = [max(len(row[i]) for row in (head, *body)) for i in range(5)]
        lines = [
            "  ".join(
                text.ljust(w) if i < 2 else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in (head, *body)
        ]
        if any(band.wrong for band in self.bands):
            lines.append(f"!: the spread is off by more than {TOLERANCE:.0%}")
        return "\n".join([line.rstrip() for line in lines] + list(self.advice))


def sampler_report(
    std_of_modes: Tensor,
    wavelengths: Tensor,
    sampler: Sampler,
    channels: Sequence[str] = (),
    *,
    finest: float | None = None,
    units: str = "km",
) -> SamplerReport:
    """Judge a sampler by the residual it has to give, as if that were normal: see `spread_gain`.

    It warns where a band of one octave has a spread that is off by more than a tenth, and of a sigma_max below five
    times the largest mode, or a sigma_min above a third of the smallest band's.

    Args:
        std_of_modes: (C, n) standard deviations of the scaled residual's modes, see `residual_modes`.
        wavelengths: (n,) of the modes, infinite for the mean.
        sampler: to be judged.
        channels: names; by default numbers.
        finest: wavelength from which the first octave begins, see `octave_of`; by default the shortest.
        units: of the wavelengths.

    Raises:
        InputError: modes that are not finite or whose numbers do not agree, or a channel without any variance.
    """
    std_of_modes, wavelengths = std_of_modes.double().cpu(), wavelengths.double().cpu()
    if std_of_modes.ndim != 2 or wavelengths.shape != std_of_modes.shape[1:]:
        raise InputError(
            f"modes have the shape {tuple(std_of_modes.shape)}, their wavelengths {tuple(wavelengths.shape)};"
            f" expected (C, n) and (n,)"
        )
    names = list(channels) or [str(number) for number in range(len(std_of_modes))]
    if len(names) != len(std_of_modes):
        raise InputError(f"{len(names)} names for {len(std_of_modes)} channels")
    for name, own in zip(names, std_of_modes, strict=True):
        if not own.isfinite().all() or not own.any():
            raise InputError(f"the residual of {name} is not finite, or is 0 everywhere")
    finest = float(wavelengths.min()) if finest is None else finest
    octave = octave_of(wavelengths, finest)
    bands: list[Band] = []
    for name, own in zip(names, std_of_modes, strict=True):
        gains = _gains(sampler, own)
        for number in octave.unique().tolist():
            chosen = octave == number
            power = own[chosen].square()
            if not power.any():
                continue
            gain = float(((gains[chosen].square() * power).sum() / power.sum()).sqrt())
            shortest = finest * 2.0**number
            bands.append(Band(name, shortest, 2 * shortest, float(power.mean().sqrt()), gain, units))
    return SamplerReport(tuple(bands), tuple(_advice(bands, std_of_modes, names, sampler)))


def _gains(sampler: Sampler, std: Tensor) -> Tensor:
    """The sampler's filter at many modes, interpolated: it is smooth in the logarithm of their standard deviation."""
    positive = std[std > 0]
    low, high = float(positive.min().log()), float(positive.max().log())
    nodes = torch.linspace(low, max(high, low + 1e-9), 400, dtype=torch.float64)
    gains = spread_gain(sampler, nodes.exp())
    return torch.from_numpy(np.interp(std.clamp(min=float(positive.min())).log(), nodes, gains))


def _advice(bands: Sequence[Band], stds: Tensor, names: Sequence[str], sampler: Sampler) -> list[str]:
    schedule = sampler.schedule
    found = []
    largest = stds.amax(1)
    channel = int(largest.argmax())
    if schedule.sigma_max < 5 * largest[channel]:
        found.append(
            f"sigma_max {schedule.sigma_max:g} is below 5 times the largest mode of {names[channel]}, of standard"
            f" deviation {float(largest[channel]):.3g}: take {float(5 * largest[channel]):.2g} or more"
        )
    finest = min(bands, key=lambda band: band.std)
    if schedule.sigma_min > finest.std / 3:
        found.append(
            f"sigma_min {schedule.sigma_min:g} is above a third of the standard deviation {finest.std:.3g} of"
            f" {finest.channel} at {finest.name}: take {finest.std / 3:.2g} or less if this scale is to be right"
        )
    return found
