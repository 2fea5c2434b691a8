"""Tensors that know the names of their dimensions and of their features.

A :class:`NamedTensor` is a thin label on a tensor: it copies no data unless its documentation says so, costs nothing
inside ``torch.compile`` and is moved, pinned, pickled and copied as a tensor is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

SPATIAL_DIMS = ("lat", "lon", "ngrid")


@dataclass(init=False, eq=False, repr=False)
class NamedTensor:
    """A tensor with one name per dimension and one name per feature.

    Methods whose name ends with an underscore change the object and return it; all others leave it as it is and give
    views of its data where PyTorch does.

    Args:
        tensor: the data.
        names: one per dimension.
        feature_names: one per entry of the feature dimension.
        feature_dim_name: which dimension has the features.

    Raises:
        ValueError: names do not fit the tensor, or repeat; the message says which.
    """

    # the one dataclass field: whoever looks for tensors in a batch (Lightning) finds this
    tensor: Tensor

    def __init__(
        self, tensor: Tensor, names: Sequence[str], feature_names: Sequence[str], feature_dim_name: str = "features"
    ) -> None:
        self.tensor = tensor
        self.names = list(names)
        self.feature_names = list(feature_names)
        self.feature_dim_name = feature_dim_name
        if len(self.names) != tensor.ndim:
            raise ValueError(f"{len(self.names)} names {self.names} for a tensor of {tensor.ndim} dimensions")
        _refuse_repeated(self.names, "dimension")
        _refuse_repeated(self.feature_names, "feature")
        size = self.dim_size(feature_dim_name)
        if size != len(self.feature_names):
            raise ValueError(
                f"dimension {feature_dim_name!r} has size {size}, "
                f"but there are {len(self.feature_names)} feature names: {self.feature_names}"
            )

    # what it is

    @property
    def ndims(self) -> int:
        """Number of dimensions."""
        return len(self.names)

    @property
    def shape(self) -> torch.Size:
        """Sizes of all dimensions."""
        return self.tensor.shape

    @property
    def device(self) -> torch.device:
        """Where the data are."""
        return self.tensor.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the numbers."""
        return self.tensor.dtype

    @property
    def spatial_dim_idx(self) -> list[int]:
        """Indices of the dimensions among lat, lon and ngrid, ascending."""
        return [i for i, name in enumerate(self.names) if name in SPATIAL_DIMS]

    @property
    def num_spatial_dims(self) -> int:
        """How many spatial dimensions there are."""
        return len(self.spatial_dim_idx)

    @property
    def feature_dim_idx(self) -> int:
        """Index of the feature dimension."""
        return self.dim_index(self.feature_dim_name)

    @property
    def feature_names_to_idx(self) -> dict[str, int]:
        """Index of every feature."""
        return {name: i for i, name in enumerate(self.feature_names)}

    def dim_index(self, name: str) -> int:
        """Index of a dimension.

        Raises:
            ValueError: there is none of this name.
        """
        if name not in self.names:
            raise ValueError(f"there is no dimension {name!r}; there are {self.names}")
        return self.names.index(name)

    def dim_size(self, name: str) -> int:
        """Size of a dimension.

        Raises:
            ValueError: there is none of this name.
        """
        return self.tensor.shape[self.dim_index(name)]

    def __str__(self) -> str:
        sizes = ", ".join(f"{name}: {size}" for name, size in zip(self.names, self.shape, strict=True))
        width = max(len(name) for name in [*self.feature_names, "feature"])
        lines = [f"NamedTensor({sizes})", f"{'feature':<{width}}  {'min':>12}  {'max':>12}"]
        for name, values in zip(self.feature_names, self.tensor.unbind(self.feature_dim_idx), strict=True):
            lowest, highest = (values.min(), values.max()) if values.numel() else (float("nan"), float("nan"))
            lines.append(f"{name:<{width}}  {float(lowest):>12.5g}  {float(highest):>12.5g}")
        return "\n".join(lines)

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        """Identity, or equal names, features and values."""
        if self is other:
            return True
        return (
            isinstance(other, NamedTensor)
            and self.names == other.names
            and self.feature_names == other.feature_names
            and self.feature_dim_name == other.feature_dim_name
            and torch.equal(self.tensor, other.tensor)
        )

    __hash__ = object.__hash__

    # features

    def __getitem__(self, features: str | Sequence[str]) -> Any:
        """One feature as a bare tensor, a view whose feature dimension has size 1; or several as a NamedTensor.

        Raises:
            ValueError: there is no such feature.
        """
        if isinstance(features, str):
            return self.tensor.narrow(self.feature_dim_idx, self._feature_index(features), 1)
        return self.index_select_dim(self.feature_dim_name, [self._feature_index(name) for name in features])

    def _feature_index(self, name: str) -> int:
        if name not in self.feature_names:
            raise ValueError(f"there is no feature {name!r}; there are {self.feature_names}")
        return self.feature_names.index(name)

    def __or__(self, other: "NamedTensor | None") -> "NamedTensor":
        """Concatenate along the features; ``a | None`` is a.

        Raises:
            ValueError: other is something else, has other dimensions, or features that are here already.
        """
        return self if other is None else NamedTensor.concat([self, other])

    def __ror__(self, other: None) -> "NamedTensor":
        """``None | a`` is a."""
        if other is not None:
            raise ValueError(f"a NamedTensor joins a NamedTensor or None, not a {type(other).__name__}")
        return self

    @staticmethod
    def concat(tensors: Sequence["NamedTensor"]) -> "NamedTensor":
        """All features of all tensors in one; a single one is cloned.

        Raises:
            ValueError: the sequence is empty, or its members do not fit together.
        """
        if not tensors:
            raise ValueError("there is nothing to concatenate")
        first = tensors[0]
        for other in tensors[1:]:
            first._must_fit(other)
        if len(tensors) == 1:
            return first.clone()
        features = [name for tensor in tensors for name in tensor.feature_names]
        if len(set(features)) < len(features):
            clash = sorted({name for name in features if features.count(name) > 1})
            raise ValueError(f"features {clash} are in more than one of the tensors to concatenate")
        data = torch.cat([tensor.tensor for tensor in tensors], dim=first.feature_dim_idx)
        return NamedTensor(data, first.names, features, first.feature_dim_name)

    @staticmethod
    def stack(tensors: Sequence["NamedTensor"], dim_name: str, dim: int = 0) -> "NamedTensor":
        """Stack tensors of the same features along a new dimension.

        Args:
            tensors: one or more.
            dim_name: name of the new dimension.
            dim: its place in the result; negative counts from the end.

        Raises:
            ValueError: the sequence is empty, or names or features differ.
        """
        if not tensors:
            raise ValueError("there is nothing to stack")
        first = tensors[0]
        for other in tensors[1:]:
            first._must_fit(other)
            if other.feature_names != first.feature_names:
                raise ValueError(f"features differ: {first.feature_names} and {other.feature_names}")
        place = dim % (first.ndims + 1)
        names = [*first.names[:place], dim_name, *first.names[place:]]
        data = torch.stack([tensor.tensor for tensor in tensors], dim=place)
        return NamedTensor(data, names, first.feature_names, first.feature_dim_name)

    def _must_fit(self, other: object) -> None:
        if not isinstance(other, NamedTensor):
            raise ValueError(f"a NamedTensor joins a NamedTensor or None, not a {type(other).__name__}")
        if other.names != self.names:
            raise ValueError(f"dimensions differ: {self.names} and {other.names}")
        if other.feature_dim_name != self.feature_dim_name:
            raise ValueError(f"feature dimensions differ: {self.feature_dim_name!r} and {other.feature_dim_name!r}")

    # new ones

    def clone(self) -> "NamedTensor":
        """A copy with data of its own, through which gradients flow."""
        return NamedTensor(self.tensor.clone(), self.names, self.feature_names, self.feature_dim_name)

    @staticmethod
    def new_like(tensor: Tensor, other: "NamedTensor") -> "NamedTensor":
        """Label a tensor as another one is labelled.

        Raises:
            ValueError: the labels do not fit.
        """
        return NamedTensor(tensor, other.names, other.feature_names, other.feature_dim_name)

    @staticmethod
    def expand_to_batch_like(tensor: Tensor, other: "NamedTensor") -> "NamedTensor":
        """Label a tensor as another one is labelled, with a first dimension "batch" besides.

        Raises:
            ValueError: the tensor does not have just one dimension more.
        """
        return NamedTensor(tensor, ["batch", *other.names], other.feature_names, other.feature_dim_name)

    @staticmethod
    def collate_fn(
        tensors: Sequence["NamedTensor"], pad_dims: Sequence[str] = (), pad_value: float = 0.0
    ) -> "NamedTensor":
        """Stack samples along a new first dimension "batch".

        Args:
            tensors: samples of the same names and features; they stay as they are.
            pad_dims: dimensions in which samples may be of different sizes: shorter ones are padded behind their data.
            pad_value: what they are padded with.

        Raises:
            ValueError: there is no sample, a dimension to pad does not exist, or names or features differ.
        """
        if not tensors:
            raise ValueError("there is nothing to collate")
        first = tensors[0]
        longest = {first.dim_index(name): max(tensor.dim_size(name) for tensor in tensors) for name in pad_dims}
        padded = []
        for sample in tensors:
            missing = [0] * (2 * sample.ndims)
            for index, size in longest.items():
                # functional.pad counts from the last dimension, and wants (before, after)
                missing[2 * (sample.ndims - 1 - index) + 1] = size - sample.shape[index]
            data = functional.pad(sample.tensor, missing, value=pad_value) if any(missing) else sample.tensor
            padded.append(NamedTensor.new_like(data, sample))
        return NamedTensor.stack(padded, "batch", 0)

    # in place

    def flatten_(
        self, new: str, start: int = 0, end: int = -1, *, allow_features: bool = False
    ) -> "NamedTensor | Tensor":
        """Merge neighbouring dimensions into one.

        Args:
            new: its name.
            start: first dimension to merge; negative counts from the end.
            end: last dimension to merge, inclusive.
            allow_features: the feature dimension may be among them; features have no place of their own then, and the
                result is a plain tensor.

        Raises:
            ValueError: the feature dimension is among them and was not allowed.
        """
        start, end = start % self.ndims, end % self.ndims
        swallowed = self.feature_dim_name in self.names[start : end + 1]
        if swallowed and not allow_features:
            raise ValueError(
                f"dimensions {self.names[start : end + 1]} include the features; set allow_features to merge them"
            )
        self.tensor = self.tensor.flatten(start, end)
        if swallowed:
            return self.tensor
        self.names = [*self.names[:start], new, *self.names[end + 1 :]]
        return self

    def unflatten_(self, dim: int, sizes: Sequence[int], names: Sequence[str]) -> Self:
        """Split a dimension into several.

        Args:
            dim: its index; negative counts from the end.
            sizes: of the new dimensions.
            names: of the new dimensions.
        """
        if len(sizes) != len(names):
            raise ValueError(f"{len(sizes)} sizes {tuple(sizes)} for {len(names)} names {list(names)}")
        place = dim % self.ndims
        new_names = [*self.names[:place], *names, *self.names[place + 1 :]]
        return self._become(self.tensor.unflatten(place, tuple(sizes)), new_names)

    def squeeze_(self, names: str | Sequence[str]) -> Self:
        """Take away dimensions of size 1.

        Raises:
            ValueError: a dimension is not of size 1.
        """
        names = [names] if isinstance(names, str) else list(names)
        for name in names:
            if self.dim_size(name) != 1:
                raise ValueError(f"dimension {name!r} has size {self.dim_size(name)}; only size 1 can be squeezed")
        data = self.tensor.squeeze(tuple(self.dim_index(name) for name in names))
        return self._become(data, [name for name in self.names if name not in names])

    def unsqueeze_(self, name: str, idx: int) -> Self:
        """Add a dimension of size 1 at an index."""
        place = idx % (self.ndims + 1)
        return self._become(self.tensor.unsqueeze(place), [*self.names[:place], name, *self.names[place:]])

    def rearrange_(self, pattern: str) -> Self:
        """Permute the dimensions, as in ``"batch lat lon features -> batch features lat lon"``; a view.

        Raises:
            ValueError: the pattern's left side is not the names as they are, or its right side not a permutation.
        """
        before, arrow, after = (side.split() for side in pattern.partition("->"))
        if not arrow or before != self.names:
            raise ValueError(f"pattern {pattern!r} must begin with {' '.join(self.names)} ->")
        if sorted(after) != sorted(before):
            raise ValueError(f"pattern {pattern!r} must have the same names on both sides")
        return self._become(self.tensor.permute([self.names.index(name) for name in after]), after)

    def unsqueeze_and_expand_from_(self, other: "NamedTensor") -> Self:
        """Repeat along the spatial dimensions that only another tensor has, in the order they have there; a view."""
        for index in other.spatial_dim_idx:
            name = other.names[index]
            if name not in self.names:
                before = [self.names.index(name) for name in other.names[:index] if name in self.names]
                place = max(before, default=-1) + 1
                self.unsqueeze_(name, place)
                sizes = [-1] * self.ndims
                sizes[place] = other.shape[index]
                self.tensor = self.tensor.expand(sizes)
        return self

    def type_(self, dtype: torch.dtype) -> Self:
        """Convert the numbers."""
        self.tensor = self.tensor.type(dtype)
        return self

    def to_(self, *args: Any, **kwargs: Any) -> Self:
        """Move or convert as ``Tensor.to`` does."""
        self.tensor = self.tensor.to(*args, **kwargs)
        return self

    def pin_memory_(self) -> Self:
        """Move to page-locked memory."""
        self.tensor = self.tensor.pin_memory()
        return self

    def _become(self, tensor: Tensor, names: list[str]) -> Self:
        _refuse_repeated(names, "dimension")
        self.tensor, self.names = tensor, names
        return self

    def to(self, *args: Any, **kwargs: Any) -> "NamedTensor":
        """A new one, moved or converted as ``Tensor.to`` does; what Lightning calls to move a batch."""
        return NamedTensor.new_like(self.tensor.to(*args, **kwargs), self)

    def pin_memory(self, *args: Any) -> "NamedTensor":
        """A new one in page-locked memory; what data loaders call."""
        return NamedTensor.new_like(self.tensor.pin_memory(*args), self)

    # selection

    def select_dim(self, name: str, index: int) -> "NamedTensor":
        """What is at one index of a dimension, without that dimension; a view.

        Raises:
            ValueError: the dimension is the features', or there is none of this name.
        """
        if name == self.feature_dim_name:
            raise ValueError(f"select_dim cannot take away the feature dimension {name!r}; select_tensor_dim can")
        data = self.select_tensor_dim(name, index)
        return NamedTensor(data, [n for n in self.names if n != name], self.feature_names, self.feature_dim_name)

    def select_tensor_dim(self, name: str, index: int) -> Tensor:
        """What is at one index of any dimension, as a bare tensor; a view."""
        return self.tensor.select(self.dim_index(name), index)

    def index_select_dim(self, name: str, indices: Sequence[int] | Tensor) -> "NamedTensor":
        """What is at the given indices of a dimension, in their order; along the features their names follow."""
        data = self.index_select_tensor_dim(name, indices)
        features = self.feature_names
        if name == self.feature_dim_name:
            features = [features[int(index)] for index in indices]
        return NamedTensor(data, self.names, features, self.feature_dim_name)

    def index_select_tensor_dim(self, name: str, indices: Sequence[int] | Tensor) -> Tensor:
        """What is at the given indices of a dimension, as a bare tensor.

        Args:
            name: of the dimension.
            indices: integers; negative ones count from the end.

        Raises:
            ValueError: there is no such dimension; an index is no integer.
            IndexError: an index is out of range.
        """
        size = self.dim_size(name)
        # the values of a tensor are not looked at: on a GPU that would wait for it
        if not isinstance(indices, Tensor) and any(not -size <= index < size for index in indices):
            raise IndexError(f"indices {list(indices)} along {name!r} must be within -{size}..{size - 1}")
        wanted = indices if isinstance(indices, Tensor) else torch.as_tensor(indices)
        if wanted.numel() == 0:
            wanted = wanted.to(torch.int64)
        if wanted.is_floating_point() or wanted.dtype == torch.bool:
            raise ValueError(f"indices along {name!r} must be integers, not {wanted.dtype}")
        wanted = wanted.to(self.device, torch.int64)
        wanted = torch.where(wanted < 0, wanted + size, wanted)
        return self.tensor.index_select(self.dim_index(name), wanted)

    def iter_dim(self, name: str) -> Iterator["NamedTensor"]:
        """Views of all indices of a dimension, one after the other."""
        return (self.select_dim(name, index) for index in range(self.dim_size(name)))

    def iter_tensor_dim(self, name: str) -> Iterator[Tensor]:
        """Views of all indices of any dimension as bare tensors."""
        return (self.select_tensor_dim(name, index) for index in range(self.dim_size(name)))


def _refuse_repeated(names: list[str], kind: str) -> None:
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"{kind} names repeat: {repeated} in {names}")
