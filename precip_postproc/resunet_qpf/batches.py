"""Batches of patches or whole fields from the processed store."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ai4sim.loading import Batch
from ai4sim.patches import PatchReader
from ai4sim.store import open_store
from precip_postproc.resunet_qpf.conditions import lead_conditions
from precip_postproc.resunet_qpf.draws import Draw
from precip_postproc.resunet_qpf.predictors import CoarseToFine
from precip_postproc.resunet_qpf.prepare import STATIC, unpack, unpack_observed
from precip_postproc.resunet_qpf.readers import CurvilinearGrid, LatLonGrid
from precip_postproc.resunet_qpf.readers.files import HOUR

Rows = NDArray[np.int64]


class CaseDataset(Dataset[Batch]):
    """Cases of a store, whole or in patches.

    A batch has ``fields`` (B, C, H, W), physical, missing values as NaN; ``observed`` (B, H, W) mm, NaN where it must
    not be used: where the analysis is missing, too large or of too low quality, or the forecast is missing;
    ``conditions`` (B, 8); ``lead`` (B,) h; ``weight`` (B,) of the losses; ``index`` (B,) rows of the store.

    Args:
        store: the processed store.
        channels: names of the fields.
        least_quality: analyses of less are not used.
        patch: rows and columns of the patches that a draw asks for.
        coarse: (predictor,) in place of missing coarse predictors; None where there are none.
    """

    def __init__(
        self,
        store: str,
        channels: Sequence[str],
        *,
        least_quality: float,
        patch: tuple[int, int],
        coarse: Sequence[float] | None = None,
    ) -> None:
        self.store, self.channels, self.least_quality, self.patch = store, list(channels), least_quality, patch
        self._fill = None if coarse is None else np.asarray(coarse, np.float32)
        variables = ["forecast", "smoothed", "fraction", "observation", "quality"]
        self._readers = {name: PatchReader(store, name) for name in [*variables, *(["coarse"] if coarse else [])]}
        with open_store(store) as opened:
            self._static = np.stack([opened[name].values for name in STATIC]).astype(np.float32)
            self._init = opened["init"].values.astype("datetime64[s]")
            self._lead = opened["lead"].values.astype(np.int64)
            if coarse is not None:
                axes = opened["coarse_latitude"].values, opened["coarse_longitude"].values
                grid = CurvilinearGrid(opened["latitude"].values, opened["longitude"].values)
                self._interpolate = CoarseToFine(LatLonGrid(*axes), grid, self.channels[-len(coarse) :])
        self.shape: tuple[int, int] = self._static.shape[1:]

    def __len__(self) -> int:
        return len(self._lead)

    def __getitem__(self, index: int) -> Batch:
        """One whole case, with a batch axis of length 1."""
        return self.read(np.array([index]))

    def __getitems__(self, indices: Draw | Rows) -> Batch:
        """A whole batch: what :class:`torch.utils.data.DataLoader` asks for."""
        return self.read(indices)

    def read(self, indices: Draw | Rows, *, pin_memory: bool = False) -> Batch:
        """Read a batch.

        Args:
            indices: patches, or rows of whole cases.
            pin_memory: into page-locked memory.
        """
        if not isinstance(indices, Draw):
            rows = np.asarray(indices, np.int64)
            indices = Draw(rows, np.zeros((len(rows), 2), np.int64), np.ones(len(rows), np.float32))
            return self._read(indices, self.shape, pin_memory)
        return self._read(indices, self.patch, pin_memory)

    def _read(self, draw: Draw, size: tuple[int, int], pin_memory: bool) -> Batch:
        rows, corners, weights = draw

        def raw(name: str) -> NDArray[Any]:
            reader = self._readers[name]
            out = np.empty((len(rows), *reader.shape[1:-2], *size), reader.dtype)
            reader.read(rows, corners, out)
            return out

        parts = [(slice(top, top + size[0]), slice(left, left + size[1])) for top, left in corners.tolist()]

        fields = torch.empty(len(rows), len(self.channels), *size, pin_memory=pin_memory)
        place, target = 0, fields.numpy()
        for values in (unpack(raw("forecast"))[:, None], raw("smoothed"), raw("fraction")):
            target[:, place : place + values.shape[1]] = values
            place += values.shape[1]
        for own, part in zip(target, parts, strict=True):
            own[place : place + len(self._static)] = self._static[:, *part]
        place += len(self._static)
        if self._fill is not None:
            reader = self._readers["coarse"]
            coarse = np.empty((len(rows), *reader.shape[1:]), np.float32)
            reader.read(rows, np.zeros_like(corners), coarse)
            coarse = np.where(np.isnan(coarse), self._fill[:, None, None], coarse)
            for own, fields_of_case, part in zip(target, coarse, parts, strict=True):
                own[place:] = self._interpolate(fields_of_case, part)
        observed = unpack_observed(raw("observation"), raw("quality"), self.least_quality)
        observed[np.isnan(target[:, 0])] = np.nan
        valid = self._init[rows] + self._lead[rows] * HOUR
        return {
            "fields": fields,
            "observed": torch.from_numpy(observed),
            "conditions": torch.as_tensor(lead_conditions(self._lead[rows], valid)),
            "lead": torch.from_numpy(self._lead[rows]),
            "weight": torch.from_numpy(weights),
            "index": torch.from_numpy(rows),
        }
