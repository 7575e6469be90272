#!/usr/bin/env bash
# Everything that needs a GPU, in one command of at most nine minutes: benchmarks/gpu.sh FOLDER
#
# Writes into FOLDER: summary.txt (what passed, failed and was skipped, and why), log.txt (all output), bench_gpu.json,
# bench_gpu.md and bench_gpu_figures.tar. What is there is there at once, also if the script is ended halfway.
#
# Needs PyTorch, CuPy, pytest and hypothesis. For a machine without a network:
#   benchmarks/gpu.sh --fetch WHEELS          here: downloads what the tests and the peers need beside PyTorch and CuPy
#   WHEELS=WHEELS benchmarks/gpu.sh FOLDER    there: installs them first, into a folder of its own
#
#   PYTHON=python3   the interpreter     LIMIT=530   seconds for everything
#   SKIP="compile tests bench memcheck racecheck"    steps to leave out
set -u -o pipefail

python=${PYTHON:-python3}
if [ $# -eq 2 ] && [ "$1" = --fetch ]; then
    exec "$python" -m pip download --no-deps --dest "$2" \
        spikingjelly snntorch loguru SciencePlots hypothesis sortedcontainers pytest pluggy iniconfig
fi
if [ $# -ne 1 ]; then
    sed -n '2,12p' "$0" >&2
    exit 2
fi
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
wheels=${WHEELS:+$(cd "$WHEELS" && pwd)} || exit 2
cd "$(dirname "$0")/.." || exit 2
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
deadline=$((SECONDS + ${LIMIT:-530}))
failed=0
: >"$out/summary.txt" >"$out/log.txt"

say() { echo "$*" | tee -a "$out/summary.txt"; }

# step NAME SECONDS COMMAND...: runs it, at most so long and never beyond the deadline, and says how it went
step() {
    local name=$1 limit=$2 start=$SECONDS left=$((deadline - SECONDS)) status
    shift 2
    case " ${SKIP:-} " in *" $name "*) say "$name: skipped, as SKIP asks"; return ;; esac
    [ $left -ge 20 ] || { say "$name: skipped, no time left of LIMIT"; return; }
    [ "$limit" -le $left ] || limit=$left
    echo "=== $name ===" >>"$out/log.txt"
    timeout -k 5 "$limit" "$@" >"$scratch/$name" 2>&1
    status=$?
    cat "$scratch/$name" >>"$out/log.txt"
    if [ $status -eq 0 ]; then
        say "$name: passed in $((SECONDS - start)) s"
    else
        failed=1
        [ $status -ne 124 ] || status="out of time"
        say "$name: FAILED ($status) after $((SECONDS - start)) s"
        tail -n 25 "$scratch/$name"
    fi
    grep -h '^SKIPPED' "$scratch/$name" | sed "s/^/$name: /" | tee -a "$out/summary.txt"
}

if [ -n "$wheels" ]; then
    step wheels 60 "$python" -m pip install -q --no-index --no-deps --no-compile --target "$scratch/site" "$wheels"/*.whl
    export PYTHONPATH="$PYTHONPATH:$scratch/site"
fi
{
    date -u
    git rev-parse HEAD 2>/dev/null
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem --format=csv
    "$python" -m mfp_neurons doctor
} 2>&1 | tee -a "$out/summary.txt"
for package in spikingjelly snntorch matplotlib; do
    "$python" -c "import $package" 2>"$scratch/import" ||
        say "bench: without $package ($(tail -n 1 "$scratch/import"))"
done

# a GPU that the kernels cannot use would leave every test below running on the host, and passing
if ! "$python" - <<'CHECK'; then
import sys, torch
from mfp_neurons.kernels import device
sys.exit(device.unavailable(torch.device("cuda")))
CHECK
    say "no GPU that the kernels can run on: everything else skipped"
    exit 1
fi

# every instance, by all cores at once: the steps below find them in CuPy's cache on disk
cores=$(nproc)
compile='
import sys
from mfp_neurons.kernels import device
from tests.cuda_instances import every
first, step = map(int, sys.argv[1:])
for kernel in every()[first::step]:
    device._load(0, kernel)
'
compile_all() {
    local pids=() status=0
    for i in $(seq 0 $((cores - 1))); do
        "$python" -c "$compile" "$i" "$cores" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid" || status=1; done
    return $status
}
export -f compile_all
export python cores compile
step compile 150 bash -c compile_all

pytest=("$python" -m pytest -q -rs -p no:cacheprovider)
step tests 150 "${pytest[@]}" --durations=15 tests/test_kernels_cuda_gpu.py \
    tests/test_kernels_cuda.py tests/test_kernels_cuda_feedback.py

bench_seconds=$((deadline - SECONDS - 130)) # what the sanitizers leave
[ $bench_seconds -ge 60 ] || bench_seconds=60
step bench $((bench_seconds + 30)) "$python" -m benchmarks.speed --device cuda \
    --minutes "$(awk "BEGIN { print ($bench_seconds - 20) / 60 }")" --out "$scratch/bench"
cp "$scratch"/bench/bench_gpu.json "$scratch"/bench/bench_gpu.md "$out" 2>/dev/null
(cd "$scratch/bench" 2>/dev/null && tar cf "$out/bench_gpu_figures.tar" ./*.png ./*.svg) 2>/dev/null
grep -o '"skipped": "[^"]*"' "$out/bench_gpu.json" 2>/dev/null | sort | uniq -c | sed 's/^/bench: rows /' | tee -a "$out/summary.txt"

# plain allocations, so that a byte beyond a tensor is a byte beyond an allocation; a few tests that reach every kernel
few="(long_sequences and (-17] or -300])) or one_thread or repeat or (moments and shape0) or affine_map_of_each or taps or go_through or long_sequence_gives"
export PYTORCH_NO_CUDA_MEMORY_CACHING=1
for tool in memcheck racecheck; do
    if command -v compute-sanitizer >/dev/null; then
        step $tool 100 compute-sanitizer --tool $tool --error-exitcode 9 --report-api-errors no \
            "${pytest[@]}" tests/test_kernels_cuda.py tests/test_kernels_cuda_feedback.py -k "$few"
    else
        say "$tool: skipped, no compute-sanitizer here (it comes with the CUDA toolkit)"
    fi
done
cat "$out/summary.txt"
exit $failed
