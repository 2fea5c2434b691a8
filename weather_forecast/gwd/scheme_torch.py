"""The gravity-wave scheme of ``scheme.py`` in PyTorch: differentiable, and on any device.

Every operation is out of place, so forward and reverse mode (``torch.func.jvp``, ``torch.func.vjp``) give the
scheme's tangent-linear and adjoint code; at kinks (saturation, critical levels) it is the one-sided
derivative of the branch that was taken.
"""

import torch
from torch import Tensor, nn

from weather_forecast.gwd import config
from weather_forecast.gwd.spectrum import SchemeParameters, azimuths, phase_speeds


class GravityWaveDrag(nn.Module):
    """Accelerations of columns by non-orographic gravity waves.

    Computes in the precision of its inputs. Inputs are not checked for values, which would depend on data and
    stop export; see :func:`weather_forecast.gwd.scheme.gravity_wave_drag` for the conditions.

    Args:
        parameters: settings; by default those of :class:`SchemeParameters`.
    """

    c: Tensor
    weight: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(self, parameters: SchemeParameters | None = None) -> None:
        super().__init__()
        self.settings = parameters or SchemeParameters()
        c, dc = phase_speeds(self.settings)
        cos, sin, factor = azimuths(self.settings.n_azimuths)
        self.factor = factor
        for name, values in (
            ("c", c),
            ("weight", dc * c ** (self.settings.frequency_exponent - 2)),
            ("cos", cos),
            ("sin", sin),
        ):
            self.register_buffer(name, torch.from_numpy(values.copy()), persistent=False)

    def forward(
        self,
        u: Tensor,
        v: Tensor,
        t: Tensor,
        half_pressure: Tensor,
        latitude: Tensor | None = None,
        geopotential: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Zonal and meridional tendencies, (n, L) each in m s-2.

        Args:
            u: (n, L) zonal wind, m/s, levels 1..L with L the launch level.
            v: (n, L) meridional wind, m/s.
            t: (n, L) temperature, K.
            half_pressure: (n, L+1) Pa.
            latitude: (n,) degrees north; without it the launch flux has no tropical reduction.
            geopotential: (n, L) m2 s-2; without it the hydrostatic one of dry air.

        Raises:
            ValueError: shapes that do not fit.
        """
        for name, x, extra in (("v", v, 0), ("t", t, 0), ("half_pressure", half_pressure, 1)):
            expected = (u.shape[0], u.shape[1] + extra)
            if tuple(x.shape) != expected:
                raise ValueError(f"{name} has the shape {tuple(x.shape)}; it must be {expected}")
        density, n = self._stratification(t, half_pressure, geopotential)
        cos, sin = self.cos.to(u)[:, None], self.sin.to(u)[:, None]
        launch_u, launch_v = (_to_half_levels(x)[:, -1:] for x in (u, v))
        full_wind = cos * (u - launch_u)[:, None] + sin * (v - launch_v)[:, None]  # (n, azimuth, L)
        flux, critical, speed = self._propagate(_to_half_levels(full_wind), density, n)

        scale = (self._launch_flux(u, latitude) / flux[-1][:, 0])[:, None]
        flux = [scale * x for x in flux]
        critical = [scale * x for x in critical]
        if self.settings.cap != "none":
            flux = self._cap(flux, critical, speed, full_wind, half_pressure)

        zero = torch.zeros_like(flux[0])
        top = flux[0] if self.settings.lid == "open" else zero
        profile = torch.stack([top, *flux, zero], dim=-1)  # (n, azimuth, L+1)
        per_mass = config.GRAVITY / torch.diff(half_pressure)
        dudt, dvdt = (torch.diff((self.factor * direction * profile).sum(dim=1)) * per_mass for direction in (cos, sin))
        return dudt, dvdt

    def _launch_flux(self, like: Tensor, latitude: Tensor | None) -> Tensor:
        """Flux launched in each azimuth, (n,) in Pa (Orr et al. 2010, section 2)."""
        p = self.settings
        if latitude is None:
            return torch.full_like(like[:, 0], p.launch_flux)
        gauss = torch.exp(-((latitude / p.tropical_width) ** 2) / 2)
        return p.launch_flux * (1 + p.tropical_reduction * gauss)

    def _stratification(self, t: Tensor, half: Tensor, geopotential: Tensor | None) -> tuple[Tensor, Tensor]:
        """Density and buoyancy frequency at the half-levels 2..L, (n, L-1)."""
        t_half = (t[:, 1:] + t[:, :-1]) / 2
        if geopotential is None:
            rt = config.GAS_CONSTANT * t
            r, alpha = _hydrostatic_weights(half)
            thickness = (rt * (r - alpha))[:, 1:] + (rt * alpha)[:, :-1]
        else:
            thickness = -torch.diff(geopotential)
        cp = config.HEAT_CAPACITY
        n2 = config.GRAVITY**2 / (cp * t_half) * (1 - cp * torch.diff(t) / thickness)
        density = half[:, 1:-1] / (config.GAS_CONSTANT * t_half)
        return density, torch.sqrt(n2.clamp(min=self.settings.min_stability))

    def _propagate(self, wind: Tensor, density: Tensor, n: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Carry the spectrum from the launch level to the top.

        The state is ``root = (F c^(2-p) / (A C*))^(1/(3-p))`` as in ``scheme.py``.

        Args:
            wind: (n, n_azimuths, L) at half-levels, relative to the launch half-level.
            density: (n, L-1) at the half-levels 2..L.
            n: (n, L-1) buoyancy frequency there.

        Returns:
            Momentum flux in units of A C*, flux lost at critical levels, and the flux-weighted mean phase
            speed of the last such loss below: for the half-levels 2..L, (n, n_azimuths) each.
        """
        p = self.settings
        power = 3 - p.frequency_exponent
        c, weight = self.c.to(wind), self.weight.to(wind)
        slope = (density / n) ** (1 / power)
        m = p.characteristic_wavenumber * c / n[:, -1:]
        launch = (density / n)[:, -1:] * c / (1 + m ** (p.slope + 3)) / p.saturation
        root = ((launch * c ** (2 - p.frequency_exponent)) ** (1 / power))[:, None].expand(-1, p.n_azimuths, -1)
        in_bin = root**power * weight  # (n, azimuth, speed)
        highest = torch.full_like(wind[..., 0], p.min_speed)
        flux, critical, speed = [in_bin.sum(-1)], [torch.zeros_like(highest)], [torch.zeros_like(highest)]
        for k in range(wind.shape[-1] - 2, 0, -1):
            highest = torch.maximum(highest, wind[..., k])
            lost = torch.where(c < highest[..., None], in_bin, 0.0)
            loss = lost.sum(-1)
            met = loss > 0
            mean = (lost * c).sum(-1) / torch.where(met, loss, 1.0)
            critical.append(loss)
            speed.append(torch.where(met, mean, speed[-1]))

            b = slope[:, k - 1, None, None]
            root = torch.minimum(root, c * b - wind[..., k, None] * b).clamp(min=0)
            in_bin = root**power * weight
            flux.append(in_bin.sum(-1))
        return flux[::-1], critical[::-1], speed[::-1]

    def _cap(
        self,
        flux: list[Tensor],
        critical: list[Tensor],
        speed: list[Tensor],
        full_wind: Tensor,
        half: Tensor,
    ) -> list[Tensor]:
        """Bound the deposition at critical levels by what one time step allows; hand the rest downward."""
        p = self.settings
        sign = 1 if p.cap == "physical" else -1
        mass = torch.diff((half[:, 1:] + half[:, :-1]) / 2) * (2 * sign / (config.GRAVITY * p.time_step))
        carry = torch.zeros_like(flux[0])
        capped = [flux[0]]
        # lists start at half-level 2: entry i belongs to the half-level on top of layer i + 2
        for i in range(len(flux) - 1):
            demand = critical[i] + carry
            room = mass[:, i + 1, None] * (speed[i] - full_wind[..., i + 2])
            carry = demand - torch.minimum(demand, room).clamp(min=0)
            capped.append(flux[i + 1] - carry)
        return capped


def _to_half_levels(x: Tensor) -> Tensor:
    """Mean of the levels above and below each half-level 1..L; half-level 1 takes the value of level 1."""
    return torch.cat([x[..., :1], (x[..., 1:] + x[..., :-1]) / 2], dim=-1)


def _hydrostatic_weights(half: Tensor) -> tuple[Tensor, Tensor]:
    """Weights r and alpha, see :func:`weather_forecast.gwd.levels.hydrostatic_weights`."""
    top, bottom = half[:, :-1], half[:, 1:]
    bounded = top > 0
    r = torch.log(bottom / torch.where(bounded, top, bottom))
    alpha = torch.where(bounded, 1 - top / (bottom - top) * r, torch.log(torch.full_like(top, 2.0)))
    return r, alpha
