"""How much memory a step of a training needs, found without any: networks are run on tensors that hold no values."""

import copy
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from downscaling.corrdiff.diffusion import Patches
from downscaling.corrdiff.regression import extras_of

GIB = 2**30
SHARE = 0.8
"""Of the free memory, what an automatic batch may take: gradients of maps and work space come on top."""

Device = torch.device | str

_CANNOT = (AssertionError, RuntimeError, TypeError, ValueError, copy.Error)
"""What networks that cannot be copied, or look at values, end with; what is wrong with others their first step says."""


@dataclass(frozen=True)
class StepMemory:
    """What a step holds, bytes, without what passes quickly.

    Not counted is what blocks that are computed again (``checkpoint_level``) need then.

    Args:
        image: kept for the gradient of each image, a patch or whole fields, that the network gets.
        shape: rows and columns of an image.
        images: of each pair.
        patched: whether they are patches.
        at_once: images that the network gets at once, at most; all by default.
        fields: whole fields and noise of each pair.
        mean: for each pair, while the regression computes its mean, before the network that learns gets anything.
        weights: weights, gradients, what the optimiser knows of them, and averages.
        averaged: whether there are averages.
        means: the regression's means that are kept for the whole training.
    """

    image: int
    shape: tuple[int, int]
    images: int
    patched: bool
    at_once: int | None
    fields: int
    weights: int
    averaged: bool
    mean: int = 0
    means: int = 0

    def of(self, pairs: int) -> int:
        """All of it, for a batch."""
        network = max(self._images(pairs) * self.image, pairs * self.mean)
        return self.weights + self.means + pairs * self.fields + network

    def largest_batch(self, pairs: int, most: float) -> int | None:
        """The largest part of a number of pairs that divides it and fits into so much memory; None if none does."""
        fitting = (size for size in range(pairs, 0, -1) if pairs % size == 0 and self.of(size) <= most)
        return next(fitting, None)

    def describe(self, pairs: int) -> str:
        """What a batch needs, in words."""
        n, (height, width) = self._images(pairs), self.shape
        at_once = " at once" if n < pairs * self.images else ""
        kind = "patches" if self.patched else "fields"
        if pairs * self.mean > n * self.image:
            parts = [f"{in_words(self.mean)} while the regression computes each of {pairs:,} means"]
        else:
            parts = [f"{in_words(self.image)} for each of {n:,} {kind} of {height} x {width} points{at_once}"]
        parts.append(f"{in_words(pairs * self.fields)} for inputs, targets and noise")
        if self.means:
            parts.append(f"{in_words(self.means)} for the regression's means")
        parts.append(f"{in_words(self.weights)} for weights{' and their averages' if self.averaged else ''}")
        return f"a step keeps about {in_words(self.of(pairs))}: {', '.join(parts[:-1])}, and {parts[-1]}"

    def _images(self, pairs: int) -> int:
        """How many the network gets at once."""
        n = pairs * self.images
        return n if self.at_once is None else min(n, self.at_once)


def kept_bytes(network: nn.Module, channels: int, patches: Patches, device: Device = "cpu") -> int | None:
    """What autograd keeps for the gradient of images, all that belongs to the network itself left out.

    Args:
        network: in the kind of precision of the context, such as ``torch.autocast``.
        channels: of the images.
        patches: the images.
        device: that it is to be trained on; operations keep different things on different ones.

    Returns:
        Bytes; None for a network that cannot be run without values.
    """
    kept: dict[StorageWeakRef, Any] = {}

    def take_note(tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        # held on to, so that no other one gets its place
        kept[StorageWeakRef(storage)] = storage

    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.enable_grad():
            blank = _blank(network, device)
            with saved_tensors_hooks(take_note, lambda nothing: nothing):
                _run(blank, channels, patches, device)
    except _CANNOT:
        return None
    own = _storages(blank)
    return sum(storage.nbytes() for ref, storage in kept.items() if ref not in own)


def passing_bytes(network: nn.Module, channels: int, patches: Patches, device: Device = "cpu") -> int | None:
    """What a network holds at most at any time that gives images without a gradient; see `kept_bytes`."""
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            blank = _blank(network, device).eval()
            with _Held(_storages(blank)) as held:
                _run(blank, channels, patches, device)
    except _CANNOT:
        return None
    return held.most


def per_image(
    measure: Callable[[nn.Module, int, Patches, Device], int | None],
    network: nn.Module,
    channels: int,
    patches: Patches,
    device: Device = "cpu",
) -> tuple[int, int] | None:
    """What every image adds, and what there is once, such as weights cast to half precision.

    Args:
        measure: `kept_bytes` or `passing_bytes`, whose arguments the others are.
        network: see there.
        channels: see there.
        patches: the first one is taken.
        device: see there.
    """
    first = patches.chunk(0, 1)
    twice = Patches(first.domain, first.patch, first.corners.repeat(2, 1), first.samples.repeat(2))
    one, two = (measure(network, channels, part, device) for part in (first, twice))
    if one is None or two is None:
        return None
    return two - one, max(2 * one - two, 0)


class _Held(TorchDispatchMode):
    """Adds up what results of operations hold while they are needed.

    Args:
        known: storages that do not count.
    """

    def __init__(self, known: set[StorageWeakRef]) -> None:
        TorchDispatchMode.__init__(self)
        self.most = 0
        self._known = known
        self._sizes: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor) and (ref := StorageWeakRef(tensor.untyped_storage())) not in self._known:
                self._sizes[ref] = tensor.untyped_storage().nbytes()
        self._sizes = {ref: size for ref, size in self._sizes.items() if not ref.expired()}
        self.most = max(self.most, sum(self._sizes.values()))
        return result


def _blank(network: nn.Module, device: Device) -> nn.Module:
    """A copy in training mode whose weights have no values."""
    blanks: dict[int, Any] = {}
    for tensor in (*network.parameters(), *network.buffers()):
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
        learnt = isinstance(tensor, nn.Parameter)
        blanks[id(tensor)] = nn.Parameter(empty, requires_grad=tensor.requires_grad) if learnt else empty
    return copy.deepcopy(network, blanks).train()


def _run(network: nn.Module, channels: int, patches: Patches, device: Device) -> Tensor:
    n = len(patches)
    given = torch.empty(n, channels, *patches.patch, device=device), torch.empty(n, device=device)
    named = extras_of({"lead": torch.zeros(n, dtype=torch.int64)}, network, patches)
    # of places and labels on this device networks know that they have no values to check
    extras = {name: torch.empty(values.shape, dtype=values.dtype, device="meta") for name, values in named.items()}
    result: Tensor = network(*given, **extras)
    return result


def _storages(network: nn.Module) -> set[StorageWeakRef]:
    return {StorageWeakRef(tensor.untyped_storage()) for tensor in (*network.parameters(), *network.buffers())}


def weight_bytes(module: nn.Module, *, averaged: bool) -> int:
    """Of weights and buffers, gradients, two moments of each weight that learns, and averages of all."""
    tensors: Iterable[Tensor] = (*module.parameters(), *module.buffers())
    return sum(tensor.nbytes * (1 + 3 * tensor.requires_grad + averaged) for tensor in tensors)


def free_bytes(device: torch.device, processes: int = 1) -> int:
    """Memory that is free on a device, for each of the processes of a machine where they share it."""
    if device.type == "cuda":
        # what torch has reserved and does not use, as after an earlier training, is free for it
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + idle
    return min([_free_ram(), *_rooms()]) // processes


def _free_ram() -> int:
    try:
        known = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(known["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        # not Linux: nobody says what is free
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _rooms(process: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """What control groups, as of containers and of jobs of SLURM, leave to this process and to the groups above it."""
    try:
        groups = [line.split(":", 2) for line in process.read_text().splitlines()]
    except OSError:
        return []
    found = []
    for _, controllers, group in groups:
        if controllers not in ("", "memory"):
            continue
        second = controllers == ""  # version 2 has one tree for everything
        top = root if second else root / "memory"
        names = ("memory.max", "memory.current") if second else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        own = top / group.lstrip("/")
        for folder in (own, *own.parents[: len(own.parts) - len(top.parts)]):
            try:
                limit, used = ((folder / name).read_text().strip() for name in names)
            except OSError:  # a container sees its own group as the top
                continue
            if limit != "max":
                cached = _cached_files(folder / "memory.stat", "inactive_file" if second else "total_inactive_file")
                found.append(max(int(limit) - int(used) + cached, 0))
    return found


def _cached_files(path: Path, key: str) -> int:
    """What a control group's use holds of files that were read, which makes room when it is needed."""
    try:
        known = dict(line.split() for line in path.read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(known.get(key, 0))


def in_words(size: float) -> str:
    """Bytes in a unit that suits them."""
    return f"{size / GIB:,.1f} GiB" if size >= 0.1 * GIB else f"{size / 2**20:.1f} MiB"
