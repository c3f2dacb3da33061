#!/bin/sh
# Builds the fuzz targets with the stable toolchain: no cargo-fuzz, no nightly. Further arguments go
# to cargo. Prints the directory that holds the binaries.
#
# The target is named so that build scripts and macros, which run on this machine, are built without
# the instrumentation (RUSTFLAGS then apply to the target's crates only).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
host=$(rustc -vV | sed -n 's/^host: //p')
flags="--cfg fuzzing -Cpasses=sancov-module"
for arg in level=4 inline-8bit-counters pc-table trace-compares; do
    flags="$flags -Cllvm-args=-sanitizer-coverage-$arg"
done
export RUSTFLAGS="$flags"
export CARGO_TARGET_DIR="${FUZZ_TARGET_DIR:-$here/../../target/fuzz}"
unset CARGO_ENCODED_RUSTFLAGS || true
cargo build --quiet --locked --release --target "$host" --manifest-path "$here/Cargo.toml" "$@" >&2
echo "$CARGO_TARGET_DIR/$host/release"
