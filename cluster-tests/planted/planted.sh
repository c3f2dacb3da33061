#!/bin/sh
# Builds the simulations with faults that can be planted, plants one at a time, and fails unless each is found within
# 200 seeds: a simulation that cannot find these finds nothing.
set -eu
cd "$(dirname "$0")/../.."
seeds=${1:-200}
${CARGO:-cargo} build --release --locked --quiet --workspace --bin tidegate-planted --features tidegate-planted/planted
look() {
    world=$1
    shift
    for fault; do
        echo "sim: looking for the planted $fault in $seeds seeds"
        "${CARGO_TARGET_DIR:-target}/release/tidegate-planted" "$world" 1 "$seeds" "$fault" || {
            echo "sim: the planted $fault was not found" >&2
            exit 1
        }
    done
}
look members ack-before-fsync vote-forgotten membership-at-append
look sessions facts-replaced tombstones-forgotten aged-by-replicas claims-believed
