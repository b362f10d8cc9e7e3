"""hashret: image retrieval by learned binary codes.

    import hashret

    hashret.train("folder:photos", "model.safetensors")
    hashret.encode("folder:photos", model="model.safetensors", out="codes")
    hashret.build_index("codes", out="index")
    searcher = hashret.Searcher("index", "model.safetensors")
    for hit in searcher.search("query.jpg", k=10):
        print(hit.rank, hit.path, hit.hamming, hit.euclidean)

The names are those of ``__init__.pyi``, and each is loaded when it is first used: ``import hashret`` alone pulls
neither torch nor faiss.
"""

from functools import cache as _cache
from typing import Any

from .renamed import install as _install_old_names

__version__ = "0.2.0"

_install_old_names()


@_cache
def _stub() -> tuple[Any, list[str]]:
    import lazy_loader  # reads the stub, which takes 5 ms

    load, _, names = lazy_loader.attach_stub(__name__, __file__)
    return load, ["__version__", *names]


def __getattr__(name: str) -> Any:
    load, names = _stub()
    return names if name == "__all__" else load(name)


def __dir__() -> list[str]:
    return _stub()[1]
