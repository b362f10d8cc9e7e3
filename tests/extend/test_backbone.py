"""A backbone from outside the package: one convolution of 96 channels and stride 16, with its own normalisation."""

import numpy as np
import pytest
import torch
from torch import nn

from extend.whole_way import whole_way
from hashret import train
from hashret.errors import HashretError
from hashret.models.backbones import BACKBONES, Backbone, register
from hashret.models.checkpoint import load_encoder


def build():
    return nn.Sequential(nn.Conv2d(3, 96, 16, stride=16), nn.ReLU())


def pretrained():
    torch.manual_seed(5)
    return build().state_dict()


@pytest.fixture(autouse=True)
def tiny():
    half = (0.5, 0.5, 0.5)
    yield register(Backbone("tiny", build, channels=96, stride=16, mean=half, std=half, pretrained=pretrained))
    BACKBONES.pop("tiny", None)


@pytest.mark.parametrize("method", ["am-vggh", "ksh"])
def test_the_whole_way(photos, tmp_path, method):
    encoder = whole_way(tmp_path, photos, backbone="tiny", image_size=48, method=method)
    maps = encoder.backbone(np.zeros((1, 3, 48, 48), np.uint8))
    assert maps.shape == (1, 96, 3, 3)
    assert encoder.meta["arch"] == "tiny"


def test_what_the_backbone_says_is_kept_to(photos, tmp_path, tiny):
    options = {"bits": 8, "backbone": "tiny", "batch_size": 8, "width": 8, "epochs": 1, "workers": 0, "device": "cpu"}
    with pytest.raises(HashretError, match="multiple of 16 pixels, not 40"):
        train(photos, tmp_path / "model.safetensors", image_size=40, **options)
    pixels = torch.full((1, 3, 16, 16), 255, dtype=torch.uint8)
    assert tiny.normalize(pixels).unique().tolist() == [1.0]
    usual = Backbone("other", build, 96)
    layers = build()
    assert usual.fingerprint(layers) != tiny.fingerprint(layers)  # the same weights, but other feature maps
    with pytest.raises(ValueError, match="already"):
        register(tiny)
    del BACKBONES["tiny"]
    register(Backbone("tiny", build, 96, 16))
    with pytest.raises(HashretError, match="no pretrained weights of tiny"):
        train(photos, tmp_path / "model.safetensors", image_size=48, **options)


def test_a_checkpoint_of_a_backbone_that_is_not_registered(photos, tmp_path):
    options = {"bits": 8, "batch_size": 8, "width": 8, "epochs": 1, "workers": 0, "device": "cpu"}
    train(photos, tmp_path / "model.safetensors", backbone="tiny", image_size=48, **options)
    BACKBONES.pop("tiny")
    with pytest.raises(HashretError, match="arch is 'tiny', and the backbones that are registered here are vgg16"):
        load_encoder(tmp_path / "model.safetensors", "cpu")
