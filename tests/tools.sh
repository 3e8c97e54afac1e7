#!/usr/bin/env bash
# Checks what the project needs on a machine and installs what a package manager can. Quiet when nothing is missing.
set -euo pipefail

missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need cc gcc
need make make
need curl curl
need jq jq
need python3 python3
need ssh-keygen openssh-client
PATH=$PATH:/usr/sbin need sshd openssh-server

if [ ${#missing[@]} -gt 0 ]; then
  if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "Installing ${missing[*]}" >&2
    # sshd is for tests that start it themselves: installing it must not open a port of this machine.
    started=
    [[ " ${missing[*]} " == *" openssh-server "* && -d /run/systemd/system ]] && started=ssh.service
    [ -z "$started" ] || systemctl mask --quiet "$started"
    apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
    [ -z "$started" ] || { systemctl unmask --quiet "$started" && systemctl disable --quiet "$started"; }
  else
    echo "Missing: ${missing[*]}. Install them with the system's package manager and run this again." >&2
    exit 1
  fi
fi

command -v cargo >/dev/null 2>&1 || {
  echo "Missing: Rust (cargo). Install rustup; rust-toolchain.toml names the version." >&2
  exit 1
}
command -v go >/dev/null 2>&1 || {
  echo "Missing: Go, which builds the Kubernetes control plane and other programs for tests and the demo. Install Go; tests/controlplane/go.mod names the version." >&2
  exit 1
}
