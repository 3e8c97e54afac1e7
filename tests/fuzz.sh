#!/usr/bin/env bash
# Fuzzes each target in fuzz/ for SECONDS (60 by default). A finding is kept below fuzz/artifacts and fails the run.
#
#   tests/fuzz.sh [SECONDS] [TARGET ...]
#
# The product forbids unsafe code, so there is no memory error to look for: the targets are built without a sanitizer, which
# needs no nightly toolchain.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(manifests answers names times)

command -v cargo-fuzz >/dev/null 2>&1 || cargo install --quiet --locked cargo-fuzz
cache=${FILE360_CACHE_DIR:-$HOME/.cache/file360-operator}
export CARGO_TARGET_DIR=$cache/fuzz-target

# The same versions as the product's.
cp Cargo.lock fuzz/Cargo.lock
for target in "${targets[@]}"; do
  cargo fuzz build --sanitizer none "$target"
done
for target in "${targets[@]}"; do
  corpus=$cache/fuzz-corpus/$target
  mkdir -p "$corpus" "fuzz/artifacts/$target"
  [ "$target" = manifests ] && cp config/samples/*.yaml "$corpus"
  printf '── %s, %s s\n' "$target" "$seconds"
  cargo fuzz run --sanitizer none "$target" "$corpus" -- \
    -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0
done
echo "No finding."
