#!/bin/bash
# slice.sh PACK TOTAL SLICE OUT [FLAGS OF train ...]
#
# One slice of a run of TOTAL seconds on a GPU machine without network, from a folder that
# `python -m training pack` made. The first slice unpacks it and starts the synthesis, which goes
# on on its own between slices; each slice trains for SLICE seconds, goes on from the one before
# it, and leaves the log and the checkpoint so far in OUT, its weights in pieces of 15 MB.
# WORK says where everything lies, PROCESSES how many synthesise, ROUNDS how often each sentence
# is spoken, WEIGHTS how often each manifest of human speech is heard, PYTHON which one has torch. Run it in the repository's root.
set -euo pipefail
pack=$(realpath "$1") total=$2 slice=$3 out=$(realpath "$4")
shift 4
work=${WORK:-/tmp/starling-training}
python=${PYTHON:-python3}
mkdir -p "$work"
export PYTHONPATH="$work/site:$PWD" LD_LIBRARY_PATH="$work/lib:${LD_LIBRARY_PATH:-}"
export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
recipe=("$python" -m training --work "$work")

if [ ! -e "$work/ready" ]; then
    if compgen -G "$pack/wheels/*.whl" > /dev/null; then
        "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
            --upgrade --target "$work/site" "$pack"/wheels/*.whl
    fi
    cp -r "$pack/lib" "$pack"/work/* "$work"
    setsid nice -n 10 "${recipe[@]}" speech --format s16 --processes "${PROCESSES:-12}" \
        --rounds "${ROUNDS:-3}" > "$work/speech.log" 2>&1 < /dev/null &
    touch "$work/ready"
fi
until compgen -G "$work/speech/shards/*.jsonl" > /dev/null; do
    sleep 1
done

device=$(nvidia-smi --query-gpu=name --format=csv,noheader 2> /dev/null | head -n 1) || true
human=()
if compgen -G "$work/human-*/manifest.tsv" > /dev/null; then
    read -ra weights <<< "${WEIGHTS:-5}"
    human=(--human "$work"/human-*/manifest.tsv --human-weight "${weights[@]}")
fi
"${recipe[@]}" train --run-seconds "$total" --seconds "$slice" --workers 4 \
    "${human[@]}" "$@" 2>&1 | tee -a "$work/train.log"
"${recipe[@]}" export "${human[@]}" --trained-on "${device:-a CPU}"
cp "$work/train.log" "$work/run/log.jsonl" "$out"
tar -C "$work/export" -czf - . | split --bytes 15M - "$out/export.tar.gz."
