#!/usr/bin/env bash
# Every check that a change has to pass. Stops at the first failure; ends with what took how long.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto} RUST_BACKTRACE=${RUST_BACKTRACE:-0}

budget=()
step() {
  local what=$1 start=$SECONDS; shift
  printf '\n── %s\n' "$what"
  "$@" || { printf '\nFailed: %s\n' "$what" >&2; exit 1; }
  budget+=("$(printf '%5ds  %s' $((SECONDS - start)) "$what")")
}

generated() {
  local out; out=$(mktemp -d)
  cargo run --quiet -- crds --out "$out/crds" && cargo run --quiet -- crds --rbac --out "$out/rbac" &&
    cargo run --quiet -- crds --admission --out "$out/admission" || return 1
  for file in "$out"/crds/*; do cmp "$file" "crds/${file##*/}" || { echo "Run: make generate" >&2; return 1; }; done
  for file in "$out"/rbac/*; do cmp "$file" "config/rbac/${file##*/}" || { echo "Run: make generate" >&2; return 1; }; done
  for file in "$out"/admission/*; do cmp "$file" "config/admission/${file##*/}" || { echo "Run: make generate" >&2; return 1; }; done
  rm -rf "$out"
  tests/chart/sync.sh --check
}

samples() { cargo run --quiet -- check config/samples/*.yaml; }

denied() {
  command -v cargo-deny >/dev/null 2>&1 || cargo install --quiet --locked cargo-deny || return 1
  cargo deny --log-level error check bans licenses sources
}

# The Go build and the Rust build share the cores well: one links while the other compiles.
tests/controlplane/build.sh helm >/dev/null 2>/tmp/file360-helm-build.$$ &
helm=$!
step 'Format' cargo fmt --check
step 'Lints' cargo clippy --quiet --all-targets -- -D warnings
step 'Generated files' generated
step 'Samples' samples
step 'Places of the seeded faults' tests/seeded_faults.py --places
step 'Control plane' tests/controlplane/build.sh
wait $helm || { cat /tmp/file360-helm-build.$$ >&2; exit 1; }
rm -f /tmp/file360-helm-build.$$
step 'Unit tests' cargo test --quiet --lib --bins
step 'Programs at the other end' tests/counterparts/build.sh
step 'Behaviour of the drivers and the embedded File 360' cargo test --quiet --test file360_server
step 'Inbound HTTP' cargo test --quiet --test inbound
step 'Contract against its document' tests/file360_server/schemathesis.sh
step 'Destinations against real counterparts' cargo test --quiet --test destinations
step 'Tests against a real API server' cargo test --quiet --test api_server
step 'Charts and kustomize bases' tests/chart/run.sh
step 'Demo' tests/demo/run.sh </dev/null
step 'Dependencies' denied

printf '\n── What took how long\n'
printf '%s\n' "${budget[@]}"
