from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import limbeck

_EXEMPT = ("limbeck.cli",)


def _packages() -> list[str]:
    walked = pkgutil.walk_packages(limbeck.__path__, prefix="limbeck.")
    return ["limbeck", *(found.name for found in walked if found.ispkg and not found.name.startswith(_EXEMPT))]


def test_no_module_bears_the_name_of_what_its_package_exports():
    # Importing such a module would put it in the place of the function or class.
    clashes = []
    for name in _packages():
        package = importlib.import_module(name)
        modules = {found.name for found in pkgutil.iter_modules(package.__path__)}
        for shared in modules & set(getattr(package, "__all__", ())):
            if not isinstance(getattr(package, shared), ModuleType):
                clashes.append(f"{name}.{shared}")
    assert clashes == []


def test_every_exported_name_is_there():
    for name in _packages():
        package = importlib.import_module(name)
        missing = [each for each in getattr(package, "__all__", ()) if getattr(package, each, None) is None]
        assert missing == [], name
