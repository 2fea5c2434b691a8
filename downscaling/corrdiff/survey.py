"""How much the scaled residual varies at every scale: what a sampler must be able to give."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from downscaling.corrdiff.diffusion import Sampler, SamplerReport, residual_modes, sampler_report


@dataclass(frozen=True, eq=False)
class ScaleSurvey:
    """Standard deviations of the residual's Fourier modes, averaged over octaves of wavelength.

    Args:
        std: (channel, octave), of the scaled residual.
        wavelength: (octave,) in the middle of each, km; infinite for the mean of the domain.
    """

    std: Tensor
    wavelength: Tensor

    def report(self, sampler: Sampler, channels: list[str]) -> SamplerReport:
        """What a sampler makes of such a residual."""
        return sampler_report(self.std, self.wavelength, sampler, channels)

    def to_dict(self) -> dict[str, Any]:
        """Tensors, for a checkpoint."""
        return {"std": self.std, "wavelength": self.wavelength}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Inverse of `to_dict`."""
        return cls(values["std"], values["wavelength"])


class Surveyor:
    """Measures modes while residuals pass by.

    Args:
        spacing_km: distance of points; NaN, as where it is not known, counts as 1.
    """

    def __init__(self, spacing_km: float) -> None:
        self._spacing = 1.0 if math.isnan(spacing_km) else spacing_km
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
        octave = torch.floor(torch.log2(wavelengths / wavelengths.min()) + 1e-9)
        stds, middles = [], []
        for number in octave.unique():
            chosen = octave == number
            stds.append(power[:, chosen].mean(1).sqrt())
            middles.append(float(wavelengths[chosen].log().mean().exp()))
        return ScaleSurvey(torch.stack(stds, dim=1), torch.tensor(middles, dtype=torch.float64))
