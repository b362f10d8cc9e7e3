"""`hashret demo`: the whole way from photographs to answers, on handwritten digits that need no download."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np

from .encoding import encode
from .errors import HashretError
from .evaluation import evaluate
from .files import StrPath, atomic, check_output, partial_folder, place_folder
from .index import build_index
from .names import shown
from .progress import quieted
from .rendering import pages, pictures
from .rendering.text import table
from .search import query
from .training.start import train

_TEST_EVERY = 5  # every fifth digit of a class is a test photograph


def write_digits(folder: StrPath) -> None:
    """Write scikit-learn's 1,797 handwritten digits as PNGs, ``folder/{train,test}/<digit>/<number>.png``.

    Raises:
        HashretError: scikit-learn is not installed, or the system refuses to write.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise HashretError("the demo needs scikit-learn's digits", hint="pip install 'hashret[demo]'") from None
    from PIL import Image

    digits = load_digits()
    seen = np.zeros(10, int)
    pictures: dict[str, bytes] = {}
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        split = "test" if seen[label] % _TEST_EVERY == 0 else "train"
        seen[label] += 1
        buffer = io.BytesIO()
        Image.fromarray((image * (255 / 16)).round().astype(np.uint8)).save(buffer, "PNG")
        pictures[f"{split}/{label}/{number:04d}.png"] = buffer.getvalue()
    folder = Path(folder)
    if folder.is_dir():
        for name, png in pictures.items():
            if not (folder / name).is_file() or (folder / name).read_bytes() != png:
                with atomic(folder / name) as partial:
                    partial.write_bytes(png)
        return
    try:
        with partial_folder(folder) as partial:
            for name, png in pictures.items():
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                (partial / name).write_bytes(png)
            place_folder(partial, folder)
    except OSError as error:
        raise HashretError(f"cannot write the digits to {folder}: {error.strerror or error}") from error


def demo(
    out: StrPath = "hashret-demo", *, bits: int = 48, seed: int = 0, device: str = "auto", overwrite: bool = False
) -> Any:
    """Train a small encoder on handwritten digits from scratch, encode, build an index, query it and score it.

    Args:
        out: folder in which all of it is left.
        bits: code length.
        seed: of the training.
        device: "auto", "cpu" or "cuda".
        overwrite: replace each file and folder that an earlier demo left as a whole. Others in ``out`` stay.

    Returns:
        The figures, as `hashret.evaluate` returns them.

    Raises:
        HashretError: scikit-learn is not installed, or ``out`` holds a demo already.
    """
    out = Path(out)
    started = time.monotonic()
    check_output(out, overwrite, "demo", "digits")
    data, model, index = out / "digits", out / "model.safetensors", out / "index"
    _say(f"1. 1,797 handwritten digits -> {data}")
    write_digits(data)
    _say(f"2. train a small encoder of {bits} bits on the train digits, from scratch -> {model}")
    train(
        f"folder:{data}", model, bits=bits, image_size=32, backbone="vgg11_bn", weights="none", finetune="all",
        width=256, epochs=5, batch_size=64, lr=1e-3, augment="none", seed=seed, device=device,
        overwrite=overwrite,
    )  # fmt: skip
    _say(f"3. encode both sets -> {out / 'codes'}, {out / 'codes-test'}")
    for split, codes in (("train", out / "codes"), ("test", out / "codes-test")):
        with quieted():
            encode(f"folder:{data}", model, codes, split=split, device=device, overwrite=overwrite)
    _say(f"4. build the index of the train digits -> {index}")
    build_index(out / "codes", index, overwrite=overwrite)
    photos = [sorted((data / "test" / str(digit)).iterdir())[0] for digit in range(10)]
    results = query(photos, index, model, k=7, device=device)
    _say(f"5. query with a held-out digit: {photos[3]}")
    print(table(results[3][1]))
    print("6. score all held-out digits against the index")
    # Of a digit there are some 143, most with one code; fewer candidates would leave some out by chance.
    metrics = evaluate(out / "codes-test", index, device=device, candidates=200, out=out / "metrics.json")
    truth = [str(digit) for digit in range(10)]
    facts = {
        "mAP@all": f"{metrics.hamming.map:.4f} by Hamming distance, {metrics.reranked.map:.4f} re-ranked",
        "precision@10": f"{metrics.hamming.precision_at['10']:.4f}",
        "queries": f"{metrics.queries} held-out digits against {metrics.database} train digits",
        "codes": f"{bits} bits, {metrics.distinct_codes} distinct",
    }
    pages.results_page(
        results, out / "results.html", "hashret demo: held-out digits and their nearest train digits", facts, truth
    )
    pictures.grid(results, out / "results.png", truth)
    for name, value in facts.items():
        _say(f"   {name}: {value}")
    _say(f"   page: {out / 'results.html'}   picture: {out / 'results.png'}")
    _say(f"done in {time.monotonic() - started:.0f} s; next: hashret report {out}, or")
    _say(f"hashret query PHOTO --index {index} --model {model}")
    return metrics


def _say(line: str) -> None:
    print(shown(line))
