#!/bin/sh
# Builds the target with a panic planted in the parser and fails unless it is found within SECONDS
# (60), starting from the committed seeds alone: a target that cannot find this finds nothing.
set -eu
seconds=${1:-60}
here=$(cd "$(dirname "$0")" && pwd)
bin=$("$here/build.sh" --features planted)
work=$here/../../target/fuzz/planted
rm -rf "$work"
mkdir -p "$work/corpus"
echo "fuzz: looking for the planted panic, at most $seconds s"
status=0
"$bin/packet_parse" -max_total_time="$seconds" -max_len=1600 -timeout=5 -artifact_prefix="$work/" \
    "$work/corpus" "$here/corpus/packet_parse" >"$work/log" 2>&1 || status=$?
if [ "$status" -ne 0 ] && grep -q 'planted panic' "$work/log"; then
    echo "fuzz: the planted panic was found"
else
    tail -n 20 "$work/log"
    echo "fuzz: the planted panic was not found within $seconds s (exit $status); log: $work/log" >&2
    exit 1
fi
