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

__version__ = "0.1.0"

_HOMES = {
    "HashretError": "errors",
    "Searcher": "search",
    "add": "search",
    "build_index": "index",
    "compact": "index",
    "duplicates": "near_duplicates",
    "encode": "encoding",
    "evaluate": "evaluation",
    "explain": "explanation",
    "export": "engines",
    "info": "description",
    "load_encoder": "models.checkpoint",
    "open_data": "data",
    "open_database": "engines",
    "open_index": "index",
    "remove": "index",
    "report": "run_report",
    "restore": "moving",
    "serve": "service",
    "set_aside": "moving",
    "train": "training",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'hashret' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__():
    return __all__
