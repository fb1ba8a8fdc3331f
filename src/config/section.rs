//! Reads a table of the file key by key, and notes every fault with its line and key instead of ending at the first.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{expected, shown};

/// Faults that are kept; more say nothing that these do not.
const FAULTS_MAX: usize = 100;
/// Characters of a key or a number that an error shows.
const WORD_CHARS_MAX: usize = 64;
/// Edits of a letter by which an unknown key may differ from the one that was probably meant.
const EDITS_MAX: usize = 2;

/// One thing that is wrong in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Number of the line, from 1; `None` where the fault is of the file as a whole.
    pub line: Option<usize>,
    /// The key with its tables, such as `api.listen`; empty where the text is no TOML.
    pub key: String,
    /// What was expected, what came, and what to do about it.
    pub problem: String,
}

/// Everything that is wrong in a configuration file, one line a fault.
#[derive(Debug)]
pub struct ConfigErrors {
    /// The file, as it was named.
    pub file: PathBuf,
    /// At least one, in the order of the file.
    pub faults: Vec<Fault>,
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            f.write_str(if index > 0 { "\n" } else { "" })?;
            write!(f, "{}", self.file.display())?;
            fault.line.map_or(Ok(()), |line| write!(f, ":{line}"))?;
            if !fault.key.is_empty() {
                write!(f, ": {}", fault.key)?;
            }
            write!(f, ": {}", fault.problem)?;
        }
        Ok(())
    }
}

/// What is wrong with a text, gathered while its tables are read.
pub(super) struct Faults<'a> {
    text: &'a str,
    found: Vec<Fault>,
}

impl<'a> Faults<'a> {
    pub(super) fn of(text: &'a str) -> Faults<'a> {
        Faults { text, found: Vec::new() }
    }

    /// Notes a fault at an offset into the text.
    pub(super) fn note(&mut self, at: Option<usize>, key: impl Into<String>, problem: impl Into<String>) {
        if self.found.len() < FAULTS_MAX {
            let before = at.map(|at| &self.text.as_bytes()[..at.min(self.text.len())]);
            let line = before.map(|before| before.iter().filter(|octet| **octet == b'\n').count() + 1);
            self.found.push(Fault { line, key: key.into(), problem: problem.into() });
        }
    }

    /// All of them, in the order of the file.
    pub(super) fn into_sorted(mut self) -> Vec<Fault> {
        self.found.sort_by_key(|fault| fault.line);
        self.found
    }
}

/// A table of the file: each key is read once, by its name, and what is left at the end is unknown.
pub(super) struct Section<'f, 't> {
    /// Its name with a dot behind it, or nothing for the file's root.
    prefix: String,
    /// Where it begins; `None` for one that the file does not have.
    at: Option<usize>,
    /// What was not read yet.
    left: DeTable<'t>,
    /// The keys that were asked for, and where they stand if they do.
    known: Vec<(&'static str, Option<usize>)>,
    faults: &'f mut Faults<'t>,
}

impl<'f, 't> Section<'f, 't> {
    /// The file itself.
    pub(super) fn root(table: DeTable<'t>, faults: &'f mut Faults<'t>) -> Section<'f, 't> {
        Section { prefix: String::new(), at: None, left: table, known: Vec::new(), faults }
    }

    /// The table of this name, which is empty where there is none.
    pub(super) fn section(&mut self, name: &'static str) -> Section<'_, 't> {
        let value = self.take(name);
        self.open(name, value)
    }

    /// All tables in this one, each with its name, for a table whose keys are names that somebody chose.
    pub(super) fn each_section(&mut self, mut read: impl FnMut(&str, Section<'_, 't>)) {
        for (name, value) in std::mem::take(&mut self.left) {
            let is_table = matches!(value.get_ref(), DeValue::Table(_));
            let section = self.open(name.get_ref(), Some(value));
            if is_table {
                read(name.get_ref(), section);
            }
        }
    }

    /// All tables of a list of tables, `[[NAME]]`, in their order.
    pub(super) fn each_table(&mut self, name: &'static str, mut read: impl FnMut(Section<'_, 't>)) {
        let Some(value) = self.take(name) else { return };
        let at = value.span().start;
        let key = format!("{}{name}", self.prefix);
        let values = match value.into_inner() {
            DeValue::Array(values) => values,
            other => {
                self.faults.note(Some(at), &key, expected(format!("tables, each written as [[{key}]]"), kind(&other)));
                return;
            }
        };
        for value in values {
            match matches!(value.get_ref(), DeValue::Table(_)) {
                true => read(self.open(name, Some(value))),
                false => {
                    let problem = expected(format!("tables, each written as [[{key}]]"), kind(value.get_ref()));
                    self.faults.note(Some(value.span().start), &key, problem);
                }
            }
        }
    }

    /// Whether the file has the table at all.
    pub(super) fn is_there(&self) -> bool {
        self.at.is_some()
    }

    fn open(&mut self, name: &str, value: Option<Spanned<DeValue<'t>>>) -> Section<'_, 't> {
        let prefix = format!("{}{}.", self.prefix, cut(name));
        let at = value.as_ref().map(|value| value.span().start);
        let left = match value.map(Spanned::into_inner) {
            None => DeTable::new(),
            Some(DeValue::Table(table)) => table,
            Some(other) => {
                let key = prefix.trim_end_matches('.');
                self.faults.note(at, key, expected(format!("a table, written as [{key}]"), kind(&other)));
                DeTable::new()
            }
        };
        Section { prefix, at, left, known: Vec::new(), faults: self.faults }
    }

    fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'t>>> {
        let entry = self.left.remove_entry(key);
        self.known.push((key, entry.as_ref().map(|(key, _)| key.span().start)));
        entry.map(|(_, value)| value)
    }

    /// Whether the file has the key. It must have been read before.
    pub(super) fn has(&self, key: &str) -> bool {
        self.known.iter().any(|(known, at)| *known == key && at.is_some())
    }

    /// Notes a fault of a key, at its line or else at the table's.
    pub(super) fn fault(&mut self, key: &str, problem: impl Into<String>) {
        let at = self.known.iter().find(|(known, _)| *known == key).and_then(|(_, at)| *at);
        self.faults.note(at.or(self.at), format!("{}{key}", self.prefix), problem);
    }

    /// Notes a fault of the table itself.
    pub(super) fn fault_of_all(&mut self, problem: impl Into<String>) {
        self.faults.note(self.at, self.prefix.trim_end_matches('.'), problem);
    }

    /// Reads one value; what is wrong with it is noted, and then it counts as absent.
    fn value<T>(&mut self, key: &'static str, read: impl FnOnce(&DeValue<'t>) -> Result<T, String>) -> Option<T> {
        let value = self.take(key)?;
        let problem = match read(value.get_ref()) {
            Ok(read) => return Some(read),
            Err(problem) => problem,
        };
        self.fault(key, problem);
        None
    }

    /// A string; `what` says what it holds, where it is none.
    pub(super) fn text<T>(
        &mut self,
        key: &'static str,
        what: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.value(key, |value| match value {
            DeValue::String(text) => read(text),
            other => Err(expected(format!("{what}, in quotes"), kind(other))),
        })
    }

    /// A list, in which every value is looked at.
    fn list<T>(
        &mut self,
        key: &'static str,
        what: &str,
        read: impl Fn(&DeValue<'t>) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let value = self.take(key)?;
        let DeValue::Array(values) = value.get_ref() else {
            self.fault(key, expected(format!("a list in brackets, each value {what}"), kind(value.get_ref())));
            return None;
        };
        let mut all = Some(Vec::with_capacity(values.len()));
        for value in values.iter() {
            match read(value.get_ref()) {
                Ok(read) => {
                    if let Some(all) = &mut all {
                        all.push(read);
                    }
                }
                Err(problem) => {
                    self.faults.note(Some(value.span().start), format!("{}{key}", self.prefix), problem);
                    all = None;
                }
            }
        }
        all
    }

    /// A list of strings.
    pub(super) fn texts<T>(
        &mut self,
        key: &'static str,
        what: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        self.list(key, what, |value| match value {
            DeValue::String(text) => read(text),
            other => Err(expected(format!("{what}, in quotes"), kind(other))),
        })
    }

    /// A list of whole numbers.
    pub(super) fn wholes(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<Vec<u64>> {
        self.list(key, "a whole number", |value| whole(value, &range))
    }

    /// A whole number.
    pub(super) fn whole(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        self.value(key, |value| whole(value, &range))
    }

    /// A number above 0, whole or not.
    pub(super) fn number(&mut self, key: &'static str, most: f64) -> Option<f64> {
        let what = format!("a number above 0 and at most {most}");
        self.value(key, |value| {
            let number = match value {
                DeValue::Integer(number) => digits(number).map(|number| number as f64),
                DeValue::Float(number) => number.as_str().parse().ok(),
                other => return Err(expected(&what, kind(other))),
            };
            number.filter(|number| *number > 0.0 && *number <= most).ok_or_else(|| expected(&what, kind(value)))
        })
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.value(key, |value| match value {
            DeValue::Boolean(flag) => Ok(*flag),
            other => Err(expected("true or false", kind(other))),
        })
    }

    /// A time with its unit, above 0.
    pub(super) fn duration(&mut self, key: &'static str, most: Duration) -> Option<Duration> {
        let what =
            format!("a time such as \"30s\" or \"1h 30m\", above 0 and at most {}", humantime::format_duration(most));
        self.text(key, &what, |text| {
            let duration = humantime::parse_duration(text).ok();
            duration.filter(|time| !time.is_zero() && *time <= most).ok_or_else(|| expected(&what, shown(text)))
        })
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let what = format!("one of {}", listed(words.iter().map(|(word, _)| *word)));
        self.text(key, &what, |text| {
            let found = words.iter().find(|(word, _)| *word == text);
            found.map(|(_, value)| *value).ok_or_else(|| expected(&what, shown(text)))
        })
    }

    /// Whatever was not asked for is unknown.
    pub(super) fn finish(self) {
        let known = || self.known.iter().map(|(key, _)| *key);
        for key in self.left.keys() {
            let got = key.get_ref().as_ref();
            let nearest = known().map(|known| (edits(&got.to_lowercase(), known), known)).min();
            let remedy = match nearest {
                Some((edits, known)) if edits <= EDITS_MAX.min(known.len() / 2) => format!("did you mean {known} ?"),
                _ => match known().find(|known| known.starts_with(got) || got.starts_with(known)) {
                    Some(known) => format!("did you mean {known} ?"),
                    None => format!("known are {}", listed(known())),
                },
            };
            let name = format!("{}{}", self.prefix, cut(got));
            self.faults.note(Some(key.span().start), name, format!("this key is unknown; {remedy}"));
        }
    }
}

fn digits(number: &toml::de::DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn whole(value: &DeValue<'_>, range: &RangeInclusive<u64>) -> Result<u64, String> {
    let number = match value {
        DeValue::Integer(number) => digits(number),
        _ => None,
    };
    let what = || format!("a whole number from {} to {}", range.start(), range.end());
    number.filter(|number| range.contains(number)).ok_or_else(|| expected(what(), kind(value)))
}

/// A value that came in the place of another, in words that are short whatever it is.
fn kind(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string {}", shown(text)),
        DeValue::Integer(number) => cut(&number.to_string()),
        DeValue::Float(number) => cut(number.as_str()),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// A text that is short and has no control characters.
fn cut(text: &str) -> String {
    text.chars().take(WORD_CHARS_MAX).flat_map(char::escape_debug).collect()
}

fn listed<'w>(words: impl Iterator<Item = &'w str>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

/// Letters that must be put in, taken out or replaced to make one word of the other (Levenshtein's distance).
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().take(WORD_CHARS_MAX).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for at in 0..other.len() {
            let replaced = diagonal + usize::from(other[at] != letter);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_compared_by_edits() {
        for (one, other, distance) in
            [("", "abc", 3), ("listen", "listen", 0), ("lisen", "listen", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!((edits(one, other), edits(other, one)), (distance, distance), "{one} {other}");
        }
    }
}
