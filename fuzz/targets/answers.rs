//! Answers of a File 360 that may be broken or hostile: whatever is understood is understood the same way when it is written out
//! and read again.

#![no_main]

use std::fmt::Debug;

use file360_operator::error::clean;
use file360_operator::file360::model::{
    ChangePage, Fence, Folder, Link, Member, Page, Principal, Problem, Service, UploadRequest, Workspace, WorkspaceRow,
};
use libfuzzer_sys::fuzz_target;
use serde::de::DeserializeOwned;
use serde::Serialize;

fn understood<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(first) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&first).expect("what was read can be written");
    let second: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(first, second);
}

fuzz_target!(|bytes: &[u8]| {
    understood::<Service>(bytes);
    understood::<Workspace>(bytes);
    understood::<Page<WorkspaceRow>>(bytes);
    understood::<Page<Folder>>(bytes);
    understood::<Page<Member>>(bytes);
    understood::<Page<UploadRequest>>(bytes);
    understood::<Page<Link>>(bytes);
    understood::<Page<Principal>>(bytes);
    understood::<ChangePage>(bytes);
    understood::<Fence>(bytes);
    if let Ok(problem) = serde_json::from_slice::<Problem>(bytes) {
        let said = clean(&problem.title, 300);
        assert!(said.chars().count() <= 300 && !said.contains(['\n', '\r', '\u{1b}']), "it goes into logs and statuses: {said:?}");
    }
});
