"""torchmetrics without what it imports and Lightning never uses.

Lightning wants two classes of torchmetrics, to tell metrics from numbers. `import torchmetrics` gives it all others
too, and with them torchvision's models, transformers, scipy.signal and matplotlib: a third of what a cell spends on
imports. Here the package is there at once, and runs its own `__init__` when something else of it is asked for.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

PACKAGE = "torchmetrics"
#: Where to find what Lightning imports.
WHERE = {
    "Metric": "torchmetrics.metric",
    "MetricCollection": "torchmetrics.collections",
    "__version__": "torchmetrics.__about__",
}
#: Asked before drawing, and at import for a type's name alone. Metrics cannot be plotted in our processes.
FLAGS, PLOTS = "torchmetrics.utilities.imports", "_MATPLOTLIB_AVAILABLE"


class _Deferred(ModuleType):
    """A package whose `__init__` has not run."""

    def __getattr__(self, name: str) -> Any:
        if name in WHERE:
            if name != "__version__":
                importlib.import_module("torchmetrics.utilities")  # which imports the metric in the midst of itself
            return getattr(importlib.import_module(WHERE[name]), name)
        if name.startswith("__"):  # asked of every module by tools that look through them
            raise AttributeError(f"module {PACKAGE!r} has no attribute {name!r}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert self.__spec__ is not None and isinstance(self.__spec__.loader, _Wrapped)  # noqa: S101, PT018 - see below
        self.__spec__.loader.loader.exec_module(self)
        return getattr(self, name)


class _Wrapped(Loader):
    """A module's own loader, which the package has wait."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == PACKAGE:
            module.__class__ = _Deferred
            vars(module)["_logger"] = logging.getLogger(PACKAGE)  # what its modules take from it
            return
        self.loader.exec_module(module)
        setattr(module, PLOTS, False)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in (PACKAGE, FLAGS):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Wrapped(spec.loader)
        return spec


def defer() -> None:
    """Let the next import of torchmetrics be a light one; what is imported already stays as it is."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
