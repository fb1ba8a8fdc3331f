//! The target of the command line: a URL whose host, or whose domain's mail exchanger, is resolved once, before anything
//! starts.

use super::StartError;
use crate::config::TargetUrl;
use crate::control::targets::{self, Unresolved};
use crate::job::spec::Target;

/// Reads a target's URL and resolves its host. `seed` decides among equally preferred mail exchangers.
pub(super) fn resolve(text: &str, seed: u64) -> Result<Target, StartError> {
    let wrong = |problem: String| StartError::new(format!("TARGET: {problem}"));
    let url = TargetUrl::parse(text).map_err(wrong)?;
    let target = targets::resolve(Unresolved::unrestricted(url).with_seed(seed));
    target.map(|target| target.as_target()).map_err(|error| wrong(error.into_inner().problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_resolved() {
        assert_eq!(resolve("smtp://[::1]:2525", 1).unwrap().address, "[::1]:2525".parse().unwrap());
        assert_eq!(resolve("smtp://127.0.0.1", 1).unwrap().name, "smtp://127.0.0.1:25");
    }

    #[test]
    fn anything_else_names_the_argument_and_what_was_expected() {
        for wrong in ["127.0.0.1:2525", "smtp://u:secret@a", "ftp://127.0.0.1", "mx://127.0.0.1", "mx://"] {
            let error = resolve(wrong, 1).unwrap_err().to_string();
            assert!(error.starts_with("TARGET: expected") && !error.contains("secret"), "{wrong}: {error}");
        }
    }
}
