//! Text for terminals: nothing that a server sent can move the cursor, change colours or reorder what is read.

use std::io::Write as _;

use jiff::Timestamp;

/// Where output goes. Every character that is not meant to be seen is replaced on the way.
#[derive(Debug, Default)]
pub struct Printer {}

impl Printer {
    /// Prints a line or several to standard output.
    #[allow(clippy::unused_self, reason = "what prints is visible in a function's arguments")]
    pub fn print(&self, text: &str) {
        // A reader that went away, such as `head`, is no failure.
        let _ = writeln!(std::io::stdout().lock(), "{}", harmless(text));
    }

    /// Prints a remark to standard error.
    #[allow(clippy::unused_self, reason = "what prints is visible in a function's arguments")]
    pub fn note(&self, text: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{}", harmless(text));
    }
}

/// Whether a terminal would act on the character, or show the text around it in another order.
pub fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

fn harmless(text: &str) -> String {
    text.chars().map(|c| if c != '\n' && is_hostile(c) { '\u{fffd}' } else { c }).collect()
}

/// One line of at most `max` characters.
pub fn line(text: &str, max: usize) -> String {
    let text: String = text.chars().map(|c| if is_hostile(c) { ' ' } else { c }).collect();
    crate::error::clean(text.trim(), max)
}

/// Columns as wide as their widest cell. A cell is one line.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|title| title.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let header: Vec<String> = header.iter().map(|title| (*title).to_owned()).collect();
    let lines = std::iter::once(&header).chain(rows).map(|row| {
        let mut text = String::new();
        for (width, cell) in widths.iter().zip(row) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + 3));
        }
        text.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Every line two spaces further in.
pub fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// How long ago, as kubectl says it.
pub fn age(since: Option<Timestamp>, now: Timestamp) -> String {
    since.map_or_else(String::new, |since| span(now.duration_since(since).as_secs()))
}

/// A length of time in its largest unit that says enough.
pub fn span(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..=119 => format!("{s}s"),
        s @ 120..=7_199 => format!("{}m", s / 60),
        s @ 7_200..=172_799 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_sends_cannot_act_on_a_terminal() {
        assert_eq!(line("a\u{1b}[31m\r\nb\u{9b}2Jc\u{202e}d", 100), "a [31m  b 2Jc d");
        assert_eq!(harmless("one\ntwo\u{1b}]0;x\u{7}"), "one\ntwo\u{fffd}]0;x\u{fffd}");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["a".to_owned(), "long cell".to_owned()], vec!["äöü-x".to_owned(), String::new()]];
        assert_eq!(table(&["NAME", "B"], &rows), "NAME    B\na       long cell\näöü-x");
    }

    #[test]
    fn ages_have_one_unit() {
        assert_eq!([span(-5), span(119), span(120), span(7200), span(200_000)], ["0s", "119s", "2m", "2h", "2d"]);
    }
}
