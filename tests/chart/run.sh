#!/usr/bin/env bash
# Checks charts/ and config/: by themselves, against what is generated from the code, against each other, and on a real API server
# with the operator itself. Prints a line for each check and a count at the end.
#
#   FILE360_OPERATOR   the program; default target/debug/file360-operator, which must have been built
set -uo pipefail
export LC_ALL=C PYTHONDONTWRITEBYTECODE=1

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
chart=$root/charts/file360-operator
crds_chart=$root/charts/file360-operator-crds
operator=${FILE360_OPERATOR:-$root/target/debug/file360-operator}
bin=$("$root/tests/controlplane/build.sh" etcd kube-apiserver kube-controller-manager kubectl controlplane helm) || exit 1
[[ -x $operator ]] || { echo "run.sh: no program at $operator: build it, or set FILE360_OPERATOR" >&2; exit 1; }

scratch=$(mktemp -d)
export HELM_CACHE_HOME=$scratch/helm HELM_CONFIG_HOME=$scratch/helm HELM_DATA_HOME=$scratch/helm TMPDIR=$scratch
passed=0 failed=0 plane= running=
finish() {
  [[ -z $running ]] || kill "$running" 2>/dev/null
  if [[ -n $plane ]]; then
    exec 3>&-
    wait "$plane" 2>/dev/null
  fi
  rm -rf "$scratch"
}
trap finish EXIT

# check WHAT COMMAND...: passes when the command succeeds; shows its output when it fails.
check() {
  local what=$1 output
  shift
  if output=$("$@" 2>&1); then
    echo "ok   $what"
    passed=$((passed + 1))
  else
    echo "FAIL $what"
    head -c 4000 <<<"$output" | sed 's/^/     /'
    failed=$((failed + 1))
  fi
}

helm() { "$bin/helm" "$@"; }
kubectl() { "$bin/kubectl" --kubeconfig "$scratch/plane/kubeconfig" --request-timeout=20s "$@"; }

# One JSON document a line, of the YAML in a file.
to_json() { helm template json "$here/to-json" --set-file text="$1" | grep '^{'; }

# render NAME CHART [FLAG...]: NAME.yaml and NAME.json, as `helm install file360-operator` would send them.
render() {
  local name=$1 from=$2
  shift 2
  helm template file360-operator "$from" --namespace chart-test "$@" >"$scratch/$name.yaml" && to_json "$scratch/$name.yaml" >"$scratch/$name.json" &&
    [[ -s $scratch/$name.json ]]
}
build() { "$bin/kubectl" kustomize "$2" >"$scratch/$1.yaml" && to_json "$scratch/$1.yaml" >"$scratch/$1.json"; }

# same A B: no difference, and not both empty.
same() {
  cat "$1" >"$scratch/left"
  cat "$2" >"$scratch/right"
  [[ -s $scratch/left ]] && diff -u "$scratch/left" "$scratch/right"
}

# --- The charts by themselves

lint() {
  local output
  output=$(helm lint --strict "$@" 2>&1) || { echo "$output"; return 1; }
  ! grep -E '^\[(INFO|WARNING|ERROR)\]' <<<"$output"
}
check "lint finds nothing in file360-operator" lint "$chart"
check "lint finds nothing in file360-operator-crds" lint "$crds_chart"
for values in "$here"/values/*.yaml; do
  check "lint finds nothing with $(basename "$values")" lint "$chart" --values "$values"
done

check "renders with the default values" render default "$chart"
check "renders for one namespace" render namespaced "$chart" --values "$here/values/namespaced.yaml"
check "renders with every option" render all "$chart" --values "$here/values/all.yaml"
check "renders with one pod" render single "$chart" --values "$here/values/single.yaml"
check "renders a worker for one namespace" render queue "$chart" --values "$here/values/queue.yaml"
check "renders the CRDs' chart" render crds "$crds_chart" --set commonLabels.team=platform

versions() {
  local version
  version=$(sed -n '0,/^version = /s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
  for file in "$chart/Chart.yaml" "$crds_chart/Chart.yaml"; do
    [[ $(grep -cxE "(version|appVersion): $version" "$file") == 2 ]] || { echo "$file is not at $version"; return 1; }
  done
  for base in manager workers; do
    grep -qxF "  newTag: $version" "$root/config/$base/kustomization.yaml" || { echo "config/$base is not at $version"; return 1; }
  done
}
check "charts and kustomize base have the program's version" versions

check "the schema of file360-operator is closed everywhere" python3 "$here/values.py" closed "$chart"
check "the schema of file360-operator-crds is closed everywhere" python3 "$here/values.py" closed "$crds_chart"
for name in all namespaced single; do to_json "$here/values/$name.yaml" >"$scratch/$name-values.json"; done
check "every value changes what is rendered" \
  python3 "$here/values.py" effective "$bin/helm" "$chart" "$scratch"/{all,namespaced,single}-values.json

# refused PATTERN FLAG...: no rendering, and a message that says why.
refused() {
  local pattern=$1 output
  shift
  if output=$(helm template r "$@" 2>&1); then echo "accepted: $*"; return 1; fi
  grep -qE -- "$pattern" <<<"$output" || { echo "no \"$pattern\" in: $output"; return 1; }
}
while IFS='|' read -r what pattern flags; do
  read -ra flags <<<"$flags"
  check "refuses $what" refused "$pattern" "$chart" "${flags[@]}"
done <<'END'
an unknown key|additional properties 'replicaCount' not allowed|--set replicaCount=2
an unknown nested key|at '/image': additional properties 'pullpolicy' not allowed|--set image.pullpolicy=Always
an unknown key in a list|additional properties 'val' not allowed|--set extraEnv[0].name=A,extraEnv[0].val=b
a wrong type|at '/replicas': got string, want integer|--set-string replicas=2
a wrong type of a list|at '/outbound/deny': got string, want array|--set outbound.deny=10.0.0.0/8
a duration without unit|at '/orphanAfter'|--set-string orphanAfter=60
a user id below 10000|at '/runAs/user': minimum|--set runAs.user=0
too many workers|at '/workers': maximum|--set workers=257
a tag that is none|at '/image/tag'|--set image.tag=a:b
watchNamespace without clusterId|a name that no other cluster uses in File 360, because watchNamespace is set|--set watchNamespace=a
watchNamespace without clusterId, without the schema|watchNamespace needs clusterId: without cluster-scoped rights|--set watchNamespace=a --skip-schema-validation
replicas without leader election|at '/leaderElection/enabled': value must be true|--set leaderElection.enabled=false
replicas without leader election, without the schema|replicas above 1 need leaderElection.enabled|--set leaderElection.enabled=false --skip-schema-validation
two bundles|at '/ca/secret'|--set ca.configMap=a,ca.secret=b
two bundles, without the schema|ca.configMap and ca.secret exclude each other|--set ca.configMap=a,ca.secret=b --skip-schema-validation
an Ingress to nothing|at '/inbound|--set inbound.ingress.enabled=true
an Ingress to nothing, without the schema|inbound.ingress and inbound.httpRoute need inbound.enabled|--set inbound.ingress.enabled=true --skip-schema-validation
an HTTPRoute without a Gateway|at '/inbound/httpRoute/parentRefs'|--set inbound.enabled=true,inbound.httpRoute.enabled=true
an HTTPRoute without a Gateway, without the schema|inbound.httpRoute needs parentRefs|--set inbound.enabled=true,inbound.httpRoute.enabled=true --skip-schema-validation
one port for two|inbound.port and metrics.port are the same|--set inbound.enabled=true,inbound.port=8080
a public address that is none|at '/inbound/publicUrl'|--set inbound.publicUrl=files.example.com
a queue without a key|at '/queue/secretName'|--set queue.url=nats://nats:4222
a queue without a key, without the schema|queue.url needs queue.secretName|--set queue.url=nats://nats:4222 --skip-schema-validation
workers without a queue|at '/queue/url'|--set worker.replicas=2
workers without a queue, without the schema|worker.replicas needs queue.url|--set worker.replicas=2 --skip-schema-validation
a password without a user|needs queue.user|--set queue.url=nats://nats:4222,queue.secretName=a,queue.login=Password
a login that is none|at '/queue/login'|--set queue.login=Kerberos
an address with a password|at '/queue/url'|--set queue.url=nats://me:secret@nats:4222
a variable of the chart in extraEnv|extraEnv: FILE360_WORKERS belongs to the chart|--set extraEnv[0].name=FILE360_WORKERS,extraEnv[0].value=a
an older Kubernetes|incompatible with Kubernetes v1.32.9|--kube-version 1.32.9
END
check "file360-operator-crds refuses an unknown key" refused "additional properties 'keep' not allowed" "$crds_chart" --set keep=false

# --- Against what is generated from the code

check "copies of CRDs and rules are up to date" "$here/sync.sh" --check

# A changed, a missing and a superfluous file must each be noticed.
sync_notices() {
  local copy=$scratch/copy
  mkdir -p "$copy/tests"
  cp -r "$root"/{charts,config,crds} "$copy/"
  cp -r "$here" "$copy/tests/chart"
  "$copy/tests/chart/sync.sh" --check || return 1
  echo >>"$copy/charts/file360-operator/files/crds/file360.io_connections.yaml"
  rm "$copy/charts/file360-operator/files/cluster-rules.yaml"
  touch "$copy/charts/file360-operator-crds/files/crds/file360.io_nothing.yaml"
  [[ $("$copy/tests/chart/sync.sh" --check 2>&1 | grep -c 'charts/') == 3 ]] || { echo "not all three differences were named"; return 1; }
  "$copy/tests/chart/sync.sh" && diff -r "$root/charts" "$copy/charts"
}
check "sync.sh notices and repairs copies that differ" sync_notices

for file in manager-role worker-role leader-election-role; do to_json "$root/config/rbac/$file.yaml" | jq .rules >"$scratch/$file.json"; done
rules_of() { jq --arg kind "$2" --arg name "$3" 'select(.kind == $kind and .metadata.name == $name) | .rules' "$scratch/$1.json"; }
rules_equal() { # rendering, kind, name, generated file, jq filter for the generated rules
  same <(jq "$5 | sort" "$scratch/$4.json") <(rules_of "$1" "$2" "$3" | jq sort) # their order has no meaning
}
check "the ClusterRole has exactly the generated rules" \
  rules_equal default ClusterRole file360-operator manager-role .
check "the Role for one namespace has exactly these but those on what no namespace has" \
  rules_equal namespaced Role file360-operator manager-role 'map(select(.resources != ["namespaces"] and .apiGroups != ["admissionregistration.k8s.io"]))'
check "the workers' ClusterRole has exactly the generated rules" \
  rules_equal all ClusterRole tenant-sync-worker worker-role .
check "the workers' Role for one namespace has exactly these but those on namespaces" \
  rules_equal queue Role file360-operator-worker worker-role 'map(select(.resources != ["namespaces"]))'
check "the Role for leader election has exactly the generated rules" \
  rules_equal default Role file360-operator-leader-election leader-election-role .

crds_kept() { # rendering; the CRDs without what the chart adds are those of the code, and Helm keeps them
  local kept='select(.kind == "CustomResourceDefinition") | if .metadata.annotations["helm.sh/resource-policy"] == "keep" then . else error("\(.metadata.name) is not kept") end'
  same <(for file in "$root"/crds/file360.io_*.yaml; do to_json "$file"; done | jq -cS .) \
    <(jq -cS "$kept"' | del(.metadata.annotations["helm.sh/resource-policy"], .metadata.labels)
      | if .metadata.annotations == {} then del(.metadata.annotations) else . end' "$scratch/$1.json")
}
check "the chart renders the generated CRDs and keeps them" crds_kept default
check "the CRDs' chart renders the generated CRDs and keeps them" crds_kept crds

settings_known() { # subcommand, container: every setting of the program is rendered by some values, and no other
  same <("$operator" "$1" --help | grep -o 'env: FILE360_[A-Z_]*' | cut -c6- | sort -u) \
    <(jq -r --arg name "$2" 'select(.kind == "Deployment") | .spec.template.spec.containers[] | select(.name == $name) | .env[].name
        | select(startswith("FILE360_"))' "$scratch"/{all,namespaced,single,queue}.json | sort -u)
}
check "every setting of \`run\` can be set by a value" settings_known run operator
check "every setting of \`worker\` can be set by a value" settings_known worker worker

# Where the queue is, leader and workers are told in the same words.
same_queue() {
  local name
  told() {
    jq -S --arg name "$2" 'select(.kind == "Deployment") | .spec.template.spec | select(.containers[0].name == $name)
      | [(.containers[0].env[] | select(.name | test("^FILE360_(QUEUE(_NAME|_.*FILE|_USER|_TLS.*)?|CLUSTER_ID|NAMESPACE|FOLDERS)$"))),
         (.volumes[] | select(.name == "queue"))] | sort_by(.name)' "$scratch/$1.json"
  }
  for name in all single queue; do same <(told "$name" operator) <(told "$name" worker) || return 1; done
}
check "leader and workers are told the same about the queue" same_queue

hub_lists_crds() {
  for file in "$chart/Chart.yaml" "$crds_chart/Chart.yaml"; do
    to_json "$file" | jq -r '.annotations["artifacthub.io/crds"]' >"$scratch/hub.yaml"
    sed -i '1i crds:' "$scratch/hub.yaml"
    same <(for crd in "$root"/crds/file360.io_*.yaml; do to_json "$crd"; done |
      jq -r '.metadata.name as $name | .spec | "\(.names.kind) \(.versions[].name) \($name)"' | sort) \
      <(to_json "$scratch/hub.yaml" | jq -r '.crds[] | "\(.kind) \(.version) \(.name)"' | sort) || return 1
  done
}
check "the Artifact Hub annotations list exactly the CRDs" hub_lists_crds

# --- Chart and kustomize

check "kustomize builds config/default" build kustomize-default "$root/config/default"
check "kustomize builds config/namespaced" build kustomize-namespaced "$root/config/namespaced"

# Without what only Helm has, sorted by kind and name.
comparable() {
  jq -S 'select(.kind != "Namespace")
    | del(.metadata.labels["helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/version", "app.kubernetes.io/instance"],
          .metadata.annotations["helm.sh/resource-policy"])
    | if .kind == "CustomResourceDefinition" then del(.metadata.labels) else . end
    | if .metadata.annotations == {} then del(.metadata.annotations) else . end
    | if .kind == "Deployment" then .spec.template.spec |= (.volumes |= sort_by(.name)
        | .containers[] |= (.env |= sort_by(.name) | .ports |= sort_by(.name) | .volumeMounts |= sort_by(.name))) else . end' "$1" |
    jq -s 'sort_by(.kind, .metadata.name)[]'
}
default_equal() {
  helm template file360-operator "$chart" --namespace file360-system >"$scratch/equal.yaml" && to_json "$scratch/equal.yaml" >"$scratch/equal.json" &&
    to_json "$root/config/admission/approvals.yaml" >"$scratch/admission.json" &&
    cat "$scratch/kustomize-default.json" "$scratch/admission.json" >"$scratch/kustomize-both.json" &&
    same <(comparable "$scratch/equal.json") <(comparable "$scratch/kustomize-both.json")
}
check "config/default and config/admission are what the chart renders" default_equal

# The overlay takes both settings from the cluster: that is the only difference.
namespaced_equal() {
  local settings='if .kind == "Deployment" then .spec.template.spec.containers[].env |= map(if .name | IN("FILE360_NAMESPACE", "FILE360_CLUSTER_ID") then {name} else . end) else . end'
  helm template file360-operator "$chart" --namespace file360 --set watchNamespace=file360,clusterId=x >"$scratch/equal.yaml" &&
    to_json "$scratch/equal.yaml" >"$scratch/equal.json" &&
    same <(comparable "$scratch/equal.json" | jq "$settings") <(comparable "$scratch/kustomize-namespaced.json" | jq "$settings")
}
check "config/namespaced is what the chart renders with watchNamespace" namespaced_equal

component_equal() { # component, values: it does to the base what the values do to the chart
  mkdir -p "$scratch/with-$1"
  cp -r "$root/config" "$root/crds" "$scratch/with-$1/"
  printf 'namespace: file360-system\nresources: [config/default]\ncomponents: [config/%s]\n' "$1" >"$scratch/with-$1/kustomization.yaml"
  build "kustomize-$1" "$scratch/with-$1" &&
    helm template file360-operator "$chart" --namespace file360-system --set "$2" >"$scratch/$1.yaml" &&
    to_json "$scratch/$1.yaml" >"$scratch/$1.json" &&
    cat "$scratch/kustomize-$1.json" "$scratch/admission.json" >"$scratch/kustomize-both.json" &&
    same <(comparable "$scratch/$1.json") <(comparable "$scratch/kustomize-both.json")
}
check "config/inbound is what the chart renders with inbound.enabled" component_equal inbound inbound.enabled=true
check "config/workers is what the chart renders with a queue and workers" component_equal workers \
  queue.url=nats://nats.file360-system:4222,queue.secretName=file360-operator-queue,worker.replicas=2

moved() { # an overlay in another namespace takes everything along
  local base
  for base in default namespaced; do
    mkdir -p "$scratch/overlay"
    cp -r "$root/config" "$root/crds" "$scratch/overlay/"
    printf 'namespace: team-a\nresources: [config/%s]\nimages: [{name: file360-operator, newName: registry.example/f360}]\n' "$base" \
      >"$scratch/overlay/kustomization.yaml"
    build overlay "$scratch/overlay" || return 1
    ! grep -nE 'namespace: file360|name: file360-system' "$scratch/overlay.yaml" || return 1
    grep -qF 'image: registry.example/f360:' "$scratch/overlay.yaml" || return 1
  done
}
check "both bases move to another namespace and image" moved

# --- On a real API server

mkfifo "$scratch/commands"
exec 3<>"$scratch/commands"
"$bin/controlplane" up --bin "$bin" --dir "$scratch/plane" --fast <"$scratch/commands" >"$scratch/plane.out" 2>"$scratch/plane.err" 3>&- &
plane=$!
for _ in $(seq 600); do
  [[ ! -s $scratch/plane.out ]] && kill -0 "$plane" 2>/dev/null || break
  sleep 0.1
done
check "a control plane starts" grep -q '"ready":true' "$scratch/plane.out"

restricted() {
  kubectl create namespace "$1" &&
    kubectl label namespace "$1" pod-security.kubernetes.io/enforce=restricted pod-security.kubernetes.io/warn=restricted
}
check "namespaces demand restricted pods" eval 'restricted chart-test && restricted chart-test-leases && restricted file360 && restricted file360-system'

# The Gateway API as its project publishes it.
gateway_api() {
  local folder
  folder=$(cd "$scratch" && GOFLAGS=-mod=mod go mod download -json sigs.k8s.io/gateway-api@v1.4.0 | jq -re .Dir) &&
    kubectl apply --server-side -f "$folder/config/crd/standard/gateway.networking.k8s.io_httproutes.yaml" &&
    kubectl wait --for=condition=Established --timeout=30s crd/httproutes.gateway.networking.k8s.io
}
check "the Gateway API is there" gateway_api

accepted() { # the API server takes the manifests, and warns of nothing
  local output
  output=$(kubectl apply --server-side --dry-run=server --validate=strict -f "$1" 2>&1) || { echo "$output"; return 1; }
  ! grep -i warning <<<"$output"
}
for name in default namespaced all single queue inbound crds kustomize-default kustomize-namespaced kustomize-inbound workers kustomize-workers; do
  check "the API server accepts $name without a warning" accepted "$scratch/$name.yaml"
done

# scoped BOOLEAN: names of what the API server serves in namespaces (true) or not (false), as `group/plural kind`.
scoped() { kubectl api-resources --namespaced="$1" --no-headers | awk '{ split($(NF - 2), v, "/"); print (v[2] ? v[1] : "") "/" $1, $NF }'; }
no_cluster_scope() {
  scoped false | awk '{ print $2 }' | sort -u >"$scratch/cluster-kinds"
  [[ -s $scratch/cluster-kinds ]] && grep -qx CustomResourceDefinition "$scratch/cluster-kinds" && grep -qx ClusterRole "$scratch/cluster-kinds" &&
    ! jq -r .kind "$scratch/$1.json" | grep -xFf "$scratch/cluster-kinds"
}
check "for one namespace nothing is cluster-scoped" no_cluster_scope namespaced
check "a worker for one namespace needs nothing cluster-scoped" no_cluster_scope queue
check "config/namespaced has nothing cluster-scoped" no_cluster_scope kustomize-namespaced

check "helm installs into a restricted namespace" helm --kubeconfig "$scratch/plane/kubeconfig" install file360-operator "$chart" --namespace chart-test

eventually() {
  for _ in $(seq 150); do
    if "$@" >"$scratch/eventually" 2>&1; then return 0; fi
    sleep 0.2
  done
  cat "$scratch/eventually"
  return 1
}
has_pods() { [[ $(kubectl -n chart-test get pods --selector "app.kubernetes.io/instance=file360-operator" -o name | wc -l) == "$1" ]]; }
check "its pods are admitted" eventually has_pods 2
check "its CRDs are served" kubectl wait --for=condition=Established crd --all --timeout=20s

rules_in_scope() { # a Role can grant all manager rules, and none of the cluster rules
  local namespaced cluster
  namespaced=$(scoped true) cluster=$(scoped false)
  named() { to_json "$root/config/namespaced/role.yaml" | jq -r '.rules[] | .apiGroups[] as $group | .resources[] | "\($group)/\(split("/")[0])"' | sort -u; }
  while read -r resource; do
    grep -q "^$resource " <<<"$namespaced" || { echo "$resource is not in a namespace, or not served"; return 1; }
  done < <(named)
  [[ $(named | wc -l) -gt 3 ]] || return 1
  sed '1i rules:' "$chart/files/cluster-rules.yaml" >"$scratch/cluster-rules.yaml"
  while read -r resource; do
    grep -q "^$resource " <<<"$cluster" || { echo "$resource is not cluster-scoped"; return 1; }
  done < <(to_json "$scratch/cluster-rules.yaml" | jq -r '.rules[] | .apiGroups[] as $group | .resources[] | "\($group)/\(.)"')
}
check "rules are split by what a Role can grant" rules_in_scope

hub_examples() {
  to_json "$chart/Chart.yaml" | jq -r '.annotations["artifacthub.io/crdsExamples"]' | sed '1i examples:' >"$scratch/examples.yaml"
  to_json "$scratch/examples.yaml" | jq -c '.examples[] | .metadata.namespace = "chart-test"' >"$scratch/examples.json"
  [[ $(wc -l <"$scratch/examples.json") == "$(ls "$root"/crds/file360.io_*.yaml | wc -l)" ]] || { echo "not one example for each kind"; return 1; }
  local of_people=(kubectl apply --dry-run=server --validate=strict -f)
  jq -c 'select(.kind != "Approval")' "$scratch/examples.json" >"$scratch/examples-people.json"
  jq -c 'select(.kind == "Approval")' "$scratch/examples.json" >"$scratch/examples-operator.json"
  "${of_people[@]}" "$scratch/examples-people.json" || return 1
  # Approvals are made by the operator, and by nobody else.
  ! "${of_people[@]}" "$scratch/examples-operator.json" &&
    "${of_people[@]}" "$scratch/examples-operator.json" --as system:serviceaccount:chart-test:file360-operator
}
check "the Artifact Hub examples are valid, one for each kind" hub_examples

may() { kubectl auth can-i --quiet "$@"; }
may_not() { if may "$@"; then echo "may $*"; return 1; fi; }
people() {
  local role
  for role in view edit admin; do kubectl -n chart-test create rolebinding "$role" --clusterrole="$role" --user="$role" || return 1; done
  eventually may --as view -n chart-test list connections.file360.io &&
    eventually may --as edit -n chart-test create secureworkspaces.file360.io &&
    eventually may --as admin -n chart-test patch connections.file360.io &&
    may --as edit -n chart-test get connections.file360.io && may --as admin -n chart-test delete secureworkspaces.file360.io &&
    may_not --as view -n chart-test create secureworkspaces.file360.io && may_not --as edit -n chart-test patch connections.file360.io &&
    may_not --as admin -n chart-test patch secureworkspaces.file360.io --subresource=status && may_not --as view get secureworkspaces.file360.io
}
check "view reads, edit writes all but Connections, admin writes them, too" people

# --- The operator with these rights

# One GET; the answer's body, and failure for anything but 200.
get() {
  local answer
  exec 4<>"/dev/tcp/127.0.0.1/$1" || return 1
  printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&4
  answer=$(cat <&4)
  exec 4>&-
  echo "$answer"
  [[ $answer == HTTP/1.?\ 200* ]]
}
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# Starts the operator as the Deployment of a rendering would: its arguments, environment and ServiceAccount.
start_operator() { # rendering
  local token settings
  port=$(free_port)
  inbound_port=$(free_port)
  token=$(kubectl -n chart-test create token file360-operator) || return 1
  kubectl config view --raw --minify -o json | jq --arg token "$token" '.users[0].user = {token: $token} | .contexts[0].context.namespace = "chart-test"' \
    >"$scratch/operator.kubeconfig"
  mapfile -t settings < <(jq -r 'select(.kind == "Deployment") | .spec.template.spec.containers[0] | (.env[] | select(.value) | "\(.name)=\(.value)")' "$scratch/$1.json")
  if [[ " ${settings[*]}" == *" FILE360_INBOUND_ADDRESS="* ]]; then settings+=("FILE360_INBOUND_ADDRESS=127.0.0.1:$inbound_port"); fi
  mapfile -t arguments < <(jq -r 'select(.kind == "Deployment") | .spec.template.spec.containers[0].args[]' "$scratch/$1.json")
  env -i "${settings[@]}" POD_NAME=pod-0 KUBECONFIG="$scratch/operator.kubeconfig" FILE360_METRICS_ADDRESS="127.0.0.1:$port" \
    "$operator" "${arguments[@]}" >"$scratch/operator-$1.log" 2>&1 3>&- &
  running=$!
}
leads() { get "$port" /readyz && get "$port" /metrics | grep -E '_leader 1$'; }
reported() { [[ $(kubectl -n chart-test get connection "$1" -o jsonpath='{.status.observedGeneration}') == 1 ]]; }
works() { # rendering, connection: leads, and reports on a resource
  eventually leads || { tail -n 5 "$scratch/operator-$1.log"; return 1; }
  kubectl -n chart-test apply -f - <<END
apiVersion: v1
kind: Secret
metadata: {name: $2}
stringData: {endpoint: "https://203.0.113.1", token: nobody}
---
apiVersion: file360.io/v1alpha1
kind: Connection
metadata: {name: $2}
spec:
  endpoint: https://203.0.113.1
  auth: {token: {secretRef: {name: $2, key: token}}}
END
  # The address is refused at once, here as in a pod: only the report counts.
  eventually reported "$2" || { tail -n 5 "$scratch/operator-$1.log"; return 1; }
  kubectl -n chart-test get lease file360-operator || return 1
  ! grep -iE 'forbidden|cannot (get|list|watch|patch|create|update|delete) resource' "$scratch/operator-$1.log"
}
service_account=system:serviceaccount:chart-test:file360-operator
check_operator() { # rendering, connection, title
  start_operator "$1"
  check "$3" works "$1" "$2"
  kill "$running"
  wait "$running"
  check "  and it stops when asked" test $? = 0
  running=
}
deny_documentation_range() { # so that nothing leaves this machine
  jq -c 'if .kind == "Deployment" then .spec.template.spec.containers[0].env += [{name: "FILE360_OUTBOUND_DENY", value: "203.0.113.0/24"}] else . end' \
    "$scratch/$1.json" >"$scratch/$1-run.json"
}
deny_documentation_range default
check_operator default-run cluster-wide "the operator leads and reports with the rights of the ClusterRole"
deny_documentation_range inbound
start_operator inbound-run
# Which endpoints there are, no test has to know: that something speaks there does.
speaks() { { get "$inbound_port" /ingest/a/b || true; } | grep -E '^HTTP/1.. 405 '; }
check "the operator serves the inbound endpoint" eventually speaks
kill "$running"
wait "$running"
check "  and it stops when asked" test $? = 0
running=
check "it may not list Secrets" may_not --as "$service_account" -n chart-test list secrets
check "it may not touch roles" may_not --as "$service_account" create clusterroles.rbac.authorization.k8s.io

upgrade() {
  helm --kubeconfig "$scratch/plane/kubeconfig" upgrade file360-operator "$chart" --namespace chart-test --set commonLabels.team=platform &&
    same <(cd "$root/crds" && ls file360.io_*.yaml | wc -l) <(kubectl get crd --selector team=platform -o name | wc -l)
}
check "helm upgrades the CRDs, too" upgrade
uninstall() {
  helm --kubeconfig "$scratch/plane/kubeconfig" uninstall file360-operator --namespace chart-test &&
    kubectl get crd connections.file360.io secureworkspaces.file360.io && kubectl -n chart-test get connection cluster-wide &&
    [[ -z $(kubectl get clusterroles,clusterrolebindings,deployments,networkpolicies,services,pdb -A -l app.kubernetes.io/name=file360-operator -o name) ]]
}
check "helm uninstalls everything but CRDs and resources" uninstall

handed_over() {
  helm --kubeconfig "$scratch/plane/kubeconfig" install file360-operator-crds "$crds_chart" --namespace file360-system --take-ownership &&
    helm --kubeconfig "$scratch/plane/kubeconfig" install file360-operator "$chart" --namespace chart-test --values "$here/values/namespaced.yaml"
}
check "the CRDs' chart takes over, and the operator installs for one namespace" handed_over
deny_documentation_range namespaced
check_operator namespaced-run one-namespace "the operator leads and reports with the rights of the Role"
check "it may not read namespaces" may_not --as "$service_account" get namespaces
check "it may not read Secrets elsewhere" may_not --as "$service_account" -n file360 get secrets

echo "$passed passed, $failed failed"
[[ $failed == 0 ]]
