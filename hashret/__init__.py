"""hashret: image retrieval by learned binary codes.

    import hashret

    hashret.train("folder:photos", "model.safetensors", weights="imagenet")
    hashret.encode("folder:photos", model="model.safetensors", out="codes")
    hashret.build_index("codes", out="index")
    searcher = hashret.Searcher("index", "model.safetensors")
    for hit in searcher.search("query.jpg", k=10):
        print(hit.rank, hit.path, hit.hamming, hit.euclidean)

The names are those of ``__init__.pyi``, and each is loaded when it is first used: ``import hashret`` alone pulls
neither torch nor faiss.
"""

import lazy_loader

from .renamed import install as _install_old_names

__version__ = "0.1.0"

__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ = ["__version__", *__all__]

_install_old_names()


def __dir__() -> list[str]:
    return __all__
