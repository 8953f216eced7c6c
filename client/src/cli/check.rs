//! `stageline check`: what a pipeline file means, and whether its inputs are there.

use std::fmt::Write as _;
use std::path::Path;

use stageline_protocol::graph::nearest;
use stageline_protocol::text::shown;

use super::file::{FileError, PipelineFile, SinkSpec, StageSpec};
use super::sink::place::{self, PlaceError};
use super::source::{Inputs, SourceError};
use super::units::show_duration;
use crate::Registry;

/// Why a pipeline file could not run.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The file is wrong.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its inputs are not there.
    #[error("{}: {error}", file.display())]
    Source {
        /// The pipeline file.
        file: std::path::PathBuf,
        /// What is missing.
        error: SourceError,
    },
    /// What is written would destroy something else.
    #[error("{}: {error}", file.display())]
    Place {
        /// The pipeline file.
        file: std::path::PathBuf,
        /// What is in the same place.
        error: PlaceError,
    },
}

/// Reads a pipeline file, looks whether its inputs are there, and says what it means: one line for
/// each stage, without a newline at the end. A function that is not in `registry` may be a worker's.
/// Opens no output, and runs nothing. Blocks.
///
/// # Errors
/// What is wrong, where, and what to do.
pub fn check(path: &Path, registry: &Registry) -> Result<String, CheckError> {
    let file = PipelineFile::load(path)?;
    let inputs = Inputs::resolve(&file.source)
        .map_err(|error| CheckError::Source { file: path.to_owned(), error })?;
    place::check(&file, &inputs)
        .map_err(|error| CheckError::Place { file: path.to_owned(), error })?;
    let functions: Vec<String> = registry.functions().into_iter().map(|f| f.name).collect();
    Ok(describe(&file, &inputs, &functions))
}

fn describe(file: &PipelineFile, inputs: &Inputs, known: &[String]) -> String {
    let pipeline = file.pipeline(&|_| None);
    let files =
        |count: usize| if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
    let mut text = format!("{}: a good pipeline file", shown(&file.name));
    let source = match inputs {
        Inputs::Lines(paths) => format!("the lines of {}", files(paths.len())),
        Inputs::Stdin => "the lines of standard input".to_owned(),
        Inputs::Files(paths) => format!("the paths of {}", files(paths.len())),
    };
    let sink = match &file.sink {
        SinkSpec::Stdout => "standard output, as JSON lines".to_owned(),
        SinkSpec::File(path) => format!("{}, as JSON lines, when all is done", path.display()),
    };
    let stages = file.stages.iter().map(|spec| stage(spec, known));
    let meanings = std::iter::once(source).chain(stages).chain([sink]);
    let width = pipeline.stages.iter().map(|stage| stage.name.chars().count()).max().unwrap_or(0);
    for (stage, meaning) in pipeline.stages.iter().zip(meanings) {
        // Writing to a text cannot fail.
        let _ = write!(text, "\n  {:width$}  {}", stage.name, shown(&meaning));
    }
    if let Some(errors) = &file.errors {
        let _ = write!(text, "\n  items that fail: {}", shown(&errors.to_string_lossy()));
    }
    if file.fail_fast {
        text.push_str("\n  the first item that fails ends the job");
    }
    if let Some(limit) = file.max_in_flight {
        let _ = write!(text, "\n  at most {limit} roots under way");
    }
    text
}

fn stage(spec: &StageSpec, known: &[String]) -> String {
    let op = spec.op.map_or("map", |op| op.name());
    let mut text = format!("{op} by `{}`", spec.function);
    if !spec.shown.is_empty() {
        let shown: String = spec.shown.chars().take(100).collect();
        let more = if shown.len() < spec.shown.len() { "…" } else { "" };
        let _ = write!(text, ": {shown}{more}");
    }
    let mut settings = Vec::new();
    settings.extend(spec.workers.map(|n| format!("{n} slots in all")));
    settings.extend(spec.workers_per.map(|n| format!("{n} slots on each worker")));
    settings.extend(spec.buffer.map(|n| format!("a buffer of {n}")));
    settings.extend(spec.timeout.map(|t| format!("a timeout of {}", show_duration(t))));
    settings.extend((spec.retries > 0).then(|| format!("{} retries", spec.retries)));
    if !settings.is_empty() {
        let _ = write!(text, " ({})", settings.join(", "));
    }
    if !known.contains(&spec.function) {
        text.push_str(", which this program does not have: a worker has to register it");
        if let Some(name) = nearest(&spec.function, known.iter().map(String::as_str)).first() {
            let _ = write!(text, " (did you mean `{name}`?)");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_file_is_described_stage_by_stage() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(at("a.txt"), "1\n").expect("written");
        let yaml = format!(
            "source: {{ lines: '{}' }}
stages:
  - jq: |
      tonumber
      | . * 2
  - {{ run: fetch, workers: 8, timeout: 10s, retry: 3, params: {{ a: 1 }} }}
sink: {{ file: out.jsonl }}
errors: errors.jsonl
fail_fast: true
max_in_flight: 10
",
            at("*.txt")
        );
        std::fs::write(at("p.yaml"), yaml).expect("written");
        assert_eq!(
            check(Path::new(&at("p.yaml")), &crate::stock::registry()).expect("good"),
            "\
p: a good pipeline file
  lines  the lines of 1 file
  jq     flat_map by `jq`: tonumber | . * 2
  fetch  map by `fetch`: {\"a\":1} (8 slots in all, a timeout of 10.0 s, 3 retries), which this program does not have: a worker has to register it
  file   out.jsonl, as JSON lines, when all is done
  items that fail: errors.jsonl
  the first item that fails ends the job
  at most 10 roots under way"
        );
    }

    #[test]
    fn missing_inputs_are_named_with_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("p.yaml");
        let yaml = format!("source: {{ files: '{}/*.none' }}\nstages: []", folder.path().display());
        std::fs::write(&path, yaml).expect("written");
        let error = check(&path, &Registry::new()).expect_err("no match").to_string();
        assert!(error.contains("p.yaml: no file matches") && error.contains("*.none"), "{error}");
    }
}
