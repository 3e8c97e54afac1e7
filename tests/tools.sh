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
need openssl openssl
PATH=$PATH:/usr/sbin need sshd openssh-server
PATH=$PATH:/usr/sbin need proftpd proftpd-mod-crypto
# The pages for outsiders are tested in a real browser.
need chromium chromium
need chromedriver chromium-driver

if [ ${#missing[@]} -gt 0 ]; then
  if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "Installing ${missing[*]}" >&2
    # The servers are for tests that start them themselves: installing them must not open a port of this machine.
    services=()
    if [ -d /run/systemd/system ]; then
      [[ " ${missing[*]} " != *" openssh-server "* ]] || services+=(ssh.service)
      [[ " ${missing[*]} " != *" proftpd-mod-crypto "* ]] || services+=(proftpd.service)
    fi
    [ ${#services[@]} = 0 ] || systemctl mask --quiet "${services[@]}"
    apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
    [ ${#services[@]} = 0 ] || { systemctl unmask --quiet "${services[@]}" && systemctl disable --quiet "${services[@]}"; }
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
