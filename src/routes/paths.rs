//! Which paths a route looks at.

use crate::file360::names::fold;

/// A pattern over paths: `*` stands for any part of a name, `**` for any folders (none among them). Names compare as File 360 compares them,
/// so that a file is not beside the pattern because of its letters' case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    segments: Vec<String>,
    folded: Vec<String>,
}

impl PathPattern {
    /// The pattern as written. A trailing `/` counts as `/**`.
    pub fn new(text: &str) -> Self {
        let mut segments: Vec<String> = text.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        if text.ends_with('/') {
            segments.push("**".into());
        }
        let folded = segments.iter().map(|segment| fold(segment)).collect();
        Self { segments, folded }
    }

    /// Whether `path` fits.
    pub fn matches(&self, path: &str) -> bool {
        let path = fold(path);
        let path: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        fits(&self.folded, &path)
    }

    /// The folder that holds everything that can fit: what stands before the first wildcard.
    pub fn root(&self) -> String {
        let fixed: Vec<&str> =
            self.segments.iter().map(String::as_str).take_while(|segment| !segment.contains('*')).collect();
        // The last fixed segment is a file's name unless a wildcard follows.
        let folders = if fixed.len() == self.segments.len() { &fixed[..fixed.len().saturating_sub(1)] } else { &fixed[..] };
        format!("/{}", folders.join("/"))
    }
}

/// Row by row: which beginnings of the pattern fit which beginnings of the path. Time is O(pattern × path), whatever the pattern.
fn fits(pattern: &[String], path: &[&str]) -> bool {
    let mut row: Vec<bool> = vec![false; path.len() + 1];
    row[0] = true;
    for segment in pattern {
        let mut next = vec![false; path.len() + 1];
        if segment == "**" {
            let mut any = false;
            for at in 0..=path.len() {
                any |= row[at];
                next[at] = any;
            }
        } else {
            for at in 0..path.len() {
                next[at + 1] = row[at] && name_fits(segment, path[at]);
            }
        }
        row = next;
    }
    row[path.len()]
}

fn name_fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(first) = parts.next() else { return name.is_empty() };
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_names_and_folders() {
        let fits = |pattern: &str, path: &str| PathPattern::new(pattern).matches(path);
        for (pattern, path) in [
            ("/**", "/a"),
            ("/**", "/a/b/c.pdf"),
            ("/Inbox/**", "/Inbox/a"),
            ("/Inbox/**", "/Inbox/x/y/a"),
            ("/Inbox/", "/Inbox/x/a"),
            ("/*/Signed/*.pdf", "/Contracts/Signed/a.pdf"),
            ("/a*b*c", "/axxbyyc"),
            ("/**/final/*", "/final/x"),
            ("/Inbox/*.pdf", "/INBOX/A.PDF"),
            ("/\u{c9}t\u{e9}/*", "/e\u{301}te\u{301}/a"),
            ("/**/final/*", "/a/b/final/x"),
        ] {
            assert!(fits(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("/Inbox/*", "/Inbox/x/a"),
            ("/Inbox/**", "/Inboxes/a"),
            ("/Inbox/**", "/other/Inbox/a"),
            ("/*.pdf", "/a.pdf.exe"),
            ("/a*b*c", "/ac"),
            ("/ab*b", "/ab"),
        ] {
            assert!(!fits(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_full_of_wildcards_costs_no_more_than_its_length() {
        let pattern = PathPattern::new(&"/**/a*".repeat(200));
        assert!(!pattern.matches(&"/ab".repeat(500).replace("ab", "b")));
    }

    #[test]
    fn the_root_holds_everything_that_can_fit() {
        for (pattern, root) in
            [("/Inbox/**", "/Inbox"), ("/**", "/"), ("/A/B/*.pdf", "/A/B"), ("/A/b.pdf", "/A"), ("/A/x*/y", "/A")]
        {
            assert_eq!(PathPattern::new(pattern).root(), root, "{pattern}");
        }
    }
}
