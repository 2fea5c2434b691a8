"""How fast batches come out of the stores, as a share of copying the same samples from memory.

Run ``python -m benchmarks.data_path``. The limit is copying the same random samples from a memory-mapped
array in the page cache into a preallocated array. Rates are samples per second of processor time of the whole
process (so that threads cannot hide work), measured in turns with the limit, and the median of the ratios is
reported. Data and stores are made in a temporary folder; everything is read from the page cache.

Two kinds of samples: columns (x of 191 and y of 126 float32: 1.3 kB, thousands per chunk) and fields
(16 x 256 x 256 float32: 4.2 MB, one chunk each). Batches come from ``BlockBatchSampler``, and the cache of
decoded chunks holds just what the sampler mixes, so every chunk is decoded once an epoch, as with a store
that is larger than memory.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from rich.console import Console
from rich.table import Table

from ai4sim.flat import make_flat
from ai4sim.loading import BatchDataset
from ai4sim.sampling import BlockBatchSampler
from ai4sim.schema import Schema, Variable
from ai4sim.store import Region, build_store, make_template, open_store
from benchmarks.common import digits, machine

Array = npt.NDArray[Any]
Read = Callable[[npt.NDArray[np.int64]], object]

LAYOUTS: Mapping[str, Mapping[str, Any]] = {
    "zarr uncompressed": {"compression": None},
    "zarr lz4": {"compression": "lz4"},
    "zarr zstd": {"compression": "zstd"},
    "zarr lz4 sharded": {"compression": "lz4", "sharded": True},
}


@dataclass(frozen=True)
class Samples:
    """One kind of sample: its arrays, and how they are stored and drawn."""

    name: str
    arrays: Mapping[str, Array]  # variable -> (sample, ...)
    chunk: int
    shard: int
    batch: int
    window: int
    naive_samples: int  # per measurement of the naive readers, which are slow

    @property
    def schema(self) -> Schema:
        """The schema of the store that holds these arrays."""
        return Schema(
            self.name,
            1,
            tuple(
                Variable(name, ("sample", *(f"{name}_{axis}" for axis in range(1, array.ndim))), "1")
                for name, array in self.arrays.items()
            ),
        )

    @property
    def cache_bytes(self) -> int:
        """Memory for just the chunks that are mixed."""
        row = sum(array[0].nbytes for array in self.arrays.values())
        return int(self.window * self.chunk * row)

    def batches(self, epochs: int = 20) -> Iterator[npt.NDArray[np.int64]]:
        """Shuffled batches without end; drawn beforehand, since drawing them is not what is measured."""
        n = len(next(iter(self.arrays.values())))
        sampler = BlockBatchSampler(n, self.batch, shuffle=True, block=self.chunk, window=self.window)
        drawn = []
        for epoch in range(epochs):
            sampler.set_epoch(epoch)
            drawn += list(sampler)
        return itertools.cycle(drawn)


def make_columns(rows: int) -> Samples:
    """Correlated profiles with noise in every digit: hard to compress, as real float32 model output is."""
    generator = np.random.default_rng(0)
    arrays = {}
    for name, width in (("x", 191), ("y", 126)):
        walk = generator.standard_normal((rows, width), np.float32).cumsum(axis=1, dtype=np.float32)
        arrays[name] = walk * np.float32(10) + np.float32(250)
    return Samples("columns", arrays, chunk=4096, shard=16384, batch=1024, window=8, naive_samples=48)


def make_fields(count: int) -> Samples:
    """Smooth fields with noise of one per cent in every digit."""
    generator = np.random.default_rng(1)
    y, x = np.meshgrid(np.linspace(0, 9, 256), np.linspace(0, 12, 256), indexing="ij")
    smooth = np.stack([np.sin(x * (1 + c / 8)) * np.cos(y + c) for c in range(16)]).astype(np.float32)
    fields = np.empty((count, *smooth.shape), np.float32)
    for field in fields:
        field[...] = smooth * generator.uniform(0.5, 2) + 280
        field += np.float32(0.01) * generator.standard_normal(smooth.shape, np.float32)
    return Samples("fields", {"z": fields}, chunk=1, shard=8, batch=8, window=16, naive_samples=8)


def prepare(samples: Samples, folder: Path) -> dict[str, Path]:
    """Write all layouts; gives name to path."""
    source = folder / f"{samples.name}.source"
    source.write_text("made by the benchmark")
    n = len(next(iter(samples.arrays.values())))
    schema = samples.schema
    sizes = {
        dim: size
        for variable in schema.variables
        for dim, size in zip(variable.dims, samples.arrays[variable.name].shape, strict=True)
    }

    def load(rows: slice) -> xr.Dataset:
        return xr.Dataset({v.name: (v.dims, samples.arrays[v.name][rows]) for v in schema.variables})

    paths = {}
    for layout, options in LAYOUTS.items():
        paths[layout] = folder / f"{samples.name}-{layout.replace(' ', '-')}.zarr"
        shards = {"sample": samples.shard} if options.get("sharded") else None
        template = make_template(
            schema, sizes, {"sample": samples.chunk}, shards=shards, compression=options["compression"]
        )
        regions = [
            Region(f"{rows.start}", {"sample": rows}, partial(load, rows))
            for rows in (slice(start, min(start + samples.shard, n)) for start in range(0, n, samples.shard))
        ]
        build_store(
            paths[layout],
            template=template,
            regions=regions,
            sources=[source],
            schema=schema,
            settings={"layout": layout},
            progress=False,
        )
    for dtype in ("float32", "int16"):
        paths[f"flat {dtype}"] = make_flat(paths["zarr uncompressed"], folder / f"{samples.name}-{dtype}", dtype=dtype)
    return paths


def memory_copy(samples: Samples, flat: Path) -> Read:
    """The limit: copies out of the memory map, into memory that is used again."""
    maps = {name: np.asarray(np.load(flat / f"{name}.npy", mmap_mode="r")) for name in samples.arrays}
    outs = {name: np.empty((samples.batch, *array.shape[1:]), array.dtype) for name, array in maps.items()}

    def read(indices: npt.NDArray[np.int64]) -> None:
        for name, array in maps.items():
            np.take(array, indices, axis=0, out=outs[name], mode="clip")

    return read


def naive_xarray(path: Path) -> Read:
    """One sample at a time with ``isel``, then stacked: what a first Dataset class looks like."""
    dataset = open_store(path)

    def read(indices: npt.NDArray[np.int64]) -> list[Array]:
        rows = [dataset.isel(sample=int(index)).load() for index in indices]
        return [np.stack([row[name].values for row in rows]) for name in dataset.data_vars]

    return read


def naive_zarr(path: Path) -> Read:
    """One sample at a time with zarr's own indexing, then stacked."""
    group = zarr.open_group(path, mode="r")
    arrays = [array for _, array in group.arrays()]

    def read(indices: npt.NDArray[np.int64]) -> list[Array]:
        return [np.stack([array[int(index)] for index in indices]) for array in arrays]

    return read


def rate(read: Read, batches: Iterator[npt.NDArray[np.int64]], seconds: float, limit: int | None) -> float:
    """Samples per second of processor time; ``limit`` cuts batches short for slow readers."""
    count = 0
    start = time.process_time()
    while True:
        indices = next(batches)[:limit]
        read(indices)
        count += len(indices)
        if (used := time.process_time() - start) >= seconds:
            return count / used


def measure(samples: Samples, folder: Path, seconds: float, repeats: int) -> list[dict[str, Any]]:
    """Measure all readers in turns; one record each."""
    paths = prepare(samples, folder)
    limit = memory_copy(samples, paths["flat float32"])
    names = list(samples.arrays)
    readers: dict[str, tuple[Read, int | None]] = {"memory copy again": (limit, None)}
    for name in ("flat float32", "flat int16", *LAYOUTS):
        dataset = BatchDataset(paths[name], names, cache_bytes=samples.cache_bytes)
        readers[name] = (dataset.read, None)
    readers["xarray, one by one"] = (naive_xarray(paths["zarr lz4"]), samples.naive_samples)
    readers["zarr, one by one"] = (naive_zarr(paths["zarr lz4"]), samples.naive_samples)

    streams = {name: samples.batches() for name in ("limit", *readers)}
    for name, (read, cut) in readers.items():
        # first touches: page cache, buffers
        rate(read, streams[name], seconds / 2, cut)
    ratios: dict[str, list[float]] = {name: [] for name in readers}
    rates: dict[str, list[float]] = {name: [] for name in readers}
    limits: list[float] = []
    for _ in range(repeats):
        for name, (read, cut) in readers.items():
            before = rate(limit, streams["limit"], seconds / 4, None)
            own = rate(read, streams[name], seconds, cut)
            after = rate(limit, streams["limit"], seconds / 4, None)
            limits += [before, after]
            rates[name].append(own)
            ratios[name].append(own / ((before + after) / 2))
    sample_bytes = sum(array[0].nbytes for array in samples.arrays.values())
    limit_rate = statistics.median(limits)
    records = [_record(samples.name, "memory copy", limit_rate, 1.0, [1.0], sample_bytes)]
    for name in readers:
        ratio = statistics.median(ratios[name])
        records.append(_record(samples.name, name, statistics.median(rates[name]), ratio, ratios[name], sample_bytes))
    return records


def _record(
    samples: str, reader: str, per_second: float, ratio: float, ratios: list[float], sample_bytes: int
) -> dict[str, Any]:
    return {
        "samples": samples,
        "reader": reader,
        "samples_per_cpu_second": round(per_second, 1),
        "megabytes_per_cpu_second": round(per_second * sample_bytes / 1e6, 1),
        "share_of_memory_copy": digits(ratio),
        "lowest": digits(min(ratios)),
        "highest": digits(max(ratios)),
    }


def show(records: list[dict[str, Any]]) -> None:
    """Print the table."""
    table = Table(title="random batches, per second of processor time")
    for column, justify in (
        ("samples", "left"),
        ("reader", "left"),
        ("samples/s", "right"),
        ("MB/s", "right"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]  # a literal type
    table.add_column("share of memory copy", justify="right")
    table.add_column("range", justify="right")
    for record in records:
        table.add_row(
            record["samples"],
            record["reader"],
            f"{record['samples_per_cpu_second']:.0f}",
            f"{record['megabytes_per_cpu_second']:.0f}",
            f"{record['share_of_memory_copy']:.3g}",
            f"{record['lowest']:.3g} .. {record['highest']:.3g}",
        )
    Console().print(table)


def main(args: list[str] | None = None) -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.4, help="processor time per measurement")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--rows", type=int, default=98304, help="columns; 1.3 kB each")
    parser.add_argument("--fields", type=int, default=64, help="fields; 4.2 MB each")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/data_path.json"))
    options = parser.parse_args(args)
    records: list[dict[str, Any]] = []
    for samples in (make_columns(options.rows), make_fields(options.fields)):
        with tempfile.TemporaryDirectory() as folder:
            records += measure(samples, Path(folder), options.seconds, options.repeats)
    show(records)
    result = {
        "benchmark": "data_path",
        "machine": machine("numpy", "torch", "xarray", "zarr", "numcodecs"),
        "results": records,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
