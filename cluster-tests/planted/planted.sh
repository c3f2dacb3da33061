#!/bin/sh
# Builds the simulation with one fault at a time planted in tidegate-sync, and fails unless each is found
# within 200 seeds: a simulation that cannot find these finds nothing.
set -eu
cd "$(dirname "$0")/../.."
seeds=${1:-200}
for fault in ack-before-fsync vote-forgotten membership-at-append; do
    ${CARGO:-cargo} build --release --locked --quiet --workspace --bin tidegate-planted \
        --features "tidegate-planted/$fault"
    echo "sim: looking for the planted $fault in $seeds seeds"
    "${CARGO_TARGET_DIR:-target}/release/tidegate-planted" members 1 "$seeds" || {
        echo "sim: the planted $fault was not found" >&2
        exit 1
    }
done
