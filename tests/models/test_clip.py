"""Networks of open_clip, image and text tower, against open_clip itself: a tiny one with random weights."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

import hashret
from hashret import Searcher, train
from hashret.cli import main
from hashret.data.images import read_image
from hashret.errors import HashretError
from hashret.models import backbones
from hashret.models.backbones import get_backbone
from hashret.models.checkpoint import load_encoder
from hashret.models.heads import ProjectionHead
from hashret.models.weights import load_backbone
from hashret.vectors import unit
from hashret.words import knows_texts, text_outputs

open_clip = pytest.importorskip("open_clip", reason="needs hashret[clip]")

TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
TEXTS = ["a red square", "something green"]


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory):
    """The configuration ``tiny-clip`` of open_clip, and a file with random weights of it."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "tiny-clip.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "tiny-clip.json")
    torch.manual_seed(0)
    save_file(open_clip.create_model("tiny-clip").state_dict(), folder / "weights.safetensors")
    yield folder
    open_clip.factory._MODEL_CONFIG_PATHS.remove(folder / "tiny-clip.json")
    open_clip.factory._MODEL_CONFIGS.pop("tiny-clip")
    backbones._named.pop("clip:tiny-clip", None)


@pytest.fixture(scope="module")
def theirs(tiny):
    network = open_clip.create_model("tiny-clip", pretrained=str(tiny / "weights.safetensors"))
    return network.eval()


@pytest.fixture(scope="module")
def taught(photos, tiny, tmp_path_factory):
    """A folder with the model, and an index with embeddings, of ITQ on the tiny network."""
    import os

    work = tmp_path_factory.mktemp("texts")
    os.environ["HASHRET_CACHE"] = str(work / "cache")
    options = {"workers": 0, "device": "cpu"}
    train(
        photos, work / "model.safetensors", method="itq", bits=16, backbone="clip:tiny-clip",
        weights=tiny / "weights.safetensors", precision="float32", **options,
    )  # fmt: skip
    hashret.encode(
        photos, work / "model.safetensors", work / "codes", split="train", features=True, precision="float32", **options
    )
    hashret.build_index(work / "codes", work / "index")
    return work


def test_the_towers_are_open_clips(tiny, theirs):
    layers = load_backbone(tiny / "weights.safetensors", "clip:tiny-clip").eval()
    backbone = get_backbone("clip:tiny-clip")
    assert (backbone.map_shape(32), backbone.resize, backbone.is_pooled(32)) == ((24, 1, 1), "crop", False)
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    mean, std = theirs.visual.preprocess_cfg["mean"], theirs.visual.preprocess_cfg["std"]
    scaled = (pixels / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    tokens = open_clip.get_tokenizer("tiny-clip")(TEXTS)
    with torch.inference_mode():
        assert torch.allclose(backbone.normalize(pixels), scaled, atol=1e-5)
        x = backbone.normalize(pixels)
        torch.testing.assert_close(layers(x)[:, :, 0, 0], theirs.encode_image(x))  # memory decides the last digit
        torch.testing.assert_close(layers.embed_texts(TEXTS)[:, :, 0, 0], theirs.encode_text(tokens))
    assert not any(p.requires_grad for name, p in layers.named_parameters() if "visual" not in name)


def test_images_and_texts_have_the_embeddings_that_open_clip_gives(taught, theirs, photos):
    encoder = load_encoder(taught / "model.safetensors", "cpu", "float32")
    photo = photos / "test" / "red" / "00.png"
    pixels = read_image(photo, 32, resize="crop")[None]
    normalized = encoder.backbone.architecture.normalize(torch.from_numpy(pixels))
    with torch.inference_mode():
        image = unit(theirs.encode_image(normalized).numpy())
        text = unit(theirs.encode_text(open_clip.get_tokenizer("tiny-clip")(TEXTS)).numpy())
    _, kept = encoder.outputs(encoder.backbone(pixels), True)
    assert kept == pytest.approx(image, abs=1e-3)  # feature maps are float16
    hash_outputs, features = text_outputs(TEXTS, encoder)
    assert features == pytest.approx(text, abs=1e-6)
    assert hash_outputs.shape == (2, 16)
    searcher = Searcher(taught / "index", encoder, "cpu")
    hits = searcher.search_text(TEXTS[0], k=36)
    embeddings = searcher.index.segments[0].columns["fc_features"]
    by_hand = np.sqrt(np.maximum(2 - 2 * np.sort(text[0] @ embeddings.T)[::-1], 0))
    assert [hit.euclidean for hit in hits] == pytest.approx(by_hand.tolist(), abs=1e-3)


def test_a_text_is_hashed_by_what_sets_it_apart_from_other_texts():
    """Pairs of images and texts that say the same, both far from zero in a direction of their own."""

    class Layers:
        @staticmethod
        def embed_texts(texts):
            return torch.stack([MEANINGS.get(text, USUAL[len(text) % 8]) for text in texts])[:, :, None, None]

    random = torch.Generator().manual_seed(0)
    meant = torch.randn(64, 32, generator=random) / 32**0.5
    gap = torch.randn(2, 32, generator=random)
    images, texts = 0.5 * meant + gap[0], 0.5 * meant + gap[1]
    USUAL = [0.5 * one + gap[1] for one in torch.randn(8, 32, generator=random) / 32**0.5]
    MEANINGS = {f"text {number}": text for number, text in enumerate(texts)}
    head = ProjectionHead(32, 0, 32, 1)
    from hashret.methods.lsh import ITQ

    with torch.no_grad():
        ITQ(32).fit(head, torch.nn.functional.normalize(images, dim=1), None, 0)

    class Encoder:
        meta, fc_width = {"arch": "clip:any"}, 32

        class backbone:
            layers = Layers

        @staticmethod
        def outputs(maps, keep_fc_features=False):
            output = head(maps)
            return output.hash_outputs.detach().numpy(), output.fc_features.detach().numpy()

    Encoder.head = head
    of_images = Encoder.outputs(images[:, :, None, None])[0] >= 0.5
    of_texts, _ = text_outputs(list(MEANINGS), Encoder)
    as_they_are = Encoder.outputs(texts[:, :, None, None])[0]
    right = [
        np.mean(((codes >= 0.5)[:, None] != of_images).sum(axis=2).argmin(axis=1) == np.arange(64))
        for codes in (of_texts, as_they_are)
    ]
    assert right[0] > 0.9
    assert right[1] < 0.5


def test_a_text_on_the_whole_way(taught, photos, tiny, tmp_path):
    common = {"index": taught / "index", "model": taught / "model.safetensors", "device": "cpu"}
    both = hashret.query(text=TEXTS, k=4, **common)
    [one] = hashret.query(text=TEXTS[0], k=4, **common)
    searcher = Searcher(taught / "index", taught / "model.safetensors", "cpu")
    assert [answer.path for answer in both] == TEXTS
    assert one.hits == both[0].hits == searcher.search_text(TEXTS[0], 4)
    assert one.hits == searcher.search_text(TEXTS[0], 4, rerank_by="cosine")
    assert searcher.search_text(TEXTS[0], 4, rerank_by="values") != one.hits
    for text, line in ((" ", "a text to look for is empty"), ("x" * 500, None)):
        if line:
            with pytest.raises(HashretError, match=line):
                searcher.search_text(text)
        else:
            assert len(searcher.search_text(text, 2)) == 2
    given = ["query", "--index", str(taught / "index"), "--model", str(taught / "model.safetensors"), "--device", "cpu"]
    done = CliRunner().invoke(main, [*given, "--text", TEXTS[0], "-k", "4", "--json"])
    assert [hit["id"] for hit in json.loads(done.stdout)["hits"]] == [hit.id for hit in one.hits]
    done = CliRunner().invoke(main, [*given, "--words", "red"])
    assert "this encoder of itq knows no classes" in done.output
    hashret.build_index(taught / "codes", tmp_path / "no-values", values=False)
    assert len(Searcher(tmp_path / "no-values", taught / "model.safetensors", "cpu").search_text(TEXTS[0], 3)) == 3
    pytest.importorskip("fastapi", reason="needs hashret[serve]")
    from fastapi.testclient import TestClient

    from hashret.service.app import create_app

    with TestClient(create_app(taught / "index", taught / "model.safetensors", "cpu")) as client:
        about = client.get("/api/about").json()
        assert (about["words"], about["text"]) == ([], True)
        answer = client.get("/api/query/text", params={"text": TEXTS[0], "k": 4}).json()
        found = [(hit["id"], hit["euclidean"]) for hit in answer["hits"]]
        assert found == [(hit.id, hit.euclidean) for hit in one.hits]
        assert answer["query"]["name"] == TEXTS[0]
        assert client.get("/api/query/text?text=").status_code == 422


@pytest.mark.parametrize("method", ["vggh+", "bihalf"])
def test_trained_heads_on_the_towers(photos, tiny, tmp_path, method):
    """The text tower is carried along unchanged, and what was learned of images answers for texts."""
    train(
        photos, tmp_path / "m.safetensors", method=method, bits=8, backbone="clip:tiny-clip", batch_size=8, epochs=1,
        width=16, weights=tiny / "weights.safetensors", workers=0, device="cpu",
    )  # fmt: skip
    encoder = load_encoder(tmp_path / "m.safetensors", "cpu", "float32")
    outputs, features = text_outputs(TEXTS, encoder)
    assert (outputs.shape, features.shape) == ((2, 8), (2, 16 if method == "vggh+" else 24))
    layers = load_backbone(tiny / "weights.safetensors", "clip:tiny-clip")
    assert torch.equal(layers.embed_texts(TEXTS), encoder.backbone.layers.embed_texts(TEXTS))


def test_other_encoders_take_no_texts(model):
    encoder = load_encoder(model, "cpu")
    assert not knows_texts(encoder)
    with pytest.raises(HashretError, match="an encoder on vgg11 takes no texts; train one with --backbone clip:NAME"):
        text_outputs(TEXTS, encoder)


def test_what_open_clip_does_not_have(monkeypatch):
    for name in ("no-such-network", "hf-hub:somebody/network", "local-dir:/tmp"):
        with pytest.raises(HashretError, match="open_clip has no network"):
            get_backbone(f"clip:{name}")
    with pytest.raises(HashretError, match="open_clip has no weights best of ViT-B-32; there are openai, "):
        get_backbone("clip:ViT-B-32/best")
    with pytest.raises(HashretError, match="no pretrained weights of clip:tiny-clip are known; name a file"):
        load_backbone("pretrained", "clip:tiny-clip")
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(
        HashretError, match=r"clip:RN50 needs the package open_clip_torch; pip install 'hashret\[clip\]'"
    ):
        get_backbone("clip:RN50")


def test_configurations_of_open_clip():
    siglip, openai = get_backbone("clip:ViT-B-16-SigLIP"), get_backbone("clip:ViT-B-32/openai")
    assert (siglip.mean, siglip.resize, siglip.image_size) == ((0.5, 0.5, 0.5), "squeeze", 224)
    assert (openai.channels, openai.resize, openai.stride) == (512, "crop", 224)
    assert openai.build.args == ("ViT-B-32", True)  # QuickGELU, as these weights were trained with
    assert get_backbone("clip:ViT-B-32").build.args == ("ViT-B-32", False)
    assert get_backbone("clip:RN50").build.args == ("RN50", True)  # as all weights of it were


def test_weights_are_downloaded_by_open_clip(tiny, server, tmp_path, monkeypatch):
    folder, address = server
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    about = open_clip.pretrained._pcfg(f"{address}/tiny.safetensors")
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-clip", {"here": about})
    monkeypatch.setattr(backbones, "_named", {})
    with pytest.raises(HashretError) as refused:
        load_backbone("pretrained", "clip:tiny-clip")
    line = str(refused.value)
    assert line.startswith(f"the weights of clip:tiny-clip could not be downloaded from {address}/tiny.safetensors: ")
    assert "404" in line
    assert line.endswith("fetch them elsewhere, and name --weights FILE")
    (folder / "tiny.safetensors").write_bytes((tiny / "weights.safetensors").read_bytes())
    layers = load_backbone("pretrained", "clip:tiny-clip")
    assert torch.equal(
        layers.embed_texts(TEXTS), load_backbone(tiny / "weights.safetensors", "clip:tiny-clip").embed_texts(TEXTS)
    )


def test_a_checkpoint_opens_in_another_process(taught, tiny):
    code = f"""
import sys, open_clip
open_clip.add_model_config({str(tiny / "tiny-clip.json")!r})
from hashret import Searcher
hits = Searcher({str(taught / "index")!r}, {str(taught / "model.safetensors")!r}, "cpu").search_text({TEXTS[0]!r}, 3)
print([hit.id for hit in hits])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    wanted = Searcher(taught / "index", taught / "model.safetensors", "cpu").search_text(TEXTS[0], 3)
    assert done.stdout.strip() == str([hit.id for hit in wanted])
    assert done.stderr == ""  # nothing of what open_clip logs
