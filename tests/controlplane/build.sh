#!/usr/bin/env bash
# Builds the programs of a real control plane from source and prints the folder they are in. README.md has the details.
set -euo pipefail

usage() {
  cat <<'END'
usage: build.sh [--only] [PROGRAM...]

Builds etcd, kube-apiserver, kube-controller-manager, kubectl and controlplane (the supervisor), or the programs named;
helm is built only when named. Does nothing when they are up to date. The last line on stdout is their folder.

  FILE360_CACHE_DIR    where they are kept (default: ${XDG_CACHE_HOME:-$HOME/.cache}/file360-operator)
  KUBEBUILDER_ASSETS   folder with etcd, kube-apiserver and kubectl to use instead of building them
END
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kubernetes=$(awk '$1 == "k8s.io/kubernetes" { print $2; exit }' "$here/go.mod")
cache=${FILE360_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:?set HOME or FILE360_CACHE_DIR}/.cache}/file360-operator}/controlplane
bin=$cache/$kubernetes
default=(etcd kube-apiserver kube-controller-manager kubectl controlplane)
child=
partial=

say() { printf '%s\n' "$*" >&2; }
fail() { say "build.sh: $*"; exit 1; }

# The module folder, package and linker settings of a program.
describe() {
  module=$here
  linker="-s -w -X k8s.io/component-base/version.gitVersion=$kubernetes"
  case $1 in
    etcd) package=go.etcd.io/etcd/server/v3 ;;
    kube-apiserver | kube-controller-manager | kubectl) package=k8s.io/kubernetes/cmd/$1 ;;
    controlplane) package=. ;;
    helm)
      module=$here/helm
      package=helm.sh/helm/v4/cmd/helm
      linker="-s -w -X helm.sh/helm/v4/internal/version.version=$(awk '$1 == "helm.sh/helm/v4" { print $2; exit }' "$module/go.mod")"
      ;;
    *) fail "there is no program '$1'; there are: ${default[*]} helm" ;;
  esac
}

# What a program is made of: its sources, their checksums and the way it is built.
fingerprint() {
  describe "$1"
  case $1 in
    controlplane) cat "$here"/*.go ;;
    *) cat "$module/go.mod" "$module/go.sum" ;;
  esac | { cat; echo "$package $linker"; uname -sm; } | sha256sum | cut -d' ' -f1
}

# The version of the Go that builds here; nothing if there is none. A machine without Go may use what is built already.
go_version() { (cd "$here" && go env GOVERSION 2>/dev/null) || true; }

is_current() {
  [[ -x $bin/$1 && -r $bin/.$1.stamp ]] || return 1
  local built_from built_by
  { read -r built_from && read -r built_by; } <"$bin/.$1.stamp" || return 1
  [[ $built_from == "$(fingerprint "$1")" && (-z $go || $built_by == "$go") ]]
}

require_tools() {
  local needed
  needed=$(awk '$1 == "go" { print $2; exit }' "$here/go.mod")
  command -v flock >/dev/null || fail "flock is missing; it is in the package util-linux"
  command -v go >/dev/null || fail "Go is missing, and ${*} must be built. Install Go $needed or newer and put it on PATH."
  [[ -n $go ]] || fail "$(go version | cut -d' ' -f3) is too old: Go $needed or newer is needed. Install it and put it on PATH, or
let go fetch it: go env -w GOTOOLCHAIN=auto. What go says: $(cd "$here" && go env GOVERSION 2>&1 || true)"
}

elapsed() { printf '%d:%02d' $((($SECONDS - $1) / 60)) $((($SECONDS - $1) % 60)); }

build() {
  local name=$1 began=$SECONDS log status=0
  describe "$name"
  partial=$bin/.$name.partial.$$
  log=$partial.log
  (
    cd "$module"
    unset GOOS GOARCH
    exec env CGO_ENABLED=0 GOWORK=off go build -mod=readonly -trimpath -ldflags "$linker" -o "$partial" "$package"
  ) >"$log" 2>&1 9>&- &
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
    tail -n 20 "$log" >&2
    fail "could not build $name. If go could not fetch a module, check 'go env GOPROXY GOSUMDB' and the network, then run this again:
what is built is kept."
  fi
  # The stamp goes first and comes last: whoever is killed in between leaves a program that is built again.
  rm -f "$bin/.$name.stamp"
  mv -f "$partial" "$bin/$name"
  printf '%s\n%s\n' "$(fingerprint "$name")" "$go" >"$partial"
  mv -f "$partial" "$bin/.$name.stamp"
  rm -f "$log"
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
    --only) ;;
    --only=*) programs+=("${argument#--only=}") ;;
    -*) usage >&2; exit 2 ;;
    *) programs+=("$argument") ;;
  esac
done
((${#programs[@]})) || programs=("${default[@]}")

assets=${KUBEBUILDER_ASSETS:-}
go=$(go_version)
given=()
stale=()
for name in "${programs[@]}"; do
  describe "$name"
  case $name in
    etcd | kube-apiserver | kubectl)
      if [[ -n $assets ]]; then
        [[ -x $assets/$name ]] || fail "KUBEBUILDER_ASSETS is $assets, but there is no $name in it; correct it or unset it."
        given+=("$name")
        continue
      fi ;;
    kube-controller-manager)
      if [[ -n $assets && -x $assets/$name ]]; then
        given+=("$name")
        continue
      fi ;;
  esac
  is_current "$name" || stale+=("$name")
done

if ((${#stale[@]})); then
  require_tools "${stale[@]}"
  mkdir -p "$bin"
  exec 9>"$bin/.lock"
  if ! flock -n 9; then
    say "Another build is running; waiting for it."
    flock 9
  fi
  rm -f "$bin"/.*.partial.*
  announced=
  for name in "${stale[@]}"; do
    is_current "$name" && continue
    [[ -n $announced ]] || say "Building ${stale[*]} (Kubernetes $kubernetes); the first time takes minutes, later ones seconds."
    announced=yes
    build "$name"
  done
  exec 9>&-
fi

# Ready-made programs and built ones are shown as one folder, made of links.
if ((${#given[@]})); then
  view=$cache/assets-$(printf %s "$assets" | sha256sum | cut -c1-12)
  mkdir -p "$view"
  for name in "${programs[@]}"; do
    target=$bin/$name
    [[ " ${given[*]} " != *" $name "* ]] || target=$(cd "$assets" && pwd)/$name
    ln -sfn "$target" "$view/.$name.$$"
    mv -Tf "$view/.$name.$$" "$view/$name"
  done
  bin=$view
fi
echo "$bin"
