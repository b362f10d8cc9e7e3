"""hashret: image retrieval by learned binary codes.

    import hashret

    hashret.train("folder:photos", "model.safetensors", weights="imagenet")
    hashret.encode("folder:photos", model="model.safetensors", out="codes")
    hashret.build_index("codes", out="index")
    searcher = hashret.Searcher("index", "model.safetensors")
    for hit in searcher.search("query.jpg", k=10):
        print(hit.rank, hit.path, hit.hamming, hit.euclidean)

The names are loaded when they are first used: ``import hashret`` alone pulls neither torch nor faiss.
"""

from importlib import import_module

from .renamed import install as _install_old_names

__version__ = "0.1.0"

_HOMES = {
    "HashretError": "errors",
    "Searcher": "search",
    "add": "search",
    "build_index": "index",
    "compact": "index",
    "duplicates": "near_duplicates.groups",
    "encode": "encoding",
    "evaluate": "evaluation",
    "explain": "explanation",
    "export": "engines",
    "info": "description",
    "load_encoder": "models.checkpoint",
    "open_data": "data",
    "open_database": "opening",
    "open_index": "index",
    "remove": "index",
    "report": "reporting.page",
    "restore": "near_duplicates.moving",
    "serve": "service",
    "set_aside": "near_duplicates.moving",
    "train": "training.start",
}
__all__ = ["__version__", *_HOMES]

_install_old_names()


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'hashret' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__():
    return __all__
