#!/usr/bin/env bash
# AM-VGGH and VGGH on CIFAR-10 at 224 px on a GPU, what matters most first: frozen convolutions, then all layers trained.
# usage: benchmarks/gpu_tables.sh CIFAR10_FOLDER WEIGHTS WORK_FOLDER RESULTS_FOLDER
# Run it again to go on. The results come as JSON, and all of them in RESULTS_FOLDER/tables.tgz.
set -eu
cifar=$1 weights=$2 work=$3 results=$4
here=$(cd "$(dirname "$0")" && pwd)
trap 'tar -C "$results" -czf "$results/tables.tgz" --exclude tables.tgz .' EXIT
mkdir -p "$results"
tables() {
  "${PYTHON:-python}" "$here/tables.py" --data "$cifar" --weights "$weights" --work "$work" --results "$results" \
    --image-size 224 --width 4096 --batch-size 256 "$@"
}
tables --protocol cifar10-1 --methods am-vggh+ vggh+ am-vggh vggh --seeds 0 1 2 --epochs 20
tables --protocol cifar10-2 --methods am-vggh+ am-vggh vggh dpsh --seeds 0 --epochs 10
tables --protocol cifar10-2 --methods am-vggh+ vggh --seeds 0 --epochs 8 --finetune all
tables --protocol cifar10-1 --methods am-vggh+ vggh --seeds 0 --epochs 30 --finetune all
tables --protocol cifar10-1 --seeds 0 --epochs 20
