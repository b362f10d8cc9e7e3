"""Which device searches an index: the CPU, or a GPU where there is one that both faiss and torch see."""

import faiss
import pytest
import torch

from hashret.errors import HashretError
from hashret.index import open_index
from hashret.index import opening as opening_module
from hashret.index.resident import Resident
from hashret.opening import open_database
from hashret.search import Searcher


@pytest.fixture
def see(monkeypatch):
    """A function that puts numbers of GPUs in the place of what faiss and torch see."""

    def put(by_faiss, by_torch):
        monkeypatch.setattr(opening_module, "gpus", lambda: by_faiss)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: by_torch > 0)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)

    return put


@pytest.mark.parametrize(
    ("by_faiss", "by_torch", "device"), [(0, 0, "auto"), (0, 1, "auto"), (1, 0, "auto"), (1, 1, "cpu")]
)
def test_the_cpu_searches_without_a_gpu_or_where_it_is_asked_to(index_folder, see, by_faiss, by_torch, device):
    see(by_faiss, by_torch)
    assert not isinstance(open_index(index_folder, device), Resident)


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_gpu_searches_where_there_is_one(index_folder, see, device):
    see(1, 1)
    for index in (open_index(index_folder, device), open_database(index_folder, device)):
        assert isinstance(index, Resident)
        assert index.device == torch.device("cuda", 0)
        assert index.outputs_on_device is None  # before the first search


def test_a_gpu_that_is_asked_for_and_is_not_there_is_said(index_folder, see):
    for by_faiss, by_torch, text in ((0, 1, "faiss sees no GPU"), (1, 0, "torch sees no GPU")):
        see(by_faiss, by_torch)
        with pytest.raises(HashretError, match=f"{text} here; use --device cpu"):
            open_index(index_folder, "cuda")


def test_a_searcher_takes_an_index_that_was_opened_for_the_cpu(index_folder, model, see):
    index = open_index(index_folder, "cpu")
    assert Searcher(index, model, "cpu").index is index
    see(1, 1)
    assert opening_module.on_device(index, "auto").segments is index.segments
    resident = opening_module.on_device(index, "auto")
    assert opening_module.on_device(resident, "cuda") is resident


@pytest.mark.skipif(not getattr(faiss, "get_num_gpus", lambda: 0)(), reason="faiss sees no GPU here")
def test_a_real_gpu_is_taken(index_folder):
    assert isinstance(open_index(index_folder), Resident)
