"""Words as queries: what an encoder that learned classes knows of each, and free texts, as hash outputs.

Of a class, an encoder knows the weights by which its classifier reads the hash outputs, or the codeword to which
photographs of the class were drawn, or else by how much their mean differs from that of all. Each says how much a bit
speaks for the class, and is taken for the logit of a photograph of it: the code is the signs, and the re-rank by
directions compares the logits with those of photographs. `benchmarks/words.md` has what that finds.

An encoder whose backbone is a network of open_clip takes any text: its embedding goes through the head as that of a
photograph does.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .bits import HashOutputs
from .errors import HashretError
from .methods import METHODS
from .models.class_logits import kept
from .models.encoder import Encoder
from .models.heads import ProjectionHead, trained_head
from .names import shown
from .vectors import Vectors, unit

_LOGIT = 4.0  # root of the mean square of a word's logits, which hash outputs of 0.98 and 0.02 have
_UNDECIDED = 1e-3  # weight of what all classes have in common, less which a bit is that the words disagree on
_NAMED = 30  # names in a message, at most
_USUAL_TEXTS = (  # of which the mean stands for that of all texts
    "a dog in the grass", "two people at a table", "a street at night", "a red car", "a plate with food",
    "snow on the mountains", "a child who laughs", "an old house", "boats in a harbour", "a map of a city",
    "a cat on a chair", "flowers in a vase", "a beach at sunset", "a page of text", "a man on a bicycle",
    "a plane in the sky", "a bird on a branch", "a kitchen", "a crowd at a concert", "a horse in a field",
    "a woman with an umbrella", "a train in a station", "a drawing of a face", "the inside of a church",
)  # fmt: skip
_usual: WeakKeyDictionary[Encoder, Tensor] = WeakKeyDictionary()
_logits: WeakKeyDictionary[Encoder, Vectors | None] = WeakKeyDictionary()


def known_words(encoder: Encoder) -> list[str]:
    """Return the names of the classes that an encoder can be asked for, none where it learned none."""
    known = class_logits(encoder)
    if known is None:
        return []
    untold = set(np.flatnonzero(~known.any(axis=1)).tolist())
    return [name for number, name in enumerate(encoder.meta["classes"]) if number not in untold]


def class_logits(encoder: Encoder) -> Vectors | None:
    """Return how much each bit speaks for each class, float32 (classes, bits), each of unit length, or zero where the
    encoder has not learned what tells a class from others.

    Of a classifier over classes that exclude each other, only the differences between the classes count, so their mean
    is taken off. What else there is to know, a checkpoint keeps; where an earlier one does not, the codewords are made
    again from the seed.

    Returns:
        None where the encoder learned from no labels, or its checkpoint keeps nothing of them.
    """
    if encoder not in _logits:
        _logits[encoder] = _class_logits(encoder)
    return _logits[encoder]


def _class_logits(encoder: Encoder) -> Vectors | None:
    classes, bits = encoder.meta["classes"], encoder.bits
    classifiers = [layer for layer in encoder.head.classifiers() if layer.in_features == bits]
    known: npt.NDArray[np.floating | np.integer] | None
    if classifiers and classes:
        known = classifiers[-1].weight.float().cpu().numpy()
        if not encoder.meta.get("multi_label") and len(classes) > 1:
            known = known - known.mean(axis=0)
    else:
        known, method = kept(encoder.meta, bits), METHODS.get(encoder.meta["method"])
        if known is None and method and classes:
            known = method.class_codewords(len(classes), bits, encoder.meta.get("seed", 0))
    return None if known is None else unit(known)


def names_in(words: str | Sequence[str], encoder: Encoder) -> list[str]:
    """Return the classes that words name, each once; a text is one name, or several with commas between.

    Upper and lower case differ only where two names of classes differ by it.

    Raises:
        HashretError: there are no words, the encoder knows no classes, or none of such a name; the message says which
            names are near.
    """
    if class_logits(encoder) is None:
        raise HashretError(
            f"this encoder of {encoder.meta['method']} knows no classes, so it cannot be asked in words",
            hint="ask by photographs, or train one on photographs with labels by a method that learns from these",
        )
    classes: list[str] = encoder.meta["classes"]
    if isinstance(words, str):
        words = [words] if words in classes else words.split(",")
    stripped = [word if word in classes else word.strip() for word in words]
    names = [_class_named(word, classes) for word in stripped if word]
    if not names:
        raise HashretError(f"no words to look for; the encoder knows {_listed(known_words(encoder))}")
    unknown = [name for name in names if name not in known_words(encoder)]
    if unknown:
        raise HashretError(
            f"the encoder learned from no photograph of {shown(unknown[0])!r}, or from none without it",
            hint=f"it knows {_listed(known_words(encoder))}",
        )
    return list(dict.fromkeys(names))


def word_outputs(names: Sequence[str], encoder: Encoder) -> HashOutputs:
    """Return the hash outputs to search by for classes that photographs should have all of: float32 (bits,).

    Args:
        names: as `names_in` returns them.
        encoder: the encoder, which knows these classes.
    """
    known = class_logits(encoder)
    assert known is not None
    return outputs_for(known, [encoder.meta["classes"].index(name) for name in names])


def outputs_for(known: Vectors, classes: Sequence[int]) -> HashOutputs:
    """Return the hash outputs (bits,) of some classes: their rows of ``known`` (all classes, bits), added up."""
    logits = known[list(classes)].sum(axis=0) - _UNDECIDED * known.mean(axis=0)
    logits *= _LOGIT / max(float(np.sqrt(np.square(logits).mean())), 1e-12)
    outputs: HashOutputs = (1 / (1 + np.exp(-logits.clip(-80, 80)))).astype(np.float32)
    return outputs


def knows_texts(encoder: Encoder) -> bool:
    """Say whether an encoder takes texts."""
    return hasattr(encoder.backbone.layers, "embed_texts")


def text_outputs(texts: Sequence[str], encoder: Encoder) -> tuple[HashOutputs, Vectors | None]:
    """Return what an encoder makes of texts: hash outputs float32 (n, bits), and what `HeadOutput.fc_features` is.

    Embeddings of texts and of images lie apart, in cones of their own (Liang et al., "Mind the gap", NeurIPS 2022).
    Signs of projections would mostly say so. Where the head takes the mean of images off, that of texts is therefore
    taken off a text; the features, whose order among photographs this changes little, stay what they are.

    Raises:
        HashretError: the encoder takes no texts, or one is empty.
    """
    if not knows_texts(encoder):
        raise HashretError(
            f"an encoder on {encoder.meta['arch']} takes no texts", hint="train one with --backbone clip:NAME"
        )
    if not all(text.strip() for text in texts):
        raise HashretError("a text to look for is empty")
    layers: Any = encoder.backbone.layers
    embeddings = torch.cat([layers.embed_texts([text]) for text in texts])  # the same numbers whatever the others
    hash_outputs, features = encoder.outputs(embeddings, keep_fc_features=encoder.fc_width is not None)
    head = trained_head(encoder.head)
    if isinstance(head, ProjectionHead):
        if encoder not in _usual:
            _usual[encoder] = head.descriptor(layers.embed_texts(_USUAL_TEXTS)).mean(dim=0)
        moved = head.descriptor(embeddings) - _usual[encoder] + head.mean
        hash_outputs = encoder.outputs(moved[:, :, None, None])[0]
    return hash_outputs, features


def _class_named(word: str, classes: Sequence[str]) -> str:
    if word in classes:
        return word
    folded = [name for name in classes if name.casefold() == word.casefold()]
    if len(folded) == 1:
        return folded[0]
    lower = {name.casefold(): name for name in classes}
    near = folded or [lower[name] for name in difflib.get_close_matches(word.casefold(), lower, n=5)]
    verb = "is" if len(near) == 1 else "are"
    advice = f"near to it {verb} {_listed(near)}" if near else f"it knows {_listed(classes)}"
    raise HashretError(f"the encoder knows no class {shown(word)!r}; {advice}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:_NAMED])) + (" ..." if len(names) > _NAMED else "")
