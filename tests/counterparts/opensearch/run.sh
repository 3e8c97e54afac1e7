#!/usr/bin/env bash
# Starts a real OpenSearch on a free port of this machine, runs a command against it, and stops it.
set -euo pipefail

usage() {
  cat <<'END'
usage: run.sh [COMMAND [ARGUMENT...]]

Runs the command with FILE360_OPENSEARCH_URL set. Without one, prints the address and stays until it is interrupted.
The programs come from Maven Central the first time (about 70 MB); it needs Maven and Java 17 to 21.

  FILE360_CACHE_DIR   where their list is kept (default: ${XDG_CACHE_HOME:-$HOME/.cache}/file360-operator)
END
}

case ${1-} in -h | --help) usage; exit 0 ;; esac

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${FILE360_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:?set HOME or FILE360_CACHE_DIR}/.cache}/file360-operator}/opensearch
say() { printf '%s\n' "$*" >&2; }
fail() { say "run.sh: $*"; exit 1; }
elapsed() { printf '%d:%02d' $(((SECONDS - $1) / 60)) $(((SECONDS - $1) % 60)); }

# Waits for a process and shows how long it has been.
watch() {
  local what=$1 pid=$2 began=$SECONDS
  while kill -0 "$pid" 2>/dev/null && [[ -z ${3-} || ! -s $3 ]]; do
    [[ ! -t 2 ]] || printf '\r  %s %s' "$what" "$(elapsed "$began")" >&2
    sleep 0.5
  done
  [[ ! -t 2 ]] || printf '\r\033[K' >&2
}

command -v java >/dev/null || fail "Java is missing; install 17 (Debian: openjdk-17-jdk-headless) and put it on PATH."
command -v mvn >/dev/null || fail "Maven is missing (Debian: maven)."

# The list of jars, made anew when pom.xml changes or a jar is gone.
stamp=$cache/$(sha256sum <"$here/pom.xml" | cut -c1-16)
present() { [[ -s $stamp ]] && while IFS= read -r -d : jar; do [[ -e $jar ]] || return 1; done <<<"$(<"$stamp"):"; }
if ! present; then
  mkdir -p "$cache"
  say "Fetching OpenSearch from Maven Central; this happens once."
  mvn -B -ntp -f "$here/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath \
    -Dmdep.outputFile="$stamp.partial" >"$cache/mvn.log" 2>&1 &
  watch "fetching" $!
  wait $! || { tail -n 20 "$cache/mvn.log" >&2; fail "Maven could not fetch it; what it has is kept. Check the network and its settings."; }
  mv -f "$stamp.partial" "$stamp"
fi

folder=$(mktemp -d)
trap 'exec {input}>&- 2>/dev/null || true; wait "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The server ends when its input does: with this script, however that ends.
mkfifo "$folder/input"
(cd "$folder" && exec java -Xms512m -Xmx512m -XX:TieredStopAtLevel=1 -Djava.security.manager=allow -cp "$(<"$stamp")" \
  "$here/Serve.java" "$folder/data" "$folder/address" <"$folder/input" >"$folder/log" 2>&1) &
server=$!
exec {input}>"$folder/input"
watch "starting OpenSearch" "$server" "$folder/address"
url=$(cat "$folder/address" 2>/dev/null) || { tail -n 20 "$folder/log" >&2; fail "OpenSearch does not start."; }

if (($#)); then
  say "OpenSearch answers at $url."
  FILE360_OPENSEARCH_URL=$url "$@" {input}>&-
else
  say "OpenSearch answers at the address below. Ctrl-C stops it."
  echo "$url"
  wait "$server"
fi
