//! A plain checker of links, which shares nothing with the pipeline that it checks: one pass over the
//! bytes of each page.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

/// The broken relative links of these pages, as JSON lines, sorted.
pub(crate) fn broken_links(pages: &[PathBuf]) -> Vec<String> {
    let mut found = Vec::new();
    for page in pages {
        let html = fs::read_to_string(page).unwrap();
        let links: BTreeSet<String> =
            values(&html).iter().filter_map(|value| relative(&entities(value))).collect();
        for link in links {
            let target = page.parent().unwrap().join(percent(&link));
            if fs::metadata(target).is_err() {
                found.push(json!({"page": page, "link": link}).to_string());
            }
        }
    }
    found.sort();
    found
}

/// All pages below a folder, sorted.
pub(crate) fn pages(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(pages(&path));
        } else if path.extension().is_some_and(|extension| extension == "html") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The values of all `href` and `src` attributes, as they are written.
fn values(html: &str) -> Vec<String> {
    let mut values = Vec::new();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        if let Some(comment) = rest.strip_prefix("!--") {
            rest = comment.find("-->").map_or("", |end| &comment[end + 3..]);
        } else if rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
            let name = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            let script = rest[..name].eq_ignore_ascii_case("script");
            rest = attributes(&rest[name..], &mut values);
            if script {
                rest = rest.find("</script").map_or("", |end| &rest[end..]);
            }
        }
    }
    values
}

/// Reads the attributes of one tag, and answers what is behind it.
fn attributes<'a>(mut rest: &'a str, values: &mut Vec<String>) -> &'a str {
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
        if rest.is_empty() {
            return rest;
        }
        if let Some(behind) = rest.strip_prefix('>') {
            return behind;
        }
        let ends = |c: char| c.is_whitespace() || matches!(c, '=' | '>' | '/');
        let (name, tail) = rest.split_at(rest.find(ends).unwrap_or(rest.len()));
        let Some(value) = tail.trim_start().strip_prefix('=') else {
            // A stray character must not hold the scan up.
            rest = if name.is_empty() { &rest[1..] } else { tail };
            continue;
        };
        let value = value.trim_start();
        let (value, behind) = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => value[1..].split_once(quote).unwrap_or((&value[1..], "")),
            _ => value.split_at(
                value.find(|c: char| c.is_whitespace() || c == '>').unwrap_or(value.len()),
            ),
        };
        if name.eq_ignore_ascii_case("href") || name.eq_ignore_ascii_case("src") {
            values.push(value.to_owned());
        }
        rest = behind;
    }
}

/// The path of a link that is relative to its page and leads elsewhere.
fn relative(value: &str) -> Option<String> {
    let path = value.split(['#', '?']).next()?;
    let scheme = path.split('/').next()?.contains(':');
    (!path.is_empty() && !path.starts_with('/') && !scheme).then(|| path.to_owned())
}

fn entities(text: &str) -> String {
    let named = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    named.iter().fold(text.to_owned(), |text, (entity, plain)| text.replace(entity, plain))
}

fn percent(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let coded = (*byte == b'%').then(|| tail.get(..2)).flatten();
        let coded = coded.and_then(|digits| std::str::from_utf8(digits).ok());
        match coded.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap()
}
