"""Backbones run by OpenVINO: near to torch's, the same alone and in any batch, and recorded where codes are."""

import numpy as np
import pytest
import torch
from conftest import make_photos
from safetensors.torch import save_file
from torch import nn

import hashret
from hashret import precision
from hashret.errors import HashretError
from hashret.models import encoder as encoders
from hashret.models import openvino_runtime
from hashret.models.backbone import Backbone
from hashret.models.backbones import BACKBONES, get_backbone
from hashret.models.checkpoint import load_encoder
from hashret.models.encoder import FrozenBackbone, pick_precision

pytest.importorskip("openvino")


def make_layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 4, 1), nn.ReLU()).eval()


@pytest.fixture
def architecture(monkeypatch, tmp_path):
    """A backbone of two convolutions that OpenVINO runs by default; converted networks are kept in a folder."""
    monkeypatch.setenv("HASHRET_CACHE", str(tmp_path / "cache"))
    made = Backbone("two-convolutions", make_layers, 16, 16, image_size=32, initialised=True, openvino=True)
    monkeypatch.setitem(BACKBONES, made.name, made)
    return made


def pixels(n=33, size=32):
    return np.random.default_rng(0).integers(0, 256, (n, 3, size, size), np.uint8)


@pytest.mark.parametrize("number_format", precision.FORMATS)
def test_feature_maps_are_those_of_torch_in_any_batch(architecture, number_format):
    images, layers = pixels(), make_layers()
    backbone = FrozenBackbone(make_layers(), architecture, "cpu", f"{number_format}/openvino")
    maps = backbone(images)
    assert (maps.dtype, maps.shape) == (torch.float16, (33, 16, 2, 2))
    with torch.inference_mode():
        expected = layers(architecture.normalize(torch.from_numpy(images)))
    tolerance = 0.05 if number_format == "bfloat16" else 2e-3
    assert (maps.float() - expected).abs().max() < tolerance * expected.abs().max()
    for n in (1, 2, 7, 16):
        assert torch.equal(backbone(images[:n]), maps[:n])
        assert torch.equal(backbone(images[-n:]), maps[-n:])


def test_a_converted_network_is_kept(architecture, tmp_path, monkeypatch):
    maps = FrozenBackbone(make_layers(), architecture, "cpu", "float32/openvino")(pixels())
    [folder] = (tmp_path / "cache/openvino").iterdir()
    monkeypatch.setattr(openvino_runtime, "_converted", None)
    assert torch.equal(FrozenBackbone(make_layers(), architecture, "cpu", "float32/openvino")(pixels()), maps)
    monkeypatch.undo()
    monkeypatch.setenv("HASHRET_CACHE", str(tmp_path / "cache"))
    (folder / "network.xml").write_text("no network")
    assert torch.equal(FrozenBackbone(make_layers(), architecture, "cpu", "float32/openvino")(pixels()), maps)
    assert "no network" not in (folder / "network.xml").read_text()
    (tmp_path / "file").touch()
    monkeypatch.setenv("HASHRET_CACHE", str(tmp_path / "file"))
    assert torch.equal(FrozenBackbone(make_layers(), architecture, "cpu", "float32/openvino")(pixels()), maps)


def test_the_runtime_goes_from_the_shards_to_the_query(architecture, tmp_path, monkeypatch):
    photos = make_photos(tmp_path / "photos", 12, 0)
    monkeypatch.chdir(tmp_path)
    save_file(make_layers().state_dict(), "start.safetensors")
    hashret.train("photos", method="itq", bits=8, backbone=architecture.name, weights="start.safetensors")
    for runtime, recorded in (("auto", "/openvino"), ("torch", "")):
        hashret.encode("photos", out=f"codes-{runtime}", runtime=runtime, precision=None)
        hashret.build_index(f"codes-{runtime}", out=f"index-{runtime}")
        meta = hashret.open_index(f"index-{runtime}").meta
        assert meta["precision"].partition("/")[1:] == recorded.partition("/")[1:]
        searcher = hashret.Searcher(f"index-{runtime}")
        assert searcher.encoder.backbone.runtime == ("openvino" if recorded else "torch")
        for photo in sorted(photos.rglob("*.png"))[:3]:
            assert searcher.search(photo, k=1)[0].hamming == 0
    with pytest.raises(HashretError, match=r"codes-torch was encoded in .*, and codes-auto in .*/openvino"):
        hashret.build_index(["codes-auto", "codes-torch"], out="both")
    added = make_photos(tmp_path / "more", 2, 0)
    hashret.add("index-auto", added)
    assert len(hashret.open_index("index-auto")) > 12


def test_precisions_are_chosen(architecture, monkeypatch):
    cpu = torch.device("cpu")
    fast = encoders.pick_compute_dtype(cpu)
    assert pick_precision(None, "auto", cpu, architecture) == f"{fast}/openvino"
    assert pick_precision(None, "auto", cpu, get_backbone("vgg11")) == fast
    assert pick_precision(None, "auto", cpu, architecture, trained=True) == fast
    assert pick_precision("bfloat16", "auto", cpu, architecture) == "bfloat16"  # as an index records it
    assert pick_precision("bfloat16/openvino", "auto", cpu, architecture) == "bfloat16/openvino"
    assert pick_precision("float32", "openvino", cpu, get_backbone("vgg11")) == "float32/openvino"
    assert pick_precision("float32/openvino", "torch", cpu, architecture) == "float32"
    with pytest.raises(HashretError, match="no runtime 'onnx'; there are auto, torch, openvino"):
        pick_precision(None, "onnx", cpu, architecture)
    with pytest.raises(HashretError, match="no precision 'float8'; there are bfloat16, float32, bfloat16/openvino"):
        pick_precision("float8", "auto", cpu, architecture)
    with pytest.raises(HashretError, match="OpenVINO computes on the CPU, not on cuda"):
        pick_precision("bfloat16/openvino", "auto", torch.device("cuda"), architecture)
    with pytest.raises(HashretError, match="OpenVINO trains no backbones"):
        pick_precision(None, "openvino", cpu, architecture, trained=True)
    monkeypatch.setattr(encoders, "has_openvino", lambda: False)
    assert pick_precision(None, "auto", cpu, architecture) == fast


def test_an_index_of_openvino_says_what_is_missing(architecture, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    backbone = FrozenBackbone(make_layers(), architecture, "cpu", "float32/openvino")
    with pytest.raises(HashretError, match="OpenVINO is not installed") as raised:
        backbone(pixels(1))
    assert "hashret[openvino]" in raised.value.hint


def test_lite0_is_near_to_torch():
    layers = BACKBONES["efficientnet_lite0"].build().eval()
    architecture, images = get_backbone("efficientnet_lite0"), pixels(3, 64)
    for module in layers.modules():  # random weights let nothing through before their outputs are normalised
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.inference_mode():
        layers.train()(architecture.normalize(torch.from_numpy(images)))
        layers.eval()
        expected = layers(architecture.normalize(torch.from_numpy(images)))
    maps = FrozenBackbone(layers, architecture, "cpu", "float32/openvino")(images)
    assert (maps.float() - expected).abs().max() < 1e-2 * expected.abs().max()


def test_load_encoder_takes_the_cpu_for_an_index_of_openvino(model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert load_encoder(model, "auto", "float32/openvino").device.type == "cpu"
