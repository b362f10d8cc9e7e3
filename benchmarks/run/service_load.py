"""Load on the service: uploads by 1, 8 and 32 clients at once, against a handler without batching, in one run.

    python -m benchmarks.run.service_load --work runs/64
    python -m benchmarks.run.service_load --work runs/lite0 --photos corel5k/images --width 640 --clients 1 8

The folder is one of `benchmarks/run/full_run.py`, a real CIFAR-10 encoder and index, or any other that holds a
checkpoint, its record and the index. With --width, photographs are enlarged to so many pixels and saved as JPEG, so
that an upload is of a usual size. The result goes by the name of the folder. Three servers hold them: `hashret
serve`; the same with --batch 1; and "naive", a FastAPI handler that decodes, encodes and searches in the framework's
thread pool, as one would write it first. Rounds alternate between them while the others are idle; clients post test
photographs over connections that stay open. Every answer must be the one that the naive handler gives.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.lib import common

common.PACKAGES += ("fastapi", "uvicorn", "starlette")
NAIVE = """
import io, sys, socket
import uvicorn
from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from hashret import Searcher

searcher, app = Searcher("index", "model.safetensors"), FastAPI()
searcher.index.warm()

@app.post("/api/query")
async def query(request: Request, k: int = 20):
    data = await request.body()
    hits = await run_in_threadpool(searcher.search, io.BytesIO(data), k)
    return {"hits": [hit.as_dict() for hit in hits]}

listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # else asyncio leaves Nagle's delay
listening.bind(("127.0.0.1", 0))
listening.listen(128)
print(f"photographs at http://127.0.0.1:{listening.getsockname()[1]};", flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listening])
"""
SERVERS = {
    "naive": ["-c", NAIVE],
    "hashret --batch 1": ["-u", "-m", "hashret", "serve", "index", "--port", "0", "--batch", "1"],
    "hashret": ["-u", "-m", "hashret", "serve", "index", "--port", "0"],
}
HITS = 20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of benchmarks/run/full_run.py")
    parser.add_argument("--photos", type=Path, help="folder of photographs; default: --work/../cifar10/test")
    parser.add_argument("--width", type=int, help="of the photographs, in pixels")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6, help="of a round of a server")
    parser.add_argument("--name", help="of the result; default: service_load_FOLDER")
    common.add_results(parser)
    options = parser.parse_args()
    folder = options.photos or options.work.parent / "cifar10" / "test"
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpg", ".jpeg"))[::13]
    photos = [enlarged(path, options.width) if options.width else path.read_bytes() for path in paths]
    record, index = (json.loads((options.work / name).read_text()) for name in ("model.json", "index/index.json"))
    result = {name: record[name] for name in ("image_size", "method", "bits", "arch")} | {"seed": 0}
    result |= {"precision": index["precision"], "indexed": index["count"], "width": options.width}
    result |= {"upload_kb": round(float(np.median([len(photo) for photo in photos])) / 1000, 1)}
    result |= {"photographs": len(photos), "rounds": options.rounds, "seconds": options.seconds, "cells": []}
    servers = {name: start(arguments, options.work) for name, arguments in SERVERS.items()}
    try:
        addresses = {name: address for name, (_, address) in servers.items()}
        result["checked_answers"] = check(addresses, photos[:20])
        for clients in options.clients:
            result["cells"].append({"clients": clients, "servers": cell(addresses, photos, clients, options)})
        result["batch_sizes"] = batch_sizes(addresses["hashret"])
    finally:
        for process, _ in servers.values():
            process.terminate()
    common.save(options.name or f"service_load_{options.work.name}", result, options.results)


def enlarged(path, width):
    """A photograph of so many pixels across, as the bytes of a JPEG file."""
    picture, file = Image.open(path).convert("RGB"), io.BytesIO()
    size = width, round(width * picture.height / picture.width)
    picture.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=92)
    return file.getvalue()


def start(arguments, work):
    """A server in a process of its own: -> process, (host, port)."""
    process = subprocess.Popen([sys.executable, *arguments], cwd=work, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    if "http://" not in line:
        sys.exit(f"a server did not start: {arguments}")
    host, port = line.split("http://")[1].split(";")[0].split(":")
    return process, (host, int(port))


def post(connection, photo):
    connection.request("POST", f"/api/query?k={HITS}", photo, {"content-type": "image/*"})
    response = connection.getresponse()
    return response.status, response.read()


def check(addresses, photos):
    """Whether all servers give the same hits: -> how many answers were compared."""
    found = []
    for address in addresses.values():
        connection = http.client.HTTPConnection(*address)
        answers = [json.loads(post(connection, photo)[1])["hits"] for photo in photos]
        found.append([[(hit["id"], hit["hamming"], hit["euclidean"]) for hit in hits] for hits in answers])
    assert all(answers == found[0] for answers in found), "the servers give different hits"
    return len(photos) * len(addresses)


def cell(addresses, photos, clients, options):
    """Rounds that alternate between the servers: -> figures of each."""
    rounds = {name: [] for name in addresses}
    for number in range(options.rounds):
        for name in list(addresses)[:: -1 if number % 2 else 1]:
            rounds[name].append(load(addresses[name], photos, clients, options.seconds, number))
    found = {}
    for name, done in rounds.items():
        times = np.concatenate([times for times, _, _ in done]) * 1000
        rates = [len(times) / seconds for times, seconds, _ in done]
        base = [len(times) / seconds for times, seconds, _ in rounds["naive"]]
        ratios = np.divide(rates, base)
        found[name] = {
            "requests_per_second": round(float(np.median(rates)), 1),
            "ms": {f"p{p}": round(float(np.percentile(times, p)), 1) for p in (50, 95, 99)},
            "ratio_to_naive": [round(float(f(ratios)), 3) for f in (np.median, np.min, np.max)],
            "requests": len(times),
            "errors": sum(errors for _, _, errors in done),
        }
        print(f"{clients} clients, {name}: {found[name]}", flush=True)
    return found


def load(address, photos, clients, seconds, number):
    """Clients that post one photograph after the other: -> seconds of each request, of all, and errors."""
    times, errors = [], []
    end = time.perf_counter() + seconds

    def client(first):
        connection, at = http.client.HTTPConnection(*address), first
        while time.perf_counter() < end:
            started = time.perf_counter()
            try:
                status, _ = post(connection, photos[at % len(photos)])
                if status != 200:
                    errors.append(status)
            except (OSError, http.client.HTTPException) as error:
                errors.append(repr(error))
                connection = http.client.HTTPConnection(*address)
            times.append(time.perf_counter() - started)
            at += clients

    threads = [threading.Thread(target=client, args=(number * 101 + i,)) for i in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return np.array(times), time.perf_counter() - started, len(errors)


def batch_sizes(address):
    """How many photographs the batches of the service had, from its own metrics: {at most: batches}."""
    connection = http.client.HTTPConnection(*address)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    found = [line.split('le="')[1].split('"} ') for line in lines if line.startswith("hashret_batch_size_bucket")]
    return {edge: int(float(count)) for edge, count in found}


if __name__ == "__main__":
    main()
