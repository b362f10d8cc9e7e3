"""What the training loop reads: convolution features from the cache, or photographs with augmentation."""

from __future__ import annotations

import numpy as np
import torch

from ..data.batches import batch_size, batches, split_rows
from ..data.feature_cache import PRESENT, FeatureCache
from ..errors import HashretError
from ..models.encoder import FrozenBackbone
from ..models.heads import descriptor


class FeatureFeed:
    """Cached features of frozen convolutions: an epoch costs the head alone."""

    def __init__(self, source, layers, architecture, image_size, compute_dtype, device, cache=None, workers=None):
        self.device = device
        cache = FeatureCache(cache, source, architecture.fingerprint(layers), image_size, compute_dtype)
        self.state = cache.fill(FrozenBackbone(layers, architecture, device, compute_dtype), workers)
        self.features = cache.open()

    def readable(self):
        """Rows that have pixels, int64."""
        return _some(np.flatnonzero(self.state == PRESENT))

    def batches(self, row_batches, seed=None):
        """Yield (rows, features float32 (n, 512, h, w)) for each list of rows."""
        for rows in row_batches:
            yield rows, self._read(rows)

    def values(self, net, rows, precision):
        """Hash-layer values of rows as the network stands: -> float32 (n, bits)."""
        out = []
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            for some in split_rows(rows, 512):
                out.append(net.head(self._read(some)).hash_outputs.float().cpu())
        return torch.cat(out).numpy()

    def descriptors(self, rows):
        """What the shallow methods hash, see `hashret.models.heads.descriptor`: -> float32 tensor (n, 512)."""
        return torch.cat([descriptor(self._read(some)) for some in split_rows(rows, 512)])

    def _read(self, rows):
        return torch.from_numpy(self.features[rows]).to(self.device).float()


class ImageFeed:
    """Photographs, cropped and flipped at random for training."""

    def __init__(self, source, image_size, augment, device, workers=None):
        self.source, self.image_size, self.device, self.workers = source, image_size, device, workers
        self.augment = augment

    def readable(self):
        """All rows, but those whose file is missing or empty; others are found unreadable when they are read."""
        return _some(np.flatnonzero(self.source.stats[:, 0] > 0))

    def batches(self, row_batches, seed=None):
        """Yield (rows, images uint8 (n, 3, s, s)) for each list of rows; unreadable photographs drop out.

        Where none can be read, there are no rows, and one blank image.
        """
        augment, size = Augment(self.augment, self.image_size, seed), self.image_size
        for batch in batches(self.source, size, row_batches, self.workers, augment):
            images = batch.images if len(batch.rows) else np.zeros((1, 3, size, size), np.uint8)
            yield batch.rows, torch.from_numpy(images).to(self.device, non_blocking=True)

    def values(self, net, rows, precision):
        """Hash-layer values of rows as the network stands: -> float32 (n, bits); unreadable ones are 0.5."""
        place = {int(row): i for i, row in enumerate(rows)}
        out = None
        some = split_rows(rows, batch_size(self.image_size))
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            for batch in batches(self.source, self.image_size, some, self.workers):
                if len(batch.rows):
                    values = net(torch.from_numpy(batch.images).to(self.device)).hash_outputs.float().cpu().numpy()
                    if out is None:
                        out = np.full((len(rows), values.shape[1]), 0.5, np.float32)
                    out[[place[int(row)] for row in batch.rows]] = values
        if out is None:
            raise HashretError(f"none of {len(rows)} held-out images could be read")
        return out


class Augment:
    """Random crop and flip of one image, decided by (seed, row) alone, whichever worker does it.

    ``kind``: "none", "crop" (half to all of the area) or "crop-flip".
    """

    def __init__(self, kind, size, seed):
        from torchvision.transforms import v2

        steps = [] if kind == "none" else [v2.RandomResizedCrop(size, scale=(0.5, 1.0), antialias=True)]
        if kind == "crop-flip":
            steps.append(v2.RandomHorizontalFlip())
        self.steps, self.seed = v2.Compose(steps) if steps else None, seed

    def __call__(self, row, image):
        if self.steps is None:
            return image
        state = int(np.random.SeedSequence((*self.seed, int(row))).generate_state(1)[0])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(state)
            return self.steps(torch.from_numpy(image)).numpy()


def _some(rows):
    if not len(rows):
        raise HashretError("none of the train images can be read")
    return rows
