"""Weights from the network, by torch hub's ways: its folder, its progress bar, and the checksum in the file's name."""

from __future__ import annotations

import contextlib
import os
import sys

from torch import Tensor


def fetch(url: str) -> dict[str, Tensor]:
    """Return the state dict at an address, from torch hub's folder once it is there; it is loaded as tensors alone.

    Raises:
        OSError: it cannot be downloaded; ``filename`` is the address, ``filename2`` where the file would be kept.
    """
    from torch import hub

    file = os.path.join(hub.get_dir(), "checkpoints", os.path.basename(url))
    try:
        # Torch says on stdout what it downloads, where a verb prints its answer alone.
        with contextlib.redirect_stdout(sys.stderr):
            state: dict[str, Tensor] = hub.load_state_dict_from_url(
                url, map_location="cpu", check_hash=True, weights_only=True
            )
    except (OSError, RuntimeError) as error:  # the latter of a file with another checksum
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise OSError(0, " ".join(str(reason).split()), url, None, file) from None
    return state
