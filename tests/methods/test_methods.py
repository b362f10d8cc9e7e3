"""Each method against a plain reference on small input."""

import itertools
import re

import numpy as np
import pytest
import torch
from conftest import make_photos

from hashret import open_data, train
from hashret.errors import HashretError
from hashret.methods import METHODS, cnnh, codewords, dnnh, get_method, ksh, lsh
from hashret.methods.similarity import Similarity, share_a_label
from hashret.models.checkpoint import load_encoder, read_meta
from hashret.models.heads import HeadOutput, SlicedHead, descriptor, make_head
from methods.plain import SEVERAL, SINGLE, loss_of, make, output, shares_label, sigmoid


@pytest.mark.parametrize("name", ["vggh", "am-vggh"])
@pytest.mark.parametrize("extra", [{}, {"quantization": 0.3}, {"balance": 0.2}, {"smoothing": 0.1}])
def test_classification_loss_by_hand(name, extra):
    out = output()
    values, scores = sigmoid(out.logits.detach().numpy()), out.scores.numpy()
    smoothing = extra.get("smoothing", 0)
    wanted = np.eye(3)[SINGLE] * (1 - smoothing) + smoothing / 3
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    by_hand = -(wanted * log_p).sum(axis=1).mean()
    by_hand += extra.get("quantization", 0) * np.mean(4 * values * (1 - values))
    by_hand += extra.get("balance", 0) * np.mean((2 * values.mean(axis=0) - 1) ** 2)
    assert loss_of(name, SINGLE, out, **extra)[1].item() == pytest.approx(by_hand)


@pytest.mark.parametrize("smoothing", [0, 0.1])
def test_loss_of_several_labels_is_binary_cross_entropy_by_hand(smoothing):
    out = output()
    p = sigmoid(out.scores.numpy())
    wanted = SEVERAL * (1 - smoothing) + smoothing / 2
    by_hand = -np.mean(wanted * np.log(p) + (1 - wanted) * np.log(1 - p))
    assert loss_of("vggh", SEVERAL, out, smoothing=smoothing)[1].item() == pytest.approx(by_hand)


def pairs_by_hand(u, labels):
    likelihood = []
    for i, j in itertools.permutations(range(6), 2):
        theta = u[i] @ u[j] / 2
        likelihood.append(shares_label(labels[i], labels[j]) * theta - np.log1p(np.exp(theta)))
    return -np.mean(likelihood)


@pytest.mark.parametrize("labels", [SINGLE, SEVERAL], ids=["single", "several"])
def test_dpsh_loss_by_hand(labels):
    out = output()
    u = out.logits.detach().numpy()
    by_hand = pairs_by_hand(u, labels) + 0.3 * np.mean((u - np.where(u >= 0, 1, -1)) ** 2)
    assert loss_of("dpsh", labels, out, quantization=0.3)[1].item() == pytest.approx(by_hand)


@pytest.mark.parametrize("labels", [SINGLE, SEVERAL], ids=["single", "several"])
def test_dnnh_loss_by_hand(labels):
    out = output()
    f = sigmoid(out.logits.detach().numpy())
    f = np.where(f < 0.5 - dnnh.EPSILON, 0, np.where(f > 0.5 + dnnh.EPSILON, 1, f))
    hinges = [
        max(0, dnnh.MARGIN - ((f[i] - f[n]) ** 2).sum() + ((f[i] - f[p]) ** 2).sum())
        for i, p, n in itertools.product(range(6), repeat=3)
        if i != p and shares_label(labels[i], labels[p]) and not shares_label(labels[i], labels[n])
    ]
    assert hinges
    assert loss_of("dnnh", labels, out)[1].item() == pytest.approx(np.mean(hinges))


def test_codewords_are_as_far_apart_as_can_be():
    for classes, bits, nearest in ((10, 12, 6), (10, 48, 22), (2, 8, 8), (21, 24, 8)):
        words = codewords.codewords(classes, bits)
        assert set(np.unique(words)) == {-1, 1}
        distance = (words[:, None] != words[None]).sum(axis=2) + bits * np.eye(classes, dtype=int)
        assert distance.min() >= nearest
        assert np.array_equal(words, codewords.codewords(classes, bits))


@pytest.mark.parametrize(("classes", "bits", "seed"), [(2, 8, 0), (5, 12, 1), (9, 8, 2)])
def test_codewords_are_those_of_a_plain_descent(classes, bits, seed):
    """Which computes the whole cost anew for each flip."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(10):
        words, moved = np.where(rng.random((classes, bits)) < 0.5, -1, 1), True
        while moved:
            moved = False
            for entry in rng.permutation(classes * bits):
                flipped = words.copy()
                flipped.flat[entry] *= -1
                if codewords._cost(flipped) < codewords._cost(words) - 1e-9:
                    words, moved = flipped, True
        found.append(words)
    assert np.array_equal(codewords.codewords(classes, bits, seed), min(found, key=codewords._cost))


def test_codewords_of_many_classes_are_looked_for_fewer_times_and_aloud(monkeypatch, caplog):
    found = []
    monkeypatch.setattr(codewords, "_descend", lambda words, *_: found.append(words) or words)
    caplog.set_level("INFO", "hashret")
    for classes, bits, tries in ((100, 256, 10), (1000, 48, 10), (2000, 48, 2), (3000, 64, 1)):
        found.clear()
        caplog.clear()
        codewords.codewords(classes, bits)
        assert len(found) == tries
        assert [record.message for record in caplog.records] == [
            f"looking for codewords of {bits} bits for {classes:,} classes"
        ]
    caplog.clear()
    codewords.codewords(100, 48)
    assert not caplog.records


def test_no_flip_of_a_bit_brings_many_codewords_further_apart():
    """Each flip by the formula of the cost, while the search keeps sums of its terms up to date."""
    words = codewords.codewords(120, 12, tries=1)
    products, sums = words @ words.T, words.sum(axis=0)
    np.fill_diagonal(products, -(2**31))
    terms = codewords._pair_terms(products, 12)
    for i, j in np.ndindex(words.shape):
        changed = codewords._pair_terms(products[i] - 2 * words[i, j] * words[:, j], 12)
        balance = (sums[j] - 2 * words[i, j]) ** 2 - sums[j] ** 2
        assert (changed - terms[i]).sum() + 0.05 * balance > -1e-8


@pytest.mark.parametrize("labels", [SINGLE, SEVERAL], ids=["single", "several"])
@pytest.mark.parametrize("pairs", [0, 0.7])
def test_codeword_loss_by_hand(labels, pairs):
    out = output()
    method, loss = loss_of("am-vggh+", labels, out, quantization=0.3, pairs=pairs)
    words, values = method.state["codewords"].numpy(), sigmoid(out.logits.detach().numpy())
    by_hand = []
    for value, label in zip(2 * values - 1, labels, strict=True):
        holds = np.eye(3)[label] if labels.ndim == 1 else label
        cosine = words @ value / np.linalg.norm(words, axis=1) / np.linalg.norm(value)
        scores = 8 * (cosine - 0.2 * holds)
        log_p = scores - np.log(np.exp(scores).sum())
        by_hand.append(-(holds / holds.sum()) @ log_p)
    by_hand = np.mean(by_hand) + 0.3 * np.mean(4 * values * (1 - values))
    by_hand += pairs * pairs_by_hand(out.logits.detach().numpy(), labels)
    assert loss.item() == pytest.approx(by_hand)


@pytest.mark.parametrize("name", ["vggh+", "csq"])
def test_photographs_without_any_label_are_drawn_to_no_codeword(name):
    labels, known, rows = SEVERAL.copy(), np.array([0, 1, 3, 5]), np.arange(6)
    labels[[2, 4]] = 0
    method, out = make(name, smoothing=0.2), output()
    method.begin(labels, rows)
    loss = method.loss(out, torch.as_tensor(labels), rows)
    alone = method.loss(HeadOutput(out.logits[known], None), torch.as_tensor(labels[known]), known)
    assert loss.item() == pytest.approx(alone.item())
    loss.backward()
    assert not out.logits.grad[[2, 4]].any()
    out.logits.grad = None
    nothing = method.loss(HeadOutput(out.logits[[2, 4]], None), torch.as_tensor(labels[[2, 4]]), rows[[2, 4]])
    nothing.backward()
    assert nothing.item() == 0
    assert not out.logits.grad.any()


@pytest.mark.parametrize("name", ["am-vggh+", "vggh+"])
def test_short_codes_of_several_labels_learn_from_pairs(name):
    wanted = {"pairs": 3.0, "dropout": 0.0}
    assert get_method(name).defaults_for(16, several_labels=True) == wanted
    for bits, several_labels in ((17, True), (12, False)):
        assert get_method(name).defaults_for(bits, several_labels) == {}


def test_piecewise_threshold():
    values = torch.tensor([0.05, 0.2, 0.5, 0.79, 0.95])
    assert dnnh.piecewise_threshold(values, 0.3).tolist() == pytest.approx([0, 0.2, 0.5, 0.79, 1])


def test_each_bit_of_the_sliced_head_sees_its_own_slice():
    layer = SlicedHead(3 + 5, 2, 512, 1, width=16, slice_width=4, attention=False).hash[1]
    x = torch.randn(2, 8 * 4)
    y = x.clone()
    y[:, 4:8] += 1  # slice of bit 1
    assert (layer(x) != layer(y)).any(dim=0).tolist() == [False, True] + [False] * 6
    assert layer(x)[1, 2].item() == pytest.approx((x[1, 8:12] @ layer.weight[2] + layer.bias[2]).item(), abs=1e-6)


@pytest.mark.parametrize("name", ["am-vggh+", "vggh", "dpsh", "dnnh", "cnnh", "cnnh+"])
@pytest.mark.parametrize("labels", [SINGLE, SEVERAL], ids=["single", "several"])
def test_gradients_are_those_of_finite_differences(name, labels):
    method = make(name, quantization=0.2, pairs=0.5, balance=0.1, smoothing=0.1)
    rows = np.arange(6)
    method.begin(labels, rows)
    start = output(seed=3)

    def value(logits, scores):
        return method.loss(HeadOutput(logits, scores), torch.as_tensor(labels), rows)

    assert torch.autograd.gradcheck(value, (start.logits, start.scores.requires_grad_()), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("labels", [SINGLE, SEVERAL], ids=["single", "several"])
def test_similarity_is_the_matrix_of_pairs(labels):
    similarity = Similarity(labels)
    wanted = np.array([[1 if shares_label(a, b) else -1 for b in labels] for a in labels])
    assert np.array_equal(similarity.dense(), wanted)
    assert np.array_equal(share_a_label(torch.as_tensor(labels), torch.as_tensor(labels)), wanted > 0)
    x = np.random.default_rng(0).normal(size=(6, 3))
    assert similarity.times(x) == pytest.approx(wanted @ x)
    assert similarity.times(x[:, 0]) == pytest.approx(wanted @ x[:, 0])
    assert cnnh.objective(similarity, x, 3) == pytest.approx(((wanted - x @ x.T / 3) ** 2).sum())


@pytest.mark.parametrize(("classes", "bits"), [(2, 8), (4, 12)])
def test_cnnh_stage_one_reconstructs_a_block_similarity_matrix(classes, bits):
    labels = np.random.default_rng(1).integers(0, classes, 60)
    similarity, history = Similarity(labels), []
    codes = cnnh.approximate(similarity, bits, seed=0, history=history)
    assert set(np.unique(codes)) == {-1, 1}
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(history))
    product = codes @ codes.T / bits
    same = similarity.dense() > 0
    assert (product[same] == 1).all()  # one code a class
    assert product[~same].max() < 0.5
    if classes == 2:
        assert np.array_equal(product, similarity.dense())


def test_cnnh_steps_are_those_of_plain_coordinate_descent():
    """The same sweep with the residual S - HH'/q written out, as the paper has it."""
    labels, bits = np.array([0, 1, 1, 2, 0, 2, 1]), 5
    S, n = Similarity(labels).dense(), len(labels)
    rng = np.random.default_rng(7)
    h = rng.uniform(-1, 1, (n, bits))
    for i in rng.permutation(n):
        for j in rng.permutation(bits):
            R = S - h @ h.T / bits
            slope = -R[i] @ h[:, j]
            curvature = (h[:, j] @ h[:, j] + h[i, j] ** 2) / bits - R[i, i]
            goal = h[i, j] - slope / curvature if curvature > 0 else -np.sign(slope)
            h[i, j] = np.clip(goal, -1, 1)
    assert np.array_equal(cnnh.approximate(Similarity(labels), bits, seed=7, sweeps=1), np.where(h >= 0, 1, -1))


@pytest.mark.parametrize("name", ["cnnh", "cnnh+"])
def test_cnnh_loss_by_hand(name):
    out = output()
    method, loss = loss_of(name, SINGLE, out)
    target, p = method.state["codes"].numpy(), sigmoid(out.logits.detach().numpy())
    assert target[0].tolist() == target[1].tolist() != target[3].tolist()
    by_hand = -np.mean(target * np.log(p) + (1 - target) * np.log(1 - p))
    if name == "cnnh+":
        by_hand += loss_of("vggh", SINGLE, out)[1].item()
    assert loss.item() == pytest.approx(by_hand)


def blobs(n=120, classes=3, seed=0):
    """Unit descriptors (n, 512) around class centres, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    x = np.random.default_rng(9).random((classes, 512))[labels] + 0.6 * rng.random((n, 512))
    return torch.nn.functional.normalize(torch.tensor(x, dtype=torch.float32), dim=1), labels


def test_ksh_objective_falls_and_its_codes_follow_the_labels(monkeypatch):
    monkeypatch.setattr(ksh, "ANCHORS", 30)
    x, labels = blobs()
    history = []
    head = make_head({"kind": "kernel"}, 8, 0, 512, 1)
    with torch.no_grad():
        make("ksh").fit(head, x, labels, seed=0)
        kernel = head.kernel(x).double().numpy()
        weight = ksh.projections(kernel, Similarity(labels), 8, history)
        logits = head(x[:, :, None, None]).logits.numpy()
    assert len(history) == 8
    assert all(after <= before for before, after in history)
    assert any(after < before for before, after in history)
    assert np.array_equal(logits >= 0, kernel @ weight >= 0)
    assert kernel.mean(axis=0) == pytest.approx(np.zeros(30), abs=1e-5)
    codes = np.where(logits >= 0, 1, -1)
    assert np.mean((codes @ codes.T > 0) == (labels[:, None] == labels)) > 0.95


def test_ksh_kernel_is_its_formula():
    x, _ = blobs(20)
    head = make_head({"kind": "kernel"}, 8, 0, 512, 1)
    head.set(x[:4].clone(), torch.tensor(0.7))
    by_hand = [[np.exp(-((a - b) ** 2).sum() / (2 * 0.7)) for b in x[:4].numpy()] for a in x.numpy()]
    assert head.kernel(x).detach().numpy() == pytest.approx(np.array(by_hand), abs=1e-5)


def test_ksh_gradient_is_that_of_finite_differences():
    rng = np.random.default_rng(0)
    kernel, start = rng.normal(size=(30, 5)), rng.normal(size=5)
    similarity = Similarity(rng.integers(0, 3, 30))

    def cost(a):
        y = np.tanh(kernel @ a / 2)
        return -(y @ similarity.dense() @ y)

    _, gradient = ksh.cost_and_gradient(kernel, similarity.times, start)
    by_hand = [(cost(start + e) - cost(start - e)) / 2e-6 for e in 1e-6 * np.eye(5)]
    assert gradient == pytest.approx(np.array(by_hand), rel=1e-4)


def test_lsh_bits_are_signs_of_random_projections():
    x, _ = blobs()
    heads = [make_head({"kind": "projection"}, 16, 0, 512, 1) for _ in range(3)]
    with torch.no_grad():
        for head, seed in zip(heads, (0, 0, 1), strict=True):
            make("lsh").fit(head, x, None, seed)
        logits = [head(x[:, :, None, None]).logits.numpy() for head in heads]
    assert np.array_equal(logits[0], logits[1])
    assert not np.array_equal(logits[0] >= 0, logits[2] >= 0)
    weight = torch.randn(512, 16, generator=torch.Generator().manual_seed(0)).numpy()
    centred = x.numpy() - x.numpy().mean(axis=0)
    assert np.array_equal(logits[0] >= 0, centred @ weight >= 0)
    assert logits[0].std(axis=0) == pytest.approx(np.ones(16), rel=1e-4)


def test_itq_loss_falls_and_its_rotation_is_one():
    v = torch.randn(200, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    history = []
    r = lsh.rotation(v, iterations=20, history=history)
    assert torch.allclose(r @ r.T, torch.eye(6, dtype=torch.float64), atol=1e-10)
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(history))
    assert history[-1] < history[0]


def test_itq_hashes_the_principal_components():
    x, _ = blobs()
    head = make_head({"kind": "projection"}, 8, 0, 512, 1)
    with torch.no_grad():
        make("itq").fit(head, x, None, 0)
    centred = x.numpy() - x.numpy().mean(axis=0)
    components = np.linalg.svd(centred, full_matrices=False)[2][:8]
    weight = head.weight.detach().numpy()
    inside = components.T @ components @ weight
    assert inside == pytest.approx(weight, abs=1e-3 * float(np.abs(weight).max()))


def test_descriptor_is_the_mean_place_of_unit_length():
    features = torch.rand(3, 512, 2, 2)
    mean = features.numpy().mean(axis=(2, 3))
    assert descriptor(features).numpy() == pytest.approx(mean / np.linalg.norm(mean, axis=1, keepdims=True), abs=1e-6)


def small(weights, **changes):
    return {
        "bits": 16, "image_size": 32, "backbone": "vgg11", "width": 64, "dropout": 0.0, "epochs": 40, "batch_size": 8,
        "lr": 3e-3, "heldout": 0.2, "workers": 0, "device": "cpu", "weights": weights,
    } | changes  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_the_colours_and_encodes(photos, weights, tmp_path, name):
    out = tmp_path / "model.safetensors"
    record = train(photos, out, method=name, **small(weights))
    assert max(epoch["heldout_map"] for epoch in record.epochs_run) > (0.6 if name == "lsh" else 0.85)
    assert read_meta(out)["method"] == name
    source = open_data(photos, "test")
    images = np.stack([source.pixels(i, 32) for i in range(len(source))])
    encoder = load_encoder(out, "cpu")
    values = encoder.hash_outputs(images)
    assert values.shape == (12, 16)
    assert ((values > 0) & (values < 1)).all()
    assert np.array_equal(encoder.hash_outputs(images[:1]), values[:1])


@pytest.mark.parametrize("name", ["lsh", "itq"])
def test_methods_without_labels_take_a_plain_folder(weights, tmp_path, name):
    photos = tmp_path / "photos"
    make_photos(photos, 8, 0)
    for path in sorted(photos.rglob("*.png")):
        path.rename(photos / f"{path.parent.name}{path.name}")
    for folder in ("blue", "green", "red"):
        (photos / folder).rmdir()
    record = train(photos, tmp_path / "model.safetensors", method=name, **small(weights))
    assert record.train_images == 24
    assert record.classes == []
    with pytest.raises(HashretError, match="no labels"):
        train(photos, tmp_path / "other.safetensors", method="ksh", **small(weights))


@pytest.mark.parametrize("name", ["am-vggh+", "dpsh", "dnnh", "cnnh", "ksh"])
def test_several_labels_a_photograph(weights, tmp_path, name):
    make_photos(tmp_path / "images", 8, 0)
    flags = {"red": "1 0 1", "green": "0 1 0", "blue": "0 0 1"}
    lines = [f"images/{c}/{i:02d}.png {flags[c]}" for c in flags for i in range(8)]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    record = train(f"list:{tmp_path}/train.txt", tmp_path / "model.safetensors", method=name, **small(weights))
    assert record.multi_label
    assert max(epoch["heldout_map"] for epoch in record.epochs_run) > 0.8


def test_fitted_methods_refuse_to_train_convolutions(photos, weights, tmp_path):
    with pytest.raises(HashretError, match="leave --finetune"):
        train(photos, tmp_path / "m.safetensors", method="ksh", **small(weights, finetune="all"))


def test_unknown_methods_are_named_with_those_there_are():
    with pytest.raises(HashretError, match="am-vggh, vggh, dpsh"):
        get_method("magic")


def test_every_method_names_its_paper():
    for name, method in METHODS.items():
        assert method.name == name
        assert re.search(r"\b(19|20)\d\d\b", method.paper)
