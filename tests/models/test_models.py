"""The networks against plain references."""

import hashlib
import json

import numpy as np
import pytest
import torch
from conftest import make_model
from safetensors.torch import load_file, save_file

from hashret.errors import HashretError
from hashret.models.attention import CBAM, GATES
from hashret.models.backbones import get_backbone
from hashret.models.checkpoint import load_encoder, read_meta
from hashret.models.encoder import FrozenBackbone, pick_device
from hashret.models.network import HashNet
from hashret.models.vgg import build_vgg
from hashret.models.weights import load_backbone


def plain_cbam(F, cbam):
    """Formulas (1)-(5) of the paper with loops, for one feature map (c, h, w)."""
    c, h, w = F.shape
    W2, b2, W1, b1 = (p.detach().numpy() for p in cbam.channel.mlp.parameters())

    def mlp(x):
        return W1 @ np.maximum(W2 @ x + b2, 0) + b1

    average = np.array([sum(F[k, i, j] for i in range(h) for j in range(w)) / (h * w) for k in range(c)])
    maximum = np.array([max(F[k, i, j] for i in range(h) for j in range(w)) for k in range(c)])
    F = cbam.channel.scale * F / (1 + np.exp(-(mlp(average) + mlp(maximum))))[:, None, None]
    kernel, bias = (p.detach().numpy() for p in cbam.spatial.conv.parameters())
    summary = np.stack([F.mean(axis=0), F.max(axis=0)])
    out = np.zeros_like(F)
    for i in range(h):
        for j in range(w):
            logit = bias[0]
            for plane in range(2):
                for di in range(-3, 4):
                    for dj in range(-3, 4):
                        if 0 <= i + di < h and 0 <= j + dj < w:
                            logit += kernel[0, plane, di + 3, dj + 3] * summary[plane, i + di, j + dj]
            out[:, i, j] = cbam.spatial.scale * F[:, i, j] / (1 + np.exp(-logit))
    return out


@pytest.mark.parametrize("gate", GATES)
def test_cbam_is_the_papers_formulas(gate):
    torch.manual_seed(0)
    cbam = CBAM(32, gate=gate)
    for parameter in cbam.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    F = torch.rand(2, 32, 4, 5, generator=torch.Generator().manual_seed(1))
    out = cbam(F).detach().numpy()
    for n in range(2):
        assert out[n] == pytest.approx(plain_cbam(F[n].numpy().astype(np.float64), cbam), abs=1e-5)


def test_gates_begin_at_one_or_half():
    F = torch.rand(1, 64, 7, 7)
    assert torch.allclose(CBAM(64)(F), F, rtol=0.05)
    assert CBAM(64).channel.scale == CBAM(64).spatial.scale == 2
    assert CBAM(64, gate="half").channel.scale == CBAM(64, gate="open").spatial.scale == 1  # as the paper has it
    assert torch.allclose(CBAM(64, gate="open")(F), F, rtol=0.05)
    ratio = (CBAM(64, gate="half")(F) / F).mean().item()
    assert 0.1 < ratio < 0.45
    with pytest.raises(ValueError, match="gate"):
        CBAM(64, gate="ajar")


def test_channel_reduction_is_sixteen_and_shared():
    cbam = CBAM(512)
    assert [tuple(p.shape) for p in cbam.channel.mlp.parameters()] == [(32, 512), (32,), (512, 32), (512,)]
    assert tuple(cbam.spatial.conv.weight.shape) == (1, 2, 7, 7)


@pytest.mark.parametrize("arch", ["vgg11", "vgg11_bn", "vgg16", "vgg16_bn"])
def test_convolutions_are_torchvisions(arch):
    import torchvision

    theirs = torchvision.models.get_model(arch).eval()
    ours = build_vgg(arch).eval()
    ours.load_state_dict(theirs.features.state_dict())
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(ours(x), theirs.features(x))


def test_normalize_is_torchvisions():
    from torchvision.transforms.functional import normalize as theirs

    x = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    wanted = theirs(x.float() / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert torch.allclose(get_backbone("vgg16").normalize(x), wanted, atol=1e-6)


def test_am_vggh_has_the_papers_layers():
    with torch.device("meta"):
        net = HashNet(48, 10)
    shapes = {name: tuple(p.shape) for name, p in net.named_parameters()}
    assert shapes["head.fc.1.weight"] == (4096, 7 * 7 * 512)
    assert shapes["head.fc.4.weight"] == (4096, 4096)
    assert shapes["head.hash.weight"] == (48, 4096)
    assert shapes["head.classifier.weight"] == (10, 48)
    assert sum(name.startswith("backbone") and name.endswith("weight") for name in shapes) == 13
    with torch.device("meta"):
        vggh = HashNet(48, 10, attention=False)
    assert {n for n, _ in net.named_parameters()} - {n for n, _ in vggh.named_parameters()} == {
        n for n in shapes if n.startswith("head.attention.")
    }


@pytest.mark.parametrize("bits", [8, 12, 24, 32, 48, 256])
@pytest.mark.parametrize("image_size", [32, 96])
def test_values_are_bits_wide_and_between_zero_and_one(bits, image_size):
    net = HashNet(bits, 5, image_size, arch="vgg11", width=16).eval()
    images = torch.randint(0, 256, (2, 3, image_size, image_size), dtype=torch.uint8)
    output = net(images)
    assert output.logits.shape == output.hash_outputs.shape == (2, bits)
    assert output.scores.shape == (2, 5)
    assert 0 < output.hash_outputs.min() <= output.hash_outputs.max() < 1
    assert torch.equal(output.hash_outputs >= 0.5, output.logits >= 0)


@pytest.mark.parametrize(("bits", "size"), [(7, 32), (257, 32), (16, 33), (16, 0), (16, -32)])
def test_impossible_shapes(bits, size):
    with pytest.raises(HashretError, match=r"bits|multiple of 32"):
        HashNet(bits, 3, size)


def test_encoder_gives_a_photograph_the_same_values_in_any_batch(model):
    images = np.random.default_rng(0).integers(0, 256, (70, 3, 32, 32), dtype=np.uint8)
    for precision in ("float32", "bfloat16"):
        encoder = load_encoder(model, "cpu", precision)
        together = encoder.hash_outputs(images)
        assert together.shape == (70, 24)
        assert together.dtype == np.float32
        assert 0.2 < (together >= 0.5).mean() < 0.8
        alone = np.concatenate([encoder.hash_outputs(images[i : i + 1]) for i in range(70)])
        assert np.array_equal(together, alone)
        assert np.array_equal(encoder.hash_outputs(images[13:50]), together[13:50])


def test_a_gpu_gives_nearly_the_values_of_the_cpu(model):
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here")
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
    on_gpu = load_encoder(model, "cuda", "float32")
    together = on_gpu.hash_outputs(images)
    assert np.array_equal(np.concatenate([on_gpu.hash_outputs(images[i : i + 1]) for i in range(20)]), together)
    assert together == pytest.approx(load_encoder(model, "cpu", "float32").hash_outputs(images), abs=0.05)


@pytest.mark.parametrize("name", ["gpu", "mps", "", "cpu:one", "cuda:-2"])
def test_there_are_no_other_devices(name):
    with pytest.raises(HashretError, match=f"no device '{name}'; "):
        pick_device(name)


def test_encoder_is_the_network(model):
    encoder = load_encoder(model, "cpu", "float32")
    net = HashNet(24, 3, 32, arch="vgg11", width=32).eval()
    net.load_state_dict(load_file(model))
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        wanted = net(images).hash_outputs.numpy()
    assert encoder.hash_outputs(images) == pytest.approx(wanted, abs=2e-3)


def test_convolutions_of_unknown_precision(model):
    with pytest.raises(HashretError, match="precision"):
        FrozenBackbone(build_vgg("vgg11"), get_backbone("vgg11"), "cpu", "float8")


def test_checkpoint_says_what_it_is(model):
    meta = read_meta(model)
    assert meta["bits"] == 24
    assert meta["image_size"] == 32
    assert len(meta["fingerprint"]) == 32


def test_fingerprint_is_of_the_tensors(model, tmp_path):
    again = make_model(tmp_path / "a.safetensors")
    other = make_model(tmp_path / "b.safetensors", seed=1)
    assert read_meta(again)["fingerprint"] == read_meta(model)["fingerprint"]
    assert read_meta(other)["fingerprint"] != read_meta(model)["fingerprint"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "other tensors", "text", "empty", "pickle"])
def test_a_damaged_checkpoint_is_one_clear_error(model, tmp_path, damage):
    path = tmp_path / "model.safetensors"
    raw = bytearray(model.read_bytes())
    if damage == "truncated":
        path.write_bytes(raw[: len(raw) // 2])
    elif damage == "flipped":
        raw[-100] ^= 0xFF
        path.write_bytes(raw)
    elif damage == "other tensors":
        tensors = load_file(model)
        del tensors["head.hash.bias"]
        save_file(tensors, path, {"hashret": json.dumps(read_meta(model))})
    elif damage == "pickle":
        torch.save({"a": 1}, path)
    else:
        path.write_bytes(b"text" * 100 if damage == "text" else b"")
    with pytest.raises(HashretError, match="is damaged") as caught:
        load_encoder(path, "cpu")
    assert "\n" not in str(caught.value)


def test_safetensors_of_others_and_missing_files(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(HashretError, match="not a hashret checkpoint"):
        read_meta(tmp_path / "a.safetensors")
    with pytest.raises(HashretError, match="no checkpoint"):
        read_meta(tmp_path / "b.safetensors")


@pytest.fixture(scope="module")
def vgg11_state():
    import torchvision

    torch.manual_seed(0)
    return torchvision.models.vgg11().state_dict()


@pytest.mark.parametrize("kind", ["full.pth", "full.safetensors", "features.safetensors", "bare.pth", "half.pth"])
def test_weights_from_a_file(vgg11_state, tmp_path, kind):
    state = vgg11_state
    if not kind.startswith("full"):
        state = {name: tensor for name, tensor in state.items() if name.startswith("features.")}
    if kind.startswith("bare"):
        state = {name.removeprefix("features."): tensor for name, tensor in state.items()}
    if kind.startswith("half"):
        state = {name: tensor.half().float() for name, tensor in state.items()}
    path = tmp_path / kind
    (save_file if kind.endswith("safetensors") else torch.save)(state, path)
    got = load_backbone(str(path), "vgg11").state_dict()
    key = "0.weight"
    wanted = vgg11_state["features.0.weight"]
    assert torch.allclose(got[key], wanted, atol=0 if "half" not in kind else 1e-3)


def test_weights_that_do_not_fit(vgg11_state, tmp_path):
    torch.save(vgg11_state, tmp_path / "vgg11.pth")
    with pytest.raises(HashretError, match="does not hold the weights of vgg16"):
        load_backbone(str(tmp_path / "vgg11.pth"), "vgg16")
    with pytest.raises(HashretError, match="no weights at"):
        load_backbone(str(tmp_path / "none.pth"))
    (tmp_path / "text.pth").write_text("text")
    with pytest.raises(HashretError, match="cannot read"):
        load_backbone(str(tmp_path / "text.pth"))
    with pytest.raises(HashretError, match="no backbone 'vgg99'; there are vgg16"):
        load_backbone("none", "vgg99")


def test_a_pickle_with_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(HashretError, match="cannot read"):
        load_backbone(str(tmp_path / "evil.pth"))
    assert not (tmp_path / "pwned").exists()


def test_imagenet_weights_come_by_torchvisions_own_way(vgg11_state, tmp_path, server, monkeypatch):
    """The real download path, against a stand-in on a local server."""
    from torchvision.models import VGG11_Weights

    folder, address = server
    torch.save(vgg11_state, folder / "raw.pth")
    digest = hashlib.sha256((folder / "raw.pth").read_bytes()).hexdigest()[:8]
    served = (folder / "raw.pth").rename(folder / f"vgg11-{digest}.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(VGG11_Weights.IMAGENET1K_V1.value, "url", f"{address}/{served.name}")
    got = load_backbone("imagenet", "vgg11").state_dict()
    assert torch.equal(got["0.weight"], vgg11_state["features.0.weight"])
    served.unlink()
    assert len(load_backbone("imagenet", "vgg11")) > 0  # from torch's cache
    for file in (tmp_path / "torch").rglob("*.pth"):
        file.unlink()
    with pytest.raises(HashretError) as caught:
        load_backbone("pretrained", "vgg11")
    line = str(caught.value)
    assert f"the weights of vgg11 (507 MB) could not be downloaded from {address}/{served.name}: " in line
    assert f"put them at {tmp_path / 'torch' / 'hub' / 'checkpoints' / served.name}, or name --weights FILE" in line
    assert "\n" not in line


def test_a_start_from_scratch_keeps_the_signal(tmp_path):
    torch.manual_seed(0)
    x = get_backbone("vgg11").normalize(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    for arch in ("vgg11", "vgg11_bn", "vgg16", "vgg16_bn", "efficientnet_lite0"):
        assert load_backbone("none", arch)(x).std() > 0.05


@pytest.mark.parametrize(("spread", "number"), [(0, 1), (0.5, 3)])
def test_spread_thresholds_alone_make_a_checkpoint_of_a_later_format(tmp_path, spread, number):
    """What an earlier hashret reads as it should stays open to it; the rest it refuses as of a later one."""
    path = make_model(tmp_path / "model.safetensors", dither=spread)
    assert read_meta(path)["format"] == number
    assert load_encoder(path, "cpu").dither == spread


def test_a_checkpoint_whose_queries_have_spread_thresholds_is_refused(tmp_path):
    """Format 2 was written for some days: outputs, and so queries, too, had them."""
    path = make_model(tmp_path / "some_days.safetensors", dither=0.5)
    save_file(load_file(path), path, {"hashret": json.dumps(read_meta(path) | {"format": 2})})
    with pytest.raises(HashretError, match=r"spreads the thresholds of queries, too \(format 2\); train it again"):
        load_encoder(path, "cpu")


def test_a_checkpoint_of_a_later_format_is_refused(tmp_path):
    path = make_model(tmp_path / "later.safetensors")
    tensors, meta = load_file(path), read_meta(path) | {"format": 4}
    save_file(tensors, path, {"hashret": json.dumps(meta)})
    with pytest.raises(HashretError, match=r"by a later hashret \(format 4\); upgrade"):
        load_encoder(path, "cpu")
