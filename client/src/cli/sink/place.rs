//! Where files really are, and whether two of one run meet in the same place.
//!
//! A path has many spellings: `out`, `./out`, a link, a folder behind a link. Two sinks in one place
//! would replace each other's file, or tear each other's lines; and a pipe that is both input and
//! output feeds itself for ever. So both are refused before anything is opened. A regular file may
//! well be input and output: what is written stands beside it, and takes its place when all of it has
//! been read. And in a device (`/dev/null`, a terminal) nothing is lost.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::cli::file::{PipelineFile, SinkSpec};
use crate::cli::source::Inputs;

/// The option that says where results go.
pub(super) const OUTPUT: &str = "--output";
/// The option that says where error items go.
pub(super) const ERRORS: &str = "--errors";
/// As many links as Linux follows; more are a circle.
const MOST_LINKS: usize = 40;

/// Why the files of a run cannot be what they are to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// Results and error items would go to the same place.
    #[error(
        "{results} and --errors {} are the same place, where one would overwrite the other. Name another file for one of them (in a pipeline file, they are `sink` and `errors`)",
        errors.display()
    )]
    Shared {
        /// Where the results go, with the option that says so.
        results: String,
        /// Where the error items go.
        errors: PathBuf,
    },
    /// The pipeline file would be overwritten.
    #[error("{option} {} is the pipeline file itself, which would be overwritten. Name another file", path.display())]
    PipelineFile {
        /// The option that names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A pipe is input and output.
    #[error("{option} {} is one of the inputs, too, and a pipe that feeds itself never ends. Name another file", path.display())]
    Circle {
        /// The option that names it.
        option: &'static str,
        /// The pipe.
        path: PathBuf,
    },
}

/// Whether the files that a pipeline names can be what they are to be. Blocks.
///
/// # Errors
/// Two of them are in the same place, and one would be lost.
pub fn check(file: &PipelineFile, inputs: &Inputs) -> Result<(), PlaceError> {
    let output = match &file.sink {
        SinkSpec::File(path) => Some(path),
        SinkSpec::Stdout => None,
    };
    let sinks = [(OUTPUT, output), (ERRORS, file.errors.as_ref())];
    for (option, path) in sinks.into_iter().filter_map(|(option, path)| Some((option, path?))) {
        if same(path, &file.path) {
            return Err(PlaceError::PipelineFile { option, path: path.clone() });
        }
        let is_pipe = fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
        if is_pipe && inputs.files().iter().any(|input| same(input, path)) {
            return Err(PlaceError::Circle { option, path: path.clone() });
        }
    }
    match (output, &file.errors) {
        (Some(output), Some(errors)) if same(output, errors) && !is_device(errors) => {
            let results = format!("{OUTPUT} {}", output.display());
            Err(PlaceError::Shared { results, errors: errors.clone() })
        }
        _ => Ok(()),
    }
}

/// Whether error items may go to that file while results go to standard output. Blocks.
///
/// # Errors
/// Both are the same place.
pub fn check_beside_stdout(errors: &Path) -> Result<(), PlaceError> {
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    let stdout = stdout.and_then(|stdout| File::from(stdout).metadata());
    let identity = |found: &Metadata| (found.dev(), found.ino());
    match (stdout, fs::metadata(errors)) {
        (Ok(stdout), Ok(found)) if identity(&stdout) == identity(&found) && !is_device(errors) => {
            let results = "standard output, where the results go,".to_owned();
            Err(PlaceError::Shared { results, errors: errors.to_owned() })
        }
        _ => Ok(()),
    }
}

fn is_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_char_device())
}

fn same(one: &Path, other: &Path) -> bool {
    resolved(one) == resolved(other)
}

/// The file that a path stands for, links followed, whether it is there or is to be made.
pub(super) fn resolved(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        if let Ok(found) = fs::canonicalize(&path) {
            return found;
        }
        // A link to what is not there yet.
        match fs::read_link(&path) {
            Ok(target) => path = folder_of(&path).join(target),
            Err(_) => break,
        }
    }
    match (fs::canonicalize(folder_of(&path)), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path,
    }
}

/// The folder that a file is in, or is to be made in.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
