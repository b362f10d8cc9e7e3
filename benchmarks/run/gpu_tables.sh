#!/usr/bin/env bash
# The methods on CIFAR-10 at 224 px on a GPU, what matters most first: the paper's Table 1 over frozen convolutions,
# whose features are computed once, then other tables and, beside these, trainings of all layers.
# usage: benchmarks/run/gpu_tables.sh CIFAR10_FOLDER WORK_FOLDER RESULTS_FOLDER
# The weights are those of HASHRET_SHARED. JOBS says how many runs over frozen convolutions share the GPU, by default
# 7, WORKERS how many processes decode for the trainings of all layers, by default 6. Run it again to go on: what has
# its JSON in RESULTS_FOLDER is not run again, nor what has it in the tree, unless AGAIN=1. All JSON come in
# RESULTS_FOLDER/tables.tgz, too.
set -eu
cifar=$1 work=$2 results=$3
top=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHONPATH="$top${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$results"
if [ -z "${AGAIN:-}" ]; then
  for json in "$top"/benchmarks/results/tables/cifar10-?_224px_*.json; do
    [ -e "$results/${json##*/}" ] || cp "$json" "$results"
  done
fi
trap 'kill $(jobs -p) 2>/dev/null || true; tar -C "$results" -czf "$results/tables.tgz" --exclude tables.tgz .' EXIT
tables() {
  "${PYTHON:-python}" -m benchmarks.run.tables --data "$cifar" --work "$work" --results "$results" --image-size 224 \
    --batch-size 256 "$@"
}
frozen() { tables --width 4096 --jobs "${JOBS:-7}" "$@"; }
tuned() { tables --bits 48 --seeds 0 --finetune all --workers "${WORKERS:-6}" "$@"; }
whole_networks() {
  tuned --width 4096 --protocol cifar10-1 --methods am-vggh+ --epochs 20
  tuned --backbone efficientnet_lite0 --protocol cifar10-1 --methods csq --epochs 20
  tuned --width 4096 --protocol cifar10-2 --methods am-vggh+ --epochs 5
  tuned --backbone efficientnet_lite0 --protocol cifar10-2 --methods csq --epochs 6
  tuned --width 4096 --protocol cifar10-1 --methods vggh+ am-vggh vggh --epochs 20
}
own=(am-vggh vggh am-vggh+ vggh+)
pairs=(dpsh cnnh+ cnnh)
shallow=(itq lsh ksh)
frozen --protocol cifar10-2 --methods "${own[@]}" "${pairs[@]}" "${shallow[@]}" --seeds 0 --epochs 10
frozen --protocol cifar10-2 --methods dnnh --lr 1e-4 --seeds 0 --epochs 10 # its own rate is too high for 4,096 nodes
whole_networks &
frozen --protocol cifar10-1 --methods "${own[@]}" "${pairs[@]}" "${shallow[@]}" --seeds 0 --epochs 20
frozen --protocol cifar10-1 --methods dnnh --lr 1e-4 --seeds 0 --epochs 20
frozen --protocol cifar10-1 --methods "${own[@]}" --seeds 0 1 2 --epochs 20
frozen --protocol cifar10-2 --methods "${own[@]}" --seeds 0 1 2 --epochs 10
wait
