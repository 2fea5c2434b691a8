"""How much the scaled residual varies at every scale: what a sampler must be able to give."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor

from downscaling.corrdiff.diffusion import Sampler, SamplerReport, octave_of, residual_modes, sampler_report


@dataclass(frozen=True, eq=False)
class ScaleSurvey:
    """Standard deviations of the residual's Fourier modes, averaged over octaves of wavelength.

    Args:
        std: (channel, octave), of the scaled residual.
        wavelength: (octave,) in the middle of each; infinite for the mean of the domain.
        finest: wavelength, two points, from which the first octave begins.
        units: of the wavelengths.
    """

    std: Tensor
    wavelength: Tensor
    finest: float | None = None
    units: str = "km"

    def report(self, sampler: Sampler, channels: list[str]) -> SamplerReport:
        """What a sampler makes of such a residual."""
        return sampler_report(self.std, self.wavelength, sampler, channels, finest=self.finest, units=self.units)

    def to_dict(self) -> dict[str, Any]:
        """Plain values and tensors, for a checkpoint."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Inverse of `to_dict`."""
        return cls(**values)


class Surveyor:
    """Measures modes while residuals pass by.

    Args:
        spacing_km: distance of points; NaN, as where it is not known, lets wavelengths be in points.
    """

    def __init__(self, spacing_km: float) -> None:
        self._spacing, self._units = (1.0, "points") if math.isnan(spacing_km) else (spacing_km, "km")
        self._power: Tensor | None = None
        self._wavelengths: Tensor | None = None
        self._n = 0

    def watch(self, residuals: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Give on what comes, residuals (B, C, H, W) and where they are known; those with gaps are not measured."""
        for residual, known in residuals:
            whole = residual[known.flatten(1).all(1)]
            if len(whole):
                std, self._wavelengths = residual_modes(whole.cpu(), self._spacing)
                power = std.square() * len(whole)
                self._power = power if self._power is None else self._power + power
                self._n += len(whole)
            yield residual, known

    def result(self, factor: Tensor) -> ScaleSurvey | None:
        """What was measured, for residuals that are scaled by factors (C, 1, 1); None where all had gaps."""
        if self._power is None or self._wavelengths is None:
            return None
        power, wavelengths = self._power / self._n * factor.cpu().double().flatten(1).square(), self._wavelengths
        octave = octave_of(wavelengths, 2 * self._spacing)
        stds, middles = [], []
        for number in octave.unique():
            chosen = octave == number
            stds.append(power[:, chosen].mean(1).sqrt())
            middles.append(float(wavelengths[chosen].log().mean().exp()))
        middle = torch.tensor(middles, dtype=torch.float64)
        return ScaleSurvey(torch.stack(stds, dim=1), middle, 2 * self._spacing, self._units)
