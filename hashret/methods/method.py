"""What a hashing method may add to the shared network and training loop."""

from __future__ import annotations

from typing import ClassVar


class Method:
    """Base of all methods; each says only where it differs.

    A trained method gives a `loss`, and may prepare with `begin`. A fitted one (``fitted = True``) gives `fit`
    instead, which sets a shallow head's parameters once.

    Attributes:
        name: as `hashret train --method` takes it.
        paper: what it reproduces.
        head: kind of head, see `hashret.models.heads.make_head`; attention: whether an "fc" head has CBAM; classifier:
            whether the loss reads class scores.
        needs_labels: whether it learns from labels.
        defaults: training settings whose default differs from that of `hashret.train`.
        state: tensors that a run must keep to go on after a kill.
    """

    name = ""
    paper = ""
    head = "fc"
    attention = False
    classifier = False
    needs_labels = True
    fitted = False
    defaults: ClassVar[dict] = {}

    def __init__(self, settings):
        self.settings = settings
        self.state = {}

    @classmethod
    def defaults_for(cls, bits, several_labels):
        """`defaults` for codes of so many bits, of photographs with one label each or with several."""
        return cls.defaults

    def begin(self, labels, rows):
        """Prepare to train on ``rows`` of a source with ``labels``, (n,) or (n, classes) numpy."""

    def loss(self, output, labels, rows):
        """Loss of a batch, a scalar.

        Args:
            output: `HeadOutput` in float32, logits (n, bits) and scores (n, classes).
            labels: (n,) int64, or (n, classes) of 0 and 1.
            rows: places (n,) of the batch's photographs in the source, int64.
        """
        raise NotImplementedError

    def fit(self, head, x, labels, seed):
        """Set the parameters of a shallow ``head`` from descriptors ``x`` (n, 512) float32 and ``labels`` or None."""
        raise NotImplementedError
