"""A coupled column with a trained network and with the scheme: ``python -m weather_forecast.gwd.stability``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ai4sim.atomic import atomic_path
from ai4sim.errors import InputError
from ai4sim.experiment import load_model
from ai4sim.style import save
from weather_forecast.gwd.coupled import ColumnRun, Emulator, oscillation, scheme_as_emulator, simulate_column
from weather_forecast.gwd.models import GwdModule
from weather_forecast.gwd.networks.base import ColumnNetwork
from weather_forecast.gwd.plotters import plot_coupled
from weather_forecast.gwd.spectrum import SchemeParameters


def network_as_emulator(network: ColumnNetwork) -> Emulator:
    """A network in the scheme's place: arrays in physical units in and out."""

    def drag(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            result: np.ndarray = network(torch.from_numpy(x)).numpy()
        return result

    return drag


def compare(network: ColumnNetwork, parameters: SchemeParameters, run: ColumnRun) -> xr.Dataset:
    """Run the coupled column with the scheme and with the network that emulates it.

    The scheme launches the flux of the equator, as it did when it made the labels: latitude is no input of the
    network, but it knows equatorial columns by their temperature.

    Args:
        network: trained on the 63 levels of the run's grid, without further scalars.
        parameters: of the scheme that made the labels.
        run: settings of the column.

    Returns:
        ``u`` (drag, column, time, level) of :func:`~weather_forecast.gwd.coupled.simulate_column` and what
        :func:`~weather_forecast.gwd.coupled.oscillation` finds in it, by ``drag``: ``scheme`` or ``emulator``.
    """
    drags = {
        "scheme": scheme_as_emulator(parameters, grid=run.grid, layout=network.layout, latitude=0.0),
        "emulator": network_as_emulator(network),
    }
    sections = [simulate_column(drag, run, network.layout) for drag in drags.values()]
    return xr.concat(
        [section.merge(oscillation(section)) for section in sections],
        xr.DataArray(list(drags), dims="drag", name="drag"),
    )


def table(result: xr.Dataset) -> Table:
    """Largest wind, half-period and amplitude of every column, scheme beside emulator."""
    printed = Table(title="coupled equatorial column")
    for heading in ("upwelling [mm s-1]", "drag", "largest wind [m s-1]", "half-period [days]", "amplitude [m s-1]"):
        printed.add_column(Text(heading), justify="right")
    for column in range(result.sizes["column"]):
        for name in result["drag"].values:
            one = result.sel(drag=name).isel(column=column)
            values = [one[key].item() for key in ("max_wind", "half_period", "amplitude")]
            printed.add_row(f"{1000 * one['upwelling'].item():.1f}", str(name), *(f"{value:.3g}" for value in values))
    return printed


def main(args: Sequence[str] | None = None) -> int:
    """Compare, print the table, draw the sections, and keep them as a NetCDF file beside the figure.

    Returns:
        Status of the program: 0, or 2 after a user's mistake.
    """
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m weather_forecast.gwd.stability")
    parser.add_argument("checkpoint", type=Path, help="checkpoint of a trained network")
    parser.add_argument("--years", type=float, default=3.0, help="length of the run [3]")
    parser.add_argument("--azimuths", type=int, default=8, help="of the scheme that made the labels [8]")
    parser.add_argument("--speeds", type=int, default=32, help="of the scheme that made the labels [32]")
    parser.add_argument("--figure", type=Path, default=None, help="PNG file [figures/coupled.png of the run]")
    given = parser.parse_args(args)
    try:
        model = load_model(given.checkpoint)
        if not isinstance(model, GwdModule):
            raise InputError(f"{given.checkpoint} is of a {type(model).__name__}, expected a GwdModule")
        parameters = SchemeParameters(n_azimuths=given.azimuths, n_speeds=given.speeds)
        result = compare(model.network, parameters, ColumnRun(years=given.years))
    except InputError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        return 2
    # tables need room: where there is no terminal to ask, take a wide line
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table(result))
    figure = given.figure or given.checkpoint.resolve().parents[1] / "figures" / "coupled.png"
    with atomic_path(figure.with_suffix(".nc")) as partial:
        result.to_netcdf(partial, engine="h5netcdf")
    console.print(f"figure: {save(plot_coupled(result), figure)}", soft_wrap=True, highlight=False, markup=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
