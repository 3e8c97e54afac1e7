//! Every reason that a condition can have, what it means and what to do next. `docs/reasons.md` lists the same reasons.

use super::object::{Condition, Kind, Seen};

/// One reason of one condition.
pub struct Entry {
    kind: Kind,
    condition: &'static str,
    reason: &'static str,
    /// What it means.
    pub cause: &'static str,
    next: &'static str,
}

/// What to do when the operator has not spoken yet.
const NO_PASS: &str = "Check that the operator runs and looks after this namespace: kubectl get pods -A -l app.kubernetes.io/name=file360-operator";

/// The entry of a condition of a kind.
pub fn entry(kind: Kind, condition: &Condition) -> Option<&'static Entry> {
    let of_reason = |wanted: &str| {
        ENTRIES.iter().find(|entry| entry.kind == kind && entry.condition == wanted && entry.reason == condition.reason)
    };
    // Reconciling and Stalled carry the reason of Ready.
    of_reason(&condition.kind).or_else(|| of_reason("Ready"))
}

/// What to do next about an object, with its names filled in.
pub fn next_step(seen: &Seen) -> String {
    let Some(focus) = seen.focus() else { return NO_PASS.to_owned() };
    if !seen.is_current() && !seen.is_deleting && focus.holds() {
        return format!("Wait: the operator has not looked at generation {} yet. {NO_PASS}", seen.generation);
    }
    match entry(seen.kind, &focus) {
        Some(entry) => filled(entry.next, seen),
        None => {
            format!("This plugin does not know the reason {}; see docs/reasons.md of the operator's version.", focus.reason)
        }
    }
}

fn filled(text: &str, seen: &Seen) -> String {
    let (connection_namespace, connection) = seen.connection();
    let hash = seen.status_text("/plan/hash").unwrap_or_default();
    let workspace = seen.status_text("/workspaceId").unwrap_or_default();
    text.replace("{ns}", &seen.namespace)
        .replace("{name}", &seen.name)
        .replace("{connection}", &format!("-n {connection_namespace} connection/{connection}"))
        .replace("{hash}", &hash)
        .replace("{workspaceId}", &workspace)
}

const fn connection(condition: &'static str, reason: &'static str, cause: &'static str, next: &'static str) -> Entry {
    Entry { kind: Kind::Connection, condition, reason, cause, next }
}

const fn workspace(condition: &'static str, reason: &'static str, cause: &'static str, next: &'static str) -> Entry {
    Entry { kind: Kind::SecureWorkspace, condition, reason, cause, next }
}

const fn route(condition: &'static str, reason: &'static str, cause: &'static str, next: &'static str) -> Entry {
    Entry { kind: Kind::FileRoute, condition, reason, cause, next }
}

const fn set(condition: &'static str, reason: &'static str, cause: &'static str, next: &'static str) -> Entry {
    Entry { kind: Kind::SecureWorkspaceSet, condition, reason, cause, next }
}

const CONNECTION_NEXT: &str = "Look at the Connection: kubectl file360 why {connection}";

#[rustfmt::skip]
static ENTRIES: &[Entry] = &[
    connection("Ready", "Connected", "The server answers and the credential works.", "Nothing to do."),
    connection("Ready", "Suspended", "spec.suspend holds; no call is made to the tenant.", "kubectl file360 resume {connection}, or wait for spec.suspendUntil."),
    connection("Ready", "CredentialNotBound", "The Secret does not name the endpoint (key `endpoint`) or token endpoint (key `tokenUrl`) that the credential would go to. Nothing was sent.", "If the credential may go there, add the key that the message names to the Secret."),
    connection("Ready", "AuthenticationFailed", "The token endpoint refused the client, or the server answered 401.", "Correct client id and secret in the Secret; compare the client's scopes with spec.auth.oauth2.scopes."),
    connection("Ready", "AccessDenied", "The server answered 403.", "Give the client the scopes read, write and share on the server."),
    connection("Ready", "ReferenceNotFound", "A Secret, ConfigMap or key is missing or not usable, or the path in spec.endpoint is wrong.", "Create or correct what the message names, in namespace {ns}."),
    connection("Ready", "TlsFailed", "TLS could not be established.", "Check spec.tls.caRef and spec.tls.clientCertRef, and that the server's certificate names its host."),
    connection("Ready", "RateLimited", "The server answered 429.", "Wait; or set spec.limits.requestsPerSecond lower."),
    connection("Ready", "InvalidAnswer", "An answer is not what the contract says, or too large.", "Check that spec.endpoint is a server of the connector contract, with no proxy page before it."),
    connection("Ready", "Unreachable", "No connection, no answer in time, or a server error.", "Check DNS, network policies and the server behind spec.endpoint; then kubectl file360 reconcile {connection}"),
    connection("Ready", "KubernetesApiFailed", "The operator could not read a Secret or ConfigMap.", "Check the operator's rights in namespace {ns}; the message names what it tried."),
    connection("Ready", "EndpointRefused", "The address may not be called (https, outbound guard), or the server refuses for good.", "Correct spec.endpoint or tokenUrl, or ask the operator's administrator for --outbound-allow."),
    connection("Ready", "Unsupported", "The server speaks another version of the contract or no WebDAV, or cannot do what is needed.", "Correct spec.endpoint or spec.driver, or update the operator or the server."),
    connection("Suspended", "Suspended", "The Connection is suspended, as its spec says.", "kubectl file360 resume {connection}, or wait for spec.suspendUntil."),
    connection("DeletionBlocked", "InUse", "SecureWorkspaces with a finalizer still need the Connection.", "Delete them first: kubectl get sws -A --field-selector spec.connectionRef.name={name}"),

    workspace("Ready", "Converged", "The workspace is as declared.", "Nothing to do."),
    workspace("Ready", "Progressing", "The first pass is under way.", "Wait."),
    workspace("Ready", "Suspended", "It is suspended, and there is something to do.", "Review with kubectl file360 plan -n {ns} {name}, then kubectl file360 resume -n {ns} {name}"),
    workspace("Ready", "Planned", "mode: Plan, and there is something to do.", "Review with kubectl file360 plan -n {ns} {name}, then set spec.mode: Apply."),
    workspace("Ready", "AwaitingApproval", "mode: Approve, and the plan is not approved.", "Review and approve: kubectl file360 approve-plan -n {ns} {name} --hash {hash}"),
    workspace("Ready", "PlanChanged", "What was approved is not what would be done now.", "Review the new plan and approve it: kubectl file360 approve-plan -n {ns} {name} --hash {hash}"),
    workspace("Ready", "HandedOver", "The workspace was given up and stays as it is.", "Delete this resource, or remove the annotation file360.io/handover to take it up again."),
    workspace("Ready", "RemovalBlocked", "The plan removes more than spec.maxRemovals; nothing was done.", "Review with kubectl file360 plan -n {ns} {name}. If it is meant, raise spec.maxRemovals or set mode: Approve; else correct the spec."),
    workspace("Ready", "InvalidExpression", "An expression of spec.report or spec.requiredDocuments cannot be compiled; the message names field, line and column. Nothing runs.", "Correct it; file360-operator check finds such things before they are applied."),
    workspace("Ready", "InvalidSpec", "The spec asks for something that cannot be.", "Correct the field that the message names; file360-operator check finds such things before they are applied."),
    workspace("Ready", "SharingCeilingExceeded", "The sharing rule, declared or not, is wider than the Connection's sharing.max.", "Declare a narrower spec.sharing, or ask the owner of the Connection."),
    workspace("Ready", "SharingDenied", "The workspace's sharing rule in File 360 does not let the guest in.", "Declare spec.sharing so that it does, or remove the guest."),
    workspace("Ready", "AccessDenied", "File 360 answered 403, or does not tell the address of an upload request.", "Give the operator's client the missing scope in File 360; for addresses it is share."),
    workspace("Ready", "Rejected", "File 360 refuses the request and will go on refusing it.", "Correct what the message names."),
    workspace("Ready", "Unsupported", "The driver of the Connection cannot honour fields of the spec (status.unsupported); everything else is as declared.", "Remove the fields that the message names, or use a Connection whose driver has the features: kubectl get {connection} -o yaml"),
    workspace("Ready", "ConnectionNotGranted", "The Connection does not exist, or does not grant its use to this namespace, kind and business key, or adoption of what nobody manages.", "Correct spec.connectionRef, or ask the owner of the Connection for an entry in spec.grants; adoption needs scope: Tenant."),
    workspace("Ready", "AlreadyExists", "A workspace with this business key exists, and nobody manages it.", "Set spec.adoption: AdoptOrCreate to take it up (first with mode: Plan), or use another key."),
    workspace("Ready", "OwnedByOther", "Another resource, cluster or client manages the workspace.", "Settle who owns it: delete the other resource, or this one. docs/kinds/secureworkspace.md describes moves and handovers."),
    workspace("Ready", "WorkspaceNotFound", "adoption: AdoptOnly, and there is nothing to adopt.", "Correct spec.workspaceId or spec.externalRef in a new resource, or set spec.adoption: AdoptOrCreate."),
    workspace("Ready", "PrincipalNotFound", "File 360 knows no user or group of this name. Nothing was changed.", "Create it in File 360, or correct the member. It is tried again when File 360's directory changes."),
    workspace("Ready", "SecretNotOwned", "The Secret of writeUrlTo belongs to somebody else.", "Choose another secretName, or delete that Secret."),
    workspace("Ready", "ReferenceNotFound", "Something that is referred to is missing.", "Create or correct what the message names."),
    workspace("Ready", "Conflict", "The state in File 360 does not allow it.", "See the message; settle it in File 360. It is tried again."),
    workspace("Ready", "ChangedMeanwhile", "Somebody else kept writing to the workspace during the pass.", "Wait a few seconds. If it stays, find the other writer: kubectl file360 status -n {ns} {name} shows the last events."),
    workspace("Ready", "Fenced", "A newer session of this cluster id and Connection has taken over.", "Normal for a moment. If it stays: look for two operators with one --cluster-id."),
    workspace("Ready", "KubernetesApiFailed", "A call of the operator to the Kubernetes API failed.", "See the message; check the operator's rights in namespace {ns}."),
    workspace("Ready", "ConnectionUnavailable", "The Connection is not usable, or has been away for long. What is declared may differ from File 360.", CONNECTION_NEXT),
    workspace("Reconciling", "Progressing", "A pass takes longer than two seconds.", "Wait."),
    workspace("Suspended", "Suspended", "It is suspended, as its spec says. Nothing is to be done at the moment.", "kubectl file360 resume -n {ns} {name}"),
    workspace("RemovalBlocked", "TooManyRemovals", "The plan removes more than spec.maxRemovals; nothing was done.", "Review with kubectl file360 plan -n {ns} {name}. If it is meant, raise spec.maxRemovals or set mode: Approve; else correct the spec."),
    workspace("DocumentsComplete", "DocumentsComplete", "Every required document is there, or waived.", "Nothing to do."),
    workspace("DocumentsComplete", "DocumentsOutstanding", "Required documents are missing, in review, rejected or expired; the message names them.", "See each: kubectl file360 missing -n {ns} {name}. Decide about what waits in review: kubectl file360 documents approve -n {ns} {name} DOCUMENT --file ID --version N"),
    workspace("DocumentsComplete", "NotLookedAt", "The spec changed, or a document came to its end, and the documents could not be looked at since.", "See Ready: kubectl file360 why -n {ns} {name}"),
    workspace("Drifted", "Tolerated", "File 360 differs, and spec.drift leaves it so.", "Accept the differences in the spec, or set the aspect in spec.drift to Correct."),
    workspace("Drifted", "DriftFight", "Somebody keeps undoing the operator's corrections; they pause.", "Find out who writes there, and take the field out of one of the two."),
    workspace("Drifted", "FolderNotEmpty", "Folders that are no longer declared have content and stay.", "Move the content, or declare the folder."),
    workspace("HandedOver", "HandedOver", "The workspace was given up and stays as it is.", "Delete this resource, or remove the annotation file360.io/handover to take it up again."),
    workspace("DeletionBlocked", "AwaitingConfirmation", "deletionPolicy: Delete without the annotation that confirms it.", "kubectl annotate -n {ns} sws/{name} file360.io/confirm-delete={workspaceId}, or set deletionPolicy: Retain."),
    workspace("DeletionBlocked", "Unsupported", "The deletion policy needs what the driver of the Connection does not have; nothing was removed.", "Set spec.deletionPolicy: Retain; the content stays."),
    workspace("DeletionBlocked", "Protected", "A hold, retention or record protects files in the workspace; the message names them.", "Release it in File 360, or set deletionPolicy: Retain."),
    workspace("DeletionBlocked", "ConnectionNotFound", "The Connection is gone, so the last steps cannot be done.", "Create it again, or wait for --orphan-after; outsiders then keep their access."),
    workspace("DeletionBlocked", "ConnectionNotGranted", "The Connection does not grant its use any more, so the last steps cannot be done.", "Restore the grant, or wait for --orphan-after; outsiders then keep their access."),
    workspace("DeletionBlocked", "ConnectionUnavailable", "The Connection is suspended, or File 360 does not answer.", CONNECTION_NEXT),
    workspace(
        "DeletionBlocked",
        "CredentialUnusable",
        "The Connection's credential is missing or does not work.",
        "Correct the Secret that the Connection names. The resource goes after --orphan-after with this reason.",
    ),
    workspace(
        "DeletionBlocked",
        "ReportsPending",
        "Events are still to be told to the systems of spec.report; the message says how many, to whom, and why not.",
        "Bring the system back, or remove the report. The resource goes after --orphan-after without telling.",
    ),
    workspace("DeletionBlocked", "CleanupFailed", "A step of the deletion failed; it is tried again.", "See the message."),

    set("Ready", "Generated", "Every item has its SecureWorkspace. Whether these are ready stands in ChildrenReady.", "Nothing to do."),
    set("Ready", "Progressing", "The first pass over this generation is under way.", "Wait."),
    set("Ready", "Suspended", "It is suspended, as its spec says. Nothing is generated or removed.", "kubectl file360 resume -n {ns} swset/{name}, or wait for spec.suspendUntil."),
    set("Ready", "ItemsFailed", "Items have no SecureWorkspace as declared; status.failures says which and why. The others are fine.", "See the failures: kubectl file360 status -n {ns} swset/{name}. Correct the items at their source, or the template."),
    set("Ready", "SourceUnavailable", "A listing cannot be read. What was generated stays; nothing is removed.", "See the message: address, credential, certificate, or an expression that does not fit the answer."),
    set("Ready", "ListingIncomplete", "A listing was read, but not all of it. Nothing is removed.", "See the message; narrow the listing, or correct key or next."),
    set("Ready", "RemovalBlocked", "Removals wait; nothing was removed.", "Review: kubectl file360 status -n {ns} swset/{name}. If it is meant, raise spec.maxRemovals, or delete the SecureWorkspaces yourself: kubectl delete sws -n {ns} NAME"),
    set("Ready", "ConnectionNotGranted", "The Connection does not exist, or does not grant its use to this namespace and kind.", "Correct spec.connectionRef, or ask the owner of the Connection for an entry in spec.grants with kind SecureWorkspaceSet."),
    set("Ready", "InvalidExpression", "An expression cannot be compiled; the message names field, line and column. Nothing is generated.", "Correct it; file360-operator check finds such things before they are applied."),
    set("Ready", "InvalidSpec", "A field has a value that cannot be used. Nothing is generated.", "Correct the field that the message names; file360-operator check finds such things before they are applied."),
    set("Ready", "ReferenceNotFound", "A Secret or ConfigMap is missing, or has no usable key.", "Create or correct what the message names, in namespace {ns}."),
    set("Ready", "KubernetesApiFailed", "A call of the operator to the Kubernetes API failed.", "See the message; check the operator's rights in namespace {ns}."),
    set("Ready", "Failed", "The set could not be worked on.", "See the message; it is tried again."),
    set("ChildrenReady", "AllReady", "The SecureWorkspaces of all items are ready.", "Nothing to do."),
    set("ChildrenReady", "NotAllReady", "Some SecureWorkspaces are not ready yet, or items failed.", "kubectl get sws -n {ns} -l file360.io/set={name}"),
    set("RemovalBlocked", "TooManyRemovals", "More SecureWorkspaces would be removed than spec.maxRemovals; none was.", "Review: kubectl file360 status -n {ns} swset/{name}. If it is meant, raise spec.maxRemovals, or delete the SecureWorkspaces yourself: kubectl delete sws -n {ns} NAME"),
    set("RemovalBlocked", "EmptyListing", "A listing came back empty, though it had items. Nothing is removed.", "If the items are really gone: kubectl delete sws -n {ns} -l file360.io/set={name}. Else correct the source."),
    set("Suspended", "Suspended", "It is suspended, as its spec says.", "kubectl file360 resume -n {ns} swset/{name}, or wait for spec.suspendUntil."),

    route("Ready", "Running", "The route runs: files are taken up as they come.", "Nothing to do."),
    route("Ready", "Reading", "Files that were there before are being looked at. Delivery goes on meanwhile.", "Wait."),
    route("Ready", "SourceUnavailable", "The source cannot be read at the moment; it is tried again, and nothing is lost meanwhile.", CONNECTION_NEXT),
    route("Ready", "QueueUnavailable", "Files wait: the queue does not answer or is full, no worker takes work, or a worker cannot do it. Nothing is lost.", "Look at the NATS server of --queue, the workers' pods and their rights; the message says which."),
    route("Ready", "DryRun", "mode: DryRun: what the rules would do is counted, and nothing is touched.", "Look at status.dryRun, then set spec.mode: Apply."),
    route("Ready", "Suspended", "It is suspended, as its spec says. What arrives meanwhile is taken up afterwards.", "kubectl file360 resume -n {ns} fileroute/{name}, or wait for spec.suspendUntil."),
    route("Ready", "ConnectionNotGranted", "The Connection does not exist, or does not grant its use to this namespace and kind.", "Correct spec.connectionRef, or ask the owner of the Connection for an entry in spec.grants with kind FileRoute."),
    route("Ready", "InvalidExpression", "An expression cannot be compiled; the message names field, line and column. Nothing runs.", "Correct it; file360-operator check finds such things before they are applied."),
    route("Ready", "InvalidSpec", "A field has a value that cannot be used, or goes with another field. Nothing runs.", "Correct the field that the message names; file360-operator check finds such things before they are applied."),
    route("Ready", "TestsFailed", "Tests inside the resource do not route as they say. Nothing runs.", "Correct the rules or the tests that the message names; file360-operator check runs them, too."),
    route("Ready", "ScopeNotGranted", "from.workspaces.ids names workspaces of the tenant, and the grant does not reach that far.", "Declare the workspaces in namespace {ns} and use names or selector, or ask the owner of the Connection for scope: Tenant."),
    route("Ready", "Unsupported", "The driver cannot do what a route needs: changes, client state and facets.", "Name a Connection with driver: Connector, or update the server behind it."),
    route("Ready", "ReferenceNotFound", "Something that is referred to is missing.", "Create or correct what the message names, in namespace {ns}."),
    route("Ready", "ConnectionUnavailable", "The Connection is not usable or suspended. Nothing runs; the route goes on when it is back.", CONNECTION_NEXT),
    route("Ready", "Failed", "The route could not be started, or its dry run failed.", "See the message; it is tried again unless Stalled is there."),
    route("Backlogged", "DeliveriesWait", "Deliveries failed and are tried again. Failures of a destination that is away do not use up a file's tries.", "Bring back the destination that the message names, or wait."),
    route("Unaccounted", "FilesUnaccounted", "The last inventory found files that nothing was known of, which have been taken up, or acknowledged copies that are gone.", "Look at them: kubectl file360 status -n {ns} froute/{name}. Deliver missing copies again: kubectl file360 inventory --redeliver -n {ns} {name}"),
    route("AwaitingApproval", "ApprovalsPending", "Gates hold things back until a decision.", "Decide: kubectl get approvals -n {ns}, then kubectl file360 approve or reject -n {ns} NAME"),
    route("DeadLetters", "DeliveriesGivenUp", "Deliveries failed for good, or more often than delivery.retries allows. They are not tried again by themselves.", "Correct the cause, then: kubectl file360 replay -n {ns} {name}"),
    route("Suspended", "Suspended", "It is suspended, as its spec says.", "kubectl file360 resume -n {ns} fileroute/{name}, or wait for spec.suspendUntil."),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    type Key = (&'static str, String, String);

    /// The reasons of the tables in docs/reasons.md: kind, condition, reason.
    fn documented() -> BTreeSet<Key> {
        let (mut kind, mut condition) = ("", String::new());
        let mut keys = BTreeSet::new();
        for line in include_str!("../../docs/reasons.md").lines() {
            if let Some(title) = line.strip_prefix("## ") {
                kind = Kind::ALL.map(Kind::name).into_iter().find(|name| *name == title).unwrap_or("");
            } else if let Some(title) = line.strip_prefix("### ") {
                condition = title.to_owned();
            } else if !kind.is_empty() && line.starts_with("| `") {
                let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
                let quoted = |cell: &str| cell.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')).map(str::to_owned);
                let key = if condition == "Others" {
                    quoted(cells[0]).zip(quoted(cells[1]))
                } else {
                    quoted(cells[0]).map(|reason| (condition.clone(), reason))
                };
                keys.extend(key.map(|(condition, reason)| (kind, condition, reason)));
            }
        }
        keys
    }

    #[test]
    fn every_documented_reason_has_an_entry_and_every_entry_is_documented() {
        let known: BTreeSet<Key> =
            ENTRIES.iter().map(|entry| (entry.kind.name(), entry.condition.to_owned(), entry.reason.to_owned())).collect();
        assert_eq!(known.len(), ENTRIES.len(), "an entry is there twice");
        assert!(known.len() > 40);
        assert_eq!(known, documented());
    }
}
