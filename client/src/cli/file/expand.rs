//! What the text of a glob or file name stands for: `${VARIABLES}`, then `{brace,alternatives}`.
//!
//! A variable's value is put in as text, so it may itself be a pattern. Nothing else of a shell is
//! done: `~` is a character like any other.

/// Longer texts are refused, which also bounds the depth of what is nested in them.
const LONGEST: usize = 4096;
/// More alternatives than this are a mistake.
const MOST_ALTERNATIVES: usize = 10_000;

/// Replaces each `${NAME}` by its value, and each `${NAME:-default}` by its value, or if that is
/// unset or empty, by the default, in which there may be variables again.
///
/// # Errors
/// A variable that is unset and has no default, by name; a `${` that is not closed, or names
/// nothing.
pub(super) fn variables(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    if text.len() > LONGEST {
        return Err(format!("this text is longer than {LONGEST} bytes"));
    }
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        expanded.push_str(&rest[..start]);
        let inside = &rest[start + 2..];
        let end = closing(inside).ok_or_else(|| format!("`${{` without its `}}` in {text:?}"))?;
        let (name, default) = match inside[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&inside[..end], None),
        };
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if name.is_empty() || !plain || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!(
                "{name:?} is not the name of a variable; write ${{NAME}} or ${{NAME:-default}}"
            ));
        }
        match (lookup(name), default) {
            (Some(value), None) => expanded.push_str(&value),
            (Some(value), Some(_)) if !value.is_empty() => expanded.push_str(&value),
            (_, Some(default)) => expanded.push_str(&variables(default, lookup)?),
            (None, None) => {
                return Err(format!(
                    "the environment variable {name} is not set; set it, or write ${{{name}:-default}}"
                ));
            }
        }
        rest = &inside[end + 1..];
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// All texts that a pattern with `{a,b}` alternatives stands for, in their order. Braces without a
/// comma, or without their pair, are characters like any other.
///
/// # Errors
/// The pattern is too long, or stands for too many texts.
pub(super) fn braces(pattern: &str) -> Result<Vec<String>, String> {
    if pattern.len() > LONGEST {
        return Err(format!("this pattern is longer than {LONGEST} bytes"));
    }
    let mut texts = vec![String::new()];
    let mut rest = pattern;
    while let Some(start) = rest.find('{') {
        let inside = &rest[start + 1..];
        let alternatives = closing(inside).map(|end| (end, split(&inside[..end])));
        let (tails, next) = match alternatives {
            Some((end, parts)) if parts.len() > 1 => {
                let mut tails = Vec::new();
                for part in parts {
                    tails.extend(braces(part)?);
                }
                (tails, &inside[end + 1..])
            }
            _ => (vec!["{".to_owned()], inside),
        };
        if texts.len().saturating_mul(tails.len()) > MOST_ALTERNATIVES {
            return Err(format!("{pattern:?} stands for more than {MOST_ALTERNATIVES} patterns"));
        }
        texts = texts
            .iter()
            .flat_map(|text| {
                tails.iter().map(move |tail| format!("{text}{}{tail}", &rest[..start]))
            })
            .collect();
        rest = next;
    }
    texts.iter_mut().for_each(|text| text.push_str(rest));
    Ok(texts)
}

/// Where the brace is that closes one opened just before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Splits at the commas that are in no inner braces.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    text.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "HOME" => Some("/home/me".to_owned()),
            "EMPTY" => Some(String::new()),
            "GLOB" => Some("{a,b}*".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn variables_and_their_nested_defaults_are_put_in() {
        for (text, expanded) in [
            ("plain $HOME ~ {a,b}", "plain $HOME ~ {a,b}"),
            ("${HOME}/x", "/home/me/x"),
            ("${HOME:-/root}/x", "/home/me/x"),
            ("${RUSTUP_HOME:-${HOME}/.rustup}/doc", "/home/me/.rustup/doc"),
            ("${EMPTY}-${EMPTY:-d}-${NONE:-}", "-d-"),
            ("${NONE:-{a,${NONE:-b}}}", "{a,b}"),
            ("${GLOB}", "{a,b}*"),
        ] {
            assert_eq!(variables(text, &lookup).as_deref(), Ok(expanded), "{text}");
        }
    }

    #[test]
    fn an_unset_variable_is_named() {
        for (text, why) in [
            ("a/${NONE}/b", "variable NONE is not set"),
            ("${NONE:-${OTHER}}", "variable OTHER is not set"),
            ("${HOME", "without its"),
            ("${}", "not the name of a variable"),
            ("${A-B}", "not the name of a variable"),
            ("${1}", "not the name of a variable"),
        ] {
            let error = variables(text, &lookup).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(variables(&"${A:-".repeat(100_000), &lookup).is_err());
    }

    #[test]
    fn braces_stand_for_every_combination() {
        let all = |pattern: &str| braces(pattern).expect(pattern).join(" ");
        assert_eq!(all("x"), "x");
        assert_eq!(all("{a,b}/{c,d}.rs"), "a/c.rs a/d.rs b/c.rs b/d.rs");
        assert_eq!(all("{a,b{1,2},}x"), "ax b1x b2x x");
        assert_eq!(all("{a}-{b,c}-}{"), "{a}-b-}{ {a}-c-}{");
        assert!(braces(&"{a,b}".repeat(20)).expect_err("too many").contains("more than"));
        assert!(braces(&"{".repeat(100_000)).is_err());
    }
}
