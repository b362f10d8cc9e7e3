"""GreedyHash, HashNet, CSQ, DCH and DTSH against plain loops over numpy's float64."""

import itertools

import numpy as np
import pytest
import torch

from hashret.methods import csq
from hashret.models.heads import HeadOutput, make_head
from methods.plain import SEVERAL, SINGLE, loss_of, make, output, shares_label, sigmoid

BOTH = pytest.mark.parametrize("labels", [SINGLE, SEVERAL], ids=["single", "several"])


def weighted_mean_over_pairs(labels, term):
    """The mean over ordered pairs of term(i, j, similar), each kind weighed by all pairs over its pairs."""
    pairs = list(itertools.permutations(range(len(labels)), 2))
    similar = sum(shares_label(labels[i], labels[j]) for i, j in pairs)
    total = 0.0
    for i, j in pairs:
        alike = shares_label(labels[i], labels[j])
        total += term(i, j, alike) * len(pairs) / (similar if alike else len(pairs) - similar)
    return total / len(pairs)


def test_greedyhash_loss_by_hand():
    out = output()
    u, scores = out.logits.detach().numpy(), out.scores.numpy()
    by_hand = [np.log(np.exp(row).sum()) - row[label] for row, label in zip(scores, SINGLE, strict=True)]
    by_hand = np.mean(by_hand) + 0.3 * np.mean([abs(abs(x) - 1) ** 3 for x in u.ravel()])
    assert loss_of("greedyhash", SINGLE, out, quantization=0.3)[1].item() == pytest.approx(by_hand)


def test_the_classifier_of_greedyhash_reads_bits_and_their_gradient_passes_to_the_logits():
    config = {"kind": "fc", "width": 6, "attention": False, "dropout": 0.0, "straight_through": True}
    head = make_head(config, 8, 3, 4, 1)
    read = head(torch.randn(5, 4, 1, 1))
    bits = (read.logits >= 0).float()
    assert torch.allclose(read.scores, head.classifier(bits))
    assert not torch.allclose(read.scores, head.classifier(read.hash_outputs))
    gradient = torch.autograd.grad(read.scores[:, 1].sum(), read.logits)[0]
    assert torch.allclose(gradient, head.classifier.weight[1].expand(5, 8) / 2)  # bits are half of signs


@BOTH
@pytest.mark.parametrize("progress", [0.0, 0.5])
def test_hashnet_loss_by_hand(labels, progress):
    out = output()
    method = make("hashnet", beta=9)
    method.progress = progress
    z = np.tanh(9**progress * out.logits.detach().numpy())

    def term(i, j, similar):
        theta = 10 / 4 * z[i] @ z[j]
        common = 1.0
        if similar and np.ndim(labels[i]):
            common = (labels[i] & labels[j]).sum() / (labels[i] | labels[j]).sum()
        return common * (np.log1p(np.exp(theta)) - similar * theta)

    loss = method.loss(out, torch.as_tensor(labels), np.arange(6))
    assert loss.item() == pytest.approx(weighted_mean_over_pairs(labels, term))


@BOTH
def test_dch_loss_by_hand(labels):
    out, gamma = output(), 5.0
    h = 2 * sigmoid(out.logits.detach().numpy()) - 1

    def distance(a, b):
        return 4 / 2 * (1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    def term(i, j, similar):
        d = distance(h[i], h[j])
        return similar * np.log(d / gamma) + np.log1p(gamma / d)  # formula (6) as it stands there

    by_hand = weighted_mean_over_pairs(labels, term)
    by_hand += 0.2 * np.mean([np.log1p(distance(abs(row), np.ones(4)) / gamma) for row in h])
    assert loss_of("dch", labels, out, gamma=gamma, quantization=0.2)[1].item() == pytest.approx(by_hand)


def test_dch_takes_photographs_of_one_code():
    same = HeadOutput(torch.ones(6, 4, dtype=torch.float64).requires_grad_(), None)
    loss = loss_of("dch", SINGLE, same, gamma=20.0)[1]
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(same.logits.grad).all()


@BOTH
def test_dtsh_loss_by_hand(labels):
    out = output()
    u = out.logits.detach().numpy()
    terms = [
        np.log1p(np.exp(-(u[q] @ u[i] / 2 - u[q] @ u[j] / 2 - 0.5 * 4)))
        for q, i, j in itertools.product(range(6), repeat=3)
        if q != i and shares_label(labels[q], labels[i]) and not shares_label(labels[q], labels[j])
    ]
    by_hand = np.mean(terms) + 0.3 * np.mean((u - np.where(u >= 0, 1, -1)) ** 2)
    assert loss_of("dtsh", labels, out, margin=0.5, quantization=0.3)[1].item() == pytest.approx(by_hand)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@BOTH
def test_csq_loss_by_hand(labels, smoothing):
    out = output()
    centres, v = csq.centres(3, 4), sigmoid(out.logits.detach().numpy())
    method, loss = loss_of("csq", labels, out, quantization=0.3, smoothing=smoothing)
    terms = []
    for row, label in enumerate(labels):
        votes = centres[label] if labels.ndim == 1 else sum(centres[c] for c in range(3) if label[c])
        for bit in range(4):
            target = method.state["codes"][row, bit].item()  # where votes are even it is drawn
            assert votes[bit] == 0 or target == (votes[bit] > 0)
            one = 1 - smoothing / 2 if target else smoothing / 2
            terms.append(-one * np.log(v[row, bit]) - (1 - one) * np.log(1 - v[row, bit]))
    by_hand = np.mean(terms) + 0.3 * np.mean(np.log(np.cosh(abs(2 * v - 1) - 1)))
    assert loss.item() == pytest.approx(by_hand)


@pytest.mark.parametrize("n", [1, 2, 4, 8, 12, 16, 20, 24, 32, 40, 48, 64, 128, 256])
def test_hadamard_rows_are_orthogonal(n):
    matrix = csq.hadamard(n)
    assert set(np.unique(matrix)) <= {-1, 1}
    assert np.array_equal(matrix @ matrix.T, n * np.eye(n, dtype=int))


@pytest.mark.parametrize(
    ("classes", "bits", "nearest"), [(10, 12, 6), (21, 12, 6), (10, 48, 24), (100, 64, 32), (10, 18, 7)]
)
def test_centres_are_half_of_the_bits_apart(classes, bits, nearest):
    centres = csq.centres(classes, bits)
    assert centres.shape == (classes, bits)
    apart = (centres[:, None] != centres[None]).sum(axis=2) + bits * np.eye(classes, dtype=int)
    assert apart.min() >= nearest
    assert np.array_equal(centres, csq.centres(classes, bits))
    assert classes == 10 or (abs(centres.sum(axis=0)) < classes).all()  # no bit is the same for all


def test_there_are_hadamard_matrices_of_multiples_of_four_alone():
    assert csq.hadamard(18) is None
    assert csq.hadamard(3) is None


@pytest.mark.parametrize("name", ["greedyhash", "hashnet", "csq", "dch", "dtsh"])
@BOTH
def test_gradients_are_those_of_finite_differences(name, labels):
    chosen = {"quantization": 0.2, "beta": 4, "gamma": 5, "margin": 0.5, "smoothing": 0.1}
    method = make(name, **chosen)
    method.progress = 0.5
    rows = np.arange(6)
    method.begin(labels, rows)
    start = output(seed=3)

    def value(logits, scores):
        return method.loss(HeadOutput(logits, scores), torch.as_tensor(labels), rows)

    assert torch.autograd.gradcheck(value, (start.logits, start.scores.requires_grad_()), eps=1e-6, atol=1e-6)
