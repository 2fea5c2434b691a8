"""Third parties' networks and data sets, found without a change of this repository."""

import logging
import pkgutil
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType

GROUP = "ai4sim.plugins"
PREFIX = "ai4sim_plugin_"

logger = logging.getLogger(__name__)


def load_plugins() -> dict[str, ModuleType]:
    """Import every plugin, so that its classes can be named in a configuration without their module.

    Plugins are the modules that installed packages name in the entry-point group ``ai4sim.plugins``, and importable
    top-level modules whose name begins with ``ai4sim_plugin_``. One that cannot be imported is left out with a warning:
    who does not use it must not be stopped by it.

    Returns:
        The modules by the plugins' names.
    """
    modules = {module.name: module.name for module in pkgutil.iter_modules() if module.name.startswith(PREFIX)}
    found = {**{entry.name: entry.module for entry in entry_points(group=GROUP)}, **modules}
    loaded = {}
    for name, module in sorted(found.items()):
        try:
            loaded[name] = import_module(module)
        except Exception as error:  # whatever a stranger's module may do
            logger.warning("plugin %s (%s) left out: %s: %s", name, module, type(error).__name__, error)
    return loaded
