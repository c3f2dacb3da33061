#!/bin/sh
# Builds the targets with a panic planted in the parser and a wrong transition in the TCP tracker, and fails unless
# each is found within SECONDS (60), starting from the committed seeds alone: a target that cannot find
# these finds nothing.
set -eu
seconds=${1:-60}
here=$(cd "$(dirname "$0")" && pwd)
bin=$("$here/build.sh" --features planted)
work=$here/../../target/fuzz/planted
rm -rf "$work"

# find TARGET WHAT SIGN: fuzzes until the log holds SIGN.
find() {
    mkdir -p "$work/$1"
    echo "fuzz: looking for the planted $2, at most $seconds s"
    status=0
    "$bin/$1" -max_total_time="$seconds" -max_len=1600 -timeout=5 -artifact_prefix="$work/$1-" \
        "$work/$1" "$here/corpus/$1" >"$work/$1.log" 2>&1 || status=$?
    if [ "$status" -ne 0 ] && grep -q "$3" "$work/$1.log"; then
        echo "fuzz: the planted $2 was found"
    else
        tail -n 20 "$work/$1.log"
        echo "fuzz: the planted $2 was not found within $seconds s (exit $status); log: $work/$1.log" >&2
        exit 1
    fi
}

find packet_parse panic 'planted panic'
find tcp_track transition 'model: the '
