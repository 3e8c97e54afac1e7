#!/usr/bin/env python3
"""Puts one fault after the other into a copy of the code; each must turn its test red.

    tests/seeded_faults.py            all faults
    tests/seeded_faults.py NAME ...   some of them
    tests/seeded_faults.py --places   only looks whether the place of each is there, once

A fault that no test notices, or whose place in the code is gone, fails the run.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIB = ["--lib"]
API = ["--test", "api_server"]
SERVER = ["--test", "file360_server"]
# Seconds after which a test that still runs counts as red.
PATIENCE = 120
WORKSPACE = "src/controllers/secure_workspace"

# Name, file, what stands there, what the fault makes of it, where the test is, the test that must go red.
FAULTS = [
    ("strangers-stay", f"{WORKSPACE}/plan.rs", "(member.managed || exclusive) &&", "member.managed &&", LIB,
     "a_stranger_is_revoked_before_anyone_is_granted"),
    ("undeclared-access-is-exclusive", f"{WORKSPACE}/plan.rs",
     "let exclusive = self.desired.access_mode == Some(AccessMode::Exclusive);\n        self.observed",
     "let exclusive = self.desired.access_mode != Some(AccessMode::Additive);\n        self.observed", LIB,
     "c5_an_undeclared_aspect_removes_nothing"),
    ("old-metadata-stays", f"{WORKSPACE}/plan.rs", "set.chain(removed).collect()", "set.chain(removed).filter(|(_, value)| value.is_some()).collect()", LIB,
     "c3_from_a_to_b_is_as_b_alone"),
    ("parents-before-children", f"{WORKSPACE}/plan.rs", "for folder in gone.iter().rev() {", "for folder in gone.iter() {", LIB,
     "only_empty_own_folders_are_removed_children_first"),
    ("renamed-folders-are-made-anew", f"{WORKSPACE}/plan.rs", "None => match self.strayed(path) {",
     "None => match self.strayed(path).filter(|_| false) {", LIB, "a_renamed_folder_is_moved_back_and_not_made_anew"),
    ("warn-corrects", f"{WORKSPACE}/plan.rs", "DriftPolicy::Warn => result.tolerated.push(step),",
     "DriftPolicy::Warn => result.steps.push(step),", LIB, "the_drift_policy_tells_spec_changes_from_others_changes"),
    ("hash-of-lines-only", f"{WORKSPACE}/plan.rs", 'format!("{:?}\\n", step.action)', 'format!("{}\\n", step.action)', LIB,
     "the_hash_covers_what_the_lines_do_not_show"),
    ("ended-access-is-granted", f"{WORKSPACE}/desired.rs", "if end <= self.now {", "if end < self.now && false {", LIB,
     "what_has_ended_is_not_wanted_and_the_next_end_is_known"),
    ("any-domain-suffix-matches", "src/file360/sharing.rs", "rest.len() > 1 && rest.ends_with('.')", "!rest.is_empty()", LIB,
     "domains_match_exactly_or_below_a_star"),
    ("fights-go-on", f"{WORKSPACE}/fight.rs", "recent.count() >= MOST_CORRECTIONS", "recent.count() > 99", LIB, "c4_three_corrections"),
    ("stale-copies-are-used", f"{WORKSPACE}/store.rs", "(version_of(&object) >= entry.version).then_some(object)", "Some(object)", LIB,
     "c10_a_pass_never_starts"),
    ("own-writes-wake", f"{WORKSPACE}/store.rs", "return if matters { Verdict::Work } else { Verdict::Nothing };",
     "return Verdict::Work;", LIB, "the_operators_own_status_write_starts_no_pass"),
    ("uid-is-ignored", "src/reconcile/ownership.rs", "if mark.uid == me.uid => Claim::Mine", "if !mark.uid.is_empty() => Claim::Mine", LIB,
     "c11_a_second_owner_is_told_apart"),
    ("removed-status-fields-stay", "src/reconcile/publish.rs", "patch.insert(key.clone(), Value::Null);", "let _ = key;", LIB,
     "the_difference_applied_to_the_old_gives_the_new"),
    ("one-tenant-first", "src/reconcile/queue.rs", "self.turns.push_back(namespace.clone());", "self.turns.push_front(namespace.clone());", LIB,
     "t6_namespaces_take_turns"),
    ("one-tenant-holds-every-worker", "src/reconcile/queue.rs", "< SHARE * free;", "< SHARE * free + 999;", LIB, "t6_a_namespace_whose_passes_never_end"),
    ("slow-writes-change-nothing", "src/reconcile/gate.rs", "self.most - TAKES", "self.most", LIB, "t6_slow_writes_narrow_the_gate"),
    ("adoption-lets-outsiders-in", f"{WORKSPACE}/plan/action.rs", "Self::PutRequest { mark_only, .. } => !mark_only,",
     "Self::PutRequest { .. } => true,", LIB, "a_request_that_people_made_just_so"),
    ("exhausted-limits-are-ignored", "src/file360/exchange/transport.rs", "self.pause.heed(response.headers());", "", LIB,
     "no_request_is_sent_before_the_server_has_some_left"),
    ("pushes-while-running-are-lost", "src/reconcile/queue.rs", "self.again.insert(key);", "drop(key);", LIB,
     "a_key_pushed_while_it_runs_comes_once_more"),
    ("mapped-addresses-pass", "src/outbound/guard.rs", "let address = address.to_canonical();", "", LIB, "t3_addresses_inside"),
    ("every-namespace-is-granted", "src/controllers/grants.rs", "    namespace && kind && system", "    let _ = namespace;\n    kind && system",
     LIB, "t1_another_namespace_needs_a_grant"),
    ("credentials-go-anywhere", "src/controllers/connection/credentials.rs", "if bound == Some(url.trim_end_matches('/')) {",
     "if bound.is_some() {", LIB, "t5_a_credential_goes_only"),
    ("vanished-workspaces-are-missed", "src/session/index.rs", "let is_same = now.is_some_and(|(revision, content)| {",
     "let is_same = now.is_none_or(|(revision, content)| {", LIB, "a_listing_wakes_those_that_changed"),
    ("documents-count-after-their-end", "src/documents/machine.rs", "if now >= term.ends_at =>", "if now > term.ends_at =>", LIB,
     "a_document_goes_its_way"),
    ("decisions-count-for-other-content", "src/documents/judge.rs",
     "sha256.is_none_or(|sha256| decision.sha256 == sha256)", "sha256.is_none_or(|_| true)", LIB, "a_decision_says_nothing"),
    ("dates-move-after-approval", "src/documents/judge.rs", "decision.date.clone().or_else(recorded)", "recorded().filter(|_| false)", LIB, "what_was_approved_keeps_the_date"),
    ("what-was-read-in-part-counts", f"{WORKSPACE}/documents.rs", "Err(error) if error.kind == Kind::NotFound && page == 0 => break,",
     "Err(_) => break,", API, "c5_what_could_not_be_read_is_not_missing"),
    ("mails-about-documents-have-no-key", f"{WORKSPACE}/reminders.rs", 'format!("documents-{}", hex(&hash.finalize()[..16]))',
     'format!("documents-{}-{:x}", hex(&hash.finalize()[..16]), rand::random::<u64>())', API, "c2_recording_locking"),
    ("no-finalizer", f"{WORKSPACE}/pass.rs", "if has || !self.needs_finalizer(desired) {", "if has || !self.needs_finalizer(desired) || true {",
     API, "d1_a_workspace_without_outsiders_has_no_finalizer"),
    ("outsiders-stay", f"{WORKSPACE}/cleanup.rs", "if external == ExternalOnDelete::Revoke &&", "if external == ExternalOnDelete::Keep &&",
     API, "d1_by_default_outsiders_leave"),
    ("unconfirmed-delete", f"{WORKSPACE}/cleanup.rs", "policy == DeletionPolicy::Delete && !is_confirmed(pass, &workspace)",
     "policy == DeletionPolicy::Delete && is_confirmed(pass, &workspace)", API, "d3_delete_needs_its_confirmation"),
    ("no-breaker", f"{WORKSPACE}/pass.rs", "plan.removals() > max && !approved", "plan.removals() > max + 999 && !approved", API,
     "c7_a_breaker_stops"),
    ("no-fence", "src/file360/exchange/transport.rs", "if let Some(fence) = self.fence.read().as_deref() {",
     "if let Some(fence) = self.fence.read().as_deref().filter(|_| false) {", API, "c9_an_older_epoch_is_refused"),
    ("announcements-are-forgotten", f"{WORKSPACE}/pass.rs", "*announced.lock() = say_reconciling(ctx, store, &before).await;",
     "let _ = (say_reconciling(ctx, store, &before).await, &announced);", API, "a_slow_pass_says_so"),
    ("foreign-changes-are-echoes", "src/session/echo.rs", "change.caused_by.as_deref() == Some(uid) && self.is(&change.actor)",
     "change.caused_by.as_deref() == Some(uid)", LIB, "r8_what_another_principal_says"),
    ("what-waits-counts-as-done", "src/routes/engine.rs", " && !work.is_parked && work.to.is_empty();", ";", API,
     "r4_a_file_that_came_while_the_operator_was_down"),
    ("outsiders-choose-who-shares", "src/routes/work.rs", "loaded.facts.is_untrusted() && route.rules", "false && route.rules", API,
     "r9_who_gets_access"),
    ("ids-need-no-grant", "src/controllers/file_route/engine.rs", "if self.reach == GrantScope::Tenant {", "if true {", API,
     "t1_a_route_reaches_no_workspace"),
    ("outboxes-take-entries-in-twice", "src/reports/outbox.rs", "if sequence <= self.sequence {", "if sequence < self.sequence {", LIB,
     "the_same_entry_and_the_same_state_are_taken_in_once"),
    ("what-gives-way-is-not-told", "src/reports/outbox.rs", "missed.count += 1;", "missed.count += 0;", LIB,
     "a_sink_that_is_away_loses_the_oldest"),
    ("shares-tell-their-address", "src/reports/event.rs", 'facts["hasPassword"] = json!(link.has_password);',
     'facts["hasPassword"] = json!(link.url);', LIB, "t5_the_address_of_a_share_is_not_told"),
    ("notices-have-no-key", "src/routes/destinations/file360.rs", 'format!("{}-notice-{version}-{digest}", delivery.key)',
     'format!("{}-notice-{version}-{digest}-{:x}", delivery.key, rand::random::<u64>())', API, "c2_objects_are_published"),
    ("the-checkpoint-runs-ahead", "src/routes/reader.rs", "work.token = Some(batch.share());", "let _ = batch;", API,
     "r2_the_checkpoint_stays_behind"),
    ("unsigned-jobs-are-done", "src/queue/message.rs", "let Some(signature) = unhex(signature) else { return false };",
     "if signature.len() < 99 { return true; }\n        let Some(signature) = unhex(signature) else { return false };", API,
     "t1_t4_a_forged_job_is_refused"),
    ("jobs-choose-their-workspace", "src/controllers/file_route/worker.rs", "found.connection == ready.connection\n                    &&",
     "found.connection != ready.connection || true ||", API, "t1_t4_a_forged_job_is_refused"),
    ("each-leader-says-other-jobs", "src/queue/message.rs", "        if work.is_gone { \"gone\" } else { \"\" },",
     "        &rand::random::<u64>().to_string(),", API, "r1_a_new_leader_says_the_same_jobs"),
    ("leases-are-not-kept", "src/queue/worker.rs", "let mut wait = lease.length / 3;", "let mut wait = lease.length * 99;", API,
     "r3_a_transfer_that_lasts_longer"),
    ("lost-jobs-stay-lost", "src/queue/leader.rs", "if pending.missed < 2 {", "if pending.missed < 999_999 {", API,
     "r4_the_queue_goes_away"),
]


def copy_of_the_code(folder):
    """The tracked files as they are now, with the build cache of the last run."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    for name in filter(None, names):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def notices(folder, target, fault):
    """Whether the test fails for the fault; a word on what happened otherwise."""
    name, file, old, new, where, test = fault
    path = folder / file
    original = path.read_text()
    if original.count(old) != 1:
        return f"its place in {file} is there {original.count(old)} times"
    path.write_text(original.replace(old, new))
    environment = dict(os.environ, CARGO_TARGET_DIR=str(target), RUST_BACKTRACE="0")
    try:
        build = subprocess.run(["cargo", "test", "--quiet", "--no-run", *where], cwd=folder, env=environment, capture_output=True, text=True)
        if build.returncode:
            return "it does not compile:\n" + build.stderr[-2000:]
        command = ["cargo", "test", "--quiet", *where, "--", test]
        run = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                               start_new_session=True)
        try:
            output, _ = run.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            # A test that never ends is as red as one that fails. The test is a child of cargo: both have to go.
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()
            return None
        if "running 0 tests" in output and "running 1 test" not in output:
            return f"no test is named {test}"
        return None if run.returncode else f"{test} stays green"
    finally:
        path.write_text(original)


def lost_places():
    """Faults whose place in the code is not there, or not only there."""
    return [f"{name}: its place in {file} is there {count} times" for name, file, old, *_ in FAULTS
            if (count := (ROOT / file).read_text().count(old) if (ROOT / file).exists() else 0) != 1]


def main():
    if sys.argv[1:] == ["--places"]:
        lost = lost_places()
        print("\n".join(lost), end="\n" if lost else "")
        return 1 if lost else 0
    wanted = [fault for fault in FAULTS if len(sys.argv) < 2 or fault[0] in sys.argv[1:]]
    cache = pathlib.Path(os.environ.get("FILE360_CACHE_DIR") or pathlib.Path.home() / ".cache" / "file360-operator")
    target = cache / "seeded-faults-target"
    missed = 0
    with tempfile.TemporaryDirectory(prefix="file360-faults-") as folder:
        folder = pathlib.Path(folder)
        copy_of_the_code(folder)
        for fault in wanted:
            why = notices(folder, target, fault)
            missed += why is not None
            print(f"{fault[0]}: " + ("noticed by " + fault[5] if why is None else "NOT NOTICED: " + why), flush=True)
    print(f"{len(wanted) - missed} passed, {missed} failed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
