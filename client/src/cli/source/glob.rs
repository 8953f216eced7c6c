//! From globs to a sorted list of files.
//!
//! The folders are walked here, and only the matching of one name against one pattern is the `glob`
//! crate's: its own walk skips file names that are not UTF-8, or panics on them, where we must say so.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind::{NotADirectory, NotFound};
use std::path::{Path, PathBuf};

use glob::Pattern;

use super::SourceError;

/// The files (not folders) that the globs match, sorted, each once. A glob that is also the name of
/// a file means that file. As in a shell, `*` stays within a folder, and hidden files and folders are
/// matched only by a pattern that has their dot. Symbolic links are followed, but not by `**`.
pub(super) fn files(globs: &[String]) -> Result<Vec<PathBuf>, SourceError> {
    let mut files = BTreeSet::new();
    for pattern in globs {
        let path = Path::new(pattern);
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                return Err(SourceError::Folder { path: path.to_owned() });
            }
            Ok(_) => {
                files.insert(path.to_owned());
            }
            Err(_) if is_glob(pattern) => {
                let parts = parts(pattern)?;
                let mut found = false;
                let mut add = |path| {
                    found = true;
                    files.insert(path);
                };
                let root = if pattern.starts_with('/') { "/" } else { "" };
                walk(Path::new(root), &parts, &mut add)?;
                if !found {
                    return Err(SourceError::NoMatch { pattern: pattern.clone() });
                }
            }
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => {
                return Err(SourceError::Missing { path: path.to_owned() });
            }
            Err(error) => return Err(SourceError::Unreadable { path: path.to_owned(), error }),
        }
    }
    Ok(files.into_iter().collect())
}

/// One part of a glob, between slashes.
enum Part<'a> {
    /// A name as it is.
    Name(&'a str),
    /// Names that match.
    Like(Pattern),
    /// `**`: this folder and all below it.
    Below,
}

fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

fn parts(pattern: &str) -> Result<Vec<Part<'_>>, SourceError> {
    let mut parts = Vec::new();
    let mut position = 1;
    for text in pattern.split('/') {
        match text {
            "" => {}
            // Several in a row mean no more than one.
            "**" if matches!(parts.last(), Some(Part::Below)) => {}
            "**" => parts.push(Part::Below),
            text if is_glob(text) => {
                let like = Pattern::new(text).map_err(|error| SourceError::BadPattern {
                    pattern: pattern.to_owned(),
                    why: error.msg.to_owned(),
                    position: position + error.pos,
                })?;
                parts.push(Part::Like(like));
            }
            text => parts.push(Part::Name(text)),
        }
        position += text.len() + 1;
    }
    if matches!(parts.last(), Some(Part::Below)) {
        parts.push(Part::Like(Pattern::new("*").unwrap_or_default()));
    }
    Ok(parts)
}

fn walk(
    folder: &Path,
    parts: &[Part<'_>],
    add: &mut dyn FnMut(PathBuf),
) -> Result<(), SourceError> {
    let Some((part, rest)) = parts.split_first() else { return Ok(()) };
    match part {
        Part::Name(name) => reach(folder.join(name), rest, add),
        Part::Like(pattern) => {
            for (name, _) in entries(folder)? {
                let text = name.to_string_lossy();
                let hidden = text.starts_with('.') && !pattern.as_str().starts_with('.');
                if !hidden && pattern.matches(&text) {
                    reach(folder.join(&name), rest, add)?;
                }
            }
            Ok(())
        }
        Part::Below => {
            walk(folder, rest, add)?;
            for (name, is_folder) in entries(folder)? {
                if is_folder && !hidden(&name) {
                    walk(&folder.join(name), parts, add)?;
                }
            }
            Ok(())
        }
    }
}

/// Goes on at a path that matches so far: it is a match if nothing more is to be matched.
fn reach(
    path: PathBuf,
    rest: &[Part<'_>],
    add: &mut dyn FnMut(PathBuf),
) -> Result<(), SourceError> {
    match fs::metadata(&path) {
        Ok(found) if rest.is_empty() && !found.is_dir() => add(path),
        Ok(found) if !rest.is_empty() && found.is_dir() => walk(&path, rest, add)?,
        // A dangling link, say, is no match.
        _ => {}
    }
    Ok(())
}

fn hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// The names in a folder, and whether each is a folder itself (a link to one is none).
fn entries(folder: &Path) -> Result<Vec<(std::ffi::OsString, bool)>, SourceError> {
    let named = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let failed = |error| SourceError::Unreadable { path: named.to_owned(), error };
    let mut found = Vec::new();
    for entry in fs::read_dir(named).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        found.push((entry.file_name(), entry.file_type().map_err(failed)?.is_dir()));
    }
    Ok(found)
}
