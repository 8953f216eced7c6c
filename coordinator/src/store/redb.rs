//! The store on disk: one redb file, in which each fact has its key.
//!
//! A transaction is synced before `put` returns, in two phases: the file's newest state is whole on
//! disk before it becomes the newest. So a coordinator that is killed, or whose machine loses power,
//! finds every record that it announced anything about; and a newest state that does not check out is
//! damage, never a torn write to be rolled back in silence. Opening reads the whole file and verifies
//! every checksum in it.
//!
//! A file that is not wholly what this program wrote is refused, with what to do about it; nothing is
//! repaired by guessing. A new store is made beside its place and linked into it when it is whole, so
//! that what is there under its name is never half of one.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ::redb::{
    Builder, Database, DatabaseError, ReadableDatabase, StorageError, TableDefinition, TableError,
};

use super::fact::{self, Change};
use super::{Record, Store, StoreError, Stored};

/// Says whose file it is, and of which version.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("stageline coordinator");
const FORMAT: &str = "format";
/// Rises with every change of what is kept, or how.
const VERSION: u32 = 1;

const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");

/// How much of the file is kept in memory: it is small.
const CACHE: usize = 8 << 20;

/// A store in a file.
#[derive(Debug)]
pub struct RedbStore {
    database: Database,
    path: PathBuf,
}

impl RedbStore {
    /// Opens the store in a file, or makes a new one, and the folders that lead to it.
    ///
    /// # Errors
    /// When the file is not a store of this version, is damaged, is in use, or cannot be read and
    /// written. The text names it, and says what to do.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        match fs::metadata(path) {
            Ok(found) if found.len() == 0 => return Err(damaged(path, "it is empty")),
            Ok(found) if !found.is_file() => {
                return Err(refused(path, "is not a file", "name a file with --store"));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => create(path)?,
            Err(error) => return Err(unusable(path, &error)),
        }
        let database = contained(path, || open(path))?;
        Ok(Self { database, path: path.to_owned() })
    }

    fn read(&self) -> Result<Stored, StoreError> {
        let path = &*self.path;
        let fail = |error: ::redb::Error| failed(path, "read", error);
        let mut stored = Stored::default();
        let read = self.database.begin_read().map_err(|error| fail(error.into()))?;
        let facts = read.open_table(FACTS).map_err(|error| fail(error.into()))?;
        for fact in facts.range::<&str>(..).map_err(|error| fail(error.into()))? {
            let (key, value) = fact.map_err(|error| fail(error.into()))?;
            let key = key.value();
            let wrong = |why: &str| damaged(path, &format!("what is kept as {key:?}: {why}"));
            let record = fact::read(key, value.value()).map_err(|why| wrong(&why))?;
            if !stored.knows(&record) {
                return Err(wrong("no such job was submitted"));
            }
            stored.apply(record);
        }
        Ok(stored)
    }

    fn write(&self, records: &[Record]) -> Result<(), ::redb::Error> {
        let mut write = self.database.begin_write()?;
        write.set_two_phase_commit(true);
        {
            let mut facts = write.open_table(FACTS)?;
            for record in records {
                match fact::change(record) {
                    Change::Put(key, value) => {
                        facts.insert(&*key, &*value)?;
                    }
                    Change::Remove(key) => {
                        facts.remove(&*key)?;
                    }
                    Change::Replace(prefix, key, value) => {
                        facts.retain_in::<&str, _>(
                            &*prefix..&*format!("{prefix}\u{10ffff}"),
                            |_, _| false,
                        )?;
                        facts.insert(&*key, &*value)?;
                    }
                }
            }
        }
        write.commit()?;
        Ok(())
    }
}

impl Store for RedbStore {
    fn load(&mut self) -> Result<Stored, StoreError> {
        contained(&self.path, || self.read())
    }

    fn put(&mut self, records: &[Record]) -> Result<(), StoreError> {
        contained(&self.path, || {
            self.write(records).map_err(|error| failed(&self.path, "written", error))
        })
    }
}

/// Makes a new store. What is there under its name in the end may be another's, if two were about it.
fn create(path: &Path) -> Result<(), StoreError> {
    let folder = match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => return Err(refused(path, "is not a file", "name a file with --store")),
    };
    fs::create_dir_all(folder).map_err(|error| unusable(folder, &error))?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".new-{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let _left_by_another_life = fs::remove_file(&beside);
    let made =
        contained(path, || initialise(&beside).map_err(|error| failed(path, "created", error)));
    let linked = made.and_then(|()| match fs::hard_link(&beside, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Ok(()) => Ok(()),
        // A file system that has no such links.
        Err(_) => fs::rename(&beside, path).map_err(|error| unusable(path, &error)),
    });
    let _renamed_already = fs::remove_file(&beside);
    linked?;
    // The name itself is to survive, too.
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| unusable(folder, &error))
}

fn initialise(path: &Path) -> Result<(), ::redb::Error> {
    let database = Builder::new().set_cache_size(CACHE).create(path)?;
    let mut write = database.begin_write()?;
    write.set_two_phase_commit(true);
    write.open_table(META)?.insert(FORMAT, &VERSION.to_be_bytes()[..])?;
    write.open_table(FACTS)?;
    write.commit()?;
    Ok(())
}

fn open(path: &Path) -> Result<Database, StoreError> {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    let database = builder.open(path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => refused(
            path,
            "is in use by another process",
            "stop the coordinator that uses it, or name another file with --store",
        ),
        DatabaseError::UpgradeRequired(_) => foreign(path),
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() == ErrorKind::InvalidData =>
        {
            foreign(path)
        }
        error => failed(path, "opened", error.into()),
    })?;
    check_format(path, &database)?;
    Ok(database)
}

fn check_format(path: &Path, database: &Database) -> Result<(), StoreError> {
    let read = database.begin_read().map_err(|error| failed(path, "read", error.into()))?;
    let meta = match read.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::Storage(error)) => return Err(failed(path, "read", error.into())),
        Err(_) => return Err(foreign(path)),
    };
    let format = meta.get(FORMAT).map_err(|error| failed(path, "read", error.into()))?;
    let version = format.and_then(|format| format.value().try_into().ok().map(u32::from_be_bytes));
    match version {
        Some(VERSION) => Ok(()),
        Some(version) => Err(refused(
            path,
            &format!("has the format {version}, and this program reads {VERSION}"),
            "run it with the version of Stageline that wrote it, or name another file with --store",
        )),
        None => Err(damaged(path, "it does not say its format")),
    }
}

/// redb promises errors for whatever is in a file that it checks as it opens it. Should it panic all
/// the same (as its debug assertions do), that is an error about the file, and not a broken program;
/// whatever state it leaves is not used again, since the coordinator stops.
fn contained<T>(
    path: &Path,
    work: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(damaged(path, "reading or writing it broke off")))
}

fn failed(path: &Path, doing: &str, error: ::redb::Error) -> StoreError {
    match error {
        ::redb::Error::Corrupted(why) => damaged(path, &why),
        ::redb::Error::Io(error) if error.kind() == ErrorKind::UnexpectedEof => {
            damaged(path, "it ends too early")
        }
        error => refused(
            path,
            &format!("could not be {doing}: {error}"),
            "see that its disk has room and works, and that this user may write it; then start the \
             coordinator again, which goes on from what was stored",
        ),
    }
}

fn unusable(path: &Path, error: &std::io::Error) -> StoreError {
    refused(
        path,
        &format!("cannot be used: {error}"),
        "let this user write there, or name another file with --store",
    )
}

fn foreign(path: &Path) -> StoreError {
    refused(
        path,
        "is not the store of a coordinator",
        "it is left as it is; name another file with --store",
    )
}

fn damaged(path: &Path, why: &str) -> StoreError {
    refused(
        path,
        &format!("is damaged ({why})"),
        "what it holds cannot be trusted: restore it from a copy; or move it away, and the \
         coordinator starts with an empty one, and its running jobs end",
    )
}

fn refused(path: &Path, what: &str, remedy: &str) -> StoreError {
    StoreError(format!("the coordinator's store {} {what}: {remedy}", path.display()))
}

#[cfg(test)]
mod tests;
