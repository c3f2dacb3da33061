#!/bin/sh
# Fuzzes packet parsing for SECONDS (60) and fails on any finding.
#
# What is learned goes to target/fuzz/corpus and is used by the next run; the seeds beside this
# script are only read.
set -eu
seconds=${1:-60}
here=$(cd "$(dirname "$0")" && pwd)
bin=$("$here/build.sh")
work=$here/../../target/fuzz
mkdir -p "$work/corpus/packet_parse" "$work/artifacts"
echo "fuzz: packet_parse for $seconds s"
if ! "$bin/packet_parse" -max_total_time="$seconds" -max_len=1600 -timeout=5 -print_final_stats=1 \
    -artifact_prefix="$work/artifacts/packet_parse-" \
    "$work/corpus/packet_parse" "$here/corpus/packet_parse" >"$work/packet_parse.log" 2>&1; then
    tail -n 60 "$work/packet_parse.log"
    echo "fuzz: packet_parse has a finding; log: $work/packet_parse.log, input: $work/artifacts" >&2
    exit 1
fi
grep -E '^(Done|stat::number_of_executed_units|stat::average_exec_per_sec)' "$work/packet_parse.log"
echo "fuzz: packet_parse without a finding"
