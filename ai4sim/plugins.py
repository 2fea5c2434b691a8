"""Third parties' networks and data sets, found without a change of this repository."""

import pkgutil
from importlib import import_module
from importlib.metadata import entry_points

from ai4sim.errors import InputError

GROUP = "ai4sim.plugins"
PREFIX = "ai4sim_plugin_"


def load_plugins() -> list[str]:
    """Import every plugin, so that its classes can be named in a configuration without their module.

    Plugins are the modules that installed packages name in the entry-point group ``ai4sim.plugins``, and importable
    top-level modules whose name begins with ``ai4sim_plugin_``.

    Returns:
        Names of the plugins.

    Raises:
        InputError: a plugin cannot be imported.
    """
    modules = {module.name: module.name for module in pkgutil.iter_modules() if module.name.startswith(PREFIX)}
    found = {**{entry.name: entry.module for entry in entry_points(group=GROUP)}, **modules}
    for name, module in sorted(found.items()):
        try:
            import_module(module)
        except Exception as error:
            raise InputError(
                f"the plugin {name} ({module}) cannot be imported: {type(error).__name__}: {error}"
            ) from error
    return sorted(found)
