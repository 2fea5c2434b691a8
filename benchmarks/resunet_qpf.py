"""Probabilities of precipitation: whole fields through the small network, MRMS files, and patches for training.

- Seconds for a field of 1308 x 1524, in one pass and by tiles of 96 that overlap by half, and the peak memory of the
  process that does it. The limits that the project set itself are 90 s and 4 GB on two cores.
- Seconds to decode one file of the size of MRMS's CONUS grid, 3500 x 7000, against ``cfgrib``, both from an
  uncompressed file. cfgrib keeps the coordinates of the last grid, so its first file takes longer than the next ones;
  both are given. The peer is left out where it is not installed.
- Training patches per second from a processed store, and how many the network takes in a second.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ai4sim.atomic import atomic_path
from ai4sim.tiling import Tiling, one_pass_inference, tiled_inference
from benchmarks.common import digits, machine, print_records
from precip_postproc.resunet_qpf.data import QpfData
from precip_postproc.resunet_qpf.demo import DemoSettings
from precip_postproc.resunet_qpf.features import DEFAULT
from precip_postproc.resunet_qpf.grib_writer import mrms, write
from precip_postproc.resunet_qpf.heads import ClassHead
from precip_postproc.resunet_qpf.losses import CrossEntropy, masked_mean
from precip_postproc.resunet_qpf.models import QpfModule
from precip_postproc.resunet_qpf.networks import ConditionedResUNet
from precip_postproc.resunet_qpf.readers import LatLonGrid, read_mrms

SHAPE = 1308, 1524
CONUS = 3500, 7000
TILE = 96


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Median over repeats, after one call that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def make_call() -> Callable[[torch.Tensor], torch.Tensor]:
    """The small network with its head: features to probabilities of exceedance."""
    torch.manual_seed(0)
    head = ClassHead()
    network = ConditionedResUNet(len(DEFAULT), head.n_outputs).eval()
    conditions = torch.zeros(1, 8)
    return lambda tiles: head.exceedance(network(tiles, conditions.expand(len(tiles), -1)))


def run_field(way: str, threads: int, repeats: int) -> dict[str, Any]:
    """One way of a whole field, in this process, with its peak memory."""
    torch.set_num_threads(threads)
    fields = torch.randn(len(DEFAULT), *SHAPE)
    call = make_call()
    if way == "one_pass":
        seconds = median_seconds(lambda: one_pass_inference(call, fields, multiple=16), repeats)
    else:
        tiling = Tiling(SHAPE, tile=TILE, multiple=16)
        seconds = median_seconds(lambda: tiled_inference(call, fields, tiling, batch_size=8), repeats)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"what": f"field 1308 x 1524, {way}", "seconds": digits(seconds), "peak_gib": digits(peak)}


def measure_fields(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Both ways, each in a process of its own: peak memory does not fall again."""
    records = []
    for way in ("one_pass", "tiles"):
        words = ["--way", way, "--threads", str(options.threads), "--repeats", str(options.repeats)]
        command = [sys.executable, "-m", "benchmarks.resunet_qpf", *words]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        records.append(json.loads(found.stdout.splitlines()[-1]))
    return records


def make_mrms_file(folder: Path) -> Path:
    """A file as those of the CONUS domain: 4 % of the points wet, in multiples of 0.1 mm."""
    rng = np.random.default_rng(0)
    rows, columns = CONUS
    coarse = rng.standard_normal((rows // 50, columns // 50)).astype(np.float32)
    smooth: NDArray[np.float32] = np.kron(coarse, np.ones((50, 50), np.float32))
    values = np.round(np.maximum(smooth + 0.3 * rng.standard_normal(CONUS, np.float32) - 1.8, 0) * 5, 1)
    latitudes: NDArray[np.float64] = 20.005 + 0.01 * np.arange(rows, dtype=np.float64)
    longitudes: NDArray[np.float64] = -129.995 + 0.01 * np.arange(columns, dtype=np.float64)
    time_of_file = np.datetime64("2025-12-01T06", "s")
    grid = LatLonGrid(latitudes, longitudes)
    message = mrms(values, (209, 6, 37), time_of_file, grid, packingType="grid_png", bitsPerValue=16)
    return write(folder / "conus.grib2", message)


def read_with_cfgrib(path: Path) -> NDArray[np.float32]:
    """The same values through cfgrib and xarray, without an index file."""
    import xarray as xr

    with xr.open_dataset(path, engine="cfgrib", backend_kwargs={"indexpath": ""}) as dataset:
        values: NDArray[np.float32] = next(iter(dataset.data_vars.values())).values
        # what a user needs as well
        dataset["latitude"].load(), dataset["longitude"].load()
    return values


def measure_decoding(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Ours, and the peer where it is installed."""
    with tempfile.TemporaryDirectory() as folder:
        path = make_mrms_file(Path(folder))
        ours = median_seconds(lambda: read_mrms(path), options.repeats)
        record: dict[str, Any] = {"what": "MRMS file 3500 x 7000", "seconds": digits(ours)}
        if find_spec("cfgrib") is not None:
            start = time.perf_counter()
            theirs = read_with_cfgrib(path)
            first = time.perf_counter() - start
            if not np.allclose(theirs[::-1], read_mrms(path).values, atol=1e-3):
                raise RuntimeError("cfgrib and our reader give different values")
            later = median_seconds(lambda: read_with_cfgrib(path), options.repeats)
            record |= {"peer_first": digits(first), "peer_later": digits(later), "ratio": digits(first / ours)}
            record["ratio_later"] = digits(later / ours)
    return [record]


def measure_patches(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Patches read per second, and patches that the network learns from in a second."""
    data = QpfData("benchmark", demo=DemoSettings(days=20, test_days=4), patches_per_epoch=1600)
    data.prepare_data()
    data.setup("fit")
    loader = data.train_dataloader()
    draws = list(loader.batch_sampler)
    start = time.perf_counter()
    for draw in draws:
        loader.dataset.read(draw)
    read = len(draws) * data.batch_size / (time.perf_counter() - start)
    module = QpfModule(features=list(DEFAULT))
    module.channels = data.channels
    batch = loader.dataset.read(draws[0])
    loss = CrossEntropy()

    def step() -> None:
        outputs = module(batch["fields"], batch["conditions"])
        weights = torch.isfinite(batch["observed"]).float()
        masked_mean(loss(module.head, outputs, batch["observed"]), weights).backward()

    learnt = data.batch_size / median_seconds(step, 10 * options.repeats)
    return [{"what": "patches 64 x 64", "read_per_second": digits(read), "learnt_per_second": digits(learnt)}]


def main(args: list[str] | None = None) -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--way", choices=("one_pass", "tiles"), help="measure this alone and print it as JSON")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/resunet_qpf.json"))
    options = parser.parse_args(args)
    if options.way is not None:
        print(json.dumps(run_field(options.way, options.threads, options.repeats)))
        return
    torch.set_num_threads(options.threads)
    records = measure_fields(options)
    print_records("a whole field", ("what", "seconds", "peak_gib"), records)
    decoding = measure_decoding(options)
    print_records("decoding", tuple(decoding[0]), decoding)
    patches = measure_patches(options)
    print_records("training", tuple(patches[0]), patches)
    peers = [name for name in ("eccodes", "cfgrib") if find_spec(name) is not None]
    result = {
        "benchmark": "resunet_qpf",
        "machine": machine("torch", *peers),
        "threads": options.threads,
        "results": [*records, *decoding, *patches],
    }
    with atomic_path(options.output) as partial_file:
        partial_file.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
