#!/usr/bin/env bash
# What one GPU can show in eight minutes: tests/cuda, then the benchmarks in order of importance,
# each with a time limit, then one table (what | goal | measured | met).
#
#   bash benchmarks/gpu.sh           on a machine with a CUDA device and the package installed
#   bash benchmarks/gpu.sh --dry     the same steps on a CPU at sizes that show nothing
#
# Installs nothing. CIFAR-10 is taken from HT_BENCH_DATA where it is there, else random images of
# its shape. Results: benchmarks/results/, or the folder that OUT names. PYTHON names the
# interpreter; SECONDS_IN_ALL, the time for everything (480).
set -u
cd "$(dirname "$0")/.." || exit 2

PYTHON=${PYTHON:-python3}
LIMIT=${SECONDS_IN_ALL:-480}
export OUT=${OUT:-benchmarks/results}
STARTED=$(date +%s)
device=cuda
dry=()
if [ "${1:-}" = "--dry" ]; then
    device=cpu
    dry=(--tiny)
    OUT=$(mktemp -d)
fi

if ! "$PYTHON" -c 'import ht_bench, torch' 2>/dev/null; then
    echo "$PYTHON has no ht_bench or no torch; install the package, or name another with PYTHON=."
    exit 2
fi
if [ "$device" = cuda ]; then
    "$PYTHON" - <<'PY' || exit 2
import sys, torch
if not torch.cuda.is_available():
    sys.exit("torch sees no CUDA device; `bash benchmarks/gpu.sh --dry` shows the steps on a CPU.")
print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, Python {sys.version.split()[0]}")
PY
fi

# step SECONDS WORDS...: run, ended after so many seconds or with the time for everything.
said=()
step() {
    local seconds=$1 left code begun
    shift
    begun=$(date +%s)
    left=$((LIMIT - 10 - begun + STARTED))
    if [ "$left" -lt 5 ]; then
        said+=("no time left: $*")
        return
    fi
    [ "$seconds" -gt "$left" ] && seconds=$left
    echo "== $* (at most $seconds s)"
    timeout --kill-after=10 "$seconds" "$PYTHON" "$@"
    code=$?
    echo "== $(($(date +%s) - begun)) s"
    [ $code -eq 124 ] && said+=("stopped after $seconds s: $*")
    [ $code -ne 0 ] && [ $code -ne 124 ] && said+=("exit code $code: $*")
}
bench() {
    local seconds=$1 name=$2
    shift 2
    step "$seconds" -m "benchmarks.$name" --device "$device" --out "$OUT" ${dry[@]+"${dry[@]}"} "$@"
}
only() { # the claims named, where they are of a GPU: a CPU has others
    [ "$device" = cuda ] && echo "--only $1"
}

[ "$device" = cpu ] && export HT_BENCH_CUDA_TESTS_ON=cpu
step 90 -m pytest -q -p no:cacheprovider tests/cuda
# shellcheck disable=SC2046
bench 130 images --turns 5 $(only resnet-bf16-none,resnet-bf16-ht,resnet-bf16-ht-over-none)
bench 40 digits --turns 5
bench 60 cifar_run --share 0.03
if [ "$device" = cuda ]; then
    bench 90 images --turns 5 --only cnn-20,cnn-20-long,resnet-tf32
    bench 70 agent_claims --pairs 7 --only atari
    bench 200 core_suite
    bench 60 images --turns 5 --only resnet-bf16-augmented,cnn-lone,resnet-fp32
fi
bench 15 peaks

step 20 -m benchmarks.report --device "$device" --results "$OUT"
echo "All in $(($(date +%s) - STARTED)) s; results in $OUT."
if [ ${#said[@]} -gt 0 ]; then
    printf '%s\n' "${said[@]}"
fi
