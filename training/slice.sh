#!/bin/bash
# slice.sh PACK TOTAL SLICE OUT [FLAGS OF train ...]
#
# One slice of a run of TOTAL seconds on a GPU machine without network, from a folder that
# `python -m training pack` made. The first slice unpacks it; the synthesis is started where it
# does not run, and goes on by itself between slices. Each slice trains for SLICE seconds, goes on
# from the one before it, and leaves the log and the checkpoint so far in OUT, the latter in
# pieces of 15 MB. Run it in the repository's root.
#
# WORK says where everything lies, PYTHON which one has torch, PROCESSES how many synthesise,
# ROUNDS how often each sentence is spoken. The pack's manifests keep the order they were packed
# in, which is also that of --human-weight.
set -euo pipefail
mkdir -p "$4"
pack=$(realpath "$1") total=$2 slice=$3 out=$(realpath "$4")
shift 4
work=${WORK:-/tmp/starling-training}
python=${PYTHON:-python3}
mkdir -p "$work"
export PYTHONPATH="$work/site:$PWD" LD_LIBRARY_PATH="$work/lib:${LD_LIBRARY_PATH:-}"
export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
recipe=("$python" -m training --work "$work")

if [ ! -e "$work/unpacked" ]; then
    if compgen -G "$pack/wheels/*.whl" > /dev/null; then
        "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
            --upgrade --target "$work/site" "$pack"/wheels/*.whl
    fi
    cp -r "$pack/lib" "$pack"/work/* "$work"
    touch "$work/unpacked"
fi

is_speaking() { kill -0 "$(cat "$work/speech.pid")" 2> /dev/null; }
if [ ! -e "$work/speech.pid" ] || ! is_speaking; then
    setsid nice -n 10 "${recipe[@]}" speech --format s16 --processes "${PROCESSES:-12}" \
        --rounds "${ROUNDS:-3}" > "$work/speech.log" 2>&1 < /dev/null &
    echo $! > "$work/speech.pid"
fi
until compgen -G "$work/speech/shards/*.jsonl" > /dev/null; do
    if ! is_speaking; then
        cat "$work/speech.log" >&2
        exit 1
    fi
    sleep 1
done

human=()
if compgen -G "$work/human-*/manifest.tsv" > /dev/null; then
    human=(--human "$work"/human-*/manifest.tsv)
fi
"${recipe[@]}" train --run-seconds "$total" --seconds "$slice" --workers 4 \
    "${human[@]}" "$@" 2>&1 | tee -a "$work/train.log"
"${recipe[@]}" export
cp "$work/train.log" "$work/run/log.jsonl" "$out"
rm -f "$out"/export.tar.gz.*
tar -C "$work/export" -czf - . | split --bytes 15M - "$out/export.tar.gz."
