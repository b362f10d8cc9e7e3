"""Backbones run by OpenVINO: near to torch's, the same alone and in any batch, and recorded where codes are."""

import json
import signal
import subprocess
import sys
import threading

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
from hashret.models import large_heads, openvino_convert, openvino_runtime, ready
from hashret.models.backbone import Backbone
from hashret.models.backbones import BACKBONES, get_backbone
from hashret.models.checkpoint import load_encoder
from hashret.models.encoder import Encoder, FrozenBackbone, pick_precision
from hashret.models.heads import PerceptronHead, ProjectionHead
from hashret.models.network import HashNet
from hashret.models.ready import ready_encoder

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
    def maps():
        return FrozenBackbone(make_layers(), architecture, "cpu", "float32/openvino")(pixels())

    first = maps()
    [folder] = (tmp_path / "cache/openvino").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(openvino_convert, "save_network", None)  # which a network that is converted goes through
        assert torch.equal(maps(), first)
    for name in ("network.xml", "network.bin", "network.json"):
        damage(folder / name)
        assert openvino_runtime.load_network(folder) is None
        assert torch.equal(maps(), first)
        assert openvino_runtime.load_network(folder)
    (tmp_path / "file").touch()
    monkeypatch.setenv("HASHRET_CACHE", str(tmp_path / "file"))
    assert torch.equal(maps(), first)


def damage(path):
    """Change one byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


HEADS = [
    {"kind": "projection"}, {"kind": "kernel", "anchors": 3}, {"kind": "perceptron", "hidden": 40, "centred": True},
    {"kind": "perceptron", "hidden": 0}, {"kind": "fc", "width": 40}, {"kind": "sliced", "width": 40},
    {"kind": "fc", "width": 40, "attention": False, "centred": True, "pooled": 24, "lengths": [16, 48]},
]  # fmt: skip


def make_encoder(architecture, config, fingerprint="of this head", precision="float32/openvino-whole"):
    torch.manual_seed(1)
    options = dict(config)
    net = HashNet(48, 3, 32, architecture.name, head=options.pop("kind"), **options)
    for parameter in net.head.parameters():
        if not parameter.any():  # as of heads that are fitted
            nn.init.normal_(parameter, std=0.3)
    meta = {"bits": 48, "lengths": config.get("lengths") or [48], "image_size": 32, "arch": architecture.name}
    meta |= {"method": "none", "fingerprint": fingerprint, "classes": ["a", "b", "c"]}
    return Encoder(net, meta, "cpu", precision)


@pytest.mark.parametrize("config", HEADS, ids=lambda config: "-".join(map(str, config.values())))
def test_heads_beside_openvino_are_the_same_in_any_batch(architecture, config, monkeypatch):
    """As those that are too large for OpenVINO: 200 nodes are three tiles and a part of one.

    Nor does it count for how many rows weights are read once, even if a group of rows is cut in two by that number.
    """
    config = config | {"width": 200} if "width" in config else config
    encoder = make_encoder(architecture, config, precision="float32/openvino")
    maps, keep = encoder.backbone(np.concatenate([pixels(), pixels()[::-1]] * 3)), encoder.fc_width is not None
    assert len(maps) > 128
    outputs, features = encoder.outputs(maps, keep)
    with torch.inference_mode():
        expected = encoder.head(maps.float())
    assert np.abs(outputs - expected.hash_outputs.numpy()).max() < 1e-5
    assert features is None or np.abs(features - expected.fc_features.numpy()).max() < 1e-4
    threads = torch.get_num_threads()
    for first, n in ((0, 1), (1, 1), (120, 17), (len(maps) - 3, 3)):
        rows = slice(first, first + n)
        alone = encoder.outputs(maps[rows], keep)
        assert np.array_equal(alone[0], outputs[rows])
        assert features is None or np.array_equal(alone[1], features[rows])
    assert torch.get_num_threads() == threads
    monkeypatch.setattr(encoders, "_MOST_ROWS", 61)
    assert np.array_equal(encoder.outputs(maps)[0], outputs)
    monkeypatch.setattr(large_heads, "_are_as_alone", lambda shape: False)
    assert np.array_equal(encoder.outputs(maps)[0], outputs)
    if "lengths" in config:
        assert np.array_equal(encoder.shortened(16).outputs(maps)[0], outputs[:, :16])


def test_groups_are_multiplied_together_only_where_that_changes_no_bit(monkeypatch):
    """As by a library whose order of adding goes by the number of rows."""
    linear = nn.functional.linear

    def in_two_parts(x, weight, bias):
        if len(x) <= 8:
            return linear(x, weight, bias)
        return linear(x[:, :200], weight[:, :200], bias) + linear(x[:, 200:], weight[:, 200:])

    def by_eight_rows(x, weight, bias):
        return torch.cat([linear(rows, weight, bias) for rows in x.split(8)])

    shape = (400, 64, 8, 12)
    for product, same in ((in_two_parts, False), (by_eight_rows, True)):
        large_heads._are_as_alone.cache_clear()
        monkeypatch.setattr(nn.functional, "linear", product)
        assert large_heads._are_as_alone(shape) is same
    large_heads._are_as_alone.cache_clear()


@pytest.mark.parametrize("config", HEADS, ids=lambda config: "-".join(map(str, config.values())))
def test_heads_are_those_of_torch_in_any_batch_and_process(architecture, config, monkeypatch):
    encoder, images = make_encoder(architecture, config), pixels()
    maps = encoder.backbone(images)
    outputs, features = encoder.outputs(maps, encoder.fc_width is not None)
    with torch.inference_mode():
        expected = encoder.head(maps.float())
    assert np.abs(outputs - expected.hash_outputs.numpy()).max() < 1e-5
    assert (features is None) == (expected.fc_features is None)
    if features is not None:
        assert np.abs(features - expected.fc_features.numpy()).max() < 1e-4
    threads = torch.get_num_threads()
    for count in (1, 2, 3):
        monkeypatch.setattr(openvino_runtime, "_threads", lambda count=count: count)
        ready = ready_encoder(encoder.meta, "float32/openvino-whole", 48)
        for n in (1, 2, 7, 33):
            alone = ready.outputs(ready.backbone(images[-n:]), encoder.fc_width is not None)
            assert np.array_equal(alone[0], outputs[-n:])
            assert features is None or np.array_equal(alone[1], features[-n:])
    assert (ready.bits, ready.fc_width, ready.image_size) == (48, encoder.fc_width, 32)
    assert torch.get_num_threads() == threads
    if "lengths" in config:
        shorter = ready_encoder(encoder.meta, "float32/openvino-whole", 16)
        assert np.array_equal(shorter.outputs(maps)[0], outputs[:, :16])
        assert np.array_equal(encoder.shortened(16).outputs(maps)[0], outputs[:, :16])


@pytest.mark.parametrize("config", [HEADS[0], HEADS[4]], ids=["projection", "fc"])
def test_a_head_beside_openvino_leaves_other_threads_theirs(architecture, config):
    """A thread takes torch's number of threads when it first asks torch: here, while a head computes with one each."""
    encoder = make_encoder(architecture, config, precision="float32/openvino")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    seen, computes, asked = [], threading.Event(), threading.Event()

    def ask():
        computes.wait(60)
        seen.append(torch.get_num_threads())
        asked.set()

    def in_the_head(*_):
        seen.append(torch.get_num_threads())
        computes.set()
        asked.wait(60)

    try:
        maps = encoder.backbone(pixels(1))
        encoder.outputs(maps)
        encoder.head.attention.register_forward_pre_hook(in_the_head)
        other = threading.Thread(target=ask)
        other.start()
        encoder.outputs(maps)
        other.join()
        assert seen == [1, 3]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("precision", ["float32", "float32/openvino", "float32/openvino-whole"])
def test_an_encoder_that_is_shortened_twice_is_one_shortened_once(architecture, precision):
    """The kept network of the head has all bits, whichever of the encoders runs first."""
    encoder = make_encoder(architecture, {"kind": "fc", "width": 40, "lengths": [16, 24, 48]}, precision=precision)
    maps = encoder.backbone(pixels())
    twice = encoder.shortened(24).shortened(16).outputs(maps)[0]
    again = encoder.shortened(16).shortened(48).outputs(maps)[0]
    whole = encoder.outputs(maps)[0]
    assert whole.shape == (33, 48)
    assert np.array_equal(twice, whole[:, :16])
    assert np.array_equal(again, whole)


def test_an_encoder_is_ready_only_where_its_networks_are_whole(architecture, tmp_path, monkeypatch):
    word = "float32/openvino-whole"
    encoder = make_encoder(architecture, HEADS[0])
    assert ready_encoder(encoder.meta, word, 48) is None
    encoder.hash_outputs(pixels(2))
    assert ready_encoder(encoder.meta, word, 48)
    assert ready_encoder(encoder.meta | {"fingerprint": "another"}, word, 48) is None
    assert ready_encoder(encoder.meta, "float32/openvino", 48) is None
    assert ready_encoder(encoder.meta, "float32", 48) is None
    for folder in (tmp_path / "cache/openvino").iterdir():
        kept = (folder / "network.bin").read_bytes()
        damage(folder / "network.bin")
        assert ready_encoder(encoder.meta, word, 48) is None
        (folder / "network.bin").write_bytes(kept)
        assert ready_encoder(encoder.meta, word, 48)
    monkeypatch.setattr(ready, "has_openvino", lambda: False)
    assert ready_encoder(encoder.meta, word, 48) is None


QUERY = """
import json, sys
from hashret.cli import main
try:
    main(["query", "--index", "index-auto", "--json", "-k", "3", *sys.argv[1:]])
finally:
    print(json.dumps("torch" in sys.modules))
"""


def query(*arguments):
    done = subprocess.run([sys.executable, "-c", QUERY, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *answers, loaded = map(json.loads, done.stdout.splitlines())
    return answers, loaded


def test_a_query_whose_networks_are_kept_imports_no_torch(tmp_path, monkeypatch):
    """The encoder is one of EfficientNet-Lite0, since other processes do not know of the backbone above."""
    monkeypatch.setenv("HASHRET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    photos = sorted(make_photos(tmp_path / "photos", 12, 0).rglob("*.png"))
    save_file(lite0_layers().state_dict(), "start.safetensors")
    options = {"backbone": "efficientnet_lite0", "image_size": 64, "weights": "start.safetensors"}
    hashret.train("photos", method="itq", bits=8, **options)
    hashret.encode("photos", out="codes-auto")
    hashret.build_index("codes-auto", out="index-auto")
    named = [str(photo) for photo in photos[:3]]
    answers, loaded = query(*named)
    assert not loaded
    assert [answer["hits"][0]["hamming"] for answer in answers] == [0, 0, 0]
    assert [answer["hits"][0]["euclidean"] for answer in answers] == [0, 0, 0]
    searcher = hashret.Searcher("index-auto")
    found = [hits.as_dict()["hits"] for hits in searcher.search_many(named, k=3)]
    assert json.loads(json.dumps(found)) == [answer["hits"] for answer in answers]
    assert searcher._encoder is None
    loaded_searcher = hashret.Searcher("index-auto", searcher.encoder)
    assert np.array_equal(loaded_searcher.encode(named), searcher.encode(named))
    assert query("--html", "page.html", named[0]) == (answers[:1], True)  # with maps, which torch makes
    for path in (tmp_path / "cache/openvino").glob("*/network.bin"):
        damage(path)
    for is_loaded in (True, False):  # which has kept the networks anew
        searcher = hashret.Searcher("index-auto")
        assert (searcher._encoder is not None) == is_loaded
        assert [hits.as_dict()["hits"] for hits in searcher.search_many(named, k=3)] == found


def test_the_runtime_goes_from_the_shards_to_the_query(architecture, tmp_path, monkeypatch):
    photos = make_photos(tmp_path / "photos", 12, 0)
    monkeypatch.chdir(tmp_path)
    save_file(make_layers().state_dict(), "start.safetensors")
    hashret.train("photos", method="itq", bits=8, backbone=architecture.name, weights="start.safetensors")
    for runtime, recorded in (("auto", "/openvino-whole"), ("torch", "")):
        hashret.encode("photos", out=f"codes-{runtime}", runtime=runtime, precision=None)
        hashret.build_index(f"codes-{runtime}", out=f"index-{runtime}")
        meta = hashret.open_index(f"index-{runtime}").meta
        assert meta["precision"].partition("/")[1:] == recorded.partition("/")[1:]
        searcher = hashret.Searcher(f"index-{runtime}")
        assert searcher.encoder.backbone.runtime == ("openvino" if recorded else "torch")
        for photo in sorted(photos.rglob("*.png"))[:3]:
            assert searcher.search(photo, k=1)[0].hamming == 0
    with pytest.raises(HashretError, match=r"codes-torch was encoded in .*, and codes-auto in .*/openvino-whole"):
        hashret.build_index(["codes-auto", "codes-torch"], out="both")
    added = make_photos(tmp_path / "more", 2, 0)
    hashret.add("index-auto", added)
    assert len(hashret.open_index("index-auto")) > 12
    # As an index was built before heads were run by OpenVINO, too.
    word = f"{encoders.pick_compute_dtype('cpu')}/openvino"
    hashret.encode("photos", out="codes-old", precision=word)
    hashret.build_index("codes-old", out="index-old")
    assert hashret.open_index("index-old").meta["precision"] == word
    searcher = hashret.Searcher("index-old")
    assert searcher.encoder.compute_dtype == word
    for photo in sorted(photos.rglob("*.png"))[:3]:
        assert searcher.search(photo, k=1)[0].euclidean == 0


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
    head = ProjectionHead(8, 0, 16, 2)
    assert pick_precision(None, "auto", cpu, architecture, head=head) == f"{fast}/openvino-whole"
    assert pick_precision("float32", "openvino", cpu, architecture, head=head) == "float32/openvino-whole"
    assert pick_precision("bfloat16", "auto", cpu, architecture, head=head) == "bfloat16"
    assert pick_precision("bfloat16/openvino", "auto", cpu, architecture, head=head) == "bfloat16/openvino"
    assert pick_precision("bfloat16/openvino-whole", "auto", cpu, architecture) == "bfloat16/openvino-whole"
    assert pick_precision("float32/openvino-whole", "torch", cpu, architecture, head=head) == "float32"
    with torch.device("meta"):
        large = PerceptronHead(8, 0, 2048, 2, hidden=2**13)
    assert pick_precision(None, "auto", cpu, architecture, head=large) == f"{fast}/openvino"
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


def lite0_layers():
    """EfficientNet-Lite0 with random weights, which let nothing through before their outputs are normalised."""
    torch.manual_seed(0)
    layers = BACKBONES["efficientnet_lite0"].build().eval()
    for module in layers.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.inference_mode():
        layers.train()(get_backbone("efficientnet_lite0").normalize(torch.from_numpy(pixels(3, 64))))
    return layers.eval()


def test_lite0_is_near_to_torch():
    layers, architecture, images = lite0_layers(), get_backbone("efficientnet_lite0"), pixels(3, 64)
    with torch.inference_mode():
        expected = layers(architecture.normalize(torch.from_numpy(images)))
    maps = FrozenBackbone(layers, architecture, "cpu", "float32/openvino")(images)
    assert (maps.float() - expected).abs().max() < 1e-2 * expected.abs().max()


def test_load_encoder_takes_the_cpu_for_an_index_of_openvino(model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert load_encoder(model, "auto", "float32/openvino").device.type == "cpu"


SIGNALLED = """
import gc, signal
import numpy as np, openvino
from openvino import opset13
from hashret.models.openvino_runtime import OpenVINONetwork
signal.signal(signal.SIGCHLD, lambda *_: None)
x = opset13.parameter([-1, 64], np.float32)
model = openvino.Model([opset13.matmul(x, np.ones((64, 64), np.float32), False, False)], [x])
networks = [OpenVINONetwork("product", model, "bfloat16", [1], together=True) for _ in range(3)]
for network in networks:
    network(np.ones((1, 64), np.float32))
del network
while networks:
    networks.pop(0)
    gc.collect()
    signal.raise_signal(signal.SIGCHLD)
print("alive")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="there is no SIGCHLD here")
def test_a_process_takes_signals_when_networks_are_gone():
    done = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
