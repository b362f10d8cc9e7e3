#!/usr/bin/env bash
# The tests that need a GPU, then the latency of the Hamming stage on it (benchmarks/run/gpu.py).
# usage: benchmarks/run/gpu_latency.sh RESULTS_FOLDER [options of gpu.py]
# faiss for a machine with CUDA 13 only: shared/gpu/pack_faiss.py OUT, and cublas12_on_13.* copied to OUT; carry OUT;
# there, `source shared/gpu/setup_faiss.sh OUT` in the shell that runs this.
# Run it again to go on. The results come as JSON, and all of them in RESULTS_FOLDER/gpu.tgz.
set -u
results=$1
shift
top=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHONPATH="$top${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
mkdir -p "$results"
trap 'tar -C "$results" -czf "$results/gpu.tgz" --exclude gpu.tgz .' EXIT
(cd "$top" && "${PYTHON:-python}" -m pytest -p no:cacheprovider tests/index/test_gpu.py tests/index/test_resident.py) 2>&1 |
  tee "$results/tests.txt"
failed=${PIPESTATUS[0]}
"${PYTHON:-python}" -m benchmarks.run.gpu --results "$results" "$@" && exit "$failed"
