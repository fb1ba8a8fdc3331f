//! Where results go.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::StartError;

/// Says something on standard error. Whoever has closed it does not want to know.
pub(super) fn complain(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints to standard output at once. A reader that has seen enough and closed it, as `head` does, is no error.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// [`print`], for a command whose error it is when nothing can be printed.
pub(super) fn say(text: impl Display) -> Result<(), StartError> {
    print(&format!("{text}\n")).map_err(|error| StartError::new(format!("standard output: cannot write: {error}")))
}

/// Where `--json` writes: opened before anything is started, so that no result is lost to a wrong path.
pub(super) enum JsonOutput {
    StandardOutput,
    /// With the option that names it.
    File(File, PathBuf, &'static str),
}

impl JsonOutput {
    /// The file, or standard output for `-`. What was in the file stays there until the result is written.
    pub(super) fn open(path: &Path) -> Result<JsonOutput, StartError> {
        JsonOutput::of_option("--json", path)
    }

    /// The same for another option.
    pub(super) fn of_option(option: &'static str, path: &Path) -> Result<JsonOutput, StartError> {
        if path == Path::new("-") {
            return Ok(JsonOutput::StandardOutput);
        }
        let file = File::options().write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|error| {
            StartError::new(format!(
                "{option}: expected a file that can be written, or -, got {}: {error}",
                path.display()
            ))
        })?;
        Ok(JsonOutput::File(file, path.to_owned(), option))
    }

    /// Whether [`JsonOutput::replace`] can put another file in the place of this one.
    pub(super) fn is_replaceable(&self) -> bool {
        match self {
            JsonOutput::StandardOutput => false,
            JsonOutput::File(file, ..) => file.metadata().is_ok_and(|metadata| metadata.is_file()),
        }
    }

    /// Puts a file with the object in the place of this one: whoever reads it, or finds it after a crash, has the old one
    /// or the new one whole.
    ///
    /// # Errors
    ///
    /// The file is as it was.
    pub(super) fn replace(&mut self, object: &impl Serialize) -> io::Result<()> {
        let JsonOutput::File(file, path, _) = self else { return Err(io::ErrorKind::Unsupported.into()) };
        // What a link leads to, and not the link.
        let path = path.canonicalize()?;
        let mut new = path.clone().into_os_string();
        new.push(".new");
        let _ = fs::remove_file(&new);
        let mut written = File::options().write(true).create_new(true).open(&new)?;
        let replaced = (|| {
            written.set_permissions(file.metadata()?.permissions())?;
            written.write_all(serde_json::to_string(object)?.as_bytes())?;
            written.write_all(b"\n")?;
            fs::rename(&new, &path)
        })();
        match replaced {
            Ok(()) => *file = written,
            Err(_) => _ = fs::remove_file(&new),
        }
        replaced
    }

    pub(super) fn is_standard_output(&self) -> bool {
        matches!(self, JsonOutput::StandardOutput)
    }

    /// Writes the object on one line, and says whether it is where it was to be. What cannot be written to the file goes
    /// to standard output: it cost a run.
    pub(super) fn write(self, object: &impl Serialize) -> io::Result<bool> {
        let mut text = serde_json::to_string(object)?;
        text.push('\n');
        let is_rescued = !self.is_standard_output();
        if let JsonOutput::File(mut file, path, option) = self {
            let written = match file.metadata().is_ok_and(|metadata| metadata.is_file()) {
                true => file.set_len(0).and_then(|()| file.write_all(text.as_bytes())),
                false => file.write_all(text.as_bytes()),
            };
            match written {
                Ok(()) => return Ok(true),
                Err(error) => complain(format_args!("error: {option}: cannot write {}: {error}", path.display())),
            }
        }
        print(&text).map(|()| !is_rescued)
    }
}
