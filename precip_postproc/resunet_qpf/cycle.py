"""One cycle of a forecast, straight from its raw files, for a product of probabilities."""

import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ai4sim.errors import InputError
from ai4sim.loading import Batch
from precip_postproc.resunet_qpf.conditions import lead_conditions
from precip_postproc.resunet_qpf.predictors import CoarseToFine, Neighbourhoods, terrain_fields
from precip_postproc.resunet_qpf.prepare import pack, read_forecast, unpack
from precip_postproc.resunet_qpf.readers import CoarsePredictors, Grid, LatLonGrid, read_terrain
from precip_postproc.resunet_qpf.readers.files import HOUR
from precip_postproc.resunet_qpf.sources import ForecastSource, GfsSource

logger = logging.getLogger(__name__)


class CycleDataset(Dataset[Batch]):
    """Whole fields of one initial time, a lead time each; as batches of the processed store, but without analyses.

    Args:
        forecasts: of the model.
        terrain: file.
        coarse: predictors of a global model, if the network needs them.
        neighbourhoods: as in training.
        init: initial time.
        leads: h.
        means: of the coarse predictors over the training, for a cycle whose file is missing.

    Raises:
        InputError: a file is missing or holds what it should not.
    """

    def __init__(
        self,
        forecasts: ForecastSource,
        terrain: Path,
        coarse: GfsSource | None,
        neighbourhoods: Neighbourhoods,
        init: np.datetime64,
        leads: list[int],
        means: Mapping[str, float] | None = None,
    ) -> None:
        self.forecasts, self.terrain, self.coarse = forecasts, terrain, coarse
        self.neighbourhoods, self.init, self.leads, self.means = neighbourhoods, init, leads, means or {}
        absent = [text for lead in leads if (text := forecasts.missing(init, lead))]
        if absent:
            raise InputError(
                f"{len(absent)} of {len(leads)} fields of the forecast are not there, the first {absent[0]}"
            )

    @cached_property
    def grid(self) -> Grid:
        """Of the forecast."""
        return self.forecasts.read(self.init, self.leads[0]).grid

    @cached_property
    def _static(self) -> NDArray[np.float32]:
        return np.stack(list(terrain_fields(read_terrain(self.terrain, self.grid)).values()))

    @cached_property
    def _cycle(self) -> CoarsePredictors:
        assert self.coarse is not None
        return self.coarse.read(self.init)

    def _coarse_fields(self, source: GfsSource, lead: int) -> NDArray[np.float32]:
        """Predictors (name, y, x); the means of the training where the file is missing and may be."""
        if source.on_missing == "climatology" and not source.path(self.init).exists():
            absent = [name for name in source.names if name not in self.means]
            if absent:
                raise InputError(
                    f"{source.path(self.init)} is not there, and the checkpoint has no mean of {absent[0]!r}"
                )
            logger.warning("%s is not there: its fields are the means of the training", source.path(self.init))
            whole = np.array([[-90.0, 90.0], [-180.0, 180.0]])
            fields = np.broadcast_to(
                np.array([self.means[n] for n in source.names], np.float32)[:, None, None], (len(source.names), 2, 2)
            )
            return CoarseToFine(LatLonGrid(*whole), self.grid, source.names)(fields)
        cycle = self._cycle
        fields = np.stack([cycle.at(name, lead) for name in source.names])
        return CoarseToFine(cycle.grid, self.grid, source.names)(fields)

    def __len__(self) -> int:
        return len(self.leads)

    def __getitem__(self, index: int) -> Batch:
        lead = self.leads[index]
        packed = pack(read_forecast(self.forecasts, self.init, lead, self.grid))
        forecast = unpack(packed)
        smoothed, fractions = self.neighbourhoods.look_around(forecast)
        parts = [forecast[None], smoothed, fractions, self._static]
        if self.coarse is not None:
            parts.append(self._coarse_fields(self.coarse, lead))
        conditions = lead_conditions(np.array([lead]), np.array([self.init + lead * HOUR]))
        return {
            "fields": torch.from_numpy(np.concatenate(parts))[None],
            "forecast": torch.from_numpy(packed)[None],
            "conditions": torch.as_tensor(conditions),
            "lead": torch.tensor([lead]),
            "index": torch.tensor([index]),
        }
