"""`cifar10:DIR`: CIFAR-10 as class folders of PNGs, or as torchvision's own files, unpacked once into such folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import HashretError
from ..files import partial_folder, place_folder
from .folder import open_folder
from .source import ImageSource

UNPACKED = "cifar10-png"


def open_cifar10(folder, split=None, download=False, spec=None):
    """Open CIFAR-10 in ``folder``: class folders under train/ and test/, or torchvision's files.

    Torchvision's files are unpacked once into ``folder/cifar10-png``, under the images' original names, so that
    every hit is a picture one can open.

    Raises:
        HashretError: nothing there and ``download`` not asked for, or the download failed.
    """
    split = split or "train"
    if split == "database":
        split = "train"  # by the field's custom the database is what was trained on
    whole = all_of_cifar10(folder, download)
    if split not in ("train", "test"):
        raise HashretError(f"CIFAR-10 has no {split} set; there are train, test")
    rows = [row for row, path in enumerate(whole.paths) if path.startswith(f"{split}/")]
    return whole.subset(rows, spec=spec or f"cifar10:{folder}")


def all_of_cifar10(folder, download=False):
    """CIFAR-10's 60,000 images as one source, in order of their paths ``test/<class>/<name>``, ``train/...``.

    Train, test and every protocol's sets are subsets of it, and so share one feature cache.
    """
    root = Path(folder)
    if not (root / "train").is_dir():
        if not (root / UNPACKED / "train").is_dir():
            _unpack(root, download)
        root = root / UNPACKED
    parts = {name: open_folder(root, name) for name in ("test", "train") if (root / name).is_dir()}
    paths = tuple(f"{name}/{path}" for name, part in parts.items() for path in part.paths)
    classes = parts["train"].classes
    if not classes or any(part.classes != classes for part in parts.values()):
        raise HashretError(f"{root} is not CIFAR-10: its train/ and test/ do not hold the same class folders")
    labels = np.concatenate([part.labels for part in parts.values()])
    return ImageSource(root, paths, labels, classes, f"cifar10:{folder}")


def _unpack(root, download):
    from torchvision.datasets import CIFAR10

    try:
        # torchvision checks each file's md5 before it unpickles it.
        sets = {"train": CIFAR10(root, train=True, download=download), "test": CIFAR10(root, train=False)}
    except RuntimeError:
        raise HashretError(
            f"no CIFAR-10 in {root}: neither train/ and test/ class folders nor torchvision's files, whole and "
            "unchanged; name a folder that has them, or add --download"
        ) from None
    except OSError as error:
        raise HashretError(
            f"CIFAR-10 could not be downloaded ({error}); fetch cifar-10-python.tar.gz elsewhere into {root}, "
            "or name a folder of class folders with cifar10:DIR"
        ) from None
    with partial_folder(root / UNPACKED) as partial:
        try:
            for split, dataset in sets.items():
                names = _file_names(dataset)
                for (image, label), name in zip(dataset, names, strict=True):
                    target = partial / split / dataset.classes[label] / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    image.save(target)
            place_folder(partial, root / UNPACKED)
        except OSError as error:
            raise HashretError(
                f"cannot unpack CIFAR-10 to {root / UNPACKED}: {error.strerror}; look at the disk, and at what is there"
            ) from error


def _file_names(dataset):
    """Original file names of a torchvision CIFAR10 set, which torchvision reads past."""
    import pickle

    batches = dataset.train_list if dataset.train else dataset.test_list
    names = []
    for batch, _md5 in batches:
        with open(Path(dataset.root) / dataset.base_folder / batch, "rb") as file:
            names += pickle.load(file, encoding="latin1")["filenames"]  # its md5 was checked by CIFAR10 above
    return names
