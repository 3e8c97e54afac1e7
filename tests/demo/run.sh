#!/usr/bin/env bash
# The demo: a real Kubernetes API server, the embedded File 360 and the operator on this machine, nothing else.
# Ends with a non-zero status when anything is not as the manifests declare. FILE360_OPENSEARCH_URL names a real OpenSearch for the
# search index; without it a small counterpart plays one.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d "${TMPDIR:-/tmp}/file360-demo.XXXXXX")
bold() { if [ -t 1 ]; then printf '\033[1m%s\033[0m\n' "$*"; else printf '%s\n' "$*"; fi; }
say() { printf '\n'; bold "── $*"; }
fail() {
  printf '\nThe demo failed: %s\n' "$*" >&2
  for log in "$work"/*.log; do [ -s "$log" ] && { printf '\nLast lines of %s:\n' "${log##*/}" >&2; tail -n 15 "$log" >&2; }; done
  exit 1
}
pids=()
stop() {
  trap - EXIT INT TERM
  exec 3>&- 2>/dev/null || true
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT TERM
# Repeats a check until it holds; the second argument says what is waited for.
await() {
  local seconds=$1 what=$2; shift 2
  local end=$((SECONDS + seconds))
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || fail "$what did not happen within $seconds seconds"
    sleep 0.2
  done
}
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

say "Building (the first time takes a while)"
cargo build --quiet --bins
operator=${CARGO_TARGET_DIR:-target}/debug/file360-operator
bin=$(tests/controlplane/build.sh)
counterparts=$(tests/counterparts/build.sh versitygw)
kubectl() { "$bin/kubectl" --kubeconfig "$work/admin.kubeconfig" "$@"; }
file360() { KUBECONFIG=$work/admin.kubeconfig PATH=$bin:$PATH "${operator%/*}/kubectl-file360" "$@"; }

say "Starting a Kubernetes control plane, the embedded File 360 and the operator"
mkfifo "$work/control"
exec 3<>"$work/control"
"$bin/controlplane" up --bin "$bin" --dir "$work/controlplane" <&3 >"$work/controlplane.log" 2>&1 &
pids+=($!)
await 120 "the control plane's start" grep -q '"ready":true' "$work/controlplane.log"
cp "$work/controlplane/kubeconfig" "$work/admin.kubeconfig"

file360=http://127.0.0.1:$(free_port)
"$operator" serve --listen "${file360#http://}" --data-dir "$work/file360" --seed config/demo/seed.yaml >"$work/file360.log" 2>&1 &
pids+=($!)
await 20 "the embedded File 360's start" curl -fsS "$file360/healthz"

kubectl apply --server-side -k config/crd >/dev/null
kubectl wait --for=condition=Established --timeout=30s crd/connections.file360.io crd/secureworkspaces.file360.io >/dev/null
# The operator runs with its own ServiceAccount and the generated role, not as an administrator.
kubectl create namespace file360-operator >/dev/null
kubectl apply -f config/rbac/manager-role.yaml >/dev/null
kubectl apply -n file360-operator -f config/rbac/leader-election-role.yaml >/dev/null
kubectl create serviceaccount -n file360-operator file360-operator >/dev/null
kubectl create clusterrolebinding file360-operator --clusterrole file360-operator \
  --serviceaccount file360-operator:file360-operator >/dev/null
kubectl create rolebinding -n file360-operator file360-operator --role file360-operator-leader-election \
  --serviceaccount file360-operator:file360-operator >/dev/null
cp "$work/admin.kubeconfig" "$work/operator.kubeconfig"
user=$(kubectl config view -o jsonpath='{.contexts[0].context.user}')
"$bin/kubectl" --kubeconfig "$work/operator.kubeconfig" config set-credentials "$user" \
  --token "$(kubectl create token -n file360-operator file360-operator --duration 24h)" >/dev/null
metrics=127.0.0.1:$(free_port)
inbound=127.0.0.1:$(free_port)
KUBECONFIG=$work/operator.kubeconfig "$operator" run --metrics-address "$metrics" --lease-namespace file360-operator \
  --inbound-address "$inbound" --public-url "http://$inbound" --outbound-allow 127.0.0.1 >"$work/operator.log" 2>&1 &
pids+=($!)
await 30 "the operator's start" curl -fsS "http://$metrics/readyz"

say "Applying the samples"
tomorrow=$(date -u -d tomorrow +%F) today=$(date -u +%F)
for namespace in procurement sales engineering pricing; do
  kubectl create namespace "$namespace" >/dev/null
  kubectl label namespace "$namespace" file360.io/tenant=true >/dev/null
done
kubectl create namespace file360 >/dev/null
for sample in connection vendor-onboarding deal-room project; do
  sed -e "s#http://127.0.0.1:8360#$file360#" -e "s#until: \"2026-12-31\"#until: \"$tomorrow\"#" "config/samples/$sample.yaml" | kubectl apply -f -
done
kubectl wait --for=condition=Ready --timeout=30s -n file360 connection/file360 >/dev/null || fail "the Connection is not ready"
for workspace in procurement/acme-onboarding sales/project-falcon engineering/bridge-renewal; do
  kubectl wait --for=condition=Ready --timeout=30s -n "${workspace%/*}" "sws/${workspace#*/}" >/dev/null || fail "$workspace is not ready"
done
kubectl get connections,secureworkspaces -A

# People's own client: what they do in File 360's user interface.
token=$(curl -fsS -u people:demo-only-people-secret -d grant_type=client_credentials -d 'scope=read write share' "$file360/oauth2/token" | jq -r .access_token)
as_people() { curl -fsS -H "Authorization: Bearer $token" "$@"; }
workspace_id() { kubectl get sws -n "$1" "$2" -o jsonpath='{.status.workspaceId}'; }
at() { as_people -G --data-urlencode "path=$2" "$file360/v1/workspaces/$1/resolve"; }
members() { as_people "$file360/v1/workspaces/$1/members" | jq -r '.items[] | "\(.kind) \(.name) \(.role) \(.path)"' | sort; }

say "An outsider uploads through the address in Secret procurement/acme-upload, without an account"
printf '%%PDF-1.7 certificate of Acme\n' >"$work/iso9001.pdf"
head -c 3000000 /dev/urandom >"$work/photos.zip"
upload_url=$(kubectl get secret -n procurement acme-upload -o jsonpath='{.data.url}' | base64 -d)
acme=$(workspace_id procurement acme-onboarding)
for file in iso9001.pdf photos.zip; do
  kind=other; [ "$file" = iso9001.pdf ] && kind=iso9001
  curl -fsS -H 'Accept: application/json' -F "documentType=$kind" -F "issuedOn=$today" -F "file=@$work/$file" "$upload_url/files" >/dev/null ||
    fail "the upload of $file was refused"
done
inbox=$(as_people "$file360/v1/workspaces/$acme/resolve?path=/Inbox" | jq -r .id)
as_people "$file360/v1/items/$inbox/children" >"$work/inbox.json"
jq -r '.items[] | "   \(.path)  \(.size) bytes  documentType=\(.metadata.documentType)  sha256=\(.sha256[0:16])…"' "$work/inbox.json"
for file in iso9001.pdf photos.zip; do
  want=$(sha256sum "$work/$file" | cut -d' ' -f1)
  have=$(jq -r --arg name "$file" '.items[] | select(.name == $name) | .sha256' "$work/inbox.json")
  [ "$want" = "$have" ] || fail "$file did not arrive as it was sent"
done

say "Which of the vendor's documents count, and which are missing"
requirement() { kubectl get sws -n procurement acme-onboarding -o json | jq -r --arg name "$1" '.status.requirements[] | select(.name == $name)'; }
is() { [ "$(requirement "$1" | jq -r .state)" = "$2" ]; }
await 20 "the certificate in review" is iso9001 InReview
# What a document does not accept is refused before anything is kept.
curl -sS -o /dev/null -w '%{http_code}' -H 'Accept: application/json' -F documentType=nda -F "file=@$work/photos.zip;type=application/zip" \
  "$upload_url/files" | grep -q '^4' || fail "an archive was taken for a non-disclosure agreement"
file360 missing -n procurement && fail "nothing is missing"
for name in insurance nda; do
  printf '%%PDF-1.7 %s of Acme\n' "$name" >"$work/$name.pdf"
  curl -fsS -H 'Accept: application/json' -F "documentType=$name" -F "expiryDate=$tomorrow" -F "file=@$work/$name.pdf" "$upload_url/files" >/dev/null
  await 20 "$name in review" is "$name" InReview
done
for name in iso9001 insurance nda; do
  file360 documents approve -n procurement acme-onboarding "$name" --file "$(requirement "$name" | jq -r .fileId)" \
    --version "$(requirement "$name" | jq -r .version)" >/dev/null
done
kubectl wait --for=condition=DocumentsComplete --timeout=30s -n procurement sws/acme-onboarding >/dev/null || fail "documents are missing"
is insurance ExpiringSoon || fail "an insurance that ends tomorrow does not expire soon"
is bank-details Waived || fail "the bank details are waived until tomorrow"
is w9 NotApplicable || fail "a vendor in the EU is asked for a W-9"
kubectl get sws -n procurement acme-onboarding
file360 missing -n procurement --expiring

say "Files move: claims go to a case system and an S3 archive by what they are, invoices from a bucket to the customer with a link"
mkdir "$work/cases"
cases=$(free_port)
tests/demo/case_system.py "$cases" "$work/cases" &
pids+=($!)
# The archive and the billing system's bucket are in one S3 server.
s3=$(free_port)
mkdir -p "$work/s3/claims" "$work/s3/billing/final"
"$counterparts/versitygw" --access demo-only-key --secret demo-only-secret --region eu-central-1 --quiet --keep-alive \
  --port "127.0.0.1:$s3" posix "$work/s3" >"$work/s3.log" 2>&1 &
pids+=($!)
for sample in claims-route publish-invoices; do
  sed -e "s#https://cases.example.com#http://127.0.0.1:$cases#" -e "s#https://s3.example.com#http://127.0.0.1:$s3#" \
    -e 's#allowedHosts: .*#allowedHosts: 127.0.0.1#' -e 's#every: 10s#every: 1s#' \
    "config/samples/$sample.yaml" | kubectl apply -f -
done
for route in procurement/claims sales/publish-invoices; do
  kubectl wait --for=condition=Ready --timeout=30s -n "${route%/*}" "froute/${route#*/}" >/dev/null || fail "$route does not run"
done
for workspace in procurement/supplier-claims sales/customer-acme; do
  kubectl wait --for=condition=Ready --timeout=30s -n "${workspace%/*}" "sws/${workspace#*/}" >/dev/null || fail "$workspace is not ready"
done
claim_url() { kubectl get secret -n procurement claim-upload -o jsonpath='{.data.url}' | base64 -d; }
has_claim_url() { [ -n "$(claim_url 2>/dev/null)" ]; }
await 10 "the address for claims" has_claim_url
head -c 200000 /dev/urandom >"$work/dent.jpg"
printf 'what happened\n' >"$work/letter.txt"
curl -fsS -H 'Accept: application/json' -F documentType=photo -F claimId=4711 -F "file=@$work/dent.jpg;type=image/jpeg" "$(claim_url)/files" >/dev/null
curl -fsS -H 'Accept: application/json' -F documentType=other -F "file=@$work/letter.txt;type=text/plain" "$(claim_url)/files" >/dev/null
photo_arrived() { ls "$work/cases" | grep -q 4711_photos && cmp -s "$work/dent.jpg" "$work"/cases/*4711_photos; }
await 20 "the photo at the case system" photo_arrived
archived() { cmp -s "$work/dent.jpg" "$work/s3/claims/claims/4711/1-dent.jpg"; }
await 20 "the photo in the archive" archived
claims=$(workspace_id procurement supplier-claims)
labelled() { at "$claims" /Inbox/dent.jpg | jq -e '.metadata | .routedTo == "cases" and .caseRef == "CASE-1"' >/dev/null; }
await 20 "the case's number on the photo" labelled
unrouted() { at "$claims" /Unrouted/letter.txt >/dev/null 2>&1; }
await 20 "the letter among what nobody takes" unrouted
printf '%%PDF-1.7 invoice 2027-123\n' >"$work/out-123.pdf"
# The document of metadata comes last; until then the invoice waits.
put() {
  curl -fsS -X PUT --aws-sigv4 aws:amz:eu-central-1:s3 --user demo-only-key:demo-only-secret --data-binary "@$1" \
    -H "x-amz-content-sha256: $(sha256sum "$1" | cut -d' ' -f1)" "http://127.0.0.1:$s3/billing/final/$2" >/dev/null
}
put "$work/out-123.pdf" 123.pdf
year=$(date -u +%Y)
printf '{"documentType": "invoice", "number": "2027-123", "year": "%s", "customer": "acme", "contact": "bob@acme.example"}' "$year" >"$work/123.json"
put "$work/123.json" 123.json
customer=$(workspace_id sales customer-acme)
invoice="/Invoices/$year/invoice-2027-123.pdf"
published() { [ "$(at "$customer" "$invoice" 2>/dev/null | jq -r .sha256)" = "$(sha256sum "$work/out-123.pdf" | cut -d' ' -f1)" ]; }
await 20 "the invoice in the customer's workspace" published
shared() { as_people "$file360/v1/workspaces/$customer/links" | jq -e '.items | length == 1 and .[0].audience == "Guests" and (.[0].recipients | length == 1)' >/dev/null; }
await 20 "the link for the customer's contact" shared
at "$claims" /Inbox/dent.jpg | jq -r '"   \(.path)  -> case system, \(.metadata.caseRef); archive, claims/4711/1-dent.jpg"'
at "$claims" /Unrouted/letter.txt | jq -r '"   \(.path)  (no rule takes it)"'
at "$customer" "$invoice" | jq -r '"   \(.path)  -> published from the bucket, shared with bob@acme.example"'
# Delivered, unmatched, failed. Numbers alone are written once a minute; a request to reconcile brings them at once.
account() {
  kubectl annotate --overwrite -n "$1" "froute/$2" "reconcile.file360.io/requestedAt=$RANDOM" >/dev/null
  kubectl get froute -n "$1" "$2" -o jsonpath='{.status.counts.delivered}/{.status.counts.unmatched}/{.status.counts.failed}'
}
accounted() { [ "$(account procurement claims)" = 2/1/0 ] && [ "$(account sales publish-invoices)" = 1/0/0 ]; }
await 20 "the routes' own accounts" accounted
kubectl get fileroutes -A

say "A deal that is won in the CRM becomes a deal room, and the CRM learns where it is"
business=$(free_port)
mkdir "$work/business"
printf '[{"id": "006-1", "account": "Globex", "amount": 120000, "region": "EU", "owner": "alice"}]' >"$work/business/won.json"
tests/demo/business_systems.py "$business" "$work/business" &
pids+=($!)
apply_business() {
  sed -e "s#https://[a-z]*.example.com/api#http://127.0.0.1:$business/api#" -e 's#allowedHosts: [a-z.]*#allowedHosts: 127.0.0.1#' \
    -e "s#every: 5m#every: 1s#" "config/samples/$1.yaml" | kubectl apply -f -
}
apply_business won-deals
rooms() { kubectl get sws -n sales -l type=deal -o json | jq -r '.items[] | select(.status.conditions[]? | .type == "Ready" and .status == "True") | .spec.displayName' | sort; }
has_room() { rooms | grep -qx "$1 - deal room"; }
await 30 "the deal room of Globex" has_room Globex
# The other way: the CRM says so itself. The child is there before the answer is.
sign() { printf '%s.%s.%s' "$1" "$2" "$3" | openssl dgst -sha256 -hmac "$4" -binary | base64; }
send() {
  local url=$1 key=$2 body=$3 type=$4 id timestamp
  id=msg_$(openssl rand -hex 16) timestamp=$(date +%s)
  curl -fsS "$url" --data-binary "$body" -H "webhook-id: $id" -H "webhook-timestamp: $timestamp" \
    -H "webhook-signature: v1,$(sign "$id" "$timestamp" "$body" "$key")" -H "Content-Type: $type"
}
secret() { kubectl get secret -n "$1" "$2" -o json | jq -r ".data[\"$3\"]" | base64 -d; }
won='{"specversion": "1.0", "id": "1", "source": "/crm", "type": "com.example.crm.opportunity.won",
  "data": {"id": "006-2", "account": "Initech", "amount": 80000, "owner": "alice"}}'
send "http://$inbound/events/sales/deals" "$(secret sales crm-events 2026-11)" "$won" application/cloudevents+json | grep -q '"created"' ||
  fail "the event made no deal room"
await 30 "the deal room of Initech" has_room Initech
rooms | sed 's/^/   /'
kubectl get secureworkspacesets -n sales
apply_business reporting-deal
crm_knows() { jq -e '.dealRoom | startswith("http")' "$work/business/deal-006-4712.json"; }
await 30 "the address of the deal room in the CRM" crm_knows
jq -r '"   the CRM about 006-4712: deal room \(.dealRoom) (\(.what))"' "$work/business/deal-006-4712.json"

say "A price list is seen by nobody before two people said yes in the ticket system"
apply_business pricing-approvals
kubectl wait --for=condition=Ready --timeout=30s -n pricing sws/price-lists froute/price-lists >/dev/null || fail "the gate is not in place"
prices=$(workspace_id pricing price-lists)
alice=$(as_people -G -d kind=User -d name=alice "$file360/v1/principals" | jq -r '.items[0].id')
acting=$(curl -fsS -u people:demo-only-people-secret -d grant_type=client_credentials -d 'scope=read write admin' "$file360/oauth2/token" | jq -r .access_token)
as_alice() { curl -fsS -H "Authorization: Bearer $acting" -H "On-Behalf-Of: $alice" "$@"; }
printf 'everything is cheaper\n' >"$work/prices.csv"
list=$(as_alice -X POST -H 'Content-Type: text/csv' -H 'Idempotency-Key: demo-prices' --data-binary "@$work/prices.csv" -g \
  "$file360/v1/items/$(at "$prices" /Inbox | jq -r .id)/files?name=prices.csv&metadata[documentType]=price-list" | jq -r .id)
await 20 "the ticket" test -s "$work/business/ticket-1.json"
jq -r '"   ticket 1: \(.title), from \(.requester)"' "$work/business/ticket-1.json"
visible() { as_alice -o /dev/null "$file360/v1/items/$list/content" 2>/dev/null; }
vote() {
  local url approval
  url=$(jq -r .callback "$work/business/ticket-1.json") approval=pricing/${url##*/}
  send "$url" "$(secret pricing tickets-callback current)" "{\"approval\": \"$approval\", \"decision\": \"Approved\", \"by\": \"$1\"}" application/json
}
visible && fail "the price list is visible before anybody decided"
vote bruno@corp.example >/dev/null
counted() { kubectl get approvals -n pricing -o json | jq -e '.items[0].status.summary | startswith("1")'; }
await 20 "the first of two approvals" counted
visible && fail "the price list is visible after one of two approvals"
ls "$work/business" | grep -q price-list && fail "the ERP system has the price list before it was approved"
vote chiara@corp.example >/dev/null
in_erp() { cmp -s "$work/prices.csv" "$work/business/price-list-1"; }
await 30 "the price list in the ERP system" in_erp
visible || fail "the price list is not visible after its approval"
kubectl get approvals -n pricing

say "Engineering documents become findable for those who may read them; the files stay where they are"
search=${FILE360_OPENSEARCH_URL:-http://127.0.0.1:$(free_port)}
if [ -z "${FILE360_OPENSEARCH_URL-}" ]; then
  tests/demo/search_index.py "${search##*:}" &
  pids+=($!)
fi
bridge=$(workspace_id engineering bridge-renewal)
drawings=$(at "$bridge" /Drawings | jq -r .id)
for drawing in pier-7 pier-8; do
  printf 'the drawing of %s' "$drawing" | as_people -X POST -H 'Content-Type: application/acad' -H "Idempotency-Key: demo-$drawing" --data-binary @- -g \
    "$file360/v1/items/$drawings/files?name=$drawing.dwg&metadata[drawingNumber]=BR-$drawing" >/dev/null
done
sed -e "s#https://search.example.com:9200#$search#" -e "s#allowedHosts: search.example.com#allowedHosts: 127.0.0.1#" \
  config/samples/engineering-documents.yaml | kubectl apply -f -
kubectl wait --for=condition=Ready --timeout=30s -n engineering froute/engineering-documents >/dev/null || fail "engineering-documents does not run"
# What a search finds for somebody: by themselves and their groups, as docs/search-indexes.md says.
found_by() {
  local principals; principals=$(jq -cn '$ARGS.positional' --args "$@")
  curl -fsS -X POST "$search/engineering-documents/_refresh" >/dev/null || return 1
  curl -fsS -X POST "$search/engineering-documents/_search" -H 'Content-Type: application/json' -d "{\"query\": {\"bool\": {
    \"filter\": [{\"terms\": {\"acl.allow\": $principals}}],
    \"must_not\": [{\"terms\": {\"acl.deny\": $principals}}, {\"term\": {\"deleted\": true}}]}}}" | jq -r '[.hits.hits[]._source.name] | sort | join(" ")'
}
finds() { local names=$1; shift; [ "$(found_by "$@")" = "$names" ]; }
await 30 "both drawings in the search of bruno" finds "pier-7.dwg pier-8.dwg" user:bruno group:engineering
finds "" user:alice group:sales || fail "alice finds what she may not read"
printf '   bruno of engineering finds: %s\n   alice of sales finds nothing\n' "$(found_by user:bruno group:engineering)"
# Somebody is let in by hand, and a drawing is deleted: the index follows.
id_of() { as_people -G --data-urlencode "kind=$1" --data-urlencode "name=$2" "$file360/v1/principals" | jq -r '.items[0].id'; }
as_people -X PUT -H 'Content-Type: application/json' -d '{"role":"Viewer"}' \
  "$file360/v1/workspaces/$bridge/members/$(id_of User alice)?path=/" >/dev/null
await 30 "both drawings in the search of alice" finds "pier-7.dwg pier-8.dwg" user:alice group:sales
as_people -X DELETE -H 'If-Match: *' "$file360/v1/items/$(at "$bridge" /Drawings/pier-8.dwg | jq -r .id)" >/dev/null
await 30 "the deleted drawing out of the search" finds "pier-7.dwg" user:alice group:sales
printf '   alice was let in by hand and finds what is left: %s\n' "$(found_by user:alice group:sales)"

say "Somebody tampers with the deal room: mallory becomes owner, sales is thrown out"
falcon=$(workspace_id sales project-falcon)
members "$falcon" >"$work/before.txt"
as_people -X PUT -H 'Content-Type: application/json' -d '{"role":"Owner"}' \
  "$file360/v1/workspaces/$falcon/members/$(id_of User mallory)?path=/" >/dev/null
as_people -X DELETE "$file360/v1/workspaces/$falcon/members/$(id_of Group sales)?path=/" >/dev/null
as_it_was() { members "$falcon" >"$work/after.txt"; cmp -s "$work/before.txt" "$work/after.txt"; }
await 10 "the correction of the deal room's members" as_it_was
sed 's/^/   /' "$work/after.txt"
reported() { kubectl get events -n sales --field-selector reason=DriftCorrected -o name | grep -q .; }
await 10 "the report of the correction" reported
kubectl get events -n sales --field-selector reason=DriftCorrected --no-headers -o custom-columns=MESSAGE:.message | sed 's/^/   /'

say "The vendor's onboarding ends: the resource is deleted, outsiders lose access, the content stays"
kubectl delete sws -n procurement acme-onboarding --timeout=30s
members "$acme" >"$work/acme.txt"
grep -q '^Guest' "$work/acme.txt" && fail "a guest still has access"
curl -fsS -o /dev/null "$upload_url" 2>/dev/null && fail "the upload address still works"
as_people "$file360/v1/items/$inbox/children" | jq -e '.items | length == 4' >/dev/null || fail "the content is gone"
sed 's/^/   /' "$work/acme.txt"

say "How it ended"
kubectl get connections,secureworkspaces,secureworkspacesets,fileroutes,approvals -A -o wide
printf '\n'
cat <<TEXT
What you just saw
  • Three manifests became three workspaces in File 360: folders, members, grants, sharing rules, an upload address.
  • An outsider uploaded two files without an account; what the form asked for became their metadata.
  • Files went where rules say; a search index got what is known about drawings and who may read them, and followed both.
  • The vendor's documents were asked for, refused, reviewed and counted; DocumentsComplete is a condition to wait for.
  • Won deals became deal rooms, by listing and by event, and the CRM was told where one is.
  • A price list stayed invisible until two people had approved it in the ticket system; then it went to the ERP system.
  • A change made behind the operator's back was seen through the change feed, put right, and reported with its author.
  • Deleting a resource ended the outsiders' access first and kept the content (deletionPolicy: Retain).
  • The connector contract is this project's own: File 360 publishes no API. See docs/contract.md.
TEXT
if [ -t 0 ] && [ -t 1 ]; then
  cat <<TEXT

It keeps running. In another terminal:
  export KUBECONFIG=$work/admin.kubeconfig PATH=$bin:$PWD/${operator%/*}:\$PATH
  kubectl get sws -A; kubectl explain sws.spec; kubectl file360 status -n sales project-falcon
Ctrl-C ends everything.
TEXT
  while sleep 3600; do :; done
fi
