//! Texts of others, where people see them.
//!
//! A name with a line break forges a row of a table or a line of a log, and one with an escape sequence
//! moves the cursor, renames the window or hides what was there. So names have no such characters, which
//! is checked where they are made ([`is_plain`]); and whatever comes from a file, an item or a peer is
//! shown with them spelled out ([`shown`]).

use std::borrow::Cow;

/// What is wrong with a name that is not plain.
pub const NOT_PLAIN: &str =
    "has a control character in it, such as a line break or an escape: leave it out";

/// Whether a text may be a name: it has no character that steers a terminal.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    !text.contains(steers)
}

/// The text with what steers a terminal spelled out: a line break is `\n`, an escape `\u{1b}`.
#[must_use]
pub fn shown(text: &str) -> Cow<'_, str> {
    if is_plain(text) {
        return Cow::Borrowed(text);
    }
    let spell = |c: char| if steers(c) { c.escape_default().collect() } else { String::from(c) };
    Cow::Owned(text.chars().map(spell).collect())
}

/// Control characters of both sorts, what breaks a line or a paragraph, and what turns the direction of
/// the text around it.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_spelled_out_and_nothing_else_is() {
        let plain = "w-1 \"ö\" \\n 日本 \u{1f600}";
        assert!(is_plain(plain));
        assert!(matches!(shown(plain), Cow::Borrowed(text) if text == plain));
        let forged = "a\u{1b}]0;PWN\u{7}\n\r\t\u{9b}2J\u{202e}b\u{2028}\u{7f}";
        assert!(!is_plain(forged));
        let spelled = r"a\u{1b}]0;PWN\u{7}\n\r\t\u{9b}2J\u{202e}b\u{2028}\u{7f}";
        assert_eq!(shown(forged), spelled);
        assert!(is_plain(&shown(forged)));
    }
}
