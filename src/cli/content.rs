//! The files that options name of what is sent, and to whom.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::StartError;
use super::args::{LoadArguments, SizesArgument};
use crate::job::spec::{MESSAGES_GIVEN_BYTES_MAX, MESSAGES_GIVEN_MAX, RawSpec};
use crate::message::{Attachment, Entry, MESSAGE_BYTES_MAX, RECIPIENTS_MAX, VARIABLES_BYTES_MAX};

/// Octets of the largest file of recipients.
const RECIPIENTS_BYTES_MAX: u64 = 256 << 20;

/// The values of a job that say what is sent; takes them out of the arguments.
pub(super) fn raw_spec(load: &mut LoadArguments) -> Result<RawSpec, StartError> {
    let (msg_size, msg_size_mix) = match load.msg_size.take() {
        None => (None, None),
        Some(SizesArgument::Exactly(bytes)) => (Some(bytes), None),
        Some(SizesArgument::Mix(mix)) => (None, Some(mix)),
    };
    let text = |option, path: &Option<PathBuf>| path.as_deref().map(|path| read_text(option, path)).transpose();
    let variables = load.recipient_variables.as_deref();
    Ok(RawSpec {
        msg_size,
        msg_size_mix,
        bodies: load.body.as_deref().map(read_bodies).transpose()?.unwrap_or_default(),
        verbatim: load.verbatim.then_some(true),
        subject: load.subject.take(),
        text: text("--text", &load.text)?,
        html: text("--html", &load.html)?,
        attachments: attachments(&load.attach)?,
        recipient_variables: variables
            .map(|path| read("--recipient-variables", "a file of JSON", path, VARIABLES_BYTES_MAX as u64))
            .transpose()?,
        expand: load.expand.then_some(true),
        recipients: recipients(load)?,
        recipient_order: load.recipient_order.map(Into::into),
        ..RawSpec::default()
    })
}

/// All recipients, those of the command line first. What is wrong with one in a file is said with its line.
pub(super) fn recipients(load: &mut LoadArguments) -> Result<Vec<String>, StartError> {
    let mut recipients = std::mem::take(&mut load.to);
    let Some(path) = &load.to_file else { return Ok(recipients) };
    let before = recipients.len();
    let text = read("--to-file", "a file of recipients", path, RECIPIENTS_BYTES_MAX)?;
    let wrong = |line: usize, problem: String| {
        StartError::new(format!("--to-file: {}, line {line}: {problem}", path.display()))
    };
    for (number, line) in (1..).zip(text.split(|&octet| octet == b'\n')) {
        let line =
            std::str::from_utf8(line).map_err(|_| wrong(number, "expected UTF-8, got other octets".to_owned()))?;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        Entry::parse(line).map_err(|error| wrong(number, error.to_string()))?;
        if recipients.len() >= RECIPIENTS_MAX {
            return Err(wrong(
                number,
                format!("expected at most {RECIPIENTS_MAX} recipients, got more; shorten the list"),
            ));
        }
        recipients.push(line.to_owned());
    }
    if recipients.len() == before {
        return Err(StartError::new(format!(
            "--to-file: expected at least one recipient, got none in {}",
            path.display()
        )));
    }
    Ok(recipients)
}

/// The messages of `--body`: a file, or the .eml files of a folder in the order of their names.
fn read_bodies(path: &Path) -> Result<Vec<Bytes>, StartError> {
    if !path.is_dir() {
        return Ok(vec![read_body(path)?.into()]);
    }
    let wrong = |got: String| {
        StartError::new(format!("--body: expected a folder of message files (.eml), got {}: {got}", path.display()))
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|error| wrong(error.to_string()))? {
        let file = entry.map_err(|error| wrong(error.to_string()))?.path();
        if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("eml")) && file.is_file() {
            files.push(file);
        }
        if files.len() > MESSAGES_GIVEN_MAX {
            return Err(wrong(format!("more than {MESSAGES_GIVEN_MAX} of them")));
        }
    }
    if files.is_empty() {
        return Err(wrong("none in it".to_owned()));
    }
    files.sort();
    let (mut messages, mut octets) = (Vec::with_capacity(files.len()), 0);
    for file in files {
        let message = read_body(&file)?;
        octets += message.len() as u64;
        if octets > MESSAGES_GIVEN_BYTES_MAX {
            return Err(wrong(format!("more than {MESSAGES_GIVEN_BYTES_MAX} octets in all")));
        }
        messages.push(message.into());
    }
    Ok(messages)
}

/// The message file of `--body`.
pub(super) fn read_body(path: &Path) -> Result<Vec<u8>, StartError> {
    read("--body", "a message file", path, MESSAGE_BYTES_MAX)
}

/// A text in UTF-8.
pub(super) fn read_text(option: &str, path: &Path) -> Result<String, StartError> {
    String::from_utf8(read(option, "a file of text", path, MESSAGE_BYTES_MAX)?).map_err(|_| {
        StartError::new(format!("{option}: expected text in UTF-8, got {}, which has other octets", path.display()))
    })
}

fn attachments(paths: &[PathBuf]) -> Result<Vec<Attachment>, StartError> {
    let (mut attachments, mut octets) = (Vec::with_capacity(paths.len()), 0);
    for path in paths {
        let attachment = attachment(path)?;
        octets += attachment.content.len() as u64;
        if octets > MESSAGE_BYTES_MAX {
            let got = format!("more with {}", path.display());
            return Err(StartError::new(format!(
                "--attach: expected at most {MESSAGE_BYTES_MAX} octets in all, got {got}"
            )));
        }
        attachments.push(attachment);
    }
    Ok(attachments)
}

fn attachment(path: &Path) -> Result<Attachment, StartError> {
    let content = read("--attach", "a file", path, MESSAGE_BYTES_MAX)?;
    let name = path.file_name().unwrap_or(OsStr::new("attachment")).to_string_lossy().into_owned();
    Ok(Attachment { name, content: content.into() })
}

/// A file that an option names.
pub(super) fn read(option: &str, what: &str, path: &Path, bytes_max: u64) -> Result<Vec<u8>, StartError> {
    let wrong = |got: String| StartError::new(format!("{option}: expected {what}, got {}: {got}", path.display()));
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    let mut content = Vec::new();
    // What a file says of its size is not to be relied on: a device or a pipe has none.
    file.take(bytes_max + 1).read_to_end(&mut content).map_err(|error| wrong(error.to_string()))?;
    match content.len() as u64 > bytes_max {
        true => Err(wrong(format!("more than {bytes_max} octets"))),
        false => Ok(content),
    }
}
