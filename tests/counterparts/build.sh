#!/usr/bin/env bash
# Builds the programs that stand at the other end in tests and prints the folder they are in.
set -euo pipefail

usage() {
  cat <<'END'
usage: build.sh [PROGRAM...]

Builds keep, versitygw, nats-server and rclone-webdav, or the programs named. Does nothing when they are up to date. The last line on
stdout is their folder.

  FILE360_CACHE_DIR   where they are kept (default: ${XDG_CACHE_HOME:-$HOME/.cache}/file360-operator)
END
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=${FILE360_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:?set HOME or FILE360_CACHE_DIR}/.cache}/file360-operator}/counterparts
default=(keep versitygw nats-server rclone-webdav)
child=
partial=

say() { printf '%s\n' "$*" >&2; }
fail() { say "build.sh: $*"; exit 1; }

# The module a program is built in, and its package.
describe() {
  module=$here
  case $1 in
    keep) package=. ;;
    versitygw) package=github.com/versity/versitygw/cmd/versitygw ;;
    nats-server) package=github.com/nats-io/nats-server/v2 ;;
    rclone-webdav)
      module=$here/webdav
      package=.
      ;;
    *) fail "there is no program '$1'; there are: ${default[*]}" ;;
  esac
}

# What a program is made of: its sources or the versions of all modules, and the Go that builds it.
fingerprint() {
  describe "$1"
  { if [[ $package == . ]]; then cat "$module"/*.go; fi
    if [[ $1 != keep ]]; then cat "$module/go.mod" "$module/go.sum"; fi
    echo "$1 $go"
    uname -sm; } | sha256sum | cut -d' ' -f1
}

is_current() { [[ -x $bin/$1 && -r $bin/.$1.stamp && $(<"$bin/.$1.stamp") == "$(fingerprint "$1")" ]]; }

elapsed() { printf '%d:%02d' $(((SECONDS - $1) / 60)) $(((SECONDS - $1) % 60)); }

build() {
  local name=$1 began=$SECONDS status=0
  describe "$name"
  partial=$bin/.$name.partial.$$
  (
    cd "$module"
    unset GOOS GOARCH
    exec env CGO_ENABLED=0 GOWORK=off go build -mod=readonly -trimpath -ldflags "-s -w" -o "$partial" "$package"
  ) >"$partial.log" 2>&1 9>&- &
  child=$!
  if [[ -t 2 ]]; then
    while kill -0 "$child" 2>/dev/null; do
      printf '\r  %-26s building %s' "$name" "$(elapsed "$began")" >&2
      sleep 0.5
    done
    printf '\r\033[K' >&2
  fi
  wait "$child" || status=$?
  child=
  if ((status != 0)); then
    say "  $name: the build failed after $(elapsed "$began"). The end of what go said:"
    tail -n 20 "$partial.log" >&2
    fail "could not build $name. If go could not fetch a module, check 'go env GOPROXY GOSUMDB' and the network, then run this again:
what is built is kept."
  fi
  # The stamp goes first and comes last: whoever is killed in between leaves a program that is built again.
  rm -f "$bin/.$name.stamp"
  mv -f "$partial" "$bin/$name"
  fingerprint "$name" >"$partial"
  mv -f "$partial" "$bin/.$name.stamp"
  rm -f "$partial.log"
  partial=
  say "$(printf '  %-26s built in %s' "$name" "$(elapsed "$began")")"
}

clean_up() {
  [[ -z $child ]] || kill "$child" 2>/dev/null || true
  [[ -z $partial ]] || rm -f "$partial" "$partial.log"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

programs=()
for argument in "$@"; do
  case $argument in
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) describe "$argument"; programs+=("$argument") ;;
  esac
done
((${#programs[@]})) || programs=("${default[@]}")

command -v flock >/dev/null || fail "flock is missing; it is in the package util-linux"
command -v go >/dev/null || fail "Go is missing. Install Go $(awk '$1 == "go" { print $2; exit }' "$here/go.mod") or newer and put it on PATH."
go=$(cd "$here" && go env GOVERSION) || fail "Go is too old: $(awk '$1 == "go" { print $2; exit }' "$here/go.mod") or newer is needed."

stale=()
for name in "${programs[@]}"; do is_current "$name" || stale+=("$name"); done
if ((${#stale[@]})); then
  mkdir -p "$bin"
  exec 9>"$bin/.lock"
  if ! flock -n 9; then
    say "Another build is running; waiting for it."
    flock 9
  fi
  rm -f "$bin"/.*.partial.*
  say "Building ${stale[*]}; the first time takes minutes, later ones seconds."
  for name in "${stale[@]}"; do is_current "$name" || build "$name"; done
  exec 9>&-
fi
echo "$bin"
