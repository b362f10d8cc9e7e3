#!/usr/bin/env bash
# Measure the three exact engines one query at a time: benchmarks/run/exact.sh FEATURES [OPTION …]
# FEATURES: pooled features of photographs, for ITQ codes, as `benchmarks.run.latency --features` takes them. Options
# are those of `benchmarks.run.latency`, such as --overwrite, or --results FOLDER for a try. Half an hour on an idle
# machine, 16 GB.
set -eu
cd "$(dirname "$0")/../.."
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
features=$1
shift
further=("$@")
engines=(hashret-faiss hashret-scan hashret-tables hashret "scan of memory")
latency() {
  ${PYTHON:-python} -m benchmarks.run.latency --results benchmarks/results/exact --threads 1 \
    --engines "${engines[@]}" "$@" ${further[@]+"${further[@]}"}
}
latency --data random:100000 random:1000000 --batch 1 --k 1 10 100 1000
latency --data random:10000000 --batch 1 1000 --k 1 10 100 1000 --seconds 30
latency --data random:100000000 --batch 1 --k 100 --seconds 30
latency --data learned:10000000 --flips 0.01 --batch 1 --k 1 10 100 1000
latency --data learned:10000000 --flips 0.05 --batch 1 --k 1 10 100 1000
latency --data learned:10000000 --flips 0.1 --batch 1 --k 1 10 100 1000
for bits in 32 64 128 256; do
  latency --data random:1000000 --bits "$bits" --batch 1 --k 1 10 100 1000
done
for bits in 64 128; do
  latency --data itq:1000000 --features "$features" --bits "$bits" --batch 1 --k 1 10 100 1000
done
latency --data itq:10000000 --features "$features" --bits 64 --batch 1 --k 1 10 100 1000
