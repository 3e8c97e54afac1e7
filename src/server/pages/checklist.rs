//! What an upload page tells about required documents.

use std::fmt::Write as _;

use super::html::escape;
use crate::file360::model::{Accept, ChecklistItem, DocumentState};

/// The documents with their states, as a list; nothing where there are none.
pub fn section(items: &[ChecklistItem]) -> String {
    let shown: Vec<&ChecklistItem> = items.iter().filter(|item| item.state != DocumentState::NotApplicable).collect();
    if shown.is_empty() {
        return String::new();
    }
    let open = shown.iter().filter(|item| is_open(item.state)).count();
    let heading = match open {
        0 => "Nothing is needed at the moment".to_owned(),
        1 => "1 document is still needed".to_owned(),
        many => format!("{many} documents are still needed"),
    };
    let mut text = format!("<section aria-labelledby=\"documents\"><h2 id=\"documents\">{heading}</h2><ul>");
    for item in shown {
        let _ = write!(text, "<li><b>{}</b>: {}", escape(&item.title), escape(&state(item)));
        if let Some(message) = item.message.as_deref().filter(|_| item.state == DocumentState::Rejected) {
            let _ = write!(text, "<br>Reason: {}", escape(message));
        }
        if item.renewal {
            text.push_str("<br>A newer version is being reviewed.");
        }
        if is_open(item.state) {
            let _ = write!(text, "{}", accepted(&item.accept));
        }
        text.push_str("</li>");
    }
    text.push_str("</ul></section>");
    text
}

/// Whether whoever reads the page is asked to send something.
fn is_open(state: DocumentState) -> bool {
    use DocumentState as S;
    matches!(state, S::Missing | S::Rejected | S::Expired | S::ExpiringSoon)
}

fn state(item: &ChecklistItem) -> String {
    let until = |text: &str| item.valid_to.as_ref().map(|day| format!("{text} {day}")).unwrap_or_default();
    match item.state {
        DocumentState::Missing => "needed".into(),
        DocumentState::Received => "received, being checked".into(),
        DocumentState::InReview => "received, in review".into(),
        DocumentState::Approved => format!("approved{}", until(", valid to")),
        DocumentState::ExpiringSoon => format!("expires soon{}; please send a new one", until(", valid to")),
        DocumentState::Expired => format!("expired{}; please send a new one", until(", was valid to")),
        DocumentState::Rejected => "rejected; please send another one".into(),
        DocumentState::Waived => format!("not needed for now{}", until(", until")),
        DocumentState::NotApplicable => "not needed".into(),
    }
}

fn accepted(accept: &Accept) -> String {
    let types = (!accept.mime_types.is_empty()).then(|| accept.mime_types.join(", "));
    let size = accept.max_size.map(|most| format!("at most {}", size(most)));
    let limits: Vec<String> = types.into_iter().chain(size).collect();
    if limits.is_empty() { String::new() } else { format!("<br><small>{}</small>", escape(&limits.join("; "))) }
}

fn size(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 20 && b % (1 << 20) == 0 => format!("{} MiB", b >> 20),
        b if b >= 1 << 10 && b % (1 << 10) == 0 => format!("{} KiB", b >> 10),
        b => format!("{b} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_says_what_to_do_and_nothing_brings_markup() {
        let item = |state, message: Option<&str>| ChecklistItem {
            name: "iso".into(),
            title: "ISO <script>".into(),
            state,
            valid_to: Some("2027-01-31".into()),
            message: message.map(str::to_owned),
            renewal: false,
            accept: Accept { mime_types: vec!["application/pdf".into()], max_size: Some(20 << 20) },
        };
        let text = section(&[
            item(DocumentState::Rejected, Some("the <b>seal</b> is missing")),
            item(DocumentState::Approved, Some("internal remark")),
            item(DocumentState::NotApplicable, None),
        ]);
        assert!(text.contains("1 document is still needed") && !text.contains("<script>"), "{text}");
        assert!(text.contains("Reason: the &lt;b&gt;seal&lt;/b&gt; is missing") && !text.contains("internal"), "{text}");
        assert!(
            text.contains("approved, valid to 2027-01-31") && text.contains("application/pdf; at most 20 MiB"),
            "{text}"
        );
        assert_eq!(text.matches("<li>").count(), 2);
        assert_eq!(section(&[]), "");
    }
}
