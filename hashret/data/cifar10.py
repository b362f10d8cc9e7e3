"""`cifar10:DIR`: CIFAR-10 as class folders of PNGs, or as torchvision's own files, unpacked once into such folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import HashretError
from ..files import StrPath, partial_folder, place_folder
from .folder import open_folder
from .source import ImageSource, register

UNPACKED = "cifar10-png"


def open_cifar10(folder: StrPath, subset: str | None = None, download: bool = False, spec: str = "") -> ImageSource:
    """Open CIFAR-10 in ``folder``: class folders under train/ and test/, or torchvision's files.

    Torchvision's files are unpacked once into ``folder/cifar10-png``, under the images' original names, so that
    every hit is a picture one can open.

    Raises:
        HashretError: nothing there and ``download`` not asked for, or the download failed.
    """
    if subset in (None, "database"):
        subset = "train"  # by the field's custom the database is what was trained on
    whole = all_of_cifar10(folder, download)
    if subset not in ("train", "test"):
        raise HashretError(f"CIFAR-10 has no {subset} set; there are train, test")
    rows = [row for row, path in enumerate(whole.paths) if path.startswith(f"{subset}/")]
    return whole.subset(rows, spec=spec or f"cifar10:{folder}")


def all_of_cifar10(folder: StrPath, download: bool = False) -> ImageSource:
    """Open CIFAR-10's 60,000 images as one source, in order of their paths ``test/<class>/<name>``, ``train/...``.

    Train, test and every protocol's sets are subsets of it, and so share one feature cache.
    """
    root = Path(folder)
    if not (root / "train").is_dir():
        if not (root / UNPACKED / "train").is_dir():
            _unpack(root, download)
        root = root / UNPACKED
    subsets = {name: open_folder(root, name) for name in ("test", "train") if (root / name).is_dir()}
    paths = tuple(f"{name}/{path}" for name, subset in subsets.items() for path in subset.paths)
    classes = subsets["train"].classes
    if not classes or any(subset.classes != classes for subset in subsets.values()):
        raise HashretError(f"{root} is not CIFAR-10: its train/ and test/ do not hold the same class folders")
    labels = np.concatenate([np.asarray(subset.labels) for subset in subsets.values()])
    return ImageSource(root, paths, labels, classes, f"cifar10:{folder}")


def _unpack(root: Path, download: bool) -> None:
    from torchvision.datasets import CIFAR10

    try:
        # torchvision checks each file's md5 before it unpickles it.
        sets = {"train": CIFAR10(root, train=True, download=download), "test": CIFAR10(root, train=False)}
    except RuntimeError:
        raise HashretError(
            f"no CIFAR-10 in {root}: neither train/ and test/ class folders nor torchvision's files, whole and "
            "unchanged",
            hint="name a folder that has them, or add --download",
        ) from None
    except OSError as error:
        raise HashretError(
            f"CIFAR-10 could not be downloaded ({error})",
            hint=f"fetch cifar-10-python.tar.gz elsewhere into {root}, or name class folders with cifar10:DIR",
        ) from None
    with partial_folder(root / UNPACKED) as partial:
        try:
            for name, dataset in sets.items():
                for (image, label), file in zip(dataset, _file_names(dataset), strict=True):
                    target = partial / name / dataset.classes[label] / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    image.save(target)
            place_folder(partial, root / UNPACKED)
        except OSError as error:
            raise HashretError(
                f"cannot unpack CIFAR-10 to {root / UNPACKED}: {error.strerror}",
                hint="look at the disk, and at what is there",
            ) from error


def _file_names(dataset: Any) -> list[str]:
    """Return the original file names of a torchvision CIFAR10 set, which torchvision reads past."""
    import pickle

    batches = dataset.train_list if dataset.train else dataset.test_list
    names: list[str] = []
    for batch, _md5 in batches:
        with open(Path(dataset.root) / dataset.base_folder / batch, "rb") as file:
            names += pickle.load(file, encoding="latin1")["filenames"]  # its md5 was checked by CIFAR10 above
    return names


register("cifar10", lambda asked: open_cifar10(asked.where, asked.subset, asked.download, asked.spec), "cifar10:DIR")
