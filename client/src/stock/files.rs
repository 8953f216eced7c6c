//! `read` and `stat`: what a path leads to.

use std::fs;
use std::io::Read as _;

use serde_json::{Map, Value, json};

/// The most bytes that `read` takes from one file, unless told: what fits into the largest payload
/// (64 MiB) with some room for the path.
pub const DEFAULT_MAX_BYTES: u64 = (64 << 20) - (64 << 10);

/// Adds the whole text of a file in `text`. `input` is a record with `path`, whose other fields stay as
/// they are, or a path, which becomes such a record.
///
/// # Errors
/// Each names the path: it is not there or unreadable, is no file, has more than `max_bytes`, or is
/// not UTF-8.
pub fn read(input: Value, max_bytes: u64) -> Result<Value, String> {
    let path = path_of("read", &input)?;
    let failed = |error: std::io::Error| format!("cannot read {path:?}: {error}");
    let file = fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(format!("cannot read {path:?}: it is a folder"));
    }
    let too_large =
        || format!("{path:?} is larger than {max_bytes} bytes; set `read: SIZE` to take it");
    if metadata.len() > max_bytes {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    // One byte more than allowed tells a file that grew, or that has no size, such as a pipe.
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max_bytes {
        return Err(too_large());
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("{path:?} is not UTF-8 text: the byte at {at} is the first that is not")
    })?;
    let mut record = record(input);
    record.insert("text".to_owned(), Value::String(text));
    Ok(Value::Object(record))
}

/// Adds what a path leads to: `exists`, and if so, `kind` (`file`, `dir` or `other`) and `size` in
/// bytes, which are null otherwise. `input` is a record with `path`, whose other fields stay as they
/// are, or a path, which becomes such a record. Symbolic links are followed, and `..` is resolved by
/// the file system.
///
/// # Errors
/// `input` has no path, or the file system does not answer whether there is something (no
/// permission to look into a folder, say).
pub fn stat(input: Value) -> Result<Value, String> {
    use std::io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};

    let path = path_of("stat", &input)?;
    let (exists, kind, size) = match fs::metadata(path) {
        Ok(found) => {
            let kind = match found.file_type() {
                kind if kind.is_file() => "file",
                kind if kind.is_dir() => "dir",
                _ => "other",
            };
            (true, Value::from(kind), Value::from(found.len()))
        }
        Err(error) if matches!(error.kind(), NotFound | NotADirectory | InvalidFilename) => {
            (false, Value::Null, Value::Null)
        }
        Err(_) if path.contains('\0') => (false, Value::Null, Value::Null),
        Err(error) => return Err(format!("cannot look at {path:?}: {error}")),
    };
    let mut record = record(input);
    record.extend([
        ("exists".to_owned(), json!(exists)),
        ("kind".to_owned(), kind),
        ("size".to_owned(), size),
    ]);
    Ok(Value::Object(record))
}

/// The record that the input is, or becomes.
fn record(input: Value) -> Map<String, Value> {
    match input {
        Value::Object(record) => record,
        path => Map::from_iter([("path".to_owned(), path)]),
    }
}

fn path_of<'a>(function: &str, input: &'a Value) -> Result<&'a str, String> {
    match input {
        Value::String(path) => Some(path.as_str()),
        Value::Object(record) => record.get("path").and_then(Value::as_str),
        _ => None,
    }
    .ok_or_else(|| {
        let found = match input {
            Value::Object(record) if record.contains_key("path") => "a `path` that is no text",
            Value::Object(_) => "a record without `path`",
            Value::Array(_) => "a list",
            Value::Number(_) => "a number",
            Value::Bool(_) => "a boolean",
            _ => "null",
        };
        format!("`{function}` takes a path, or a record with a path in `path`; this is {found}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_by_its_path_or_by_a_record_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.txt");
        fs::write(&path, "tö\n").expect("written");
        let path = path.to_str().expect("UTF-8");
        assert_eq!(read(json!(path), 4), Ok(json!({"path": path, "text": "tö\n"})));
        assert_eq!(
            read(json!({"path": path, "more": 1}), 100),
            Ok(json!({"path": path, "more": 1, "text": "tö\n"}))
        );

        let error = read(json!(path), 3).unwrap_err();
        assert!(error.contains(path) && error.contains("larger than 3 bytes"), "{error}");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
        fs::write(name("latin1"), b"ab\xe9").expect("written");
        for (path, why) in [
            (name("missing"), "No such file"),
            (name(""), "it is a folder"),
            (name("latin1"), "not UTF-8 text: the byte at 2"),
        ] {
            let error = read(json!(path), 100).unwrap_err();
            assert!(error.contains(&path) && error.contains(why), "{error}");
        }
        for input in [json!(1), json!({"file": "a"}), json!({"path": 1}), json!(null), json!([])] {
            let error = read(input, 100).unwrap_err();
            assert!(error.starts_with("`read` takes a path"), "{error}");
        }
    }

    #[test]
    fn stat_adds_what_is_there_to_the_record() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| format!("{}/{name}", folder.path().display());
        fs::write(at("a"), "123").expect("written");
        let a = at("a");
        assert_eq!(
            stat(json!({"page": 1, "path": a})),
            Ok(json!({"page": 1, "path": a, "exists": true, "kind": "file", "size": 3}))
        );
        let look = |name: &str| stat(json!(at(name))).expect("looks");
        assert_eq!(look("")["kind"], "dir");
        assert_eq!(look("../")["kind"], "dir");
        assert_eq!(stat(json!("/dev/null")).expect("looks")["kind"], "other");
        for missing in ["b", "b/../a", "a/c", "\0", &"x".repeat(300)] {
            let record = look(missing);
            assert_eq!(record["exists"], false, "{missing}");
            assert_eq!((&record["kind"], &record["size"]), (&Value::Null, &Value::Null));
        }
    }
}
