"""Networks by name: those of this package and those of plugins."""

import importlib
import inspect
from difflib import get_close_matches
from types import ModuleType

from ai4sim.errors import InputError
from ai4sim.plugins import load_plugins
from weather_forecast.lam.networks.base import LamNetwork

OWN = (
    "weather_forecast.lam.networks.grid_networks",
    "weather_forecast.lam.networks.segformer",
    "weather_forecast.lam.networks.graph_lam",
    "weather_forecast.lam.networks.hi_lam",
)


def networks_of(module: ModuleType) -> dict[str, type[LamNetwork]]:
    """Networks that a module itself defines; what it only imports does not count."""
    return {
        name: kind
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, LamNetwork) and kind.__module__ == module.__name__ and not inspect.isabstract(kind)
    }


def available_networks() -> dict[str, type[LamNetwork]]:
    """All networks by name.

    Raises:
        InputError: two modules define a network of the same name; names both.
    """
    found: dict[str, type[LamNetwork]] = {}
    for module in (*map(importlib.import_module, OWN), *load_plugins().values()):
        for name, kind in networks_of(module).items():
            if name in found and found[name] is not kind:
                raise InputError(
                    f"two networks are called {name}: in {found[name].__module__} and in {kind.__module__}"
                )
            found[name] = kind
    return found


def get_network(name: str) -> type[LamNetwork]:
    """The network of a name, or any importable class by its path.

    Raises:
        InputError: there is none; names the nearest.
    """
    if "." in name:
        module, _, attribute = name.rpartition(".")
        try:
            kind = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise InputError(f"network {name!r} cannot be imported: {error}") from error
        if not (inspect.isclass(kind) and issubclass(kind, LamNetwork)):
            raise InputError(f"network {name!r} is no subclass of LamNetwork")
        return kind
    networks = available_networks()
    if name not in networks:
        near = get_close_matches(name, networks, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"network {name!r} is unknown; there are {', '.join(sorted(networks))}{hint}")
    return networks[name]
