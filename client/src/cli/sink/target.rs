//! What a sink writes to.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::SinkError;
use super::place::{folder_of, resolved};

/// Something that will be written to.
pub(super) enum Prepared {
    /// It is open.
    Open(Target),
    /// A device or a pipe. To open it may take until somebody reads it.
    Unopened(PathBuf),
}

impl Prepared {
    /// Opens it. Blocks, for ever if nobody reads it.
    pub(super) fn open(self) -> io::Result<Target> {
        match self {
            Self::Open(target) => Ok(target),
            Self::Unopened(path) => {
                let device = OpenOptions::new().write(true).open(path)?;
                Ok(Target::Plain(Box::new(device)))
            }
        }
    }

    /// Prepares a file, which that option names. A symbolic link stays: what it leads to is replaced.
    pub(super) fn file(path: &Path, option: &'static str) -> Result<Self, SinkError> {
        let place = path.display().to_string();
        let failed = |error| SinkError::io(&place, option, error);
        let path = match fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                return Err(SinkError::Folder { path: path.to_owned() });
            }
            Ok(found) if !found.is_file() => {
                return Ok(Self::Unopened(path.to_owned()));
            }
            _ => resolved(path),
        };
        let folder = folder_of(&path);
        if !folder.is_dir() {
            let folder = folder.to_owned();
            return Err(SinkError::NoFolder { path, folder });
        }
        let Some(name) = path.file_name() else { return Err(SinkError::Folder { path }) };
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(name);
        prefix.push(".");
        let temporary = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(".partial")
            // As any new file; the process's umask takes away what it does.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)
            .map_err(failed)?;
        Ok(Self::Open(Target::File { temporary, path }))
    }
}

/// Something to write to, and for a file, how it becomes whole.
pub(super) enum Target {
    /// Written in place: standard output, a device, a pipe.
    Plain(Box<dyn Write + Send>),
    /// Written beside its place; removed when dropped before [`Target::commit`].
    File {
        /// What is written.
        temporary: NamedTempFile,
        /// Where it will be.
        path: PathBuf,
    },
}

impl Target {
    /// Makes what was written stay: on the disk, and in its place.
    pub(super) fn commit(self) -> io::Result<()> {
        match self {
            Self::Plain(mut plain) => plain.flush(),
            Self::File { temporary, path } => {
                temporary.as_file().sync_all()?;
                temporary.persist(&path).map_err(|error| error.error)?;
                // The new name, too, is to survive a power cut. Not every file system can do that,
                // and the file itself is whole either way.
                if let Ok(folder) = File::open(folder_of(&path)) {
                    let _ = folder.sync_all();
                }
                Ok(())
            }
        }
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(plain) => plain.write(bytes),
            Self::File { temporary, .. } => temporary.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(plain) => plain.flush(),
            Self::File { temporary, .. } => temporary.flush(),
        }
    }
}
