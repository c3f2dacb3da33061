#!/bin/sh
# Fuzzes every target, or those that are named behind SECONDS, and fails on any finding. SECONDS (60) is the time
# of a target of 100 %.
#
# What is learned goes to target/fuzz/corpus and is used by the next run; the seeds beside this
# script are only read.
set -eu
seconds=${1:-60}
[ $# -eq 0 ] || shift
wanted=" $* "
# name:percent of SECONDS:longest input in bytes
targets="packet_parse:100:1600 fragments:50:1400 tcp_track:100:1600 replication_inlet:50:1400"
here=$(cd "$(dirname "$0")" && pwd)
bin=$("$here/build.sh")
work=$here/../../target/fuzz
mkdir -p "$work/artifacts"

fuzz() {
    name=$1 time=$2 max_len=$3
    mkdir -p "$work/corpus/$name"
    seeds=
    if [ -d "$here/corpus/$name" ]; then seeds=$here/corpus/$name; fi
    echo "fuzz: $name for $time s"
    if ! "$bin/$name" -max_total_time="$time" -max_len="$max_len" -timeout=5 -print_final_stats=1 \
        -artifact_prefix="$work/artifacts/$name-" \
        "$work/corpus/$name" ${seeds:+"$seeds"} >"$work/$name.log" 2>&1; then
        tail -n 60 "$work/$name.log"
        echo "fuzz: $name has a finding; log: $work/$name.log, input: $work/artifacts" >&2
        exit 1
    fi
    grep -E '^(Done|stat::number_of_executed_units|stat::average_exec_per_sec)' "$work/$name.log"
    echo "fuzz: $name without a finding"
}

for target in $targets; do
    case "$wanted" in "  " | *" ${target%%:*} "*) ;; *) continue ;; esac
    percent=${target#*:}
    fuzz "${target%%:*}" "$((seconds * ${percent%%:*} / 100))" "${target##*:}"
done
