"""What the training loop reads: feature maps from the cache, or photographs with augmentation."""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..bits import HashOutputs, Positions
from ..data.batches import Pixels, batch_size, batches, split_rows
from ..data.feature_cache import PRESENT, FeatureCache
from ..data.source import Source
from ..errors import HashretError
from ..files import StrPath
from ..models.backbones import Backbone
from ..models.encoder import FrozenBackbone
from ..models.heads import Head, descriptor
from ..models.network import HashNet

AUGMENTS = ("none", "crop", "crop-flip", "shift", "shift-flip")  # see `augmentation`
_MAPS_AT_ONCE = 512
_SHARE_OF_GPU = 4  # feature maps are kept on a GPU where they take at most this fraction of what is free there


class Feed(Protocol):
    """What the training loop asks of its input."""

    def readable(self) -> Positions:
        """Return the source rows whose photographs can be read, as far as that is known before they are."""

    def batches(
        self, batches_of_rows: Sequence[Positions], seed: tuple[int, int]
    ) -> Iterator[tuple[Positions, Tensor]]:
        """Yield for each batch of source rows those that could be read, and the input of the module in training."""

    def hash_outputs(self, net: HashNet, source_rows: Positions, compute_dtype: str) -> HashOutputs:
        """Return the hash outputs of photographs by the network as it is, float32 (n, bits)."""


class FeatureFeed:
    """Cached feature maps of a frozen backbone, or of its first stages: an epoch costs what comes after them alone.

    Args:
        source: the photographs.
        layers: those that are frozen.
        architecture: what the layers are.
        image_size: pixels a side.
        compute_dtype: number format in which the backbone computes.
        device: where it computes.
        cache: folder of feature caches, None for the default.
        workers: decoding processes, None for one a core.
        resize: how photographs become squares.
        module: what of the network reads the feature maps; None for the head.
        views: augmented views of each photograph whose feature maps are cached, too. In each epoch a photograph is
            drawn by lot as it is or as one of them, as if it were augmented anew. Augmentation then costs a pass of
            the frozen layers for each view, and not one for each epoch.
        augment: what the views are, a kind of `Augment`.
    """

    def __init__(
        self,
        source: Source,
        layers: nn.Module,
        architecture: Backbone,
        image_size: int,
        compute_dtype: str,
        device: torch.device,
        cache: StrPath | None = None,
        workers: int | None = None,
        *,
        resize: str = "squeeze",
        module: nn.Module | None = None,
        views: int = 0,
        augment: str = "crop-flip",
    ) -> None:
        self.device, self.module, self.views = device, module, views
        weights = architecture.fingerprint(layers)
        backbone = FrozenBackbone(copy.deepcopy(layers), architecture, device, compute_dtype)

        def of_views(images: npt.NDArray[np.uint8]) -> Tensor:
            maps: Tensor = backbone(images.reshape(-1, *images.shape[2:]))
            return maps.view(*images.shape[:2], *maps.shape[1:])

        whole = module is None or isinstance(module, Head)  # else the shape is that between two stages
        shape = architecture.map_shape(image_size) if whole else None
        if views:
            feature_cache = FeatureCache(
                cache, source, weights, image_size, compute_dtype, resize, views=views, augment=augment
            )
            self.state = feature_cache.fill(of_views, workers, Views(views, augmentation(augment, image_size)))
            self.feature_maps = feature_cache.open(shape and (views + 1, *shape)).by_view()
        else:
            feature_cache = FeatureCache(cache, source, weights, image_size, compute_dtype, resize)
            self.state = feature_cache.fill(backbone, workers)
            self.feature_maps = feature_cache.open(shape)
        self.on_device: Tensor | None = None  # all feature maps, float16

    def readable(self) -> Positions:
        """Return the source rows whose photographs could be read."""
        return not_empty(np.flatnonzero(self.state == PRESENT))

    def batches(
        self, batches_of_rows: Sequence[Positions], seed: tuple[int, int]
    ) -> Iterator[tuple[Positions, Tensor]]:
        """Yield each batch of source rows with its feature maps, float32 (n, c, h, w)."""
        self._load()
        if not self.views:
            yield from ((source_rows, self._read(source_rows)) for source_rows in batches_of_rows)
            return
        view = np.random.default_rng(seed).integers(self.views + 1, size=len(self.state))  # of every row of the source
        for source_rows in batches_of_rows:
            yield source_rows, self._cached(source_rows * (self.views + 1) + view[source_rows])

    def hash_outputs(self, net: HashNet, source_rows: Positions, compute_dtype: str) -> HashOutputs:
        """Return the hash outputs of photographs by the network as it is, float32 (n, bits)."""
        with _inference(self.device, compute_dtype):
            blocks = split_rows(source_rows, _MAPS_AT_ONCE)
            module = self.module or net.head
            return torch.cat([module(self._read(block)).hash_outputs.float().cpu() for block in blocks]).numpy()

    def to_fit(self, source_rows: Positions) -> Positions:
        """Return the rows that a shallow method is fitted to, all of ``source_rows``."""
        return source_rows

    def descriptors(self, source_rows: Positions) -> Tensor:
        """Return what the shallow methods hash, see `descriptor`: float32 (n, c)."""
        return torch.cat([descriptor(self._read(block)) for block in split_rows(source_rows, _MAPS_AT_ONCE)])

    def _load(self) -> None:
        """Copy all feature maps to a GPU where they fit: reading a batch from the cache takes longer than a step."""
        if self.on_device is not None or self.device.type != "cuda":
            return
        shape = (len(self.feature_maps.slots), *self.feature_maps.maps.shape[1:])
        if 2 * math.prod(shape) <= torch.cuda.mem_get_info(self.device)[0] // _SHARE_OF_GPU:
            maps = torch.empty(shape, dtype=torch.float16, device=self.device)
            for block in split_rows(np.arange(len(maps)), _MAPS_AT_ONCE):
                maps[block[0] : block[-1] + 1] = torch.from_numpy(self.feature_maps[block]).to(self.device)
            self.on_device = maps

    def _read(self, source_rows: Positions) -> Tensor:
        """Return the feature maps of the photographs as they are."""
        return self._cached(source_rows * (self.views + 1))

    def _cached(self, rows: Positions) -> Tensor:
        """Return feature maps, of the photographs or of their views, by row."""
        if self.on_device is not None:
            return self.on_device[torch.from_numpy(rows).to(self.device)].float()
        return torch.from_numpy(self.feature_maps[rows]).to(self.device).float()


class ViewFeed:
    """Cached pooled features of augmented views of each photograph, by a frozen backbone.

    A view has a row, too: that of its photograph plus the number of the view, from 1 on, times the photographs of the
    source. Feature maps have one cell.

    Args:
        views: how many of each photograph.
        source, layers, architecture, image_size, compute_dtype, device, cache, workers, resize: as of
            `FeatureFeed`.
    """

    def __init__(
        self,
        views: int,
        source: Source,
        layers: nn.Module,
        architecture: Backbone,
        image_size: int,
        compute_dtype: str,
        device: torch.device,
        cache: StrPath | None = None,
        workers: int | None = None,
        *,
        resize: str = "squeeze",
    ) -> None:
        self.device, self.photographs, self.views = device, len(source), views
        backbone = FrozenBackbone(copy.deepcopy(layers), architecture, device, compute_dtype)

        def pooled(images: npt.NDArray[np.uint8]) -> Tensor:
            maps = backbone(images.reshape(-1, *images.shape[2:]))
            return maps.float().mean(dim=(2, 3)).half().view(len(images), views + 1, -1)

        fingerprint = architecture.fingerprint(layers)
        feature_cache = FeatureCache(cache, source, fingerprint, image_size, compute_dtype, resize, views=views)
        self.state = feature_cache.fill(pooled, workers, Views(views, contrastive_augmentation(image_size)))
        self.features = feature_cache.open((views + 1, architecture.channels))

    def readable(self) -> Positions:
        """Return the source rows whose photographs could be read."""
        return not_empty(np.flatnonzero(self.state == PRESENT))

    def paired(self, source_rows: Positions, rng: np.random.Generator) -> Positions:
        """Return the rows of two views, drawn by lot, of each photograph (n,): (2 n,), one of each in either half."""
        drawn = rng.permuted(np.tile(np.arange(1, self.views + 1), (len(source_rows), 1)), axis=1)[:, :2]
        pairs: Positions = source_rows + self.photographs * drawn.T
        return pairs.ravel()

    def batches(
        self, batches_of_rows: Sequence[Positions], seed: tuple[int, int]
    ) -> Iterator[tuple[Positions, Tensor]]:
        """Yield each batch of rows, of views or photographs, with its feature maps, float32 (n, c, 1, 1)."""
        for rows in batches_of_rows:
            yield rows, self._read(rows)

    def hash_outputs(self, net: HashNet, source_rows: Positions, compute_dtype: str) -> HashOutputs:
        """Return the hash outputs of photographs by the network as it is, float32 (n, bits)."""
        with _inference(self.device, compute_dtype):
            blocks = split_rows(source_rows, _MAPS_AT_ONCE)  # of whose photographs all views are read
            outputs: Tensor = net.head(torch.cat([self._read(block) for block in blocks])).hash_outputs
            return outputs.float().cpu().numpy()

    def _read(self, rows: Positions) -> Tensor:
        view, source_rows = np.divmod(rows, self.photographs)
        features = self.features[source_rows][np.arange(len(rows)), view]
        return torch.from_numpy(features).to(self.device).float()[:, :, None, None]


class ImageFeed:
    """Photographs, cropped and flipped at random for training.

    Args:
        source: the photographs.
        image_size: pixels a side.
        augment: kind of `Augment`.
        device: where the network computes.
        workers: decoding processes, None for one a core.
        resize: how photographs become squares.
    """

    def __init__(
        self,
        source: Source,
        image_size: int,
        augment: str,
        device: torch.device,
        workers: int | None = None,
        *,
        resize: str = "squeeze",
    ) -> None:
        self.source, self.image_size, self.device, self.workers = source, image_size, device, workers
        self.augment, self.resize = augment, resize

    def readable(self) -> Positions:
        """Return all source rows but those whose file is missing or empty; others fail when they are read."""
        return not_empty(np.flatnonzero(self.source.stats[:, 0] > 0))

    def batches(
        self, batches_of_rows: Sequence[Positions], seed: tuple[int, int]
    ) -> Iterator[tuple[Positions, Tensor]]:
        """Yield for each batch the source rows that could be read, and their images uint8 (n, 3, s, s).

        Where none can be read, there are no rows, and one blank image.
        """
        augment, size = Augment(self.augment, self.image_size, seed), self.image_size
        rows = [batch.tolist() for batch in batches_of_rows]
        for batch in batches(self.source, size, rows, self.workers, augment, resize=self.resize):
            images = batch.images if len(batch.rows) else np.zeros((1, 3, size, size), np.uint8)
            yield batch.rows, torch.from_numpy(images).to(self.device, non_blocking=True)

    def hash_outputs(self, net: HashNet, source_rows: Positions, compute_dtype: str) -> HashOutputs:
        """Return the hash outputs of photographs by the network as it is, float32 (n, bits); unreadable ones are 0.5.

        Raises:
            HashretError: none of the photographs could be read.
        """
        number = {int(row): i for i, row in enumerate(source_rows)}
        outputs: HashOutputs | None = None
        blocks = split_rows(source_rows.tolist(), batch_size(self.image_size))
        with _inference(self.device, compute_dtype):
            for batch in batches(self.source, self.image_size, blocks, self.workers, resize=self.resize):
                if len(batch.rows):
                    computed = net(torch.from_numpy(batch.images).to(self.device)).hash_outputs.float().cpu().numpy()
                    if outputs is None:
                        outputs = np.full((len(source_rows), computed.shape[1]), 0.5, np.float32)
                    outputs[[number[int(row)] for row in batch.rows]] = computed
        if outputs is None:
            raise HashretError(f"none of {len(source_rows)} held-out images could be read")
        return outputs


class Augment:
    """Random crop and flip of one image, decided by seed and source row alone, whichever worker does it.

    Args:
        kind: one of `AUGMENTS`.
        size: pixels a side.
        seed: of the run and the epoch.
    """

    def __init__(self, kind: str, size: int, seed: tuple[int, ...]) -> None:
        self.augmented, self.seed = None if kind == "none" else augmentation(kind, size), seed

    def __call__(self, source_row: int, image: Pixels) -> Pixels:
        if self.augmented is None:
            return image
        state = int(np.random.SeedSequence((*self.seed, int(source_row))).generate_state(1)[0])
        with _seeded(state):
            augmented: Pixels = self.augmented(torch.from_numpy(image)).numpy()
            return augmented


class Views:
    """A photograph as it is, and augmented views of it: uint8 (3, s, s) -> (views + 1, 3, s, s), the same each time.

    Args:
        views: how many beside the photograph.
        augmented: what makes a view of pixels, with torch's random numbers.
    """

    def __init__(self, views: int, augmented: Callable[[Tensor], Tensor]) -> None:
        self.views, self.augmented = views, augmented

    def __call__(self, source_row: int, image: Pixels) -> Pixels:
        seed = zlib.crc32(image.tobytes())  # of the photograph, whatever source it is in
        with _seeded(seed):
            pixels = torch.from_numpy(image)
            return torch.stack([pixels, *(self.augmented(pixels) for _ in range(self.views))]).numpy()


def augmentation(kind: str, size: int) -> Callable[[Tensor], Tensor]:
    """Return what augments pixels (3, s, s).

    Args:
        kind: "crop", to half to all of the area; "shift", by up to an eighth of a side, where the edge is mirrored;
            with "-flip" behind it, half of the images are mirrored, too.
        size: pixels a side.
    """
    from torchvision.transforms import v2

    if kind.startswith("crop"):
        steps: list[Any] = [v2.RandomResizedCrop(size, scale=(0.5, 1.0), antialias=True)]
    else:
        steps = [v2.RandomCrop(size, padding=size // 8, padding_mode="reflect")]
    if kind.endswith("-flip"):
        steps.append(v2.RandomHorizontalFlip())
    compose: Callable[[Tensor], Tensor] = v2.Compose(steps)
    return compose


def contrastive_augmentation(size: int) -> Callable[[Tensor], Tensor]:
    """Return what makes of pixels (3, s, s) a view for contrastive learning: a crop of a quarter to all of the area,
    mirrored or not, whose colours are others or none.

    Source: Chen, Kornblith, Norouzi & Hinton, "A simple framework for contrastive learning of visual representations",
    ICML 2020, A.
    """
    from torchvision.transforms import v2

    compose: Callable[[Tensor], Tensor] = v2.Compose([
        v2.RandomResizedCrop(size, scale=(0.25, 1.0), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.7),
        v2.RandomGrayscale(0.2),
    ])  # fmt: skip
    return compose


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw what torch draws on the CPU from a seed. `torch.random.fork_rng` would look for GPUs each time."""
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


def _inference(device: torch.device, compute_dtype: str) -> ExitStack:
    """Return a context in which the network computes without gradients and in a number format."""
    stack = ExitStack()
    stack.enter_context(torch.inference_mode())
    stack.enter_context(autocast(device, compute_dtype))
    return stack


def autocast(device: torch.device, compute_dtype: str) -> torch.autocast:
    """Return a context in which layers compute in bfloat16, if that is the number format."""
    return torch.autocast(device.type, torch.bfloat16, enabled=compute_dtype.startswith("bfloat16"))


def not_empty(source_rows: Positions) -> Positions:
    """Return the rows of a source, or raise HashretError where there are none."""
    if not len(source_rows):
        raise HashretError("none of the train images can be read")
    return source_rows
