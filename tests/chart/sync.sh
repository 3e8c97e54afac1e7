#!/usr/bin/env bash
# Copies what is generated from the operator's code (crds/ and config/rbac/) to where charts and kustomize bases need it, and the
# comments of values.yaml into the charts' READMEs and schemas.
#
#   sync.sh           writes
#   sync.sh --check   changes nothing; lists what is out of date and fails
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
charts=(charts/file360-operator charts/file360-operator-crds)

case ${1-} in
  '' | --check) ;;
  *) echo "usage: sync.sh [--check]" >&2; exit 2 ;;
esac

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# The rules of a role file, without the role.
rules() { awk 'found; /^rules:$/ { found = 1 }' "$1"; }

# Those rules of stdin that name the given resource and nothing else (`only`), or the others (`not`). A Role cannot grant rights on
# what belongs to no namespace: run.sh asks an API server whether the list is complete.
split() {
  awk -v mode="$1" -v resource="$2" '
    function flush() { if (rule != "" && (names == "- " resource " ") == (mode == "only")) printf "%s", rule }
    /^- / { flush(); rule = names = ""; part = "" }
    { rule = rule $0 "\n" }
    /^(- |  )[a-zA-Z]+:$/ { part = $NF; next }
    part == "resources:" { sub(/^ +/, ""); names = names $0 " " }
    END { flush() }'
}

role() { # name; rules on stdin
  printf 'apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata:\n  labels:\n    app.kubernetes.io/name: file360-operator\n'
  printf '  name: %s\nrules:\n' "$1"
  cat
}

for chart in "${charts[@]}"; do
  mkdir -p "$out/$chart/files/crds"
  cp "$root"/crds/file360.io_*.yaml "$out/$chart/files/crds/"
  python3 "$here/reference.py" "$root/$chart" "$out/$chart"
done

files=$out/charts/file360-operator/files
policies='validatingadmissionpolicies - validatingadmissionpolicybindings'
rules "$root/config/rbac/manager-role.yaml" | split not namespaces | split not "$policies" >"$files/manager-rules.yaml"
rules "$root/config/rbac/manager-role.yaml" | split only namespaces >"$files/cluster-rules.yaml"
rules "$root/config/rbac/manager-role.yaml" | split only "$policies" >>"$files/cluster-rules.yaml"
rules "$root/config/rbac/worker-role.yaml" | split not namespaces >"$files/worker-rules.yaml"
rules "$root/config/rbac/worker-role.yaml" | split only namespaces >"$files/worker-cluster-rules.yaml"
rules "$root/config/rbac/leader-election-role.yaml" >"$files/leader-election-rules.yaml"
for file in manager cluster worker worker-cluster leader-election; do
  [[ -s $files/$file-rules.yaml ]] || { echo "config/rbac has no rules for $file-rules.yaml" >&2; exit 1; }
done

cp "$root/config/admission/approvals.yaml" "$files/approvals-policy.yaml"
mkdir -p "$out/config/crd/bases" "$out/config/namespaced" "$out/config/workers"
cp "$root"/crds/file360.io_*.yaml "$out/config/crd/bases/"
{
  printf '# Written by tests/chart/sync.sh.\napiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n'
  (cd "$root/crds" && printf -- '- bases/%s\n' file360.io_*.yaml)
} >"$out/config/crd/kustomization.yaml"
{
  echo '# Written by tests/chart/sync.sh.'
  role file360-operator <"$files/manager-rules.yaml"
  echo ---
  role file360-operator-leader-election <"$files/leader-election-rules.yaml"
} >"$out/config/namespaced/role.yaml"
{
  echo '# Written by tests/chart/sync.sh.'
  sed 's|\(app.kubernetes.io/name\): file360-operator$|\1: file360-operator-worker|' "$root/config/rbac/worker-role.yaml"
} >"$out/config/workers/role.yaml"

# CRDs of kinds that are gone.
stale() {
  local file
  for file in "$root"/charts/*/files/crds/* "$root"/config/crd/bases/*; do
    [[ ! -e $file || -e $out/${file#"$root"/} ]] || echo "${file#"$root"/}"
  done
}

if [[ ${1-} == --check ]]; then
  differs=0
  while read -r file; do
    cmp -s "$out/$file" "$root/$file" || { echo "out of date: $file (run tests/chart/sync.sh)" >&2; differs=1; }
  done < <(cd "$out" && find . -type f -printf '%P\n' | sort)
  while read -r file; do
    echo "belongs to no kind: $file (run tests/chart/sync.sh)" >&2; differs=1
  done < <(stale)
  exit $differs
fi
stale | while read -r file; do rm "$root/$file"; done
cp -r "$out/." "$root/"
