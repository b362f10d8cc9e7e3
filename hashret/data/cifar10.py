"""`cifar10:DIR`: CIFAR-10 as class folders of PNGs, or as torchvision's own files, unpacked once into such folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..errors import HashretError
from .folder import open_folder

UNPACKED = "cifar10-png"


def open_cifar10(folder, split=None, download=False, spec=None):
    """Open CIFAR-10 in ``folder``: class folders under train/ and test/, or torchvision's files.

    Torchvision's files are unpacked once into ``folder/cifar10-png``, under the images' original names, so that
    every hit is a picture one can open.

    Raises:
        HashretError: nothing there and ``download`` not asked for, or the download failed.
    """
    root = Path(folder)
    spec = spec or f"cifar10:{folder}"
    if not (root / "train").is_dir():
        if not (root / UNPACKED / "train").is_dir():
            _unpack(root, download)
        root = root / UNPACKED
    return open_folder(root, split or "train", spec)


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
    partial = root / f"{UNPACKED}.{os.getpid()}.tmp"
    for split, dataset in sets.items():
        names = _file_names(dataset)
        for (image, label), name in zip(dataset, names, strict=True):
            target = partial / split / dataset.classes[label] / name
            target.parent.mkdir(parents=True, exist_ok=True)
            image.save(target)
    shutil.rmtree(root / UNPACKED, ignore_errors=True)
    partial.rename(root / UNPACKED)


def _file_names(dataset):
    """Original file names of a torchvision CIFAR10 set, which torchvision reads past."""
    import pickle

    batches = dataset.train_list if dataset.train else dataset.test_list
    names = []
    for batch, _md5 in batches:
        with open(Path(dataset.root) / dataset.base_folder / batch, "rb") as file:
            names += pickle.load(file, encoding="latin1")["filenames"]  # its md5 was checked by CIFAR10 above
    return names
