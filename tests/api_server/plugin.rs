//! The kubectl plugin as people run it: its own process, a kubeconfig, exit codes and what is printed.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use file360_operator::api::HANDOVER;

use crate::routes::{arrived, claims, route, to_cases};
use crate::support::case_system::CaseSystem;
use crate::support::kubernetes;
use crate::support::remote::CLIENT_SECRET;
use crate::support::world::{World, condition, on_connection};

/// The plugin's binary.
const PLUGIN: &str = env!("CARGO_BIN_EXE_kubectl-file360");

/// What a run of the plugin came to.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }

    /// The run ended like this.
    #[track_caller]
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }
}

pub async fn run(world: &World, args: &[&str]) -> Ran {
    run_as(world, &kubernetes::shared().await.kubeconfig, args, "").await
}

pub async fn run_as(world: &World, kubeconfig: &Path, args: &[&str], input: &str) -> Ran {
    let mut child = tokio::process::Command::new(PLUGIN)
        .args(["--namespace", &world.namespace])
        .args(args)
        .env("KUBECONFIG", kubeconfig)
        .env("FILE360_CLUSTER_ID", &world.namespace)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the plugin starts");
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.expect("the plugin ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let ran = Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) };
    for text in [&ran.out, &ran.err] {
        assert!(!text.contains(CLIENT_SECRET), "a secret is printed");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "a control character is printed: {text:?}");
    }
    ran
}

/// A kubeconfig of somebody with these rights in the world's namespace.
pub async fn somebody(world: &World, rules: Value) -> PathBuf {
    let group = "rbac.authorization.k8s.io";
    let role =
        json!({"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": {"name": "somebody"}, "rules": rules});
    let binding = json!({"apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": "somebody"},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "somebody"},
        "subjects": [{"kind": "ServiceAccount", "name": "somebody", "namespace": world.namespace}]});
    for manifest in [role, binding] {
        kubernetes::apply(&world.client, &world.namespace, &manifest).await.unwrap();
    }
    let token = kubernetes::service_account_token(&world.client, &world.namespace, "somebody").await;
    let admin = std::fs::read_to_string(&kubernetes::shared().await.kubeconfig).unwrap();
    let mut config: Value = serde_saphyr::from_str(&admin).unwrap();
    config["users"][0]["user"] = json!({"token": token});
    let path = world.folder.path().join("somebody.kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

fn readers() -> Value {
    json!([{"apiGroups": ["file360.io"], "resources": ["connections", "secureworkspaces", "fileroutes"], "verbs": ["get", "list"]}])
}

fn ghost() -> Value {
    json!({"access": {"members": [{"kind": "User", "name": "ghost", "role": "Viewer"}]}})
}

#[tokio::test]
async fn status_shows_all_and_everything_about_one() {
    let world = World::new().await;
    world.workspace("good", json!({"displayName": "Good"})).await;
    world.apply_workspace("bad", ghost()).await;
    world.reason("SecureWorkspace", "bad", "Ready", "PrincipalNotFound").await;
    let ran = run(&world, &["status"]).await.ends(1);
    let rows: Vec<Vec<&str>> = ran.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "READY", "REASON", "DRIFT", "SUSPENDED", "SINCE", "MESSAGE"]);
    assert_eq!(rows[1][..5], ["connection/file360", "True", "Connected", "0", "no"]);
    assert_eq!(rows[2][..5], ["secureworkspace/bad", "False", "PrincipalNotFound", "0", "no"]);
    assert_eq!(rows[3][..5], ["secureworkspace/good", "True", "Converged", "0", "no"]);
    run(&world, &["status", "good"]).await.ends(0);

    let ran = run(&world, &["status", "bad"]).await.ends(1);
    for expected in ["Conditions", "Events", "PrincipalNotFound", "Warning", "ghost"] {
        assert!(ran.out.contains(expected), "{expected} is missing:\n{}", ran.out);
    }
    assert!(ran.out.lines().last().unwrap().starts_with("Next step: Create it in File 360"), "{}", ran.out);
    let data = run(&world, &["status", "bad", "-o", "json"]).await.ends(1).json();
    assert_eq!((&data["reason"], &data["ready"]), (&json!("PrincipalNotFound"), &json!(false)));
    assert_eq!(data["events"][0]["type"], "Warning");
    let all = run(&world, &["status", "-A", "-o", "json"]).await.json();
    let mine: Vec<&Value> = all.as_array().unwrap().iter().filter(|row| row["namespace"] == world.namespace).collect();
    assert_eq!(mine.len(), 3);

    let ran = run(&world, &["status", "nobody"]).await.ends(1);
    assert!(ran.err.contains("no SecureWorkspace, SecureWorkspaceSet, FileRoute or Connection nobody"), "{}", ran.err);
    run(&world, &["status", "-A", "good"]).await.ends(2);
    let nobody = somebody(&world, json!([])).await;
    let ran = run_as(&world, &nobody, &["status"], "").await.ends(1);
    assert!(ran.err.contains("you lack the right to list connections"), "{}", ran.err);
}

#[tokio::test]
async fn status_tells_of_plan_drift_and_access_and_cleans_what_it_prints() {
    let world = World::without_operator(kubernetes::shared().await).await;
    world.apply_workspace("w", json!({"displayName": "A \u{202e}name"})).await;
    let now = "2026-01-01T00:00:00Z";
    let status = json!({"status": {
        "observedGeneration": 1, "workspaceId": "w1", "url": "https://f.example/\u{1b}[2J",
        "access": {"internal": 3, "external": 1, "expiringIn7Days": 1}, "nextChangeAt": "2100-01-01T00:00:00Z",
        "plan": {"hash": "abc123", "create": 0, "update": 1, "remove": 0, "actions": ["change \u{1b}]0;owned\u{7}displayName"]},
        "drift": {"count": 1, "items": [{"path": "access/User/eve", "have": "Owner", "by": "mal\u{1b}[31mlory", "since": now}]},
        "conditions": [
            {"type": "Ready", "status": "False", "reason": "Planned", "message": "see\u{1b}[1A the plan", "lastTransitionTime": now},
            {"type": "Drifted", "status": "True", "reason": "Tolerated", "message": "differs", "lastTransitionTime": now}],
    }});
    world.api("SecureWorkspace").patch_status("w", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    let ran = run(&world, &["status", "w"]).await.ends(1);
    for expected in
        ["3 internal, 1 external; 1 end within 7 days", "2100-01-01", "abc123", "access/User/eve", "lory", "Planned"]
    {
        assert!(ran.out.contains(expected), "{expected} is missing:\n{}", ran.out);
    }
    for output in ["json", "yaml"] {
        let ran = run(&world, &["status", "w", "-o", output]).await.ends(1);
        let data: Value = serde_saphyr::from_str(&ran.out).unwrap();
        assert_eq!(data["status"]["drift"]["items"][0]["by"], "mal\u{1b}[31mlory", "data stays what it is");
    }
    run(&world, &["why", "w"]).await.ends(1);
    run(&world, &["plan", "w"]).await.ends(0);
}

#[tokio::test]
async fn why_gives_cause_evidence_and_next_step() {
    let world = World::new().await;
    world.apply_workspace("w", ghost()).await;
    world.reason("SecureWorkspace", "w", "Ready", "PrincipalNotFound").await;
    let ran = run(&world, &["why", "w"]).await.ends(1);
    let at = |part: &str| ran.out.find(part).unwrap_or_else(|| panic!("{part} is missing:\n{}", ran.out));
    assert!(at("is not ready (PrincipalNotFound)") < at("Cause") && at("Cause") < at("Evidence"));
    assert!(at("Evidence") < at("ghost") && at("Connection") < at("Next step"));
    let data = run(&world, &["why", "sws/w", "-o", "json"]).await.ends(1).json();
    assert_eq!(data["reason"], "PrincipalNotFound");
    assert!(data["nextStep"].as_str().unwrap().contains("Create it in File 360"));
    let ran = run(&world, &["why", "connection/file360"]).await.ends(0);
    assert!(ran.out.contains("is ready (Connected)"), "{}", ran.out);
    run(&world, &["why", "pod/w"]).await.ends(2);
}

fn manifest(name: &str, spec: Value) -> String {
    json!({"apiVersion": "file360.io/v1alpha1", "kind": "SecureWorkspace", "metadata": {"name": name}, "spec": on_connection(spec)})
        .to_string()
}

#[tokio::test]
async fn plan_shows_what_would_be_done_and_does_nothing() {
    let world = World::new().await;
    let spec = json!({"mode": "Plan", "folders": [{"path": "/A"}], "access": {"members": [
        {"kind": "User", "name": "user1", "role": "Viewer"}]}});
    let ran = run_plan(&world, &["-f", "-"], &manifest("w", spec.clone())).await.ends(0);
    assert!(ran.out.contains("(not applied yet)") && ran.out.contains("- create folder /A"), "{}", ran.out);
    assert!(ran.out.contains("The operator would not run it: mode: Plan."), "{}", ran.out);
    let before = run_plan(&world, &["-f", "-", "-o", "json"], &manifest("w", spec.clone())).await.ends(0).json();
    assert_eq!(world.remote.state().await, json!([]), "nothing was made");

    world.apply_workspace("w", spec).await;
    let object = world.reason("SecureWorkspace", "w", "Ready", "Planned").await;
    assert_eq!(object["status"]["plan"], before, "the operator plans the same");
    assert_eq!(run(&world, &["plan", "w", "-o", "json"]).await.ends(0).json(), before);
    assert_eq!(run(&world, &["plan", "w", "--live", "-o", "json"]).await.ends(0).json(), before);
    let ran = run(&world, &["plan", "w"]).await.ends(0);
    assert!(ran.out.contains("add member user1 (User): Viewer on /") && ran.out.contains("Next step: "), "{}", ran.out);
}

async fn run_plan(world: &World, args: &[&str], input: &str) -> Ran {
    run_as(world, &kubernetes::shared().await.kubeconfig, &[&["plan"], args].concat(), input).await
}

#[tokio::test]
async fn plan_compares_a_changed_manifest_with_what_is_there() {
    let world = World::new().await;
    let members = |names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| json!({"kind": "User", "name": name, "role": "Viewer"})).collect()
    };
    let spec = |names: &[&str]| json!({"maxRemovals": 1, "access": {"members": members(names)}});
    world.workspace("w", spec(&["user0", "user1", "user2"])).await;
    let (state, calls) = (world.remote.state().await, world.get("SecureWorkspace", "w").await);
    let ran = run_plan(&world, &["-f", "-"], &manifest("w", spec(&["user0", "user1", "user2"]))).await.ends(0);
    assert!(ran.out.contains("nothing to do"), "{}", ran.out);
    let ran = run_plan(&world, &["-f", "-"], &manifest("w", spec(&["user0"]))).await.ends(0);
    assert!(ran.out.contains("remove member user1") && ran.out.contains("remove member user2"), "{}", ran.out);
    assert!(ran.out.contains("more than spec.maxRemovals (1)"), "{}", ran.out);
    assert_eq!(world.remote.state().await, state);
    assert_eq!(world.get("SecureWorkspace", "w").await["status"], calls["status"]);
    world.reconcile_now("w").await;
}

#[tokio::test]
async fn plan_never_gives_a_workspace_up() {
    let mut world = World::new().await;
    world.workspace("w", json!({"displayName": "One"})).await;
    let state = world.remote.state().await;
    world.kill_operator();
    world.patch("SecureWorkspace", "w", json!({"metadata": {"annotations": {HANDOVER: "other"}}})).await;
    let ran = run(&world, &["plan", "w", "--live"]).await.ends(1);
    assert!(ran.err.contains("gives its workspace up"), "{}", ran.err);
    assert_eq!(world.remote.state().await, state);
}

#[tokio::test]
async fn plan_says_what_stands_in_its_way() {
    let world = World::new().await;
    let reader = somebody(&world, readers()).await;
    let ran = run_as(&world, &reader, &["plan", "-f", "-"], &manifest("w", json!({}))).await.ends(1);
    assert!(ran.err.contains("you lack the right to read the credential of Connection"), "{}", ran.err);
    assert!(ran.err.contains("get on secrets") && ran.err.contains("mode: Plan"), "{}", ran.err);
    let wrong = manifest("w", json!({"workspaceId": "x"}));
    let ran = run_plan(&world, &["-f", "-"], &wrong).await.ends(1);
    assert!(ran.err.contains("workspaceId needs adoption: AdoptOnly"), "{}", ran.err);
    let nothing = manifest("w", json!({"workspaceId": "x", "adoption": "AdoptOnly"}));
    let ran = run_plan(&world, &["-f", "-"], &nothing).await.ends(1);
    assert!(ran.err.contains("WorkspaceNotFound"), "{}", ran.err);
    world.apply_workspace("bad", ghost()).await;
    world.reason("SecureWorkspace", "bad", "Ready", "PrincipalNotFound").await;
    let ran = run(&world, &["plan", "bad"]).await.ends(1);
    assert!(ran.err.contains("has no plan in its status") && ran.err.contains("Next step"), "{}", ran.err);
    run(&world, &["plan"]).await.ends(2);
    run(&world, &["plan", "-f", "/does/not/exist"]).await.ends(1);
}

#[tokio::test]
async fn reconcile_runs_now_and_waits() {
    let mut world = World::new().await;
    world.workspace("w", json!({})).await;
    let ran = run(&world, &["reconcile", "w"]).await.ends(0);
    assert!(ran.out.contains("Ready=True Converged"), "{}", ran.out);
    let object = world.get("SecureWorkspace", "w").await;
    let asked = &object["metadata"]["annotations"]["reconcile.file360.io/requestedAt"];
    assert_eq!(asked, &object["status"]["lastHandledReconcileAt"]);
    run(&world, &["reconcile", "connection/file360"]).await.ends(0);
    world.apply_workspace("bad", ghost()).await;
    let ran = run(&world, &["reconcile", "bad"]).await.ends(1);
    assert!(ran.out.contains("Ready=False PrincipalNotFound") && ran.out.contains("Next step"), "{}", ran.out);
    world.kill_operator();
    let ran = run(&world, &["reconcile", "w", "--timeout", "1s"]).await.ends(1);
    assert!(ran.err.contains("did not handle the request within 1s"), "{}", ran.err);
    run(&world, &["reconcile", "w", "--no-wait"]).await.ends(0);
    run(&world, &["reconcile", "w", "--timeout", "soon"]).await.ends(2);
}

#[tokio::test]
async fn suspend_and_resume_are_confirmed_by_the_status() {
    let mut world = World::new().await;
    world.workspace("w", json!({"displayName": "One"})).await;
    let ran = run(&world, &["suspend", "w", "--reason", "audit week", "--until", "30m"]).await.ends(0);
    assert!(ran.out.contains("audit week"), "{}", ran.out);
    let object = world.get("SecureWorkspace", "w").await;
    assert_eq!(condition(&object, "Suspended")["status"], "True");
    assert!(object["spec"]["suspendUntil"].is_string());
    let ran = run(&world, &["status"]).await.ends(0);
    assert!(ran.out.lines().any(|line| line.contains("secureworkspace/w") && line.contains("yes")), "{}", ran.out);
    run(&world, &["suspend", "w", "--reason", "for long"]).await.ends(0);
    assert_eq!(world.get("SecureWorkspace", "w").await["spec"]["suspendUntil"], Value::Null, "the old end is gone");

    let ran = run(&world, &["resume", "w"]).await.ends(0);
    assert!(ran.out.contains("Ready=True Converged"), "{}", ran.out);
    assert!(condition(&world.get("SecureWorkspace", "w").await, "Suspended").is_null());
    assert!(run(&world, &["resume", "w"]).await.ends(0).out.contains("is not suspended"));

    run(&world, &["suspend", "w"]).await.ends(2);
    run(&world, &["suspend", "w", "--reason", "x", "--until", "2001-01-01T00:00:00Z"]).await.ends(2);
    world.kill_operator();
    let ran = run(&world, &["suspend", "w", "--reason", "x", "--timeout", "1s"]).await.ends(1);
    assert!(ran.err.contains("did not confirm the suspension"), "{}", ran.err);
}

/// A route named like its workspace, with two files that the case system refused.
async fn with_dead_letters(world: &World, cases: &CaseSystem) {
    let workspace = claims(world, "claims").await;
    cases.refuse(Some("poison"));
    route(world, "claims", to_cases(cases, "Content")).await;
    for name in ["bad.txt", "worse.txt"] {
        world.remote.upload(&workspace, "/Inbox", name, b"this is poison").await;
    }
    let both = |object: &Value| object["status"]["deadLetters"].as_array().is_some_and(|letters| letters.len() == 2);
    world.until("FileRoute", "claims", "two dead letters", both).await;
}

#[tokio::test]
async fn replay_tries_dead_letters_again_and_says_what_is_left() {
    let world = World::new().await;
    let cases = CaseSystem::start().await;
    with_dead_letters(&world, &cases).await;
    let ran = run(&world, &["replay", "claims"]).await.ends(1);
    assert!(ran.out.contains("2 dead letters tried again; 2 dead letters given up again"), "{}", ran.out);
    assert!(ran.out.contains("/Inbox/worse.txt") && ran.out.contains("all/case"), "{}", ran.out);

    run(&world, &["suspend", "froute/claims", "--reason", "repair"]).await.ends(0);
    let ran = run(&world, &["replay", "claims"]).await.ends(1);
    assert!(ran.err.contains("is suspended: nothing is tried"), "{}", ran.err);
    let ran = run(&world, &["resume", "froute/claims"]).await.ends(0);
    assert!(ran.out.contains("Ready=True Running"), "{}", ran.out);

    cases.refuse(None);
    let ran = run(&world, &["replay", "froute/claims"]).await.ends(0);
    assert!(ran.out.contains("2 dead letters tried again; nothing is left"), "{}", ran.out);
    assert_eq!(cases.accepted().len(), 2);
    assert!(run(&world, &["replay", "claims"]).await.ends(0).out.contains("has no dead letters"));
    assert_eq!(cases.accepted().len(), 2);
    run(&world, &["replay", "sws/claims"]).await.ends(2);
}

#[tokio::test]
async fn replay_says_when_files_still_wait_and_when_nobody_answers() {
    let mut world = World::new().await;
    let cases = CaseSystem::start().await;
    with_dead_letters(&world, &cases).await;
    cases.stop();
    let ran = run(&world, &["replay", "claims", "--timeout", "5s"]).await.ends(1);
    assert!(ran.out.contains("2 dead letters tried again; files wait for another try"), "{}", ran.out);
    cases.refuse(None);
    cases.start_again().await;
    arrived(&cases, 2).await;
    cases.refuse(Some("poison"));
    let workspace = world.workspace_id("claims").await;
    world.remote.upload(&workspace, "/Inbox", "again.txt", b"poison").await;
    world.condition("FileRoute", "claims", "DeadLetters", "True").await;
    world.kill_operator();
    let ran = run(&world, &["replay", "claims", "--timeout", "1s"]).await.ends(1);
    assert!(ran.err.contains("did not take up the dead letters within 1s"), "{}", ran.err);
}

#[tokio::test]
async fn a_route_is_shown_explained_and_run_like_the_others() {
    let world = World::new().await;
    let cases = CaseSystem::start().await;
    with_dead_letters(&world, &cases).await;
    let ran = run(&world, &["status"]).await.ends(0);
    let row = ran.out.lines().find(|line| line.contains("fileroute/claims")).unwrap_or_default();
    assert!(row.contains("Running") && row.contains("2 deliveries were given up"), "{}", ran.out);
    let ran = run(&world, &["status", "claims"]).await.ends(2);
    assert!(ran.err.contains("say secureworkspace/claims or fileroute/claims"), "{}", ran.err);
    let ran = run(&world, &["status", "froute/claims"]).await.ends(0);
    for expected in ["2 seen, 0 delivered", "2 given up", "all 2", "Given up (the last 2)", "/Inbox/bad.txt"] {
        assert!(ran.out.contains(expected), "{expected} is missing:\n{}", ran.out);
    }
    let ran = run(&world, &["why", "froute/claims"]).await.ends(0);
    assert!(ran.out.contains("is ready (DeliveriesGivenUp)") && ran.out.contains("/Inbox/bad.txt"), "{}", ran.out);
    assert!(ran.out.contains(&format!("kubectl file360 replay -n {} claims", world.namespace)), "{}", ran.out);
    run(&world, &["reconcile", "froute/claims"]).await.ends(0);
    let mut wrong = to_cases(&cases, "Content");
    wrong["rules"][0]["when"] = json!("fil.size > 1");
    crate::routes::apply(&world, "claims", wrong).await;
    world.reason("FileRoute", "claims", "Ready", "InvalidExpression").await;
    let ran = run(&world, &["why", "froute/claims"]).await.ends(1);
    assert!(
        ran.out.contains("is not ready (InvalidExpression)") && ran.out.contains("file360-operator check"),
        "{}",
        ran.out
    );
}

#[tokio::test]
async fn approve_plan_lets_exactly_the_reviewed_plan_run() {
    let world = World::new().await;
    world.apply_workspace("w", json!({"mode": "Approve", "folders": [{"path": "/A"}]})).await;
    let object = world.reason("SecureWorkspace", "w", "Ready", "AwaitingApproval").await;
    let hash = object["status"]["plan"]["hash"].as_str().unwrap();
    let ran = run(&world, &["approve-plan", "w"]).await.ends(2);
    assert!(ran.out.contains("create folder /A") && ran.err.contains("--yes"), "{}{}", ran.out, ran.err);
    let ran = run(&world, &["approve-plan", "w", "--hash", "0123", "--yes"]).await.ends(1);
    assert!(ran.err.contains("not the one that was reviewed"), "{}", ran.err);
    assert_eq!(world.remote.state().await, json!([]));
    let ran = run(&world, &["approve-plan", "w", "--hash", hash, "--yes"]).await.ends(0);
    assert!(ran.out.contains("Ready=True Converged"), "{}", ran.out);
    assert_eq!(world.remote.state().await[0]["parts"]["folders"][0]["path"], "/A");
    let ran = run(&world, &["approve-plan", "w", "--yes"]).await.ends(1);
    assert!(ran.err.contains("no plan"), "{}", ran.err);
    world.workspace("other", json!({})).await;
    let ran = run(&world, &["approve-plan", "other", "--yes"]).await.ends(1);
    assert!(ran.err.contains("has not mode: Approve"), "{}", ran.err);
}

/// Five workspaces that people made, as different as they come, and one that is archived.
async fn people_work(world: &World) {
    let remote = &world.remote;
    let make =
        |body: Value| async move { remote.change("POST", "/v1/workspaces", body).await["id"].as_str().unwrap().to_owned() };
    let by_key = |system: &'static str, key: &'static str, body: Value| async move {
        let path = format!("/v1/workspaces/by-key/{system}/{key}");
        let (status, answer) = remote.call("PUT", &path, &[("if-none-match", "*")], Some(body)).await;
        assert_eq!(status, 201, "{answer}");
        answer["id"].as_str().unwrap().to_owned()
    };
    make(json!({"displayName": "Plain"})).await;
    let hostile = "Plain\u{202e} - {x}: 'q' \"z\" # &a *b !c %d @e `f` \u{200b}no";
    make(
        json!({"displayName": hostile, "metadata": {"yes": "no", "n": "0x1F", "date": "2026-01-01", "multi": "a\n\tb: c"}}),
    )
    .await;
    let deal = by_key("crm", "deal%2F7%2Fa", json!({"displayName": "Deal 7", "classification": "Confidential",
        "metadata": {"region": "EU"}, "sharing": {"external": "AllowListed", "allowedDomains": ["acme.example", "*.bücher.example"],
        "reshare": true, "links": {"maxAudience": "Guests", "maxDays": 30, "passwordRequired": true, "download": false}}})).await;
    let odd = by_key("SAP%20R3", "no-slash", json!({"displayName": "plain"})).await;
    let busy = make(json!({"displayName": "Büro für Übergaben", "metadata": {"region": "EU"}})).await;
    for (path, more) in [
        ("/Contracts", json!({"locked": true, "classification": "Secret"})),
        ("/Contracts/Signed #1", json!({"metadata": {"purpose": "signed: only"}})),
        ("/.hidden", json!({})),
        ("/Inbox", json!({})),
    ] {
        let mut body = more;
        body["path"] = json!(path);
        remote.change("POST", &format!("/v1/workspaces/{busy}/folders"), body).await;
    }
    for (id, kind, name, path, input) in [
        (&busy, "User", "user0", "/", json!({"role": "Owner"})),
        (&busy, "Group", "group1", "/", json!({"role": "Contributor", "reason": "team: A"})),
        (
            &busy,
            "Group",
            "group2",
            "/Contracts/Signed%20%231",
            json!({"role": "Viewer", "expiresAt": "2031-01-31T10:11:12.345Z"}),
        ),
        (&deal, "User", "user3", "/", json!({"role": "Uploader"})),
    ] {
        let who = remote.principal(kind, name).await;
        remote.change("PUT", &format!("/v1/workspaces/{id}/members/{who}?path={path}"), input).await;
    }
    let guest = remote.change("PUT", "/v1/guests/Bob@X.Bücher.example", json!({})).await;
    let path = format!("/v1/workspaces/{deal}/members/{}?path=/", guest["id"].as_str().unwrap());
    remote.change("PUT", &path, json!({"role": "Viewer", "expiresAt": "2031-01-31T00:00:00Z", "reason": "RFP 12"})).await;
    let fields = json!([{"name": "kind", "label": "Kind of document", "type": "Select", "options": ["iso", "w9"], "required": true},
        {"name": "day", "label": "day", "type": "Date"}]);
    let request = json!({"path": "/Inbox", "requireEmail": true, "expiresAt": "2031-01-31T00:00:00Z", "fields": fields});
    remote.change("PUT", &format!("/v1/workspaces/{busy}/upload-requests/docs"), request).await;
    remote.change("PUT", &format!("/v1/workspaces/{busy}/upload-requests/Not%20A%20Label"), json!({"path": "/Inbox"})).await;
    remote.change("POST", &format!("/v1/workspaces/{odd}/folders"), json!({"path": "/Ünï"})).await;
    let archived = make(json!({"displayName": "Old"})).await;
    remote.change("POST", &format!("/v1/workspaces/{archived}/transitions"), json!({"to": "Archived"})).await;
}

/// A state without what the operator keeps for itself.
fn without_marks(mut state: Value) -> Value {
    for workspace in state.as_array_mut().unwrap() {
        let parts = workspace["parts"].as_object_mut().unwrap();
        for part in parts.values_mut() {
            for entry in part.as_array_mut().unwrap() {
                let entry = entry.as_object_mut().unwrap();
                entry.remove("managed");
                entry.remove("managedKey");
            }
            part.as_array_mut().unwrap().sort_by_key(ToString::to_string);
        }
        let workspace = workspace.as_object_mut().unwrap();
        workspace.remove("owner");
        workspace.remove("managedFields");
    }
    state.as_array_mut().unwrap().sort_by_key(ToString::to_string);
    state
}

async fn imported(world: &World, args: &[&str]) -> (Ran, Vec<Value>) {
    let ran = run(world, &[&["import", "--connection", "file360"], args].concat()).await;
    let manifests = serde_saphyr::from_multiple(&ran.out).unwrap_or_else(|error| panic!("{error}:\n{}", ran.out));
    (ran, manifests)
}

async fn apply(world: &World, manifest: &Value) -> String {
    kubernetes::apply(&world.client, &world.namespace, manifest)
        .await
        .unwrap_or_else(|error| panic!("{error}: {manifest:#}"));
    manifest["metadata"]["name"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn import_takes_up_what_people_made_and_changes_nothing() {
    let world = World::new().await;
    people_work(&world).await;
    let before = world.remote.state().await;
    let (ran, manifests) = imported(&world, &["--all", "--unmanaged", "--plan"]).await;
    let ran = ran.ends(0);
    assert_eq!(manifests.len(), 5, "{}", ran.out);
    assert!(ran.err.contains("Passed over: Old"), "{}", ran.err);
    let names: Vec<&str> = manifests.iter().map(|manifest| manifest["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("plain-")).count(), 3, "{names:?}");
    assert!(names.contains(&"deal-7") && names.contains(&"buro-fur-ubergaben"), "{names:?}");
    for manifest in &manifests {
        let by_key = manifest["spec"]["externalRef"].is_object();
        let expected = if by_key { "AdoptOrCreate" } else { "AdoptOnly" };
        assert_eq!(manifest["spec"]["adoption"], expected);
        assert_eq!(by_key, manifest["metadata"]["name"] == "deal-7");
    }
    assert_eq!(world.remote.state().await, before, "reading changes nothing");

    for manifest in &manifests {
        let name = apply(&world, manifest).await;
        let object = world.reason("SecureWorkspace", &name, "Ready", "Planned").await;
        for action in object["status"]["plan"]["actions"].as_array().unwrap() {
            let action = action.as_str().unwrap();
            let is_mark = action.starts_with("mark folder") || action.starts_with("mark upload request docs");
            assert!(is_mark || ["take up the workspace", "change bookkeeping"].contains(&action), "{name}: {action}");
        }
    }
    assert_eq!(world.remote.state().await, before, "a plan changes nothing");
    for mut manifest in manifests {
        manifest["spec"].as_object_mut().unwrap().remove("mode");
        let name = apply(&world, &manifest).await;
        let object = world.condition("SecureWorkspace", &name, "Ready", "True").await;
        assert_eq!(object["status"]["drift"], Value::Null, "{name}");
    }
    let after = world.remote.state().await;
    assert_eq!(without_marks(after.clone()), without_marks(before));
    assert_eq!(after.as_array().unwrap().iter().filter(|workspace| workspace["owner"].is_object()).count(), 5);

    // Exclusive removes nobody, either; and what is managed is written as it is declared.
    let (ran, _) = imported(&world, &["--all", "--unmanaged"]).await;
    assert!(ran.out.trim().is_empty() || ran.out.contains("Old"), "{}", ran.out);
    let (_, again) = imported(&world, &["--all"]).await;
    assert_eq!(again.len(), 5);
    for manifest in &again {
        let name = apply(&world, manifest).await;
        world.condition("SecureWorkspace", &name, "Ready", "True").await;
    }
    assert_eq!(world.remote.state().await, after, "what is managed already stays as it is");
}

#[tokio::test]
async fn import_selects_by_metadata_and_can_be_exclusive() {
    let world = World::new().await;
    people_work(&world).await;
    let before = world.remote.state().await;
    let (ran, manifests) = imported(&world, &["--selector", "region=EU", "--exclusive"]).await;
    ran.ends(0);
    let mut names: Vec<&str> = manifests.iter().map(|manifest| manifest["metadata"]["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["buro-fur-ubergaben", "deal-7"]);
    for manifest in &manifests {
        assert_eq!(manifest["spec"]["access"]["mode"], "Exclusive");
        let name = apply(&world, manifest).await;
        world.condition("SecureWorkspace", &name, "Ready", "True").await;
    }
    assert_eq!(without_marks(world.remote.state().await), without_marks(before));
    let list = run(&world, &["import", "--connection", "file360", "-l", "region=EU,nothing=here", "-o", "json"])
        .await
        .ends(0)
        .json();
    assert_eq!(list, json!({"apiVersion": "v1", "kind": "List", "items": []}));
}

#[tokio::test]
async fn import_says_what_it_cannot_do() {
    let world = World::new().await;
    run(&world, &["import", "--connection", "file360"]).await.ends(2);
    run(&world, &["import", "--connection", "file360", "--selector", "region"]).await.ends(2);
    let ran = run(&world, &["import", "--connection", "nope", "--all"]).await.ends(1);
    assert!(ran.err.contains("there is no Connection"), "{}", ran.err);
    let reader = somebody(&world, readers()).await;
    let ran = run_as(&world, &reader, &["import", "--connection", "file360", "--all"], "").await.ends(1);
    assert!(ran.err.contains("you lack the right to read the credential"), "{}", ran.err);

    // A ceiling that the workspace's rule exceeds: the manifest comes with a warning.
    world
        .remote
        .change(
            "POST",
            "/v1/workspaces",
            json!({"displayName": "Wide", "sharing": {"external": "Anyone",
        "reshare": false, "links": {"maxAudience": "Anyone", "passwordRequired": false, "download": true}}}),
        )
        .await;
    world.apply_connection(json!({"sharing": {"max": {"external": "Disabled"}}})).await;
    let ran = run(&world, &["import", "--connection", "file360", "--all"]).await.ends(1);
    assert!(ran.out.contains("# ATTENTION: it would be refused"), "{}", ran.out);
}
