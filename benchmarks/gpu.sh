#!/usr/bin/env bash
# Everything that needs a GPU, in one command of about ten minutes: benchmarks/gpu.sh FOLDER
#
# Writes into FOLDER: facts.txt, tests.log, memcheck.log, racecheck.log, the benchmark's JSON, Markdown and
# figures (bench_gpu.*), summary.txt. Needs PyTorch, CuPy, pytest and hypothesis; the benchmark leaves out peers
# that are not installed; compute-sanitizer comes with the CUDA toolkit and is left out without it.
#
#   PYTHON=python3   the interpreter           BENCH_MINUTES=5   time for the benchmark
#   SKIP="tests memcheck racecheck bench"      steps to leave out
set -u -o pipefail

if [ $# -ne 1 ]; then
    sed -n '2,9p' "$0" >&2
    exit 2
fi
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
failed=0

# step NAME SECONDS COMMAND...: runs it into NAME.log and says how it went
step() {
    local name=$1 limit=$2 start=$SECONDS status
    shift 2
    case " ${SKIP:-} " in *" $name "*) echo "$name: left out" | tee -a "$out/summary.txt"; return ;; esac
    timeout "$limit" "$@" >"$out/$name.log" 2>&1
    status=$?
    if [ $status -eq 0 ]; then
        echo "$name: passed in $((SECONDS - start)) s" | tee -a "$out/summary.txt"
    else
        failed=1
        echo "$name: FAILED (status $status) after $((SECONDS - start)) s" | tee -a "$out/summary.txt"
        tail -n 25 "$out/$name.log"
    fi
}

: >"$out/summary.txt"
{
    date -u
    git rev-parse HEAD 2>/dev/null
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem --format=csv
    "$python" -c 'import cupy, torch; print("torch", torch.__version__, "cupy", cupy.__version__)'
    "$python" -m mfp_neurons doctor
} >"$out/facts.txt" 2>&1
cat "$out/facts.txt"

# a GPU that the kernels cannot use would leave every test below running on the host, and passing
if ! "$python" - <<'CHECK'; then
import sys, torch
from mfp_neurons.kernels import device
sys.exit(device.unavailable(torch.device("cuda")))
CHECK
    echo "no GPU that the kernels can run on" | tee -a "$out/summary.txt"
    exit 1
fi

pytest=("$python" -m pytest -q -p no:cacheprovider)
step tests 200 "${pytest[@]}" --durations=15 tests/test_kernels_cuda.py tests/test_kernels_cuda_gpu.py

# plain allocations, so that a byte beyond a tensor is a byte beyond an allocation; a few tests that reach every kernel
few="(long_sequences and (-17] or -300])) or one_thread or repeat or (moments and shape0) or affine_map_of_each or taps or go_through or long_sequence_gives"
export PYTORCH_NO_CUDA_MEMORY_CACHING=1
for tool in memcheck racecheck; do
    if command -v compute-sanitizer >/dev/null; then
        step $tool 120 compute-sanitizer --tool $tool --error-exitcode 9 --report-api-errors no \
            "${pytest[@]}" tests/test_kernels_cuda.py -k "$few"
    else
        echo "$tool: left out, no compute-sanitizer here" | tee -a "$out/summary.txt"
    fi
done
unset PYTORCH_NO_CUDA_MEMORY_CACHING

minutes=${BENCH_MINUTES:-4}
step bench $((60 * minutes + 90)) "$python" -m mfp_neurons bench --device cuda --minutes "$minutes" --out "$out"
[ -f "$out/bench_gpu.md" ] && cat "$out/bench_gpu.md"
cat "$out/summary.txt"
exit $failed
