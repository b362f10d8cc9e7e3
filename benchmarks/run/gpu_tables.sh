#!/usr/bin/env bash
# AM-VGGH, VGGH and the other methods on CIFAR-10 at 224 px on a GPU, what matters most first: over frozen
# convolutions, whose features are computed once, and beside these one training of all layers.
# usage: benchmarks/run/gpu_tables.sh CIFAR10_FOLDER WEIGHTS WORK_FOLDER RESULTS_FOLDER
# JOBS says how many runs share the GPU, by default 6. Run it again to go on. The results come as JSON, and all of
# them in RESULTS_FOLDER/tables.tgz.
set -eu
cifar=$1 weights=$2 work=$3 results=$4
top=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHONPATH="$top${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$results"
trap 'kill $(jobs -p) 2>/dev/null || true; tar -C "$results" -czf "$results/tables.tgz" --exclude tables.tgz .' EXIT
tables() {
  "${PYTHON:-python}" -m benchmarks.run.tables --data "$cifar" --weights "$weights" --work "$work" --results "$results" \
    --image-size 224 --width 4096 --batch-size 256 "$@"
}
frozen() { tables --jobs "${JOBS:-6}" "$@"; }
tables --protocol cifar10-1 --methods am-vggh+ --bits 48 --seeds 0 --epochs 20 --finetune all --workers 5 &
frozen --protocol cifar10-2 --methods am-vggh vggh am-vggh+ vggh+ --seeds 0 --epochs 10
frozen --protocol cifar10-1 --methods am-vggh vggh am-vggh+ vggh+ --seeds 0 --epochs 20
frozen --protocol cifar10-2 --methods dpsh dnnh cnnh+ itq lsh --seeds 0 --epochs 10
frozen --protocol cifar10-1 --methods dpsh dnnh cnnh+ cnnh itq lsh --seeds 0 --epochs 20
frozen --protocol cifar10-1 --methods am-vggh vggh am-vggh+ vggh+ --seeds 0 1 2 --epochs 20
frozen --protocol cifar10-2 --methods am-vggh vggh am-vggh+ vggh+ --seeds 0 1 2 --epochs 10
frozen --protocol cifar10-2 --methods cnnh ksh --seeds 0 --epochs 10
frozen --protocol cifar10-1 --methods ksh --seeds 0 --epochs 20
wait
tables --protocol cifar10-1 --methods vggh vggh+ am-vggh --bits 48 --seeds 0 --epochs 20 --finetune all --workers 12
tables --protocol cifar10-2 --methods am-vggh+ vggh --bits 48 --seeds 0 --epochs 8 --finetune all --workers 12
