//! Points in time and periods of a spec: whatever is accepted can be planned with, at any time.

#![no_main]

use file360_operator::api::SecureWorkspaceSpec;
use file360_operator::controllers::secure_workspace::desired::Desired;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, i64)| {
    let (period, moment, now) = input;
    let spec = serde_json::json!({
        "connectionRef": {"name": "c"}, "displayName": "w", "deleteGrace": period, "suspend": true, "suspendUntil": moment,
        "access": {"members": [{"kind": "User", "name": "ada", "role": "Viewer", "expiresAt": moment}]},
    });
    let Ok(spec) = serde_json::from_value::<SecureWorkspaceSpec>(spec) else { return };
    let Ok(now) = Timestamp::from_second(now) else { return };
    if let Ok(desired) = Desired::of(&spec, now) {
        assert!(desired.next_change_at.is_none_or(|at| at > now), "what is over changes nothing any more");
    }
});
