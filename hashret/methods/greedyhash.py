"""GreedyHash: the classifier reads the signs themselves, and their gradient passes to the logits as it is."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from ..bits import Positions
from ..models.heads import HeadOutput
from .method import Method, Option
from .vggh import CLASSIFIER_RATE, SMOOTHING, classification_loss


class GreedyHash(Method):
    """Codes in the forward pass, the identity in the backward pass.

    Each step takes the code that is nearest to the last one's gradient step, and a penalty keeps the logits where the
    sign loses little.
    """

    name = "greedyhash"
    paper = (
        "Su, Zhang, Han & Tian, Greedy hash: towards fast optimization for accurate hash coding in CNN, NeurIPS 2018"
    )
    classifier = True
    head_options: ClassVar[dict[str, Any]] = {"straight_through": True}
    options = (Option("quantization", 0.1, "pulls logits to 1 and -1"), SMOOTHING, CLASSIFIER_RATE)

    def loss(self, output: HeadOutput, labels: Tensor, source_rows: Positions) -> Tensor:
        """Return the classification loss plus ``quantization`` times the mean of ||u| - 1|^3, for logits u.

        Source: formula (8) there, the penalty as a mean.
        """
        assert output.scores is not None
        penalty = (output.logits.abs() - 1).abs().pow(3).mean()
        loss = classification_loss(output.scores, labels, self.chosen["smoothing"])
        return loss + self.chosen["quantization"] * penalty
