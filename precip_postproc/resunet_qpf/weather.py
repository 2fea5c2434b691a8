"""The demo's weather, its forecasts and its analyses, with what the ideal probability needs.

A latent of stratiform and convective fields, large-scale wetness, diurnal cycle and orographic effect becomes hourly
precipitation where it is above a threshold. A forecast has the same latent fields, displaced as a whole and partly
replaced by others of the same spectrum: as sharp as the truth and wrong by tens of kilometres. Besides, it drizzles,
its heavy amounts are too light, its orography is too smooth and its convection too early.

Everything follows from the seed and the dates, whatever is asked for and in which order.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf import amounts, radar
from precip_postproc.resunet_qpf.latent import LatentFields, LatentState
from precip_postproc.resunet_qpf.orographic import transfer_function
from precip_postproc.resunet_qpf.periodic import PeriodicGrid, Spectrum
from precip_postproc.resunet_qpf.random_fields import Stream, WaveAmplitudes, blend, make_rng
from precip_postproc.resunet_qpf.regime import STEP, WETNESS_SPREAD, Regime, RegimeSeries, step_of, time_of
from precip_postproc.resunet_qpf.terrain import MODEL_SMOOTHING, describe_terrain, make_height
from precip_postproc.resunet_qpf.terrain_file import Terrain

Float = NDArray[np.float32]

# Orographic term of the latent
OROGRAPHIC_EFFECT = 0.7
OROGRAPHIC_SATURATION = 1.5  # mm h-1
MODEL_OROGRAPHY = 0.55  # of the true effect
MOISTURE_GROWTH = 0.25  # of the logarithm of orographic precipitation per unit of moisture
# Diurnal term
DIURNAL = 0.35
PEAK_HOUR = 23  # UTC
MODEL_PEAK_HOUR = 19  # UTC


@dataclass(frozen=True)
class ForecastError:
    """How wrong forecasts of one lead time are.

    Args:
        large_correlation: of the stratiform field with the true one, but for the displacement.
        small_correlation: of the convective field.
        displacement: standard deviation along each axis, km.
        wetness: standard deviation of the error of the large-scale wetness.
    """

    large_correlation: float
    small_correlation: float
    displacement: float
    wetness: float

    @property
    def mean_displacement(self) -> tuple[float, float]:
        """To the east and to the north, km: forecasts run ahead of the weather."""
        return 0.3 * self.displacement, 0.1 * self.displacement


FORECAST_ERRORS = {
    6: ForecastError(0.97, 0.55, displacement=12.0, wetness=0.08),
    12: ForecastError(0.94, 0.35, displacement=20.0, wetness=0.10),
    24: ForecastError(0.86, 0.15, displacement=34.0, wetness=0.15),
    48: ForecastError(0.66, 0.0, displacement=60.0, wetness=0.22),
}
LEADS = tuple(FORECAST_ERRORS)  # h


class Hour(NamedTuple):
    """The weather of the hour that ends at a time.

    Attributes:
        time: UTC.
        regime: large-scale state.
        truth: (ny, nx) precipitation, mm.
        analysis: (ny, nx) what the radars make of it, mm.
        quality: (ny, nx) of the analysis, 0..1, or -3 without coverage.
        latent: spectra of the true fields.
        effect: (ny, nx) diurnal and orographic terms of the true latent.
        model_effect: (ny, nx) those of the forecast model.
    """

    time: np.datetime64
    regime: Regime
    truth: Float
    analysis: Float
    quality: Float
    latent: LatentState
    effect: Float
    model_effect: Float


class Posterior(NamedTuple):
    """The law of the true latent, given all that a forecast's maker could know, but for the displacement.

    Given the displacement d, the latent at x is normal with the mean ``field`` (x + d) + ``location`` (x).

    Attributes:
        grid: periodic.
        field: (n, n/2 + 1) spectrum of the forecast's fields, each times its correlation with the truth.
        location: (ny, nx) diurnal and orographic terms and the mean of the wetness.
        variance: of the latent, given the displacement.
        displacement: standard deviation along each axis, km.
        mean_displacement: to the east and to the north, km.
    """

    grid: PeriodicGrid
    field: WaveAmplitudes
    location: Float
    variance: float
    displacement: float
    mean_displacement: tuple[float, float]


class Pair(NamedTuple):
    """A forecast and what happened.

    Attributes:
        init: initial time, UTC.
        lead: h.
        forecast: (ny, nx) precipitation of the hour that ends at init + lead, mm.
        hour: the true weather of that hour, its analysis and quality.
        posterior: for the ideal probability.
    """

    init: np.datetime64
    lead: int
    forecast: Float
    hour: Hour
    posterior: Posterior


def _diurnal(hour: int, peak: int, convective_fraction: float) -> float:
    return float(DIURNAL * convective_fraction * np.cos(2 * np.pi * (hour - peak) / 24))


class Weather:
    """Truth, analyses and forecasts at any time from 1971 on; cheap if times are asked for in order.

    Args:
        grid: periodic, with the rectangle that is shown; by default 128 x 160 points of 4 km out of 256 x 256.
        seed: of everything random.
        outage: a radar that is off on some days; see :meth:`RadarNetwork.draw_outage`.

    Attributes:
        grid: as given.
        seed: as given.
        terrain: of the rectangle.
        network: radars of the rectangle.
        outage: as given; may be changed before the first pair.
    """

    def __init__(self, grid: PeriodicGrid | None = None, seed: int = 0, outage: radar.Outage | None = None) -> None:
        self.grid = grid = grid or PeriodicGrid()
        self.seed = seed
        self.outage = outage
        height = make_height(grid, make_rng(seed, Stream.TERRAIN))
        self.terrain: Terrain = describe_terrain(grid, height)
        self.network = radar.RadarNetwork(self.terrain.terrain_height, grid.spacing)
        self._heights: tuple[Spectrum, Spectrum] = (
            grid.to_spectrum(height),
            grid.to_spectrum(grid.smooth(height, MODEL_SMOOTHING)),
        )
        self._regimes = RegimeSeries(seed)
        self._latent = LatentFields(grid, seed, self._regimes)
        self._hours: OrderedDict[int, Hour] = OrderedDict()

    def regime(self, time: np.datetime64 | datetime) -> Regime:
        """Wind, wetness and moisture at a time.

        Raises:
            InputError: the time is not a multiple of six hours.
        """
        return self._regimes[step_of(time)]

    def hour(self, time: np.datetime64 | datetime) -> Hour:
        """True weather and analysis of the hour that ends at a time.

        Raises:
            InputError: the time is not a multiple of six hours.
        """
        step = step_of(time)
        if step not in self._hours:
            self._hours[step] = self._make_hour(step)
            if len(self._hours) > 1 + max(LEADS) // STEP:
                self._hours.popitem(last=False)
        return self._hours[step]

    def forecast(self, init: np.datetime64 | datetime, lead: int) -> Pair:
        """The forecast from one initial time for one lead time, with the truth.

        Args:
            init: UTC.
            lead: 6, 12, 24 or 48 h.

        Raises:
            InputError: the initial time is not a multiple of six hours, or there are no forecasts of that lead.
        """
        error = FORECAST_ERRORS.get(lead)
        if error is None:
            raise InputError(f"lead {lead} h: the demo has forecasts for {', '.join(map(str, LEADS))} h")
        step = step_of(init)
        hour = self.hour(time_of(step + lead // STEP))
        rng = make_rng(self.seed, Stream.FORECAST, step, lead)
        shift = error.displacement * rng.standard_normal(2) + error.mean_displacement
        wetness = hour.regime.wetness + error.wetness * float(rng.standard_normal())
        fraction = hour.regime.convective_fraction
        noise, carry = self._latent.draw(rng), self.grid.phase(*shift)
        stratiform = np.float32(np.sqrt(1 - fraction)) * carry
        convective = np.float32(np.sqrt(fraction)) * carry
        large = stratiform * blend(hour.latent.large, noise.large, error.large_correlation)
        small = convective * blend(hour.latent.small, noise.small, error.small_correlation)
        latent = self.grid.crop(self.grid.to_grid(large + small)) + hour.model_effect + np.float32(wetness)
        # regression of the true wetness on the forecast's one
        spread, wrong = WETNESS_SPREAD**2, error.wetness**2
        posterior = Posterior(
            grid=self.grid,
            field=np.float32(error.large_correlation) * large + np.float32(error.small_correlation) * small,
            location=hour.effect + np.float32(spread / (spread + wrong) * wetness),
            variance=(
                (1 - fraction) * (1 - error.large_correlation**2)
                + fraction * (1 - error.small_correlation**2)
                + spread * wrong / (spread + wrong)
            ),
            displacement=error.displacement,
            mean_displacement=error.mean_displacement,
        )
        return Pair(time_of(step), lead, amounts.MODEL.amount(latent), hour, posterior)

    def pairs(self, inits: Iterable[np.datetime64 | datetime], leads: Sequence[int] = LEADS) -> Iterator[Pair]:
        """Pairs of all leads for one initial time after the other; holds the weather of two days at a time.

        Args:
            inits: initial times in increasing order.
            leads: h.

        Raises:
            InputError: the initial times do not increase, or as in :meth:`forecast`.
        """
        before: int | None = None
        for init in inits:
            step = step_of(init)
            if before is not None and step <= before:
                raise InputError(f"initial times must increase, but {time_of(step)} follows {time_of(before)}")
            before = step
            for lead in leads:
                yield self.forecast(init, lead)

    def _make_hour(self, step: int) -> Hour:
        time, regime, state = time_of(step), self._regimes[step], self._latent[step]
        fraction = regime.convective_fraction
        of_day = STEP * step % 24
        truth_oro, model_oro = self._orographic_terms(regime)
        effect = truth_oro + np.float32(_diurnal(of_day, PEAK_HOUR, fraction))
        model_effect = model_oro + np.float32(_diurnal(of_day, MODEL_PEAK_HOUR, fraction))
        mixed = np.float32(np.sqrt(1 - fraction)) * state.large + np.float32(np.sqrt(fraction)) * state.small
        latent = self.grid.crop(self.grid.to_grid(mixed)) + effect + np.float32(regime.wetness)
        truth: Float = amounts.TRUTH.amount(latent)
        quality = self.network.quality_at(time, self.outage)
        analysis = radar.analyse(truth, quality, make_rng(self.seed, Stream.ANALYSIS, step))
        return Hour(time, regime, truth, analysis, quality, state, effect, model_effect)

    def _orographic_terms(self, regime: Regime) -> tuple[Float, Float]:
        response = np.exp(MOISTURE_GROWTH * regime.moisture) * transfer_function(self.grid, regime.u, regime.v)
        truth, model = (
            np.tanh(self.grid.crop(self.grid.to_grid(response * height)) / OROGRAPHIC_SATURATION)
            for height in self._heights
        )
        return (
            (OROGRAPHIC_EFFECT * truth).astype(np.float32),
            (MODEL_OROGRAPHY * OROGRAPHIC_EFFECT * model).astype(np.float32),
        )
