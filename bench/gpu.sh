#!/usr/bin/env bash
# Checks the kernels on one GPU against fp64, then measures them, in under eight minutes.
#   bench/gpu.sh            check, then measure; results go to bench/results/<device>-*.csv
#   bench/gpu.sh tune       time other tile sizes; writes bench/results/<device>-tuning.json
#   bench/gpu.sh --smoke    the same as the first in tiny sizes, on the CPU in Triton's interpreter
# Runs from a checkout: nothing needs to be installed but torch and Triton.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="python:bench:tests${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export TRITON_INTERPRET=0 TRITON_DEFAULT_FP_FUSION=1
PYTHON="${PYTHON:-python3}"

case "${1:-}" in
  tune) "$PYTHON" bench/source_tree.py gpu_tune ;;
  --smoke)
    export TRITON_INTERPRET=1
    for script in gpu_check gpu_tune gpu_measure; do "$PYTHON" bench/source_tree.py "$script"; done
    ;;
  *)
    "$PYTHON" bench/source_tree.py gpu_resources || echo "resources are not known"
    "$PYTHON" bench/source_tree.py gpu_check
    "$PYTHON" bench/source_tree.py gpu_measure
    ;;
esac
