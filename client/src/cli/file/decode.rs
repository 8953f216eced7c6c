//! From a tree of YAML to values of ours, with errors that name the place and the remedy.

use std::time::Duration;

use stageline_protocol::text::{NOT_PLAIN, is_plain};

use super::yaml::{Key, Node, Place, Value};
use crate::cli::units;

/// What is wrong, and where.
pub(super) type Wrong = (Place, String);

/// A table whose keys are all allowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'a> {
    pub(super) at: Place,
    what: &'a str,
    entries: &'a [(Key, Node)],
}

impl<'a> Table<'a> {
    /// Takes a node as a table with these keys and no others; `what` names it in errors.
    pub(super) fn of(node: &'a Node, what: &'a str, allowed: &[&str]) -> Result<Self, Wrong> {
        let Value::Table(entries) = &node.value else {
            let found = node.value.describe();
            return Err((node.at, format!("{what} is a table of settings; this is {found}")));
        };
        for (key, _) in entries {
            if !allowed.contains(&key.name.as_str()) {
                let nearest = nearest(&key.name, allowed.iter().copied())
                    .map_or_else(|| ".".to_owned(), |near| format!("; did you mean `{near}`?"));
                return Err((
                    key.at,
                    format!(
                        "{what} has no setting `{}`{nearest} Its settings are {}",
                        key.name,
                        join(allowed)
                    ),
                ));
            }
        }
        Ok(Self { at: node.at, what, entries })
    }

    /// The value of a key, if the key is there. A key without a value counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&'a Node> {
        self.entries
            .iter()
            .find(|(key, node)| key.name == name && node.value != Value::Null)
            .map(|(_, node)| node)
    }

    /// Whether the key is there, with a value or without.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(key, _)| key.name == name)
    }

    /// The value of a key that must be there.
    pub(super) fn need(&self, name: &str, example: &str) -> Result<&'a Node, Wrong> {
        self.get(name).ok_or_else(|| {
            (self.at, format!("{} needs `{name}`, for example {example}", self.what))
        })
    }

    /// The keys with values.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> {
        let set = self.entries.iter().filter(|(_, node)| node.value != Value::Null);
        set.map(|(key, _)| key.name.as_str())
    }

    /// Decodes the value of a key, if it is there.
    pub(super) fn read<T>(
        &self,
        name: &str,
        decode: impl FnOnce(&'a Node, &str) -> Result<T, Wrong>,
    ) -> Result<Option<T>, Wrong> {
        self.get(name).map(|node| decode(node, name)).transpose()
    }
}

/// A text that is not empty.
pub(super) fn text<'a>(node: &'a Node, name: &str) -> Result<&'a str, Wrong> {
    match &node.value {
        Value::Text(text) if !text.is_empty() => Ok(text),
        Value::Text(_) => Err((node.at, format!("`{name}` must not be empty"))),
        Value::Null => Err((node.at, format!("`{name}` is a text; this is nothing"))),
        other => {
            let found = other.describe();
            Err((node.at, format!("`{name}` is a text; this is {found}: put it in quotes")))
        }
    }
}

/// A name: a text that people see in lists and logs.
pub(super) fn name<'a>(node: &'a Node, key: &str) -> Result<&'a str, Wrong> {
    let name = text(node, key)?;
    if is_plain(name) { Ok(name) } else { Err((node.at, format!("`{key}` {NOT_PLAIN}"))) }
}

/// A text, or a list of them that is not empty; each with its place.
pub(super) fn texts<'a>(node: &'a Node, name: &str) -> Result<Vec<(Place, &'a str)>, Wrong> {
    match &node.value {
        Value::List(nodes) if nodes.is_empty() => {
            Err((node.at, format!("`{name}` is an empty list; it needs at least one entry")))
        }
        Value::List(nodes) => nodes.iter().map(|node| Ok((node.at, text(node, name)?))).collect(),
        _ => Ok(vec![(node.at, text(node, name)?)]),
    }
}

/// Yes or no.
pub(super) fn flag(node: &Node, name: &str) -> Result<bool, Wrong> {
    match node.value {
        Value::Bool(value) => Ok(value),
        _ => {
            Err((node.at, format!("`{name}` is true or false; this is {}", node.value.describe())))
        }
    }
}

/// A whole number of at least `least`.
pub(super) fn number<T: TryFrom<u64>>(least: u64) -> impl FnOnce(&Node, &str) -> Result<T, Wrong> {
    move |node, name| {
        let number = match node.value {
            Value::Uint(number) => Some(number),
            Value::Int(number) => u64::try_from(number).ok(),
            _ => None,
        };
        number.filter(|number| *number >= least).and_then(|n| T::try_from(n).ok()).ok_or_else(
            || {
                let found = node.value.describe();
                (
                    node.at,
                    format!("`{name}` is a whole number of at least {least}; this is {found}"),
                )
            },
        )
    }
}

/// A duration with its unit, above zero.
pub(super) fn duration(node: &Node, name: &str) -> Result<Duration, Wrong> {
    let wrong = |why: String| (node.at, format!("`{name}`: {why}"));
    match &node.value {
        Value::Text(text) => match units::duration(text).map_err(wrong)? {
            Duration::ZERO => Err(wrong("a duration of zero leaves no time at all".to_owned())),
            duration => Ok(duration),
        },
        other => Err(wrong(format!(
            "{} is not a duration; write it with its unit, for example 10s",
            other.describe()
        ))),
    }
}

/// A size in bytes, above zero: a number, or a text with a unit.
pub(super) fn size(node: &Node, name: &str) -> Result<u64, Wrong> {
    match &node.value {
        Value::Text(text) => units::size(text).map_err(|why| (node.at, format!("`{name}`: {why}"))),
        _ => number(1)(node, name),
    }
}

/// The candidate that a mistyped name most likely meant.
fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().min(name.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `a, b and c`, each in backquotes.
pub(super) fn join(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}
