#!/usr/bin/env bash
# Looks for answers of the embedded server that deviate from config/file360/openapi.yaml.
#
#   tests/file360_server/schemathesis.sh [program] [examples per operation]
#
# Positive acceptance is not checked: a well-formed request is also refused for what it meets (no such folder, no such
# item), which a schema cannot say. Request sequences are left to the tests in this folder.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
program=$(realpath "${1:-target/debug/file360-operator}")
examples=${2:-15}
cache=$(realpath -m "${FILE360_CACHE:-.cache}")/schemathesis-4.32.5
if [ ! -x "$cache/bin/schemathesis" ]; then
    python3 -m venv "$cache"
    "$cache/bin/pip" install --quiet 'schemathesis==4.32.5'
fi

work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
cat >"$work/seed.yaml" <<'SEED'
clients:
- {id: schemathesis, secret: schemathesis-secret, scopes: [read, write, share, govern, audit, admin]}
users: [{name: ada}]
SEED
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
url="http://127.0.0.1:$port"
"$program" serve --listen "127.0.0.1:$port" --seed "$work/seed.yaml" --data-dir "$work/data" 2>"$work/log" &
server=$!
for _ in $(seq 200); do
    curl --silent --fail --output /dev/null "$url/healthz" && break
    sleep 0.05
done
token=$(curl --silent --fail --user schemathesis:schemathesis-secret --data grant_type=client_credentials "$url/oauth2/token" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])')

# It keeps notes in the folder it runs in.
cd "$work"
"$cache/bin/schemathesis" --no-color run "$root/config/file360/openapi.yaml" \
    --url "$url" \
    --header "Authorization: Bearer $token" \
    --phases examples,coverage,fuzzing \
    --max-examples "$examples" \
    --seed 360 \
    --generation-deterministic \
    --exclude-checks positive_data_acceptance \
    --request-timeout 40 \
    --workers 2 \
    --continue-on-failure \
    --warnings off
