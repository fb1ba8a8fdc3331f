//! What can be said of a store without making, opening or changing it.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg};
use nix::unistd::{AccessFlags, faccessat};
use rusqlite::ffi;

use super::StoreError;
use super::file::{APPLICATION, SCHEMA, lock_of};

/// How a service that starts now would find its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreState {
    /// It is yet to be made, and can be.
    New,
    /// It is there.
    There,
    /// Another process has it.
    InUse,
}

/// The beginning of a database's file (SQLite's file format, 1.3), of which nothing else is looked at here.
const HEADER_BYTES: u64 = 100;
const MAGIC: &[u8] = b"SQLite format 3\0";
/// Where the schema's cookie, our `user_version` and our `application_id` stand in it: 0 where there never was a table.
const COOKIE_AT: usize = 40;
const VERSION_AT: usize = 60;
const APPLICATION_AT: usize = 68;

/// Looks at the store that is to be at `path`. It is locked for an instant if it is there, so that a service that starts in
/// that instant would find it in use.
///
/// # Errors
///
/// Why a service could not start with it.
pub fn look(path: &Path) -> Result<StoreState, StoreError> {
    let failed = |path: &Path, source| StoreError::File { path: path.to_owned(), source };
    let path = match fs::canonicalize(path) {
        Ok(path) => path,
        // A link to nowhere is there, and no file can be made in its place.
        Err(error) if error.kind() == ErrorKind::NotFound && path.symlink_metadata().is_err() => {
            let folder = existing_folder(path).map_err(|source| failed(path, source))?;
            may(&folder, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|source| failed(&folder, source))?;
            return Ok(StoreState::New);
        }
        Err(source) => return Err(failed(path, source)),
    };
    if !path.metadata().map_err(|source| failed(&path, source))?.is_file() {
        return Err(failed(&path, io::Error::other("not a regular file")));
    }
    may(&path, AccessFlags::R_OK | AccessFlags::W_OK).map_err(|source| failed(&path, source))?;
    // Beside it stand its lock and its log.
    let folder = path.parent().unwrap_or(Path::new("/"));
    may(folder, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|source| failed(folder, source))?;
    if is_taken(&lock_of(&path)) {
        return Ok(StoreState::InUse);
    }
    let mut header = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(HEADER_BYTES).read_to_end(&mut header));
    read.map_err(|source| failed(&path, source))?;
    state(&path, &header)
}

/// What the beginning of its file says.
fn state(path: &Path, header: &[u8]) -> Result<StoreState, StoreError> {
    if header.is_empty() {
        return Ok(StoreState::New);
    }
    let number = |at: usize| {
        let octets = header.get(at..at + 4)?.try_into().ok()?;
        Some(i64::from(i32::from_be_bytes(octets)))
    };
    let (Some(cookie), Some(version), Some(application), true) =
        (number(COOKIE_AT), number(VERSION_AT), number(APPLICATION_AT), header.starts_with(MAGIC))
    else {
        let source = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_NOTADB), None);
        return Err(StoreError::Sqlite { path: path.to_owned(), source });
    };
    match (application, version) {
        (APPLICATION, found) if found > SCHEMA => Err(StoreError::Newer { path: path.to_owned(), found }),
        (APPLICATION, _) => Ok(StoreState::There),
        (0, 0) if cookie == 0 => Ok(StoreState::New),
        _ => Err(StoreError::Foreign { path: path.to_owned() }),
    }
}

/// The nearest folder above `path` that is there: in it those that are missing would be made.
fn existing_folder(path: &Path) -> io::Result<PathBuf> {
    for folder in path.ancestors().skip(1) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        match folder.metadata() {
            Ok(metadata) if metadata.is_dir() => return Ok(folder.to_owned()),
            Ok(_) => return Err(io::Error::from(ErrorKind::NotADirectory)),
            Err(error) if error.kind() == ErrorKind::NotFound && folder.symlink_metadata().is_err() => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from(ErrorKind::NotFound))
}

/// Whether this user may do that with a file or a folder.
fn may(path: &Path, flags: AccessFlags) -> io::Result<()> {
    Ok(faccessat(nix::fcntl::AT_FDCWD, path, flags, AtFlags::AT_EACCESS)?)
}

/// Whether another process holds the lock. One that cannot be looked at is told of by whoever takes it.
fn is_taken(lock: &Path) -> bool {
    let Ok(file) = File::open(lock) else { return false };
    matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, Errno::EWOULDBLOCK)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::store::Store;

    #[test]
    fn a_store_is_looked_at_and_nothing_is_made_or_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/jobs.db");
        assert_eq!(look(&path).unwrap(), StoreState::New);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let (store, _) = Store::open(&path, 10).unwrap();
        assert_eq!(look(&path).unwrap(), StoreState::InUse);
        store.close(std::time::Duration::from_secs(60)).unwrap();
        let names =
            || fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        let (there, octets) = (names(), fs::read(&path).unwrap());
        assert_eq!(look(&path).unwrap(), StoreState::There);
        assert_eq!((names(), fs::read(&path).unwrap()), (there, octets));
        drop(Store::open(&path, 10).unwrap());
    }

    #[test]
    fn what_a_service_could_not_start_with_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("text"), "no database, but a text that is longer than the header of one: ".repeat(3)).unwrap();
        fs::write(at("empty"), "").unwrap();
        std::os::unix::fs::symlink(at("nowhere"), at("link")).unwrap();
        let pragma = |name: &str, sql: &str| rusqlite::Connection::open(at(name)).unwrap().execute_batch(sql).unwrap();
        pragma("foreign", "CREATE TABLE mail (id)");
        pragma("newer", &format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {}", SCHEMA + 1));
        assert_eq!(look(&at("empty")).unwrap(), StoreState::New);
        for (name, words) in [
            ("text", "not a database"),
            ("text/jobs.db", "ot a directory"),
            ("", "not a regular file"),
            ("link", "No such file"),
            ("foreign", "not one of timecop"),
            ("newer", "use a newer timecop"),
        ] {
            let path = at(name);
            let said = look(&path).unwrap_err().to_string();
            assert!(said.contains(words), "{name}: {said}");
            assert!(Store::open(&path, 10).is_err(), "{name}: a service starts with it");
        }
    }
}
