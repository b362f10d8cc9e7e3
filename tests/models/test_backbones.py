"""Backbones: torchvision's, timm's, hashret's own and the user's, against the networks that they come from."""

import hashlib
import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import make_model
from extend.whole_way import whole_way
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

import hashret
from hashret import train
from hashret.cli import main
from hashret.data.images import read_image
from hashret.errors import HashretError
from hashret.models import backbones
from hashret.models.backbones import BACKBONES, Backbone, get_backbone
from hashret.models.checkpoint import load_encoder, read_meta
from hashret.models.network import HashNet
from hashret.models.torchvision_nets import TokenMap
from hashret.models.weights import last_convolution, load_backbone
from hashret.shards import read_shard

OF_TORCHVISION = [
    "alexnet", "resnet18", "resnet50", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny", "swin_t",
]  # fmt: skip


def scores(network, feature_map):
    """What torchvision's network makes of a feature map."""
    pooled = network.avgpool(feature_map)
    last = next(getattr(network, name) for name in ("classifier", "fc", "head") if hasattr(network, name))
    flattens = isinstance(last, nn.Sequential) and any(isinstance(layer, nn.Flatten) for layer in last)
    return last(pooled if flattens else pooled.flatten(1))


@pytest.mark.parametrize("name", OF_TORCHVISION)
def test_a_network_of_torchvision_with_its_own_weights(name, tmp_path):
    import torchvision

    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name).eval()
    torch.save(theirs.state_dict(), tmp_path / "whole.pth")
    ours, backbone = load_backbone(tmp_path / "whole.pth", name).eval(), get_backbone(name)
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        maps, stages = ours(x), backbone.stages(ours)
        assert maps.shape == (2, *backbone.map_shape(x.shape[2]))
        passed = x
        for stage in stages:
            passed = stage(passed)
        assert torch.equal(passed, maps)
        assert torch.allclose(scores(theirs, maps), theirs(x), atol=1e-4)
    assert len(stages) >= 5


def test_a_vision_transformers_tokens_are_a_map():
    import torchvision

    torch.manual_seed(0)
    theirs = torchvision.models.VisionTransformer(96, 16, 2, 2, 48, 96).eval()
    nn.init.normal_(theirs.encoder.pos_embedding)
    ours, x = TokenMap(theirs).eval(), torch.rand(2, 3, 96, 96)
    with torch.inference_mode():
        tokens = torch.cat([theirs.class_token.expand(2, -1, -1), theirs._process_input(x)], dim=1)
        wanted = theirs.encoder(tokens)[:, 1:].transpose(1, 2).reshape(2, 48, 6, 6)
        assert torch.allclose(ours(x), wanted, atol=1e-5)
        assert ours(x[:, :, :64, :64]).shape == (2, 48, 4, 4)  # with positions in between
    assert len(Backbone("vit", lambda: ours, 48, 16).stages(ours)) == 3
    with torch.device("meta"):
        whole, layers = torchvision.models.vit_b_16(), BACKBONES["vit_b_16"].build()
    assert whole.state_dict().keys() - layers.state_dict().keys() == {"heads.head.weight", "heads.head.bias"}
    assert layers.state_dict().keys() <= whole.state_dict().keys()


@pytest.mark.parametrize("name", [*OF_TORCHVISION, "vit_b_16", "vgg11", "vgg11_bn", "vgg16", "vgg16_bn"])
def test_the_size_of_the_download(name):
    import torchvision

    size = torchvision.models.get_model_weights(name).IMAGENET1K_V1.meta["_file_size"]
    assert get_backbone(name).megabytes == pytest.approx(size, abs=0.1)


def test_lite0_is_timms(tmp_path):
    timm = pytest.importorskip("timm", reason="needs hashret[timm]")
    torch.manual_seed(0)
    theirs = timm.create_model("tf_efficientnet_lite0").eval()
    for name, tensor in theirs.state_dict().items():
        if "running" in name:
            tensor.uniform_(0.5, 1.5)
    save_file(theirs.state_dict(), tmp_path / "lite0.safetensors")
    ours = load_backbone(tmp_path / "lite0.safetensors", "efficientnet_lite0").eval()
    for size in (64, 96):
        x = torch.rand(2, 3, size, size)
        with torch.inference_mode():
            wanted = theirs.blocks(theirs.bn1(theirs.conv_stem(x)))
            assert torch.allclose(ours(x), wanted, atol=1e-5 * wanted.abs().max())


def test_the_convolution_after_the_feature_map_is_timms(tmp_path):
    timm = pytest.importorskip("timm", reason="needs hashret[timm]")
    torch.manual_seed(0)
    theirs = timm.create_model("tf_efficientnet_lite0").eval()
    for name, tensor in theirs.bn2.state_dict().items():
        if name != "num_batches_tracked":
            tensor.uniform_(0.5, 1.5)
    save_file(theirs.state_dict(), tmp_path / "lite0.safetensors")
    weight, bias = last_convolution(tmp_path / "lite0.safetensors", "efficientnet_lite0")
    feature_map = torch.randn(2, 320, 3, 3)
    with torch.inference_mode():
        wanted = theirs.bn2(theirs.conv_head(feature_map))
        got = torch.nn.functional.conv2d(feature_map, weight, bias).clamp(0, 6)  # theirs, too, with ReLU6
    assert torch.allclose(got, wanted, atol=1e-5)


def test_weights_without_the_convolution_after_the_feature_map(tmp_path):
    state = BACKBONES["efficientnet_lite0"].build().state_dict()
    save_file(state, tmp_path / "alone.safetensors")
    assert last_convolution(tmp_path / "alone.safetensors", "efficientnet_lite0") is None
    assert last_convolution("none", "efficientnet_lite0") is None
    assert last_convolution("pretrained", "vgg16") is None
    norm = {f"bn2.{name}": torch.ones(8) for name in ("weight", "bias", "running_mean", "running_var")}
    save_file(state | norm | {"conv_head.weight": torch.ones(8, 40, 1, 1)}, tmp_path / "other.safetensors")
    with pytest.raises(HashretError, match=r"other.safetensors does not hold the weights .* of another shape"):
        last_convolution(tmp_path / "other.safetensors", "efficientnet_lite0")


def test_lite0_pads_as_tensorflow_does_at_any_size():
    layers = BACKBONES["efficientnet_lite0"].build().eval()
    for size, cells in ((32, 1), (33, 2), (224, 7)):
        with torch.inference_mode():
            assert layers(torch.zeros(1, 3, size, size)).shape == (1, 320, cells, cells)


def test_real_lite0_weights_tell_classes_apart(shared):
    """The shared weights, half precision and without counters, load, and give other maps to other photographs."""
    layers = load_backbone(shared / "weights" / "efficientnet_lite0_imagenet.safetensors", "efficientnet_lite0").eval()
    x = get_backbone("efficientnet_lite0").normalize(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    with torch.inference_mode():
        maps = layers(x)
    assert maps.isfinite().all()
    assert (maps[0] - maps[1]).abs().mean() > 0.05


def test_weights_by_the_librarys_names(tmp_path):
    layers = BACKBONES["efficientnet_lite0"].build()
    state = dict(layers.state_dict())
    whole = state | {"conv_head.weight": torch.zeros(2), "bn2.bias": torch.zeros(2), "classifier.bias": torch.zeros(2)}
    save_file(whole, tmp_path / "whole.safetensors")
    assert torch.equal(load_backbone(tmp_path / "whole.safetensors", "efficientnet_lite0")[0].weight, layers[0].weight)
    save_file(state | {"blocks.7.0.bn1.bias": torch.zeros(2)}, tmp_path / "more.safetensors")
    with pytest.raises(
        HashretError, match=r"weights of efficientnet_lite0: blocks.7.0.bn1.bias is none of its tensors"
    ):
        load_backbone(tmp_path / "more.safetensors", "efficientnet_lite0")
    del state["blocks.6.0.conv_dw.weight"]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(HashretError, match=r"blocks.6.0.conv_dw.weight is missing or of another shape"):
        load_backbone(tmp_path / "less.safetensors", "efficientnet_lite0")


def test_lite0_is_downloaded(tmp_path, server, monkeypatch, capsys):
    folder, address = server
    torch.save(BACKBONES["efficientnet_lite0"].build().state_dict(), folder / "raw.pth")
    digest = hashlib.sha256((folder / "raw.pth").read_bytes()).hexdigest()[:8]
    served = (folder / "raw.pth").rename(folder / f"lite0-{digest}.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("hashret.models.efficientnet_lite.URL", f"{address}/{served.name}")
    load_backbone("pretrained", "efficientnet_lite0")
    said = capsys.readouterr()
    assert (said.out, "Downloading" in said.err) == ("", True)  # --json prints JSON alone
    kept = tmp_path / "torch" / "hub" / "checkpoints" / served.name
    assert kept.exists()
    kept.unlink()
    served.write_bytes(b"damaged")
    with pytest.raises(HashretError, match=rf"\(19 MB\) could not be downloaded from {address}/{served.name}: .*hash"):
        load_backbone("pretrained", "efficientnet_lite0")


def test_a_network_of_timm(tmp_path):
    timm = pytest.importorskip("timm", reason="needs hashret[timm]")
    torch.manual_seed(0)
    for name, shape, size in (("vit_tiny_patch16_224", (192, 14, 14), 224), ("resnet10t", (512, 3, 3), 96)):
        theirs = timm.create_model(name).eval()
        torch.save(theirs.state_dict(), tmp_path / "weights.pth")
        backbone, ours = get_backbone(f"timm:{name}"), load_backbone(tmp_path / "weights.pth", f"timm:{name}").eval()
        assert (backbone.map_shape(size), backbone.extra) == (shape, "timm")
        x = torch.rand(2, 3, size, size)
        with torch.inference_mode():
            wanted = theirs.forward_features(x)
            if wanted.ndim == 3:
                wanted = wanted[:, 1:].transpose(1, 2).reshape(2, *shape)
            assert torch.equal(ours(x), wanted)
    with pytest.raises(HashretError, match="takes images of 224 pixels alone, not 64"):
        get_backbone("timm:vit_tiny_patch16_224").side(64)
    for name in ("resnet99", "hf-hub:somebody/network", "local-dir:/tmp"):
        with pytest.raises(HashretError, match="timm has no network"):
            get_backbone(f"timm:{name}")


def test_without_timm_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(HashretError, match=r"timm:resnet10 needs the package timm; pip install 'hashret\[timm\]'"):
        get_backbone("timm:resnet10")


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A module outside hashret with functions that return layers, a backbone, and neither."""
    (tmp_path / "own_networks.py").write_text(
        textwrap.dedent("""
            import torch
            from torch import nn
            from hashret.models.backbones import Backbone

            def layers():
                torch.manual_seed(3)
                return nn.Sequential(nn.Conv2d(3, 24, 16, stride=16), nn.ReLU())

            def described():
                return Backbone("any", layers, 24, 16, resize="pad", image_size=32)

            def wrong():
                return nn.Flatten()

            number = lambda: 5
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(backbones, "_named", {})
    yield
    sys.modules.pop("own_networks", None)


def test_a_function_of_the_user(own_module, photos, tmp_path, monkeypatch):
    options = {"bits": 8, "width": 8, "epochs": 1, "batch_size": 8, "image_size": 32, "workers": 0, "device": "cpu"}
    train(photos, tmp_path / "a.safetensors", backbone="own_networks:layers", **options)
    encoder = load_encoder(tmp_path / "a.safetensors", "cpu")
    assert (encoder.meta["arch"], encoder.resize) == ("own_networks:layers", "squeeze")
    assert encoder.backbone(np.zeros((1, 3, 32, 32), np.uint8)).shape == (1, 24, 2, 2)
    assert get_backbone("own_networks:described").resize == "pad"
    assert get_backbone("own_networks:described").printed
    with pytest.raises(HashretError, match=r"turn 224 pixels into \(1, 150528\)"):
        get_backbone("own_networks:wrong")
    with pytest.raises(HashretError, match="returns int, and should return a Backbone or layers"):
        get_backbone("own_networks:number")
    with pytest.raises(HashretError, match=r"no backbone own_networks:nothing: .*nothing"):
        get_backbone("own_networks:nothing")
    with pytest.raises(HashretError, match="No module named 'no_such_module'"):
        get_backbone("no_such_module:layers")


def test_a_checkpoint_runs_no_code_that_it_names(own_module, photos, tmp_path, monkeypatch):
    options = {"bits": 8, "width": 8, "epochs": 1, "batch_size": 8, "image_size": 32, "workers": 0, "device": "cpu"}
    train(photos, tmp_path / "a.safetensors", backbone="own_networks:layers", **options)
    backbones._named.clear()  # another process
    sys.modules.pop("own_networks")
    with pytest.raises(
        HashretError, match="code that a checkpoint alone does not get to run: HASHRET_PLUGINS=own_netw"
    ):
        load_encoder(tmp_path / "a.safetensors", "cpu")
    assert "own_networks" not in sys.modules
    monkeypatch.setenv("HASHRET_PLUGINS", "others, own_networks:layers")
    assert load_encoder(tmp_path / "a.safetensors", "cpu").bits == 8


def small_vit():
    import torchvision

    return TokenMap(torchvision.models.VisionTransformer(224, 16, 2, 2, 48, 96))


@pytest.mark.parametrize(("name", "method"), [("resnet50", "ksh"), ("vit", "itq")])
def test_the_whole_way(photos, tmp_path, monkeypatch, name, method):
    """Random weights at 64 px; ViT with two blocks, as its checkpoints have 340 MB."""
    if name == "vit":
        monkeypatch.setitem(BACKBONES, "vit", Backbone("vit", small_vit, 48, 16, pooled=True, initialised=True))
    torch.manual_seed(0)
    layers, backbone = load_backbone("none", name), get_backbone(name)
    for layer in layers.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # its statistics are those of the next batch
    with torch.no_grad():
        layers.train()(torch.rand(4, 3, 64, 64))
    torch.save({backbone.library_name(n): t for n, t in layers.state_dict().items()}, tmp_path / "weights.pth")
    encoder = whole_way(tmp_path, photos, backbone=name, weights=tmp_path / "weights.pth", image_size=64, method=method)
    assert encoder.backbone(np.zeros((1, 3, 64, 64), np.uint8)).shape[1:] == get_backbone(name).map_shape(64)


def test_the_whole_way_of_a_pooled_head(photos, tmp_path, shared):
    file = shared / "weights" / "efficientnet_lite0_imagenet.safetensors"
    encoder = whole_way(
        tmp_path, photos, backbone="efficientnet_lite0", weights=file, image_size=64, resize="crop", epochs=8, lr=1e-3
    )
    assert encoder.head.config["pooled"] == 1280
    assert encoder.resize == "crop"


def test_the_last_stages_train_on_cached_maps_of_those_below(photos, tmp_path):
    torch.manual_seed(0)
    torch.save(load_backbone("none", "resnet18").state_dict(), tmp_path / "weights.pth")
    options = {
        "method": "am-vggh", "backbone": "resnet18", "weights": tmp_path / "weights.pth", "image_size": 32, "bits": 8,
        "width": 16, "batch_size": 8, "workers": 0, "device": "cpu", "epochs": 2, "cache": tmp_path / "cache",
    }  # fmt: skip
    before = {
        name: tensor.clone()
        for name, tensor in load_backbone(tmp_path / "weights.pth", "resnet18").state_dict().items()
    }
    report = train(photos, tmp_path / "model.safetensors", finetune="last:1", **options)
    assert (report.finetune, report.lr) == ("last:1", 1e-4)
    net = HashNet(8, 3, 32, "resnet18", width=16, pooled=1280)
    net.load_state_dict(load_file(tmp_path / "model.safetensors"))
    changed = {
        name.split(".")[0]
        for name, tensor in net.backbone.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert changed == {"layer4"}
    [cache] = (tmp_path / "cache" / "features").iterdir()
    assert json.loads((cache / "info.json").read_text())["shape"] == [256, 2, 2]
    with pytest.raises(HashretError, match="resnet18 has 5 stages"):
        train(photos, tmp_path / "other.safetensors", finetune="last:5", **options)


def test_the_way_to_make_squares_is_kept_with_the_encoder(tmp_path, weights):
    for folder, colours in (("a", ("red", "blue")), ("b", ("blue", "red"))):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        for number in range(8):  # the middle is that of the other class
            image = Image.new("RGB", (96 + number, 32), colours[0])
            image.paste(colours[1], (30, 0, 66, 32))
            image.save(tmp_path / "photos" / folder / f"{number}.png")
    options = {"backbone": "vgg11", "image_size": 32, "weights": weights, "bits": 8, "width": 16, "batch_size": 4}
    options |= {"epochs": 1, "workers": 0, "device": "cpu", "cache": tmp_path / "cache"}
    report = train(tmp_path / "photos", tmp_path / "m.safetensors", resize="crop", **options)
    squeezed = train(tmp_path / "photos", tmp_path / "s.safetensors", **options)
    assert (report.resize, squeezed.resize) == ("crop", "squeeze")
    model, photo = tmp_path / "m.safetensors", tmp_path / "photos" / "a" / "0.png"
    encoder = load_encoder(model, "cpu")
    assert read_meta(model)["resize"] == encoder.resize == "crop"
    wanted = encoder.hash_outputs(read_image(photo, 32, resize="crop")[None])
    assert not np.array_equal(wanted, encoder.hash_outputs(read_image(photo, 32)[None]))
    for cache in ("cache", "empty"):  # from the features that training has kept, and from the photographs
        hashret.encode(tmp_path / "photos", model, tmp_path / f"codes-{cache}", workers=0, cache=tmp_path / cache)
    both = [read_shard(tmp_path / f"codes-{cache}" / "codes-00000.h5")[0] for cache in ("cache", "empty")]
    assert np.array_equal(both[0].hash_outputs, both[1].hash_outputs)
    assert np.array_equal(both[0].hash_outputs[:1], wanted)
    hashret.build_index(tmp_path / "codes-cache", tmp_path / "index")
    assert np.array_equal(hashret.Searcher(tmp_path / "index", model, "cpu").encode([photo]), wanted)
    [one] = hashret.explain([photo], model, tmp_path / "explain.png", device="cpu")
    assert one.attribution.resize == "crop"
    assert np.array_equal(one.attribution.hash_outputs, wanted[0])
    pytest.importorskip("fastapi", reason="needs hashret[serve]")
    from fastapi.testclient import TestClient

    from hashret.service.app import create_app

    with TestClient(create_app(tmp_path / "index", model, "cpu")) as client:
        answer = client.post("/api/query?k=1&maps=true", files={"photo": photo.read_bytes()}).json()
    assert (answer["hits"][0]["euclidean"], answer["query"]["maps"]["fit"]) == (0, "contain")
    with pytest.raises(HashretError, match="resize must be squeeze or crop or pad, not stretch"):
        train(tmp_path / "photos", tmp_path / "x.safetensors", resize="stretch", **options)


def test_heads_of_wide_maps_pool_and_the_papers_does_not():
    with torch.device("meta"):
        wide = HashNet(48, 10, 224, "resnet50", width=2048, pooled=1280)
    shapes = {name: tuple(p.shape) for name, p in wide.head.named_parameters()}
    assert shapes["fc.0.weight"] == (1280, 2048, 1, 1)
    assert shapes["fc.5.weight"] == (2048, 1280)
    assert shapes["hash.weight"] == (48, 2048)
    assert shapes["classifier.weight"] == (10, 48)
    assert not get_backbone("vgg16").is_pooled(448)
    assert not get_backbone("alexnet").is_pooled(224)
    assert get_backbone("vit_b_16").is_pooled(224)
    unsaid = Backbone("unsaid", lambda: nn.Identity(), 512)
    assert (unsaid.is_pooled(224), unsaid.is_pooled(256)) == (False, True)


def test_the_list_of_backbones_imports_no_torch():
    code = "from hashret.cli import main; import sys; main(['backbones'], standalone_mode=False)"
    code = f"import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[-1] == "False"
    assert "efficientnet_lite0        320     32    224     19 MB" in lines
    assert {line.split()[0] for line in lines} >= set(BACKBONES)


def test_a_query_imports_no_torchvision(tmp_path, index_folder, model, photos):
    lite0 = make_model(tmp_path / "lite0.safetensors", arch="efficientnet_lite0", pooled=1280)
    photo = photos / "test" / "red" / "00.png"
    code = f"""
        import sys, numpy
        from hashret.search import query
        from hashret.models.checkpoint import load_encoder
        query([{str(photo)!r}], {str(index_folder)!r}, {str(model)!r}, device="cpu")
        load_encoder({str(lite0)!r}, "cpu").hash_outputs(numpy.zeros((1, 3, 32, 32), numpy.uint8))
        print([name for name in ("torchvision", "timm") if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


def test_the_old_names_of_options_warn(photos, tmp_path, weights):
    common = f"train --data {photos} --bits 8 --image-size 32 --weights {weights} --width 8 --epochs 1 --batch-size 8"
    done = CliRunner().invoke(
        main, [*common.split(), "--workers", "0", "--arch=vgg11", "--out", f"{tmp_path}/a.safetensors"]
    )
    assert done.exit_code == 0, done.output
    assert "note: the option --arch is now --backbone" in done.output
    with pytest.warns(DeprecationWarning, match="arch"), pytest.raises(HashretError, match="no backbone 'vgg99'"):
        train(photos, tmp_path / "b.safetensors", arch="vgg99")


def test_layers_of_others_are_told_apart_by_more_than_their_weights():
    """So that features that were cached are not taken for those of other layers with the same weights."""
    convolution = nn.Conv2d(3, 4, 3, 2, 1)
    of_users, own = Backbone("theirs", nn.Identity, 4, 4), Backbone("ours", nn.Identity, 4, 4, printed=False)
    pooled = [nn.Sequential(convolution, pool) for pool in (nn.MaxPool2d(2), nn.AvgPool2d(2), nn.MaxPool2d(2))]
    first, other, again = (of_users.fingerprint(layers) for layers in pooled)
    assert first == again != other
    assert own.fingerprint(pooled[0]) == own.fingerprint(pooled[1])  # its name says which these are
    built_in = {name: get_backbone(name).printed for name in [one.name for one in backbones._BUILT_IN] + ["vectors:8"]}
    assert len(built_in) > 10
    assert not any(built_in.values()), "feature caches and checkpoints have their fingerprints"
