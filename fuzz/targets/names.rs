//! Names, paths, addresses and domains from outside, as the embedded File 360 takes them, and hosts as the outbound guard does.

#![no_main]

use std::sync::OnceLock;

use file360_operator::outbound::guard::Guard;
use file360_operator::server::names;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(name) = names::file_name(text, "/name") {
        assert_eq!(names::file_name(&name, "/name").ok().as_ref(), Some(&name), "a stored name is its own form");
        assert!(!name.contains(['/', '\\', '\0', '\n', '\r']) && name != "." && name != "..");
        assert!(name.len() <= names::MAX_NAME);
    }
    if let Ok(segments) = names::segments(text, "/path") {
        assert!(segments.len() <= names::MAX_DEPTH);
        assert!(segments.iter().all(|name| name != ".." && !name.contains('/')), "no path leaves its root: {segments:?}");
    }
    assert_eq!(names::fold(&names::fold(text)), names::fold(text), "a folded name is its own form");
    if let Some(address) = names::email(text) {
        assert_eq!(names::email(&address).as_ref(), Some(&address), "a stored address is its own form");
        assert!(address.is_ascii() && !address.contains(|c: char| c.is_ascii_control() || c == ' '));
    }
    if let Some(pattern) = names::domain_pattern(text) {
        let below = format!("a@x.{}", pattern.trim_start_matches("*."));
        assert_eq!(names::domain_matches(&[pattern.clone()], &below), pattern.starts_with("*."), "{pattern}");
    }
    static GUARD: OnceLock<std::sync::Arc<Guard>> = OnceLock::new();
    let guard = GUARD.get_or_init(|| std::sync::Arc::new(Guard::new(&[], &[]).expect("nothing is allowed")));
    let _ = guard.check_host(text);
    let _ = Guard::new(&[text.to_owned()], &[text.to_owned()]);
});
