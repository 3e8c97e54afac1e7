#!/usr/bin/env bash
# Builds the control plane and checks what its users rely on. Prints what a start costs on this machine.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=$("$here/build.sh")
scratch=$(mktemp -d)
export TMPDIR=$scratch
supervisor=
passed=0

stop_all() {
  [[ -z $supervisor ]] || kill "$supervisor" 2>/dev/null || true
  rm -rf "$scratch"
}
trap stop_all EXIT

fail() { echo "FAILED: $*" >&2; exit 1; }
pass() { passed=$((passed + 1)); echo "ok $passed: $*"; }
field() { sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p" <<<"$2"; }
kubectl() { "$bin/kubectl" --kubeconfig "$kubeconfig" --request-timeout=20s "$@"; }

# Starts a control plane with the given flags; its answer is in $ready.
up() {
  coproc PLANE { exec "$bin/controlplane" up "$@"; }
  supervisor=$PLANE_PID
  disown "$supervisor" # bash would report its death, which is part of the test
  exec {to}>&"${PLANE[1]}" {from}<&"${PLANE[0]}"
  exec {PLANE[1]}>&- {PLANE[0]}<&-
  read -r -t 180 ready <&"$from" || fail "it did not start"
  kubeconfig=$(field kubeconfig "$ready")
  children=("$(field etcd "$ready")" "$(field kube-apiserver "$ready")" "$(field kube-controller-manager "$ready")")
}

# Sends one command; its answer is in $reply.
ask() {
  echo "$*" >&"$to"
  read -r -t 180 reply <&"$from" || fail "no answer to: $*"
}

must() {
  ask "$@"
  [[ $reply == '{"ok":true,'* ]] || fail "$* was answered with $reply"
}

close_pipes() { exec {to}>&- {from}<&-; }

is_alive() { [[ -n $1 && -r /proc/$1/stat ]] && [[ $(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null) =~ ^[^ZX]$ ]]; }

nothing_survives() {
  local pid
  for pid in "$supervisor" "${children[@]}"; do
    for _ in $(seq 100); do
      is_alive "$pid" || continue 2
      sleep 0.05
    done
    fail "process $pid survived: $(tr '\0' ' ' <"/proc/$pid/cmdline" | cut -c1-80)"
  done
  supervisor=
}

until_true() {
  for _ in $(seq 300); do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 0.1
  done
  fail "never true: $*"
}

up --bin "$bin" --audit-log "$scratch/audit.log"
dir=$(field dir "$ready")
[[ $(stat -c %a "$kubeconfig") == 600 ]] || fail "the kubeconfig is not private"
kubectl get namespace default >/dev/null
pass "starts in $(field seconds "$ready") s, kubectl get ns answers"
sum=0
for pid in "$supervisor" "${children[@]}"; do
  rss=$(awk '$1 == "VmRSS:" { print int($2 / 1024) }' "/proc/$pid/status")
  printf '   %-24s %4d MB\n' "$(cat "/proc/$pid/comm")" "$rss"
  sum=$((sum + rss))
done
printf '   %-24s %4d MB\n' together "$sum"

kubectl create namespace one >/dev/null
kubectl -n one create deployment web --image=none --replicas=2 >/dev/null
has_pods() { [[ $(kubectl -n one get pods -o name | wc -l) == 2 ]]; }
until_true has_pods
kubectl -n one create token default >/dev/null
kubectl -n one create service clusterip web --tcp=80 >/dev/null
kubectl -n one create -f - >/dev/null <<'END'
{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
 "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
END
kubectl delete namespace one --wait --timeout=60s >/dev/null
pass "a Deployment gets pods, a ServiceAccount a token, and a deleted namespace goes away"

token=$(kubectl -n default create token default)
sed "s/token: .*/token: $token/" "$kubeconfig" >"$scratch/default.kubeconfig"
if kubectl --kubeconfig "$scratch/default.kubeconfig" get secrets >/dev/null 2>&1; then
  fail "a ServiceAccount without a role reads secrets"
fi
grep -q '"username":"system:serviceaccount:default:default"' "$scratch/audit.log" || fail "the audit log lacks the refused request"
pass "RBAC refuses a ServiceAccount without a role, and the audit log has it"

kubectl create configmap kept >/dev/null
must stop etcd
[[ -z $(field etcd "$reply") ]] || fail "etcd is still listed: $reply"
must start etcd
must restart kube-apiserver
restarted=$(field seconds "$reply")
[[ $(field kube-apiserver "$reply") != "${children[1]}" ]] || fail "the API server was not restarted"
kubectl get configmap kept >/dev/null
children+=("$(field etcd "$reply")" "$(field kube-apiserver "$reply")")
pass "etcd stops and starts, the API server restarts in $restarted s, and the data is still there"

must pause kube-apiserver
if kubectl --request-timeout=1s get namespaces >/dev/null 2>&1; then fail "a paused API server answers"; fi
must resume kube-apiserver
kubectl get namespaces >/dev/null
must pause kube-controller-manager
must restart kube-controller-manager
children+=("$(field kube-controller-manager "$reply")")
ask stop nonsense
[[ $reply == '{"ok":false,'*nonsense* ]] || fail "an unknown program was accepted: $reply"
must pids
pass "pause, resume, refusals and pids"

close_pipes
nothing_survives
[[ ! -e $dir ]] || fail "$dir was left behind"
pass "when stdin closes nothing survives, the folder neither"

up --bin "$bin" --fast
pass "starts in $(field seconds "$ready") s with --fast"
dir=$(field dir "$ready")
kill -9 "$supervisor"
nothing_survives
close_pipes
touch -d '1 minute ago' "$dir"
pass "when the supervisor is killed no child survives"

mkdir "$scratch/kept"
up --bin "$bin" --dir "$scratch/kept"
[[ ! -e $dir ]] || fail "the folder of the killed one was not swept away"
kubectl create configmap kept >/dev/null
must shutdown
nothing_survives
close_pipes
up --bin "$bin" --dir "$scratch/kept" --controller-manager=false
kubectl get configmap kept >/dev/null
kubectl get serviceaccount default >/dev/null
[[ $ready != *kube-controller-manager* ]] || fail "the controller manager runs although it should not"
kill -TERM "$supervisor"
nothing_survives
close_pipes
[[ -d $scratch/kept/etcd ]] || fail "a folder of the caller's was removed"
pass "a folder of the caller's keeps its data, SIGTERM stops all"

mkdir "$scratch/bin"
ln -s "$bin"/* "$scratch/bin/"
rm "$scratch/bin/etcd"
cat >"$scratch/bin/etcd" <<END
#!/bin/sh
test -e "$scratch/tried" && exec "$bin/etcd" "\$@"
touch "$scratch/tried"
echo "listen tcp 127.0.0.1:1: bind: address already in use"
exit 1
END
chmod +x "$scratch/bin/etcd"
up --bin "$scratch/bin" --fast 2>"$scratch/stderr"
grep -q "trying others" "$scratch/stderr" || fail "it did not say that a port was taken"
must shutdown
nothing_survives
close_pipes
pass "a taken port means another try"

printf '#!/bin/sh\necho something is odd\nexit 3\n' >"$scratch/bin/etcd"
mkfifo "$scratch/fifo"
exec {open}<>"$scratch/fifo" # both ends in one hand: a stdin that never ends
status=0
"$bin/controlplane" up --bin "$scratch/bin" <&"$open" >"$scratch/stdout" 2>"$scratch/stderr" || status=$?
exec {open}>&-
((status == 1)) && grep -q "exit status 3" "$scratch/stderr" && grep -q "something is odd" "$scratch/stderr" ||
  fail "a program that dies early is not explained: $(cat "$scratch/stderr")"
if "$bin/controlplane" up --bin "$bin" </dev/null 2>"$scratch/stderr"; then fail "it started without stdin"; fi
grep -q "keep it open" "$scratch/stderr" || fail "a missing stdin is not explained: $(cat "$scratch/stderr")"
pass "a program that dies early and a missing stdin are explained"

compgen -G "$scratch/file360-controlplane-*" >/dev/null && fail "folders were left behind"
echo "$passed passed"
