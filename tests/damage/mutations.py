"""Ways to damage a file: bytes of any file, and the structure of those whose format is known."""

from __future__ import annotations

import copy
import json
import os
import re
import struct

import numpy as np

HUGE = 10**15
# What a number, a name or a list of a JSON file is replaced by.
VALUES = (
    "text", "", "../../outside/victim.json", "/etc/hostname", "\ud800", "a\x1b[31mb\x85c", 0, -1, 1, 7, 2**31, 2**63,
    10**30, -(10**30), 0.5, 1e308, float("nan"), float("inf"), None, True, [], {}, [[["nested"]]], [None] * 3,
    {"deep": {"deeper": 1}}, [1e400, -1], "x" * 5000,
)  # fmt: skip
_DTYPES = (
    "|O",
    ">i8",
    "<i4",
    "<f8",
    "|V8",
    "<U4",
    "|u1",
    "<i8",
    "<f4",
    "|b1",
    "<c16",
    "[('a', '<i4')]",
    "|S0",
    "<M8[s]",
)


def damage(rng, path, others):
    """Change the file at ``path`` in one way, drawn by ``rng``: -> what was done. ``others``: files to swap it with."""
    ways = list(ANY)
    ways += STRUCTURAL.get(path.suffix, [])
    if path.name == "hamming.faiss":
        ways += [faiss_header] * 6
    for _ in range(20):
        way = ways[rng.integers(len(ways))]
        before = path.read_bytes()
        done = way(rng, path, others)
        if done and (not path.is_file() or path.is_symlink() or path.read_bytes() != before):
            return done
    flip_bit(rng, path, others)
    return "flip bit"


def _place(rng, size):
    """A place in a file, often near its beginning, where headers are."""
    return int(rng.integers(min(size, 256) if rng.random() < 0.5 else size))


def flip_bit(rng, path, others):
    raw = bytearray(path.read_bytes() or b"\0")
    raw[_place(rng, len(raw))] ^= 1 << int(rng.integers(8))
    path.write_bytes(raw)
    return "flip bit"


def fill_range(rng, path, others):
    raw = bytearray(path.read_bytes())
    if not raw:
        return None
    start = _place(rng, len(raw))
    size = min(len(raw) - start, 2 ** int(rng.integers(0, 13)))
    kind = ("zeroed", "0xff", "random")[rng.integers(3)]
    fill = {"zeroed": bytes(size), "0xff": b"\xff" * size, "random": rng.bytes(size)}[kind]
    raw[start : start + size] = fill
    path.write_bytes(raw)
    return f"range {kind}"


def truncate(rng, path, others):
    size = path.stat().st_size
    os.truncate(path, int(rng.integers(size)) if size else 0)
    return "truncated"


def extend(rng, path, others):
    with open(path, "ab") as file:
        file.write(rng.bytes(2 ** int(rng.integers(0, 16))))
    return "extended"


def insert(rng, path, others):
    raw = path.read_bytes()
    at = _place(rng, len(raw) + 1)
    path.write_bytes(raw[:at] + rng.bytes(2 ** int(rng.integers(0, 6))) + raw[at:])
    return "bytes inserted"


def empty(rng, path, others):
    path.write_bytes(b"")
    return "emptied"


def swap(rng, path, others):
    other = others[rng.integers(len(others))]
    path.write_bytes(other.read_bytes())
    return "replaced by another file"


def remove(rng, path, others):
    path.unlink()
    return "removed"


def folder(rng, path, others):
    path.unlink()
    path.mkdir()
    return "replaced by a folder"


def link(rng, path, others):
    to = ("../outside/victim.json", "/nowhere/at/all", path.name, "/dev/zero", "/proc/self/mem")[rng.integers(5)]
    if to.startswith(".."):
        to = os.path.relpath(_outside(path) / "victim.json", path.parent)
    path.unlink()
    path.symlink_to(to)
    return "replaced by a link"


def _outside(path):
    """The folder beside `work`, whose files are nobody's."""
    return next(folder for folder in path.parents if folder.name == "work").with_name("outside")


def fifo(rng, path, others):
    path.unlink()
    os.mkfifo(path)
    return "replaced by a FIFO"


ANY = (
    flip_bit, flip_bit, flip_bit, fill_range, fill_range, fill_range, truncate, truncate, extend, insert, empty, swap,
    remove, folder, link, fifo,
)  # fmt: skip


def json_value(rng, path, others):
    """Replace, remove or add a value of a JSON file."""
    content = _json(path)
    if content is None:
        return None
    content, done = _changed(rng, content)
    path.write_text(json.dumps(content), "utf-8", "surrogatepass")
    return f"JSON: {done}"


def _json(path):
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _changed(rng, content):
    """A JSON value with one value in it changed: -> it, and what was done."""
    content = copy.deepcopy(content)
    places = list(_places(content))
    if not places:
        return VALUES[rng.integers(len(VALUES))], "all of it replaced"
    parent, key = places[rng.integers(len(places))]
    name = key if isinstance(key, str) else "an item"
    what = rng.random()
    if what < 0.12:
        del parent[key]
        return content, f"{name} removed"
    if what < 0.18 and isinstance(parent, dict):
        parent["extra"] = VALUES[rng.integers(len(VALUES))]
        return content, "a key added"
    if what < 0.3 and isinstance(parent[key], (int, float)):
        parent[key] += int(rng.integers(-3, 4)) or 1
        return content, f"{name} a little off"
    if what < 0.36 and isinstance(parent, list):
        parent.append(parent[key])
        return content, "an item doubled"
    parent[key] = VALUES[rng.integers(len(VALUES))]
    return content, f"{name} replaced"


def _places(value):
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def json_text(rng, path, others):
    """Damage the text of a JSON file."""
    text = path.read_text("utf-8", "replace")
    numbers = [match.span() for match in re.finditer(r"(?<![\w.])\d+(?![\w.])", text)]
    kind = rng.integers(8)
    if kind == 0 and numbers:
        start, end = numbers[rng.integers(len(numbers))]
        digits = int(rng.choice([400, 5000]))
        path.write_text(text[:start] + "9" * digits + text[end:])
        return f"JSON: a number of {digits} digits"
    if kind == 1:
        path.write_text("[" * 200_000)
        return "JSON: deeply nested"
    if kind == 2:
        path.write_text(text.replace("{", '{"a":' + '{"a":' * 3000 + "1" + "}" * 3000 + ",", 1))
        return "JSON: nested within"
    if kind == 3:
        path.write_text(text.replace("{", '{"format": {}, "bits": [], "count": "no", ', 1))
        return "JSON: keys doubled"
    if kind == 4:
        path.write_bytes(b"\xef\xbb\xbf" + text.encode("utf-8", "surrogatepass"))
        return "JSON: a byte-order mark"
    if kind == 5:
        path.write_bytes(text.encode("utf-16"))
        return "JSON: UTF-16"
    if kind == 6:
        path.write_text(("[]", "5", "null", '"text"', "{}", "NaN", "[{}]")[rng.integers(7)])
        return "JSON: another value"
    path.write_bytes(text.encode("utf-8", "surrogatepass").replace(b'"', b'"\xff', 1))
    return "JSON: not UTF-8"


def json_lines(rng, path, others):
    """Change a value in a line of JSON, or a line."""
    lines = path.read_text("utf-8", "replace").splitlines()
    if not lines:
        return None
    at = int(rng.integers(len(lines)))
    if rng.random() < 0.7:
        try:
            changed, done = _changed(rng, json.loads(lines[at]))
        except (ValueError, RecursionError):
            return None
        lines[at] = json.dumps(changed)
    else:
        other = ("", "[]", "5", "{", "[" * 100_000, '{"from": "' + "y" * 9999 + '"}', "\x85\u2028")
        lines[at], done = other[rng.integers(len(other))], "a line replaced"
    path.write_text("\n".join(lines) + "\n", "utf-8", "surrogatepass")
    return f"JSON lines: {done}"


def npy_header(rng, path, others):
    """Change the type, shape or order that an .npy file says it has."""
    raw = path.read_bytes()
    if raw[:6] != b"\x93NUMPY" or len(raw) < 12:
        return None
    size = int.from_bytes(raw[8:10], "little")
    try:
        head = eval(raw[10 : 10 + size])  # of a file that the harness wrote
    except Exception:
        return None
    shape, kind = head["shape"], rng.integers(9)
    done = "a shape"
    if kind == 0:
        head["descr"], done = _DTYPES[rng.integers(len(_DTYPES))], "a type"
    elif kind == 1:
        head["fortran_order"], done = True, "Fortran's order"
    elif kind == 2:
        odd = [(HUGE,), (-1,), (), (0,), (2**62, 2**62), (shape[0], HUGE), shape[::-1], (*shape, 1), (1, *shape)]
        head["shape"] = odd[rng.integers(len(odd))]
    elif kind == 3:
        head["shape"] = (shape[0] + int(rng.integers(-2, 3)), *shape[1:])
    elif kind == 4:
        head["shape"] = ("a", None, 1.5, True)[rng.integers(4)]
    elif kind == 5:
        head.pop(list(head)[rng.integers(3)])
        done = "a field missing"
    elif kind == 6:
        field = (0, 3, 65535)[rng.integers(3)]
        path.write_bytes(raw[:8] + field.to_bytes(2, "little") + raw[10:])
        return "npy: length of the header"
    elif kind == 7:
        path.write_bytes(raw[:6] + bytes([int(rng.integers(256)), 0]) + raw[8:])
        return "npy: version"
    else:
        texts = ["__import__('os').getcwd()", "(" * 9000, "{'descr': ", "[]", "{'a': " * 5000]
        text = texts[rng.integers(len(texts))].encode()
        path.write_bytes(raw[:8] + len(text).to_bytes(2, "little") + text + raw[10 + size :])
        return "npy: text of the header"
    text = repr(head).encode()
    if rng.random() < 0.5 and len(text) < size:
        text = text.ljust(size - 1) + b"\n"
    path.write_bytes(raw[:8] + len(text).to_bytes(2, "little") + text + raw[10 + size :])
    return f"npy: {done}"


def npy_values(rng, path, others):
    """Change some values of an .npy file, which stay of their type."""
    raw = path.read_bytes()
    try:
        array = np.load(path)
        limits = np.iinfo(array.dtype) if array.dtype.kind in "iu" else None
    except Exception:
        return None
    if not array.size:
        return None
    flat, some = array.reshape(-1), rng.integers(array.size, size=int(rng.integers(1, 4)))
    if limits:
        odd = [limits.max, limits.min, 0, len(flat), 2**20, max(limits.min, -1)]
        flat[some] = odd[rng.integers(len(odd))]
    else:
        flat[some] = (np.nan, np.inf, -np.inf, 3e38, -1)[rng.integers(5)]
    path.write_bytes(raw[: len(raw) - array.nbytes] + array.tobytes())
    return "npy: values"


def faiss_header(rng, path, others):
    """Change a field of the header of hamming.faiss: name, bits, bytes a code, count, size."""
    raw = bytearray(path.read_bytes())
    if len(raw) < 40:
        return None
    fields = {"magic": (0, "I"), "d": (4, "i"), "code size": (8, "i"), "ntotal": (12, "q"), "trained": (20, "B")}
    fields |= {"metric": (21, "i"), "bytes": (25, "Q")}
    name = list(fields)[rng.integers(len(fields))]
    at, kind = fields[name]
    if name == "magic":
        names = (b"IBxM", b"IBxI", b"IBHf", b"IBMp", b"IBM2", b"IBFf", b"IxF2", b"IBxH")
        raw[:4] = names[rng.integers(len(names))]
    else:
        size = 8 * struct.calcsize(kind)
        odd = [0, 1, -1, 2**size // 2 - 1, -(2**size) // 2, 2**20, 24]
        value = odd[rng.integers(len(odd))] % 2**size
        raw[at : at + size // 8] = value.to_bytes(size // 8, "little")
    path.write_bytes(raw)
    return f"faiss: {name}"


def safetensors_header(rng, path, others):
    """Change the header of a safetensors file: tensors' types, shapes and places, or hashret's own metadata."""
    raw = path.read_bytes()
    if len(raw) < 16:
        return None
    size = int.from_bytes(raw[:8], "little")
    try:
        head = json.loads(raw[8 : 8 + size])
    except ValueError:
        return None
    kind = rng.integers(10)
    if kind == 0:
        odd = (0, 1, 2**63, 2**64 - 1, 10**8 + 1, len(raw))[rng.integers(6)]
        path.write_bytes(odd.to_bytes(8, "little") + raw[8:])
        return "safetensors: length of the header"
    metadata = head.get("__metadata__", {})
    if kind < 7 and "hashret" in metadata:
        meta = json.loads(metadata["hashret"])
        if rng.random() < 0.8:
            meta, done = _changed(rng, meta)
            metadata["hashret"] = json.dumps(meta)
        else:
            odd = ("", "[]", "5", "[" * 90_000, "{", "NaN", '{"bits": ' + "9" * 5000 + "}", "null")
            metadata["hashret"], done = odd[rng.integers(len(odd))], "all of it"
        done = f"safetensors: metadata, {done}"
    elif kind == 7:
        head.pop("__metadata__", None)
        done = "safetensors: no metadata"
    else:
        names = [name for name in head if name != "__metadata__"]
        tensor = head[names[rng.integers(len(names))]]
        what = ("dtype", "shape", "data_offsets")[rng.integers(3)]
        tensor[what] = {
            "dtype": ("F64", "I64", "F16", "BF16", "U8", "F8_E4M3", "nosuch")[rng.integers(7)],
            "shape": ([], [HUGE], [1], tensor["shape"][::-1], [0, 3], [2**40, 2**40])[rng.integers(6)],
            "data_offsets": ([0, 0], [0, HUGE], [5, 1], [HUGE, 2 * HUGE])[rng.integers(4)],
        }[what]
        done = f"safetensors: {what} of a tensor"
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])
    return done


def pickled(rng, path, others):
    """Change a value of what torch saved."""
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        return None
    places = [(parent, key) for parent, key in _places(content)]
    if not places:
        return None
    parent, key = places[rng.integers(len(places))]
    name = key if isinstance(key, str) else "an item"
    value, what = parent[key], rng.random()
    if what < 0.25:
        del parent[key]
        done = f"{name} removed"
    elif isinstance(value, torch.Tensor) and what < 0.8:
        odd = (
            value[None],
            value.double(),
            value.reshape(-1)[:1],
            torch.empty(0),
            value.to(torch.int8),
            value * torch.nan,
        )
        parent[key], done = odd[rng.integers(len(odd))].clone(), f"{name} another tensor"
    else:
        odd = ("text", None, -1, HUGE, [], {}, float("nan"), torch.zeros(3))
        parent[key], done = odd[rng.integers(len(odd))], f"{name} replaced"
    if rng.random() < 0.1:
        content, done = ([], 5, "text", {}, torch.zeros(2))[rng.integers(5)], "all of it replaced"
    torch.save(content, path)
    return f"pickle: {done}"


def hdf5(rng, path, others):
    """Replace a dataset or an attribute of an HDF5 file by something else that HDF5 can hold."""
    import h5py

    try:
        file = h5py.File(path, "r+")
    except OSError:
        return None
    with file:
        if rng.random() < 0.3:
            name = list(file.attrs)[rng.integers(len(file.attrs))]
            odd = (
                "text", -1, 2**62, np.float64("nan"), np.arange(5), np.zeros((0,)), b"\xff\xfe", 0, 257,
                np.array(["a", "b"], "S1"), h5py.Empty("f"), file.ref,
            )  # fmt: skip
            del file.attrs[name]
            if rng.random() < 0.7:
                file.attrs[name] = odd[rng.integers(len(odd))]
            return f"HDF5: attribute {name}"
        name = list(file)[rng.integers(len(file))]
        data, (n, *rest) = file[name][()], file[name].shape
        del file[name]
        kind = rng.integers(19)
        outside = os.path.relpath(_outside(path), path.parent)
        if kind == 0:
            file[name], done = h5py.SoftLink(("/nowhere", "/" + name, "/ids")[rng.integers(3)]), "a soft link"
        elif kind == 1:
            file[name], done = h5py.ExternalLink(f"{outside}/victim.h5", "/ids"), "an external link"
        elif kind == 2:
            wide = data.nbytes // max(1, n) * n
            file.create_dataset(name, data.shape, data.dtype, external=[(f"{outside}/victim.json", 0, max(1, wide))])
            done = "external storage"
        elif kind == 3 and n:
            file.create_dataset(name, data=data, compression="gzip")
            done = "compressed"
        elif kind == 4 and n:
            file.create_dataset(name, data=data, chunks=(1, *rest), maxshape=(None, *rest))
            done = "chunks"
        elif kind == 5:
            file.create_dataset(name, (n,), h5py.string_dtype())
            done = "strings of any length"
        elif kind == 6:
            file.create_dataset(name, (n,), h5py.vlen_dtype(np.int32))
            done = "lists of any length"
        elif kind == 7:
            file.create_dataset(name, (n,), h5py.ref_dtype)
            done = "references"
        elif kind == 8:
            done = "another type"
            types = ("S3",) if data.dtype.kind == "S" else ("f8", ">i4", "i2", "c16", "S3")
            file.create_dataset(
                name, data=data.astype(types[0]) if data.dtype.kind == "S" else data.astype(types[rng.integers(5)])
            )
        elif kind == 9:
            file.create_dataset(name, (2**40, *rest), data.dtype)
            done = "2**40 rows without storage"
        elif kind == 10:
            file.create_dataset(name, data=data[: n // 2])
            done = "half the rows"
        elif kind == 11:
            file.create_dataset(name, data=5)
            done = "a single number"
        elif kind == 12:
            file.create_group(name)
            done = "a group"
        elif kind == 13:
            file[name], done = np.dtype("f4"), "a type"
        elif kind == 14:
            file[name], done = file["/"], "a circle"
        elif kind == 15:
            file.create_dataset(name, data=h5py.Empty("f4"))
            done = "an empty dataset"
        elif kind == 16:
            layout = h5py.VirtualLayout(data.shape, data.dtype)
            layout[...] = h5py.VirtualSource(f"{outside}/victim.h5", "ids", data.shape)
            file.create_virtual_dataset(name, layout)
            done = "a virtual dataset"
        elif kind == 17:
            file.create_dataset(name, (n, 2), data.dtype if data.dtype.kind != "S" else "u1")
            done = "another shape"
        else:
            done = "missing"
        return f"HDF5: {name}, {done}"


def hdf5_values(rng, path, others):
    """Change some values of a dataset of an HDF5 file, which stay of their type: the checksum alone can tell."""
    import h5py

    try:
        file = h5py.File(path, "r+")
    except OSError:
        return None
    with file:
        names = [name for name in file if file[name].size]
        name = names[rng.integers(len(names))]
        raw = bytearray(file[name][()].tobytes())
        for at in rng.integers(len(raw), size=int(rng.integers(1, 9))):
            raw[at] ^= 1 << int(rng.integers(8))
        file[name][...] = np.frombuffer(raw, file[name].dtype).reshape(file[name].shape)
        return f"HDF5: {name}, values"


def text_line(rng, path, others):
    """Replace a line of a text file."""
    lines = path.read_text("utf-8", "replace").splitlines()
    odd = (
        "", "\ufeffphoto.png 1 0", "a b c", "../../outside/victim.json 1 0 0", "/etc/passwd 1 0 0", "x" * 70_000,
        "1 1 1", "\ud800 1 0 0", "a.png\t1\t0\t0", "a.png -1 1 1", "a.png 1e400 0 0", "a.png " + "1 " * 50_000,
        "\0 1 0 0", ",,,",
    )  # fmt: skip
    lines[rng.integers(len(lines))] = odd[rng.integers(len(odd))]
    path.write_text("\n".join(lines) + "\n", "utf-8", "surrogatepass")
    return "text: a line"


STRUCTURAL = {
    ".json": [json_value] * 24 + [json_text] * 8,
    ".jsonl": [json_lines] * 16,
    ".npy": [npy_header] * 12 + [npy_values] * 8,
    ".safetensors": [safetensors_header] * 24,
    ".pth": [pickled] * 10,
    ".pt": [pickled] * 16,
    ".h5": [hdf5] * 24 + [hdf5_values] * 12,
    ".txt": [text_line] * 10,
}
