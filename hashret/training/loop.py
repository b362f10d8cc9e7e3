"""The training loop of every method: epochs over a feed, or one fit, scored on held-out images; it survives a kill."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import __version__
from ..bits import Codes, HashOutputs, Labels, Positions, binarize, dithered, pack
from ..collapse import code_figures, collapsed
from ..data import Source
from ..distributed import barrier, is_main, world
from ..errors import HashretError, warn
from ..files import read_json, write_json
from ..labels import as_flags
from ..methods.method import Method
from ..metrics import has_label
from ..models.checkpoint import save_checkpoint
from ..models.class_logits import KEY, written
from ..models.heads import Head
from ..models.network import HashNet
from ..progress import Progress, clock
from .feed import FeatureFeed, Feed, ViewFeed, autocast
from .held_out import HeldOutMap, held_out_map, hold_out
from .optimizer import begin_at_frequencies, make_optimizer
from .parallel import BatchShard
from .run_files import RunFiles, bytes_of, digest_of
from .settings import Settings, TrainReport
from .vector_feed import VectorFeed

_DITHERS = tuple(eighth / 8 for eighth in range(9))  # spreads of thresholds that are compared
_HELD_OUT_DATABASE = 5000  # train images that the held-out ones are searched among
_CHECKED = 1000  # train images whose codes are examined where none is held out
# A large state takes seconds to write: those of 120 million weights as long as an epoch on a GPU.
_LARGE_STATE = 2**29  # bytes; a smaller one is written at the end of every epoch
_STATE_EVERY = 60  # seconds from one large state to the next, which is what a kill costs at most
_SAMPLES_PER_CLASS, _SAMPLES_IN_ALL = 100, 10_000  # train images that say what a class is like
_UNTOLD = 1e-4  # of the largest difference of a class from all: what has less is in all photographs
_SAME = 1e-6  # spread of descriptors, over their largest number, up to which photographs are all the same

# What of the settings goes into the checkpoint.
_META = (
    "method", "bits", "image_size", "resize", "arch", "width", "gate", "classes", "multi_label", "seed", "weights",
    "finetune", "data", "protocol", "best_epoch",
)  # fmt: skip


_log = logging.getLogger("hashret")


class TrainingRun:
    """One training run.

    Args:
        files: of the run, which are claimed.
        settings: what decides the result.
        device: where the network is trained.
        state: of the unfinished run that is resumed, as `RunFiles.claimed` yields it; None to begin at the start.
        net: network of the encoder.
        module: part of the network that is trained.
        method: what it is trained by.
        source: the train images.
        feed: what reads of the source what ``module`` takes.
    """

    def __init__(
        self,
        files: RunFiles,
        settings: Settings,
        device: torch.device,
        state: dict[str, Any] | None,
        net: HashNet,
        module: nn.Module,
        method: Method,
        source: Source,
        feed: Feed,
    ) -> None:
        self.files, self.settings, self.device, self.state = files, settings, device, state
        self.net, self.module, self.method, self.source, self.feed = net, module, method, source, feed
        self.rows: Positions = np.empty(0, np.int64)  # of the source that are learned from
        self.held: Positions = np.empty(0, np.int64)  # of the source that are held out
        self.epochs: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}  # the line of the epoch that is kept
        self.codes: dict[str, Any] | None = None  # the `code_figures` of that epoch
        self.best_net: dict[str, Tensor] | None = None  # the network of that epoch, where it is not on disk
        self.saved = 0.0  # when the state was last written, as of `time.monotonic`
        self.skipped = 0  # steps that were left out for want of readable photographs
        self.begun = 0.0  # when training began, as of `time.monotonic`, or would have without the kills
        self.shard = BatchShard()

    def train(self) -> TrainReport:
        """Train, write checkpoint and record, and return the record."""
        source, readable = self.source, self.feed.readable()
        if len(readable) < len(source) and is_main():
            first = source.reference(int(np.setdiff1d(np.arange(len(source)), readable)[0]))
            warn(f"{len(source) - len(readable):,} of {len(source):,} train images cannot be read, as {first}")
        rows = _labelled(source, readable, self.method.name) if self.method.needs_labels else readable
        self.rows, self.held = rows, rows[:0]
        if source.labels is not None:
            learned, held_out = hold_out(source.labels[rows], self.settings.heldout, self.settings.seed)
            self.rows, self.held = rows[learned], rows[held_out]
        if len(self.rows) < 2 <= len(rows):
            left = f"where {len(self.held):,} of {len(rows):,} train images are held out, {len(self.rows)} is left"
            raise HashretError(f"{left} to learn from", hint="lower --heldout")
        if isinstance(self.feed, VectorFeed):
            self.feed.standardize(self.net, self.rows)
        self.begun = time.monotonic()
        if self.method.fitted:
            self._fit()
        else:
            self._descend()
        return self._finish(time.monotonic() - self.begun)

    def _fit(self) -> None:
        """Fit a shallow head once: one epoch without a loss."""
        begun = time.monotonic()
        assert isinstance(self.feed, FeatureFeed)
        if is_main():
            sample = self.feed.to_fit(self.rows)
            with torch.no_grad():
                labels = None if self.source.labels is None else self.source.labels[sample]
                self._fit_head(self.net.head, self.feed.descriptors(sample), labels)
            line: dict[str, Any] = {"epoch": 1, "loss": None}
            codes = None
            if len(self.held):
                found, codes = self._held_out_map(together=False)
                line |= {"heldout_map": found.mean, "heldout_error": found.error}
            self._end_epoch(line | {"seconds": round(time.monotonic() - begun, 1)}, codes)
        barrier()

    def _fit_head(self, head: Head, x: Tensor, labels: Labels | None) -> None:
        """Call the method's fit, and say in one line where the photographs are too few or too similar for it."""
        if len(x) < 2:
            raise HashretError("an encoder learns from several photographs, and this is one", hint="take more")
        if float(x.std(dim=0, correction=0).max()) <= _SAME * float(x.abs().max()):
            if isinstance(self.feed, VectorFeed):
                raise HashretError(f"the {len(x):,} vectors to learn from are all the same", hint="take others")
            raise HashretError(f"the {len(x):,} train images all look the same to the convolutions", hint="take others")
        try:
            self.method.fit(head, x, labels, self.settings.seed)
        except (np.linalg.LinAlgError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
            reason = str(error).splitlines()[0]
        else:
            reason = "" if _is_finite(head) else "its projections are not numbers"
        if reason:
            raise HashretError(
                f"{self.settings.method} cannot be fitted to {len(x):,} images ({reason})",
                hint="take more or other photographs, or fewer --bits",
            )

    def _descend(self) -> None:
        """Train by gradient, epoch after epoch."""
        s, source, module, method, rows = self.settings, self.source, self.module, self.method, self.rows
        known: Labels = np.zeros((len(source), 0), np.uint8) if source.labels is None else source.labels
        labels = torch.as_tensor(known)
        batch_size = min(s.batch_size, len(rows))
        if batch_size < max(2, world()):
            raise HashretError(f"{len(rows)} train images are too few to learn from")
        classifiers = self.net.head.classifiers()
        for classifier in classifiers if labels.ndim == 2 else ():
            begin_at_frequencies(classifier, labels[rows])
        steps = len(rows) // batch_size
        rates: dict[nn.Module, float] = {
            classifier: s.lr * method.chosen.get("classifier_rate", 1.0) for classifier in classifiers
        }
        if s.backbone_lr is not None:
            rates[self.net.backbone] = s.backbone_lr
        optimizer, schedule = make_optimizer(
            module, rates, s.lr, s.weight_decay, steps=steps * s.epochs, warm=steps // 2
        )
        if self.state:
            try:
                module.load_state_dict(self.state["module"])
                optimizer.load_state_dict(self.state["optimizer"])
                schedule.load_state_dict(self.state["schedule"])
            except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
                raise self.files.damaged(error) from None
            self.epochs, self.best, method.state = self.state["epochs"], self.state["best"], self.state["method"]
            self.begun -= sum(line.get("seconds", 0) for line in self.epochs)
            for shorter, state in zip(method.shorter, self.state.get("shorter", []), strict=True):
                shorter.state = state
            self.codes, self.skipped = self.state.get("codes"), self.state.get("skipped", 0)
        else:
            for one in method.family():
                one.begin(known, rows)
        parallel, digest = self.shard.parallel(module), digest_of(source)
        self.saved = time.monotonic()
        for epoch in range(len(self.epochs) + 1, s.epochs + 1):
            begun = time.monotonic()
            for one in method.family():
                one.progress = (epoch - 1) / max(1, s.epochs - 1)
            loss = self._epoch(epoch, parallel, optimizer, schedule, labels, batch_size)
            if not _is_finite(module):  # the last step of an epoch has no loss after it
                raise HashretError(f"the weights are no longer numbers after epoch {epoch}", hint="lower --lr")
            line, codes = {"epoch": epoch, "loss": loss, "lr": schedule.get_last_lr()[0]}, None
            if len(self.held):
                found, codes = self._held_out_map()
                line |= {"heldout_map": found.mean, "heldout_error": found.error}
            line["seconds"] = round(time.monotonic() - begun, 1)
            if not method.needs_labels:  # labels, where there are some, then choose nothing
                self.best = {}
            self._end_epoch(line, codes, {
                "module": module.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(),
                "method": method.state, "shorter": [one.state for one in method.shorter],
                "classes": list(source.classes), "images": len(source), "digest": digest, "skipped": self.skipped,
            })  # fmt: skip
            barrier()
        if self.skipped and is_main():
            warn(
                f"{self.skipped:,} of {steps * s.epochs:,} steps of training were left out, since fewer than two "
                "images of their batches could be read"
            )

    def _epoch(
        self,
        epoch: int,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        labels: Tensor,
        batch_size: int,
    ) -> float:
        """Train one epoch and return the mean loss; its order, crops and dropout depend on seed and epoch alone.

        A batch of which fewer than two photographs could be read is left out: a loss that compares photographs with
        each other is no number then. All processes gather the same photographs, and so leave out the same batches.

        Raises:
            HashretError: the loss is no longer a number, or all batches were left out.
        """
        s, feed = self.settings, self.feed
        rng = np.random.default_rng((s.seed, epoch))
        order = self.rows[rng.permutation(len(self.rows))]
        count = len(order) // batch_size
        batches = [order[i * batch_size : (i + 1) * batch_size] for i in range(count)]
        if isinstance(feed, ViewFeed):
            batches = [feed.paired(batch, rng) for batch in batches]
        torch.manual_seed((s.seed * 100_003 + epoch) * 1009 % 2**64)  # torch takes no more
        progress = Progress(f"epoch {epoch}/{s.epochs}", count, "batches")
        module.train()
        total, taken = torch.zeros((), device=self.device), 0
        mine = feed.batches([self.shard.of(batch) for batch in batches], seed=(s.seed, epoch))
        for batch, (read, inputs) in zip(batches, mine, strict=True):
            self.shard.take(batch, read)
            if world() == 1 and len(read) < 2:  # batch normalization would refuse a single photograph
                progress.add(1)
                continue
            with autocast(self.device, s.precision):
                output = module(self.shard.padded(inputs))
            if not self.method.reads_fc_features:
                output = output._replace(fc_features=None)
            output, gathered = self.shard.gathered(output, batch)
            if len(gathered) < 2:
                progress.add(1)
                continue
            loss = self.method.nested_loss(output, labels[gathered % len(labels)].to(self.device), gathered)
            if not torch.isfinite(loss):
                raise HashretError(f"the loss is no longer a number in epoch {epoch}", hint="lower --lr")
            optimizer.zero_grad(set_to_none=True)
            self.shard.backward(loss)
            optimizer.step()
            schedule.step()
            total, taken = total + loss.detach(), taken + 1
            progress.add(1, f"loss {loss.item():.4f}" if progress.due else "")
        progress.close()
        if not taken:
            raise HashretError(f"no batch of epoch {epoch} has two train images that can be read")
        self.skipped += count - taken
        return float(total) / taken

    def _held_out_map(self, together: bool = True) -> tuple[HeldOutMap, dict[str, Any]]:
        """Search the held-out images, encoded by all processes ``together`` or by this one.

        Returns:
            Their mAP, see `held_out_map`, and the `code_figures` of them and of a fixed sample of the train images.
        """
        bits, both = self.settings.bits, self._held_and_sample()
        self.net.eval()
        outputs = self.shard.computed(both, self._hash_outputs, bits) if together else self._hash_outputs(both)
        codes = pack(binarize(outputs))
        found = held_out_map(codes[: len(self.held)], codes, bits, _labels(self.source)[both])
        return found, self._figures(codes, both)

    def _hash_outputs(self, rows: Positions) -> HashOutputs:
        """Return the hash outputs of images by their rows of the source, as the network is now."""
        return self.feed.hash_outputs(self.net, rows, self.settings.precision)

    def _choose_dither(self) -> tuple[float, dict[str, Any]]:
        """Find the spread of thresholds by which held-out images find most, in the mean of all lengths of code.

        They are searched as for the choice of the epoch. Of spreads that they cannot tell from the best, whose mAP is
        less by one standard error of the difference at most, the largest is taken: what it gains shows in a ranking of
        many photographs that were not learned from, of which few are held out. Where no spread is better, there is
        none.

        Returns:
            The spread, see `dithered`, and the `code_figures` of the codes that are searched.
        """
        both, lengths = self._held_and_sample(), self.settings.lengths
        self.net.eval()
        hash_outputs, labels = self._hash_outputs(both), _labels(self.source)[both]
        queries = binarize(hash_outputs[: len(self.held)])
        bits = {spread: dithered(hash_outputs, spread) for spread in _DITHERS}
        found = {
            spread: HeldOutMap.mean_of([held_out_map(pack(queries[:, :n]), pack(x[:, :n]), n, labels) for n in lengths])
            for spread, x in bits.items()
        }
        best = max(found, key=lambda spread: (found[spread].mean, -spread))
        behind = {spread: found[best].minus(one) for spread, one in found.items()}
        as_good = [spread for spread, less in behind.items() if less.mean <= less.error]
        chosen = 0.0 if best == 0 else max(as_good)
        _log.info("thresholds spread by %g: held-out mAP %.4f, without %.4f", chosen, found[chosen].mean, found[0].mean)
        return chosen, self._figures(pack(bits[chosen]), both)

    def _held_and_sample(self) -> Positions:
        """Return the held-out images and, behind them, the train images that they are searched among, too."""
        return np.concatenate([self.held, self._shuffled()[:_HELD_OUT_DATABASE]])

    def _shuffled(self) -> Positions:
        """Return the train images in an order that the seed decides, in which the first are a sample."""
        return np.random.default_rng(self.settings.seed).permutation(self.rows)

    def _figures(self, codes: Codes, both: Positions) -> dict[str, Any]:
        """Return the `code_figures` of held-out images and of those that they are searched among."""
        return code_figures(codes, self.settings.bits, _labels(self.source)[both], len(self.held))

    def _codes_of_sample(self) -> dict[str, Any]:
        """Return the `code_figures` of some train images, where none is held out."""
        sample, labels = self._shuffled()[:_CHECKED], self.source.labels
        self.net.eval()
        codes = pack(binarize(self._hash_outputs(sample)))
        return code_figures(codes, self.settings.bits, None if labels is None else labels[sample])

    def _class_logits(self) -> dict[str, list[str]]:
        """Return how much each bit speaks for each class, as `hashret.models.class_logits` keeps it, by length of code.

        Of a method without codewords, it is the mean of the hash outputs of the class less that of all, over some
        photographs of each class.
        """
        source, family = self.source, self.method.family()
        codewords = [one.state.get("codewords") for one in family]
        if all(words is not None for words in codewords):
            of_length = [words.numpy() for words in codewords if words is not None]
        else:
            assert source.labels is not None
            labels = source.labels if source.labels.ndim == 2 else as_flags(source.labels, len(source.classes))
            shuffled = self._shuffled()
            most = max(1, min(_SAMPLES_PER_CLASS, _SAMPLES_IN_ALL // labels.shape[1]))
            sample = np.unique(np.concatenate([shuffled[of[shuffled] > 0][:most] for of in labels.T]))
            self.net.eval()
            outputs = self._hash_outputs(sample)
            own = labels[sample].astype(np.float32)
            means = own.T @ outputs / own.sum(axis=0).clip(1)[:, None]
            logits = np.where(own.any(axis=0)[:, None], means - outputs.mean(axis=0), 0)
            largest = np.abs(logits).max(axis=1, keepdims=True)
            logits = np.where(largest > _UNTOLD * largest.max(), logits, 0)  # else of all photographs, but for rounding
            of_length = [logits[:, : one.bits] for one in family]
        return {str(one.bits): written(logits) for one, logits in zip(family, of_length, strict=True)}

    def _end_epoch(
        self, line: dict[str, Any], codes: dict[str, Any] | None, state: dict[str, Any] | None = None
    ) -> None:
        """Keep the epoch, if it `_is_kept`, with the figures of its codes and, where there is one, the state to resume
        from.
        """
        self.epochs.append(line)
        large = 3 * bytes_of(self.net) >= _LARGE_STATE
        due = state is None or not large or time.monotonic() - self.saved >= _STATE_EVERY
        if is_main():
            step = "fitted: " if line["loss"] is None else f"epoch {line['epoch']}: loss {line['loss']:.4f}, "
            held = f"held-out mAP {line['heldout_map']:.4f}, " if "heldout_map" in line else ""
            _log.info("%s%s%s", step, held, clock(line["seconds"]))
        if not self.best or self._is_kept(line):
            self.best, self.codes = line, codes
            if is_main():
                self.best_net = self.net.state_dict()
                if not due:  # the network trains on before this is written
                    self.best_net = {name: tensor.to("cpu", copy=True) for name, tensor in self.best_net.items()}
        if is_main() and due:
            if self.best_net is not None:
                self.files.save_best({"net": self.best_net, "line": self.best, "codes": self.codes})
                self.best_net = None
            if state:
                run = {"settings": self.settings.as_record(), "epochs": self.epochs, "best": self.best}
                self.files.save_state(state | run | {"codes": self.codes})
            self.saved = time.monotonic()

    def _is_kept(self, line: dict[str, Any]) -> bool:
        """Return whether an epoch is as good as all before it, as far as held-out images can tell.

        These are few, and their mAP changes by chance from epoch to epoch. What is at most one standard error below the
        highest is not told from it, and of such epochs the latest is kept, towards which the learning rate falls.
        Source: the rule of one standard error of Breiman, Friedman, Olshen & Stone, "Classification and regression
        trees", 1984, 3.4.3.
        """
        if "heldout_map" not in line:
            return True
        highest = max(self.epochs, key=lambda epoch: epoch["heldout_map"])
        least: float = highest["heldout_map"] - highest.get("heldout_error", 0)  # which states of earlier runs lack
        return bool(line["heldout_map"] >= least)

    def _finish(self, seconds: float) -> TrainReport:
        """Write checkpoint and record of the epoch that was kept, and clear the state away."""
        s, net, method, source = self.settings, self.net, self.method, self.source
        if is_main():
            if self.best_net is None:
                best = self.files.load_best()
                self._take_best(best)
            else:
                best = {"net": self.best_net}
            self.best_net = None
            try:
                net.load_state_dict(best.get("net", best))  # which stood alone once
            except (RuntimeError, TypeError, AttributeError) as error:
                raise self.files.damaged(error) from None
            spread = 0.0
            if s.dither and len(self.held):
                spread, codes = self._choose_dither()
            else:
                codes = self.codes or self._codes_of_sample()
            record = s.as_record() | {
                "hashret": __version__, "torch": torch.__version__, "device": str(self.device), "processes": world(),
                "train_images": len(self.rows), "heldout_images": len(self.held), "classes": list(source.classes),
                "multi_label": source.labels is not None and source.labels.ndim == 2, "protocol": source.protocol,
                "best_epoch": self.best["epoch"], "epochs_run": self.epochs, "seconds": round(seconds, 1),
                "dither_spread": spread, "codes": codes, "warning": self._warning(codes),
            }  # fmt: skip
            meta = {name: record[name] for name in _META} | {
                "head": method.head,
                "attention": net.head.config.get("attention", method.attention),
                "classifier": method.classifier,
                "weights_fingerprint": net.architecture.fingerprint(net.backbone),
                "heldout_map": self.best.get("heldout_map"),
            }
            if isinstance(self.feed, VectorFeed):
                meta |= self.feed.meta | {"rerank_by": "directions" if method.needs_labels else self.feed.metric}
            if method.needs_labels and not method.classifier:
                meta[KEY] = self._class_logits()
            if len(s.lengths) > 1:
                meta["lengths"] = list(s.lengths)
            if spread:
                meta["dither"] = spread

            def write_record(meta: Mapping[str, Any]) -> None:
                write_json(self.files.record, record | {"fingerprint": meta["fingerprint"]})

            save_checkpoint(self.files.out, net, meta, write_record)  # the record first: then the run is complete
            self.files.complete()
            if record["warning"]:
                warn(record["warning"])
        barrier()
        return TrainReport.from_record(read_json(self.files.record, "training record"))

    def _take_best(self, best: Mapping[str, Any]) -> None:
        """Take the line of the epoch that is kept, and the figures of its codes, from the file with its network.

        The state may say of another epoch that it is kept: where a run was killed after it had written the network of
        an epoch, and before the state, that epoch is trained again. It may then not be kept, as rounding depends on
        the number of processes, but its network has replaced the one before. Files of earlier releases have no line.
        """
        self.best, self.codes = best.get("line", self.best), best.get("codes", self.codes)
        self.epochs = [self.best if line["epoch"] == self.best["epoch"] else line for line in self.epochs]

    def _warning(self, codes: dict[str, Any]) -> str | None:
        """Return one line where the codes have collapsed, with what is wrong and what to do; else None."""
        labels = self.source.labels
        classes = len(np.unique(labels[has_label(labels)])) if labels is not None and labels.ndim == 1 else None
        wrong = collapsed(codes, self.settings.bits, classes)
        if wrong is None:
            return None
        other = "take more or other photographs" if self.method.fitted else f"lower --lr (it was {self.settings.lr:g})"
        return f"the codes tell photographs hardly apart: {wrong}; {other}, try another --method, or look at the labels"


def _labels(source: Source) -> Labels:
    """Return the labels of a source whose images are held out by them."""
    assert source.labels is not None
    return source.labels


def _labelled(source: Source, rows: Positions, method: str) -> Positions:
    """Return those rows of a source that a method learns from that needs labels.

    It would take photographs without a class number for one more class. Flags of which none is set are no gap: they say
    which labels a photograph does not have. Methods that compare photographs learn from such a one as dissimilar to all
    others, and those with a classifier as one that has none of the labels. Methods with codewords have none for it, and
    only what they ask of all outputs or pairs beside that counts it.

    Raises:
        HashretError: none of the rows has a label.
    """
    labels = _labels(source)[rows]
    with_label = has_label(labels)
    if not with_label.any():
        raise HashretError(
            f"none of the {len(rows):,} train images has a label",
            hint="take a method that needs no labels, as --method itq",
        )
    if labels.ndim == 2 or with_label.all():
        return rows
    if is_main():
        without = len(rows) - int(with_label.sum())
        warn(f"{without:,} of {len(rows):,} train images have no label, and {method} does not learn from them")
    return rows[with_label]


def _is_finite(module: nn.Module) -> bool:
    """Say whether all parameters and buffers are numbers."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in module.state_dict().values())
