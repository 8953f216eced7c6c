//! The pipeline file: a pipeline in YAML, checked when it is read.
//!
//! ```yaml
//! name: broken-links            # optional; the file's name otherwise
//! source: { files: "docs/**/*.html" }     # or { lines: GLOB }, or stdin, which is { lines: "-" }
//! stages:
//!   - read                      # a stock function, or any registered one, by its name
//!   - jq: '.text | length'      # a stock function with its parameter
//!   - { jq: '. * 2', workers: 4 }         # the same, with settings
//!   - name: links               # any registered function, with settings
//!     run: my_function
//!     op: flat_map              # map (the default), filter or flat_map
//!     params: { depth: 2 }      # handed to the function as they are
//!     workers: 8                # slots in all
//!     workers_per: 4            # slots on each worker
//!     buffer: 16                # items that wait in front of the stage
//!     timeout: 10s              # for one attempt
//!     retry: 3                  # attempts beyond the first
//! sink: stdout                  # the default; or { file: out.jsonl }
//! errors: errors.jsonl          # optional: where the error items go
//! fail_fast: false              # whether the first error item ends the job
//! max_in_flight: 1000           # optional: how many roots may be under way
//! ```
//!
//! Globs and file names may have `${VARIABLES}`, with defaults (`${VAR:-default}`); globs `*`, `?`,
//! `[abc]`, `**` and `{brace,alternatives}`; several globs are a list. A relative path is relative
//! to the current folder of whoever runs the pipeline, not to the file. Every key that is not above
//! is an error, with its place.

mod build;
mod decode;
mod expand;
mod yaml;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use stageline_protocol::pipeline::Op;
use stageline_protocol::text::shown;

use decode::{Table, Wrong};
pub use yaml::Place;
use yaml::{Node, Value};

use crate::stock::{self, Jq, Parameter};

/// Larger pipeline files are refused.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A pipeline file, decoded and checked as far as that goes without looking at anything else.
#[derive(Clone, Debug, PartialEq)]
pub struct PipelineFile {
    /// Where it was read from.
    pub path: PathBuf,
    /// The pipeline's name.
    pub name: String,
    /// Where the roots come from.
    pub source: SourceSpec,
    /// The stages between source and sink, in their order.
    pub stages: Vec<StageSpec>,
    /// Where the results go.
    pub sink: SinkSpec,
    /// Where the error items go; unset: they are counted, and the first ones are logged.
    pub errors: Option<PathBuf>,
    /// Whether the first error item ends the job.
    pub fail_fast: bool,
    /// How many roots may be admitted and not yet acked. Unset: automatic.
    pub max_in_flight: Option<u64>,
}

/// Where the roots come from. Variables and braces are expanded; stars are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSpec {
    /// The lines of the files that these globs match.
    Lines(Vec<String>),
    /// The lines of standard input.
    Stdin,
    /// The paths of the files that these globs match.
    Files(Vec<String>),
}

/// Where the results go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkSpec {
    /// To standard output, as JSON lines.
    Stdout,
    /// Into a file of JSON lines, which is there when it is complete.
    File(PathBuf),
}

/// A stage of a pipeline file.
#[derive(Clone, Debug, PartialEq)]
pub struct StageSpec {
    /// The place of the stage in the file.
    pub at: Place,
    /// The name that the file gives it. Unset: the function's.
    pub name: Option<String>,
    /// The function.
    pub function: String,
    /// Its operator: the stock function's own, or what the file says.
    pub op: Option<Op>,
    /// The function's parameters in MessagePack; empty if there are none. `jq`: the expression, a
    /// text. `read`: the most bytes, a number.
    pub params: Bytes,
    /// The parameters as people read them.
    pub shown: String,
    /// Cap on its slots in all.
    pub workers: Option<u32>,
    /// Cap on its slots on each worker.
    pub workers_per: Option<u32>,
    /// Items that wait in front of it.
    pub buffer: Option<u32>,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
    /// Attempts beyond the first.
    pub retries: u32,
}

/// What is wrong with a pipeline file: prints as `file:line:column: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// Where in it; unset if it could not be read.
    pub at: Option<Place>,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(at) = self.at {
            write!(f, ":{}:{}", at.line, at.column)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for FileError {}

impl PipelineFile {
    /// Reads a pipeline file, with the variables of this process's environment.
    ///
    /// # Errors
    /// The file cannot be read, or something in it is wrong: what, where, and what to do.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        let failed = |message: String| FileError { path: path.to_owned(), at: None, message };
        let read = || {
            let length = std::fs::metadata(path)?.len();
            if length > MAX_FILE_BYTES { Ok(None) } else { std::fs::read(path).map(Some) }
        };
        let bytes = match read() {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Err(failed("larger than 1 MiB: no pipeline file".to_owned())),
            Err(error) => {
                let here = std::env::current_dir().unwrap_or_default();
                return Err(failed(format!(
                    "cannot read this pipeline file: {error} (the current folder is {})",
                    here.display()
                )));
            }
        };
        let text = String::from_utf8(bytes)
            .map_err(|_| failed("not a pipeline file: it is not UTF-8 text".to_owned()))?;
        Self::parse(path, &text, &|name| std::env::var(name).ok())
    }

    /// Decodes the text of a pipeline file; `lookup` knows the variables.
    ///
    /// # Errors
    /// Something in it is wrong: what, where, and what to do.
    pub fn parse(
        path: &Path,
        text: &str,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, FileError> {
        yaml::parse(text)
            .and_then(|root| decode(path, &root, lookup))
            .map_err(|(at, message)| FileError { path: path.to_owned(), at: Some(at), message })
    }
}

const TOP: [&str; 7] = ["name", "source", "stages", "sink", "errors", "fail_fast", "max_in_flight"];

fn decode(
    path: &Path,
    root: &Node,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<PipelineFile, Wrong> {
    let top = Table::of(root, "a pipeline", &TOP)?;
    let expand = |at: Place, text: &str| expand::variables(text, lookup).map_err(|why| (at, why));
    let file_name = |node: &Node, name: &str| -> Result<PathBuf, Wrong> {
        let path = expand(node.at, decode::text(node, name)?)?;
        if path.is_empty() {
            return Err((node.at, format!("`{name}` is an empty file name")));
        }
        Ok(PathBuf::from(path))
    };

    let name = match top.read("name", decode::name)? {
        Some(name) => name.to_owned(),
        None => path.file_stem().map_or_else(
            || "pipeline".to_owned(),
            |stem| shown(&stem.to_string_lossy()).into_owned(),
        ),
    };
    let source = top.need("source", "`source: { files: \"docs/**/*.html\" }`")?;
    let stages = top.need("stages", "`stages: [read]`")?;
    let Value::List(stages) = &stages.value else {
        return Err((stages.at, "`stages` is a list, one line for each: `- read`".to_owned()));
    };
    let stages = stages.iter().map(decode_stage).collect::<Result<Vec<_>, _>>()?;
    for (index, stage) in stages.iter().enumerate() {
        let same = |other: &StageSpec| other.name.is_some() && other.name == stage.name;
        if let Some(first) = stages[..index].iter().find(|other| same(other)) {
            let name = stage.name.as_deref().unwrap_or_default();
            let message = format!(
                "a second stage named `{name}`; the first is in line {}. Give one of them another name",
                first.at.line
            );
            return Err((stage.at, message));
        }
    }
    Ok(PipelineFile {
        path: path.to_owned(),
        name,
        source: decode_source(source, &expand)?,
        stages,
        sink: top.get("sink").map_or(Ok(SinkSpec::Stdout), |node| decode_sink(node, &file_name))?,
        errors: top.read("errors", file_name)?,
        fail_fast: top.read("fail_fast", decode::flag)?.unwrap_or(false),
        max_in_flight: top.read("max_in_flight", decode::number(1))?,
    })
}

type Expand<'a> = dyn Fn(Place, &str) -> Result<String, Wrong> + 'a;
type FileName<'a> = dyn Fn(&Node, &str) -> Result<PathBuf, Wrong> + 'a;

fn decode_source(node: &Node, expand: &Expand<'_>) -> Result<SourceSpec, Wrong> {
    const SHAPE: &str = "the source is `stdin`, `{ lines: GLOB }` or `{ files: GLOB }`";
    if let Value::Text(text) = &node.value {
        return match text.as_str() {
            "stdin" => Ok(SourceSpec::Stdin),
            _ => Err((node.at, format!("{SHAPE}; this is {}", node.value.describe()))),
        };
    }
    let table = Table::of(node, "the source", &["lines", "files"])?;
    let (name, entries) = match (table.get("lines"), table.get("files")) {
        (Some(lines), None) => ("lines", decode::texts(lines, "lines")?),
        (None, Some(files)) => ("files", decode::texts(files, "files")?),
        _ => return Err((node.at, format!("{SHAPE}: exactly one of them"))),
    };
    if name == "lines" && entries.iter().any(|(_, entry)| *entry == "-") {
        return match entries.as_slice() {
            [_] => Ok(SourceSpec::Stdin),
            _ => Err((node.at, "`-`, standard input, stands alone in `lines`".to_owned())),
        };
    }
    let mut globs = Vec::new();
    for (at, entry) in entries {
        let expanded = expand(at, entry)?;
        globs.extend(expand::braces(&expanded).map_err(|why| (at, why))?);
    }
    Ok(if name == "lines" { SourceSpec::Lines(globs) } else { SourceSpec::Files(globs) })
}

fn decode_sink(node: &Node, file_name: &FileName<'_>) -> Result<SinkSpec, Wrong> {
    const SHAPE: &str = "the sink is `stdout` or `{ file: NAME }`";
    if let Value::Text(text) = &node.value {
        return match text.as_str() {
            "stdout" | "-" => Ok(SinkSpec::Stdout),
            _ => Err((node.at, format!("{SHAPE}; this is {}", node.value.describe()))),
        };
    }
    let table = Table::of(node, "the sink", &["file"])?;
    let node = table.get("file").ok_or_else(|| (table.at, SHAPE.to_owned()))?;
    Ok(SinkSpec::File(file_name(node, "file")?))
}

const SETTINGS: [&str; 6] = ["name", "workers", "workers_per", "buffer", "timeout", "retry"];

fn decode_stage(node: &Node) -> Result<StageSpec, Wrong> {
    let mut spec = StageSpec {
        at: node.at,
        name: None,
        function: String::new(),
        op: None,
        params: Bytes::new(),
        shown: String::new(),
        workers: None,
        workers_per: None,
        buffer: None,
        timeout: None,
        retries: 0,
    };
    if matches!(node.value, Value::Text(_)) {
        let function = decode::name(node, "a stage")?;
        function.clone_into(&mut spec.function);
        let Some(stock) = stock::find(function) else { return Ok(spec) };
        if stock.parameter == Parameter::Expression {
            return Err((node.at, "`jq` needs its expression: `- jq: '.field'`".to_owned()));
        }
        spec.op = Some(stock.op);
        return Ok(spec);
    }

    let stock_names: Vec<&str> = stock::STOCK.iter().map(|stock| stock.name).collect();
    let allowed = [&["run", "params", "op"], stock_names.as_slice(), &SETTINGS].concat();
    let table = Table::of(node, "a stage", &allowed)?;
    let functions: Vec<&str> =
        table.keys().filter(|key| *key == "run" || stock_names.contains(key)).collect();
    match functions.as_slice() {
        ["run"] => {
            table.read("run", decode::name)?.unwrap_or_default().clone_into(&mut spec.function);
            spec.op = table.read("op", decode_op)?;
            if let Some(params) = table.get("params") {
                spec.params = encode(params, params.at)?;
                spec.shown = serde_json::to_string(params).unwrap_or_default();
            }
            if let Some(stock) = stock::find(&spec.function) {
                let name = stock.name;
                return Err((node.at, format!("`{name}` is a stock function: write `{name}:`")));
            }
        }
        [name] => {
            for key in ["params", "op"] {
                if let Some(node) = table.get(key) {
                    let message = format!("`{key}` belongs to `run`; `{name}` has its own");
                    return Err((node.at, message));
                }
            }
            decode_stock(&mut spec, name, &table)?;
        }
        [] => {
            // `- stat: ` in a block stands for a stock function without its parameter.
            let bare = stock_names.iter().find(|name| table.has(name));
            match bare {
                Some(name) => decode_stock(&mut spec, name, &table)?,
                None => {
                    let names = decode::join(&stock_names);
                    let message =
                        format!("a stage needs its function: `run: FUNCTION`, or one of {names}");
                    return Err((node.at, message));
                }
            }
        }
        [first, second, ..] => {
            let message = format!("one stage has one function; this has `{first}` and `{second}`");
            return Err((node.at, message));
        }
    }
    spec.name = table.read("name", decode::name)?.map(str::to_owned);
    spec.workers = table.read("workers", decode::number(1))?;
    spec.workers_per = table.read("workers_per", decode::number(1))?;
    spec.buffer = table.read("buffer", decode::number(0))?;
    spec.timeout = table.read("timeout", decode::duration)?;
    spec.retries = table.read("retry", decode::number(0))?.unwrap_or(0);
    Ok(spec)
}

fn decode_stock(spec: &mut StageSpec, name: &str, table: &Table<'_>) -> Result<(), Wrong> {
    let Some(stock) = stock::find(name) else { return Ok(()) };
    name.clone_into(&mut spec.function);
    spec.op = Some(stock.op);
    match (stock.parameter, table.get(name)) {
        (Parameter::Expression, Some(node)) => {
            let expression = decode::text(node, name)?;
            Jq::compile(expression).map_err(|error| (node.at, error.to_string()))?;
            spec.params = encode(expression, node.at)?;
            spec.shown = expression.split_whitespace().collect::<Vec<_>>().join(" ");
        }
        (Parameter::Expression, None) => {
            return Err((table.at, format!("`{name}` needs its expression: `- {name}: '.field'`")));
        }
        (Parameter::MaxBytes, Some(node)) => {
            let bytes = decode::size(node, name)?;
            spec.params = encode(bytes, node.at)?;
            spec.shown = format!("at most {bytes} bytes");
        }
        (Parameter::MaxBytes | Parameter::None, None) => {}
        (Parameter::None, Some(node)) => {
            return Err((node.at, format!("`{name}` has no parameter; write `- {name}`")));
        }
    }
    Ok(())
}

fn decode_op(node: &Node, name: &str) -> Result<Op, Wrong> {
    let ops = [Op::Map, Op::Filter, Op::FlatMap];
    let text = decode::text(node, name)?;
    ops.into_iter().find(|op| op.name() == text).ok_or_else(|| {
        (node.at, format!("`{name}` is `map`, `filter` or `flat_map`; this is `{text}`"))
    })
}

fn encode(params: impl serde::Serialize, at: Place) -> Result<Bytes, Wrong> {
    rmp_serde::to_vec_named(&params)
        .map(Bytes::from)
        .map_err(|error| (at, format!("these parameters cannot be encoded: {error}")))
}

#[cfg(test)]
mod tests;
