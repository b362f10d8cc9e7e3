"""Old names of modules, functions, attributes and keywords: each works in this release and warns with the new name."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

MODULES = {
    "hashret.bit_statistics": "hashret.reporting.bits",
    "hashret.confusion": "hashret.reporting.confusion",
    "hashret.data.split": "hashret.training.held_out",
    "hashret.engines.kinds": "hashret.addresses",
    "hashret.engines.names": "hashret.addresses",
    "hashret.engines.opening": "hashret.opening",
    "hashret.features": "hashret.data.feature_cache",
    "hashret.feed": "hashret.training.feed",
    "hashret.fit": "hashret.training.loop",
    "hashret.heatmaps": "hashret.rendering.heatmaps",
    "hashret.index.linked": "hashret.near_duplicates.components",
    "hashret.index.near": "hashret.near_duplicates.near_pairs",
    "hashret.index.pairs": "hashret.near_duplicates.code_pairs",
    "hashret.likeness": "hashret.near_duplicates.distances",
    "hashret.methods.pairs": "hashret.methods.similarity",
    "hashret.moving": "hashret.near_duplicates.moving",
    "hashret.nearest": "hashret.index.torch_nearest",
    "hashret.pages": "hashret.rendering.pages",
    "hashret.parallel": "hashret.training.parallel",
    "hashret.plots": "hashret.reporting.svg",
    "hashret.record_tables": "hashret.reporting.records",
    "hashret.resident": "hashret.index.resident",
    "hashret.run_figures": "hashret.reporting.figures",
    "hashret.run_parts": "hashret.reporting.run",
    "hashret.run_plots": "hashret.reporting.plots",
    "hashret.run_report": "hashret.reporting.page",
    "hashret.service.metrics": "hashret.service.prometheus",
}
# Modules that are still there under their name, and the names that each has lost: the module that has them now, and in
# it the same name or, behind "=", another.
NAMES = {
    "hashret.engines": {"hashret.opening": "open_database"},
    "hashret.evaluation": {"hashret.evaluation": "Trial=EvaluationSet open_trial=open_evaluation_set"},
    "hashret.index.folder": {"hashret.index.changes": "build_index", "hashret.index.opening": "open_index"},
    "hashret.models.vgg": {"hashret.models.network": "HashNet", "hashret.models.weights": "init_from_scratch"},
    "hashret.near_duplicates": {"hashret.near_duplicates.groups": "Photograph alike=criterion duplicates"},
    "hashret.rendering": {
        "hashret.rendering.pictures": "PLAIN QUERY QUIET TILE Tile check_suffix grid hit_caption hit_frame letterbox "
        "open_small save_png sheet thumbnail write",
        "hashret.rendering.text": "caches_table distances duplicates_table size table",
    },
    "hashret.search": {"hashret.adding": "add"},
    "hashret.training": {"hashret.training.settings": "Settings", "hashret.training.start": "train"},
}
# Attributes and methods that have another name now, by the class that has them: see `old_attributes`.
ATTRIBUTES: dict[str, dict[str, str]] = {
    "hashret.engines.engine.Engine": {"place": "address"},
    "hashret.engines.exporting.Export": {"place": "address"},
    "hashret.evaluation.EvaluationSet": {"labels_by_row": "labels_by_position"},
    "hashret.evaluation.Scores": {"head": "reranked_prefix", "tail": "counts_behind"},
    "hashret.index.database.Database": {"has_values": "has_hash_outputs", "value": "hash_outputs_at"},
    "hashret.index.database.Hits": {"rows": "positions"},
    "hashret.index.folder.Index": {"values": "hash_outputs", "row": "position", "rows": "positions"},
    "hashret.models.attribution.Attribution": {"places": "cells", "values": "hash_outputs"},
    "hashret.models.encoder.Encoder": {
        "convolutions": "backbone", "feature_width": "fc_width", "precision": "compute_dtype", "values": "hash_outputs",
    },
    "hashret.models.heads.HeadOutput": {"features": "fc_features", "values": "hash_outputs"},
    "hashret.shards.Shard": {"features": "fc_features", "values": "hash_outputs"},
}  # fmt: skip
# Keywords that have another name now, by the function that takes them: see `old_keywords`.
KEYWORDS: dict[str, dict[str, str]] = {
    "hashret.evaluation.open_evaluation_set": {"split": "subset"},
    "hashret.evaluation.score": {"trial": "evaluation_set"},
    "hashret.index.database.Database.search": {"values": "hash_outputs", "features": "query_features"},
    "hashret.index.opening.open_index": {"engine": "backend"},
    "hashret.metrics.average_precision": {"head": "reranked_prefix"},
    "hashret.metrics.precision_at": {"head": "reranked_prefix"},
    "hashret.opening.open_database": {"engine": "backend"},
    "hashret.search.Searcher.__init__": {"engine": "backend"},
    "hashret.training.start.train": {"arch": "backbone"},
    "hashret.search.Searcher.hits": {"values": "hash_outputs", "features": "query_features"},
}


def old_attributes(cls: type[T]) -> type[T]:
    """Let the old names of `ATTRIBUTES` be read of the objects of a class, with a warning: a class decorator."""

    def reader(old: str, new: str) -> property:
        def read(self: T) -> Any:
            warnings.warn(f"{cls.__name__}.{old} is now {cls.__name__}.{new}", DeprecationWarning, stacklevel=2)
            return getattr(self, new)

        return property(read)

    for old, new in ATTRIBUTES[f"{cls.__module__}.{cls.__qualname__}"].items():
        setattr(cls, old, reader(old, new))
    return cls


def old_keywords(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function be called with the old names of `KEYWORDS`, with a warning: a decorator."""
    names = KEYWORDS[f"{function.__module__}.{function.__qualname__}"]

    @functools.wraps(function)
    def called(*args: Any, **options: Any) -> T:
        for old in names.keys() & options if options else ():
            text = f"{function.__qualname__}({old}=) is now {function.__qualname__}({names[old]}=)"
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            options[names[old]] = options.pop(old)
        return function(*args, **options)

    return called


def forwarding(module: str) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a module of `NAMES`, which finds what that module has lost and warns."""

    def find(name: str) -> Any:
        for home, names in NAMES[module].items():
            for old, _, new in (pair.partition("=") for pair in names.split()):
                if old == name:
                    warnings.warn(f"{module}.{old} is now {home}.{new or old}", DeprecationWarning, stacklevel=2)
                    return getattr(import_module(home), new or old)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find


class OldModules:
    """Finder and loader of `MODULES`: importing an old module warns and gives one that has the names of the new module.

    Its instance is the first in ``sys.meta_path``: one of an editable installation would look into another checkout.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec of an old module, None of any other."""
        return ModuleSpec(name, self) if name in MODULES else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave making the empty module to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Warn, and let every name of the old module be looked up in the new one."""
        new = MODULES[module.__name__]
        warnings.warn(f"{module.__name__} is now {new}", DeprecationWarning, stacklevel=2)
        vars(module)["__getattr__"] = lambda name: getattr(import_module(new), name)


def install() -> None:
    """Make the old modules importable."""
    if not any(isinstance(finder, OldModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, OldModules())
