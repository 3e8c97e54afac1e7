//! YAML that anybody wrote, as `file360-operator check` reads it.

#![no_main]

use std::sync::OnceLock;

use file360_operator::cli::check::{documents, Checker};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    static CHECKER: OnceLock<Checker> = OnceLock::new();
    let checker = CHECKER.get_or_init(|| Checker::new().expect("the schemas compile"));
    for manifest in documents(text).into_iter().flatten() {
        for finding in checker.findings(&manifest) {
            assert!(!finding.is_empty(), "a finding says what is wrong");
        }
    }
});
