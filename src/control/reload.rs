//! The configuration file, read again while the service runs: on a thread of its own, since a file may lie on a disk that
//! does not answer, and control must.

use std::path::PathBuf;
use std::thread;

use async_channel::{Receiver, Sender};

use crate::config::{Config, ConfigErrors};

/// What came of reading the file.
pub(super) type Loaded = Result<Config, ConfigErrors>;

/// Reads the file whenever that is asked for, one time after the other.
pub(super) struct Reloading {
    file: Option<PathBuf>,
    answer: Sender<Loaded>,
    loaded: Receiver<Loaded>,
    is_reading: bool,
    /// It was asked for again while it was read, so that what comes of that may be old.
    is_stale: bool,
}

impl Reloading {
    /// Nothing is read yet.
    pub(super) fn new(file: Option<PathBuf>) -> Reloading {
        let (answer, loaded) = async_channel::bounded(1);
        Reloading { file, answer, loaded, is_reading: false, is_stale: false }
    }

    /// Begins to read the file; [`Reloading::loaded`] gives what came of it.
    pub(super) fn ask(&mut self) {
        if self.is_reading {
            self.is_stale = true;
            return;
        }
        let Some(file) = self.file.clone() else {
            return tracing::warn!("there is no configuration file to be read again");
        };
        let answer = self.answer.clone();
        let thread = thread::Builder::new().name("timecop-config".to_owned()).spawn(move || {
            let _ = answer.try_send(Config::load(&file));
        });
        match thread {
            Ok(_) => self.is_reading = true,
            Err(error) => tracing::error!(%error, "nothing was reloaded: the machine has no thread to read the file"),
        }
    }

    /// What came of it, for [`Reloading::take`].
    pub(super) fn loaded(&self) -> Receiver<Loaded> {
        self.loaded.clone()
    }

    /// The configuration, if there is one and the file was not changed again meanwhile.
    pub(super) fn take(&mut self, loaded: Loaded) -> Option<Config> {
        self.is_reading = false;
        if std::mem::take(&mut self.is_stale) {
            self.ask();
            return None;
        }
        loaded.map_err(|error| tracing::error!("nothing was reloaded: {error}")).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_asked_for_while_the_file_was_read_is_read_once_more() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("timecop.toml");
        fs::write(&file, "[store]\njobs_kept = 1\n").unwrap();
        let mut reloading = Reloading::new(Some(file.clone()));
        let loaded = reloading.loaded();
        reloading.ask();
        let first = loaded.recv_blocking().unwrap();
        fs::write(&file, "[store]\njobs_kept = 2\n").unwrap();
        (0..3).for_each(|_| reloading.ask());
        assert!(reloading.take(first).is_none(), "it may be old");
        let config = reloading.take(loaded.recv_blocking().unwrap()).unwrap();
        assert_eq!(config.store.jobs_kept, 2);
        assert!(loaded.is_empty() && !reloading.is_reading, "three times are one");
        // A file with faults changes nothing.
        fs::write(&file, "nonsense").unwrap();
        reloading.ask();
        assert!(reloading.take(loaded.recv_blocking().unwrap()).is_none());
    }
}
