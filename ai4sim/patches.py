"""Patches of the fields of a processed store, straight into the memory of a batch."""

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from ai4sim.chunks import Blocks, open_blocks
from ai4sim.manifest import PathLike

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]


class PatchReader:
    """Reads parts of the rows of one variable; opened anew in every process that uses it, so it can be pickled.

    Only the chunks that a patch touches are read and decoded.

    Args:
        path: local store, or a store's URL.
        variable: name in the store; its last two dimensions are those that patches are cut from.

    Attributes:
        shape: of the whole variable, rows first.
        dtype: of its values.
    """

    def __init__(self, path: PathLike, variable: str) -> None:
        self.path, self.variable = str(path), variable
        blocks = open_blocks(self.path, variable)
        self.shape, self.dtype = blocks.shape, blocks.dtype
        self._opened: tuple[int, Blocks] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def read(self, rows: Indices, corners: Indices, out: Array) -> None:
        """Fill ``out`` with patches.

        Args:
            rows: (batch,) numbers of the rows.
            corners: (batch, 2) first row and column of each patch.
            out: (batch, ..., height, width) of the variable's dtype.

        Raises:
            IndexError: a patch that is not within the variable.
            ValueError: ``out`` of another shape or type.
        """
        height, width = out.shape[-2:]
        expected = (len(rows), *self.shape[1:-2], height, width)
        if out.shape != expected or out.dtype != self.dtype:
            raise ValueError(
                f"{self.variable!r}: out has shape {out.shape} and type {out.dtype}; expected {expected} and"
                f" {self.dtype}"
            )
        if not len(rows):
            return
        limits = np.array([self.shape[0] - 1, self.shape[-2] - height, self.shape[-1] - width])
        places = np.column_stack([rows, corners])
        if (places < 0).any() or (places > limits).any():
            raise IndexError(f"{self.variable!r} of shape {self.shape}: a patch {height} x {width} lies outside")
        blocks = self._blocks()
        others = [slice(0, size) for size in self.shape[1:-2]]
        for target, (row, top, left) in zip(out, places.tolist(), strict=True):
            blocks.read_part(row, [*others, slice(top, top + height), slice(left, left + width)], target)

    def _blocks(self) -> Blocks:
        pid = os.getpid()
        if self._opened is None or self._opened[0] != pid:
            self._opened = (pid, open_blocks(self.path, self.variable))
        return self._opened[1]
