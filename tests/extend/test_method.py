"""A method from outside the package, with options and a head of its own."""

import pytest
from click.testing import CliRunner
from torch import nn

from extend.whole_way import whole_way
from hashret import methods, train
from hashret.cli import main
from hashret.errors import HashretError
from hashret.methods import METHODS
from hashret.methods.method import Method, Option
from hashret.methods.similarity import pairwise_loss
from hashret.models import heads
from hashret.models.checkpoint import load_encoder, read_meta
from hashret.models.heads import HEADS, Head, HeadOutput, descriptor


class Scaled(Head):
    """A linear layer on the descriptor, whose logits are scaled."""

    kind = "scaled"
    options = ("scale",)

    def __init__(self, bits, classes, channels, side, scale=1.0):
        super().__init__(scale=scale)
        self.linear, self.scale = nn.Linear(channels, bits), scale

    def read(self, attended):
        return HeadOutput(self.scale * self.linear(descriptor(attended)), None)


class Pairs(Method):
    """The likelihood of pairs, and a pull to balanced bits."""

    name = "pairs-only"
    paper = "nobody, 2026"
    head = "scaled"
    options = (
        Option("scale", 4.0, "of the logits", low=1.0),
        Option("balance", 0.1, "pulls bits to half ones", high=1),
    )

    def loss(self, output, labels, source_rows):
        means = output.hash_outputs.mean(dim=0)
        return pairwise_loss(output.logits, labels) + self.chosen["balance"] * (2 * means - 1).square().mean()


@pytest.fixture(autouse=True)
def registered():
    heads.register(Scaled)
    methods.register(Pairs)
    yield
    del HEADS["scaled"], METHODS["pairs-only"]


def test_the_whole_way(photos, weights, tmp_path):
    options = {"options": {"scale": 8}, "lr": 3e-2, "backbone": "vgg11", "image_size": 32, "weights": weights}
    encoder = whole_way(tmp_path, photos, method="pairs-only", **options)
    assert encoder.head.scale == 8
    assert read_meta(tmp_path / "model.safetensors")["head_config"] == {"kind": "scaled", "scale": 8.0}


def test_options_come_from_the_command_line_and_stand_in_the_record(photos, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = f"train --data {photos} --method pairs-only --bits 8 --image-size 32 --backbone vgg11 --weights {weights}"
    common = [*common.split(), *["--epochs", "1", "--batch-size", "8", "--workers", "0", "--device", "cpu"]]

    def run(*options):
        return CliRunner().invoke(main, [*common, *options])

    assert run("--option", "scale=2", "--balance", "0.5").exit_code == 0
    record = (tmp_path / "model.json").read_text()
    assert '"scale": 2.0' in record
    assert '"balance": 0.5' in record
    assert load_encoder("model.safetensors", "cpu").head.scale == 2
    for wrong, line in (
        ("scale=0", "the option scale must be a number from 1, not 0"),
        ("balance=2", "the option balance must be a number from 0 to 1, not 2"),
        ("scale=wide", "not wide"),
        ("pairs=1", "the method pairs-only has no option pairs; there are scale, balance"),
        ("scale", "must be NAME=VALUE"),
    ):
        done = run("--option", wrong, "--out", "other.safetensors")
        assert (done.exit_code, done.output.count("\n")) == (2, 1), done.output
        assert line in done.output
    with pytest.raises(HashretError, match="no option depth"):
        train(photos, "other.safetensors", method="pairs-only", options={"depth": 1}, backbone="vgg11", weights=weights)
    with pytest.warns(UserWarning, match="no option smoothing, which is left out"), pytest.raises(HashretError):
        train(photos, "model.safetensors", method="pairs-only", smoothing=0.1, backbone="vgg11", weights=weights)
    listed = CliRunner().invoke(main, ["methods"]).output
    assert "--option scale=4: of the logits" in listed


def test_the_scale_of_a_head_is_part_of_its_fingerprint(photos, weights, tmp_path):
    options = {"backbone": "vgg11", "image_size": 32, "weights": weights, "bits": 8, "epochs": 1, "batch_size": 8}
    options |= {"method": "pairs-only", "lr": 1e-30, "workers": 0}  # which leaves the tensors as they are
    one, two = (train(photos, tmp_path / str(scale), options={"scale": scale}, **options) for scale in (1, 2))
    assert one.fingerprint != two.fingerprint
