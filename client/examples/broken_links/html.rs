//! As much HTML as it takes to find links.

use std::collections::BTreeSet;

/// The relative links of a page, each once, without what `#` and `?` begin. What stands in comments
/// and scripts is no link, but a script may have a source.
pub(crate) fn relative_links(html: &str) -> BTreeSet<String> {
    let mut links = BTreeSet::new();
    let mut rest = html;
    while let Some((_, tag)) = rest.split_once('<') {
        rest = if let Some(comment) = tag.strip_prefix("!--") {
            comment.split_once("-->").map_or("", |(_, behind)| behind)
        } else if tag.starts_with(|c: char| c.is_ascii_alphabetic()) {
            let behind = tag_links(tag, &mut links);
            match tag.get(..6).is_some_and(|name| name.eq_ignore_ascii_case("script")) {
                true => behind.find("</script").map_or("", |end| &behind[end..]),
                false => behind,
            }
        } else {
            tag
        };
    }
    links
}

/// Adds the links of one tag, and answers what stands behind it.
fn tag_links<'a>(tag: &'a str, links: &mut BTreeSet<String>) -> &'a str {
    let name = tag.find(|c: char| c.is_whitespace() || matches!(c, '/' | '>')).unwrap_or(tag.len());
    let mut rest = &tag[name..];
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '/' || c == '=');
        if rest.is_empty() || rest.starts_with('>') {
            return rest;
        }
        let end = |c: char| c.is_whitespace() || matches!(c, '=' | '>' | '/');
        let (attribute, behind) = rest.split_at(rest.find(end).unwrap_or(rest.len()));
        let Some(value) = behind.trim_start().strip_prefix('=').map(str::trim_start) else {
            rest = behind;
            continue;
        };
        let value_end = |c: char| c.is_whitespace() || c == '>';
        let (value, behind) = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => value[1..].split_once(quote).unwrap_or((&value[1..], "")),
            _ => value.split_at(value.find(value_end).unwrap_or(value.len())),
        };
        if ["href", "src"].iter().any(|name| attribute.eq_ignore_ascii_case(name)) {
            links.extend(relative(value));
        }
        rest = behind;
    }
}

/// The path of a link, if it is relative and leads out of the page: no absolute path, no URL with
/// its scheme.
fn relative(value: &str) -> Option<String> {
    let value = ["&lt;<", "&gt;>", "&quot;\"", "&#39;'", "&amp;&"].iter().fold(
        value.to_owned(),
        |value, entity| {
            let (entity, plain) = entity.split_at(entity.len() - 1);
            value.replace(entity, plain)
        },
    );
    let path = value.split(['#', '?']).next()?;
    let absolute = path.starts_with('/') || path.split('/').next()?.contains(':');
    (!path.is_empty() && !absolute).then(|| path.to_owned())
}

/// The file name that a link stands for: `%20` is a space.
pub(crate) fn file_name(link: &str) -> String {
    let mut bytes = Vec::with_capacity(link.len());
    let mut rest = link;
    while let Some((plain, coded)) = rest.split_once('%') {
        bytes.extend_from_slice(plain.as_bytes());
        let byte = coded.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(b'%'));
        rest = if byte.is_some() { &coded[2..] } else { coded };
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}
