//! `timecop check`: whether a configuration file is right, and what the service would do with it.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::Path;

use serde::Serialize;

use super::args::CheckArguments;
use super::{CANNOT_START, OK};
use crate::config::{Config, ConfigErrors, Fault};
use crate::control::probe::certificate::{self, CertificateFault};
use crate::control::store::{self, StoreError, StoreState};

/// The version of the JSON object: raised when a field changes its meaning or goes away.
const SCHEMA_VERSION: u32 = 1;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    version: u32,
    file: String,
    /// Whether there are no faults.
    ok: bool,
    faults: &'a [Fault],
    warnings: &'a [String],
}

/// Reads the file and prints what was found to standard output: exit code 0 when the service can start with it.
pub(super) fn run(arguments: &CheckArguments) -> u8 {
    let path = &arguments.config;
    let checked = Config::load(path).and_then(|config| with_its_key(config, path));
    let checked = checked.and_then(|config| with_its_store(config, path));
    let file = path.display();
    let text = if arguments.json { to_json(&file, &checked) } else { to_text(&file, &checked) };
    // Whoever closed the output early has seen enough; the exit code says the rest.
    let _ = io::stdout().write_all(text.as_bytes());
    if checked.is_ok() { OK } else { CANNOT_START }
}

/// The configuration, if the certificate of its SMTP server and the key belong together.
fn with_its_key(config: Config, file: &Path) -> Result<Config, ConfigErrors> {
    if config.smtp.certificate.is_none() {
        return Ok(config);
    }
    match certificate::of_server(&config.smtp, "localhost") {
        Ok(_) => Ok(config),
        Err(CertificateFault { key, problem }) => {
            let fault = Fault { line: None, key: format!("smtp.{key}"), problem };
            Err(ConfigErrors { file: file.to_owned(), faults: vec![fault] })
        }
    }
}

/// The configuration, if a service could start with its store; how it would find that is a warning at most.
fn with_its_store(mut config: Config, file: &Path) -> Result<Config, ConfigErrors> {
    match store::look(&config.store.path) {
        Ok(StoreState::New | StoreState::There) => {}
        Ok(StoreState::InUse) => {
            let path = config.store.path.display();
            config
                .warnings
                .push(format!("store {path}: in use by another timecop, beside which none can start with it"));
        }
        // The service may run as somebody else.
        Err(StoreError::File { path, source }) if source.kind() == io::ErrorKind::PermissionDenied => {
            let path = path.display();
            config.warnings.push(format!("store {path}: this user may not write there, and the service's has to"));
        }
        Err(error) => {
            let fault = Fault { line: None, key: "store.path".to_owned(), problem: error.to_string() };
            return Err(ConfigErrors { file: file.to_owned(), faults: vec![fault] });
        }
    }
    Ok(config)
}

fn to_json(file: &impl Display, checked: &Result<Config, ConfigErrors>) -> String {
    let (faults, warnings) = match checked {
        Ok(config) => (&[][..], &config.warnings[..]),
        Err(errors) => (&errors.faults[..], &[][..]),
    };
    let report = Report { version: SCHEMA_VERSION, file: file.to_string(), ok: checked.is_ok(), faults, warnings };
    let text = serde_json::to_string_pretty(&report).expect("strings, numbers and booleans can be written as JSON");
    text + "\n"
}

fn to_text(file: &impl Display, checked: &Result<Config, ConfigErrors>) -> String {
    match checked {
        Ok(config) => {
            let lines = summary(config).into_iter().map(|(name, value)| format!("  {name:<13}{value}\n"));
            let warnings = config.warnings.iter().map(|warning| format!("warning: {warning}\n"));
            format!("{file}: no faults\n\n") + &lines.chain(warnings).collect::<String>()
        }
        Err(errors) => format!("{errors}\n"),
    }
}

/// What the service would do, a line each.
fn summary(config: &Config) -> Vec<(&'static str, String)> {
    let (api, hammer) = (&config.api, &config.hammer);
    let token = if api.token.is_some() { "with a bearer token" } else { "without a token, for this machine only" };
    let sink = match config.sink.listen.is_empty() {
        true => "none, so that every job has to name its target".to_owned(),
        false => format!("listens on {}; the default target", listed(&config.sink.listen)),
    };
    let stub = match config.sink.http_listen.is_empty() {
        true => "none, so that every http job has to name its target".to_owned(),
        false => format!("listens on {}; the default target of http jobs", listed(&config.sink.http_listen)),
    };
    let urls = match hammer.allow_targets.is_empty() {
        true => "none are taken".to_owned(),
        false => format!("only inside {}", listed(&hammer.allow_targets)),
    };
    let mut lines = vec![
        ("API", format!("listens on {}, {token}", listed(&api.listen))),
        ("sink", sink),
        ("HTTP sink", stub),
        ("store", format!("{}, the newest {} jobs", config.store.path.display(), config.store.jobs_kept)),
        ("jobs", format!("at most {} at once", hammer.limits.jobs_max)),
        ("URL targets", urls),
    ];
    for (name, target) in &config.targets {
        let user = target.credentials.as_ref().map_or(String::new(), |of| format!(", user {:?}", of.user()));
        let verified = if target.skip_verify { ", its certificate is not verified" } else { "" };
        lines.push(("target", format!("{name}: {}{user}{verified}", target.url)));
    }
    if let Some(address) = &config.probe.address {
        let made = if config.probe.secret_file.exists() { "" } else { ", which is made at the first start" };
        let secret_file = config.probe.secret_file.display();
        lines.push(("SMTP", format!("listens on {} for probes to {address}", listed(&config.smtp.listen))));
        lines.push(("probes' key", format!("{secret_file}{made}")));
    }
    for route in &config.probe.routes {
        let [interval, threshold, timeout] =
            [route.interval, route.threshold, route.timeout].map(|time| humantime::format_duration(time).to_string());
        let when = format!("every {interval}, late after {threshold}, lost after {timeout}");
        lines.push(("route", format!("{}: by {}, {when}", route.name, route.target)));
    }
    if let Some(pagerduty) = &config.pagerduty {
        let only =
            if config.probe.address.is_some() { "" } else { ", only to end those that an earlier [probe] has raised" };
        lines.push(("alerts", format!("to {}{only}", pagerduty.url)));
    }
    lines
}

fn listed<T: Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigErrors> {
        Config::parse(text, Path::new("t.toml"))
    }

    #[test]
    fn a_right_file_is_summed_up() {
        let text =
            "[store]\npath = '/data/jobs.db'\n[sink]\nlisten = []\n[targets.mx]\nurl = 'smtps://mx.example.com'\n";
        let expected = "\
t.toml: no faults

  API          listens on 127.0.0.1:8025, without a token, for this machine only
  sink         none, so that every job has to name its target
  HTTP sink    listens on 127.0.0.1:8026; the default target of http jobs
  store        /data/jobs.db, the newest 1000 jobs
  jobs         at most 16 at once
  URL targets  only inside 127.0.0.0/8, ::1/128
  target       mx: smtps://mx.example.com:465
";
        assert_eq!(to_text(&"t.toml", &parse(text)), expected);
        let value: serde_json::Value = serde_json::from_str(&to_json(&"t.toml", &parse(text))).unwrap();
        let expected = serde_json::json!({
            "version": 1, "file": "t.toml", "ok": true, "faults": [], "warnings": [],
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn the_round_trip_is_summed_up() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "0123456789abcdef0123456789abcdef").unwrap();
        let text = "[smtp]\nlisten = ['127.0.0.1:25']\n[probe]\naddress = 'probe@a.example'\nsecret_file = '/nowhere/k'\n\
                    [[probe.route]]\nname = 'own'\ntarget = 'smtp://127.0.0.1'\n\
                    [alert.pagerduty]\nrouting_key_file = 'key'\n";
        let config = Config::parse(text, &folder.path().join("t.toml"));
        let text = to_text(&"t.toml", &config);
        for line in [
            "  SMTP         listens on 127.0.0.1:25 for probes to probe@a.example\n",
            "  probes' key  /nowhere/k, which is made at the first start\n",
            "  route        own: by smtp://127.0.0.1, every 1m, late after 5m, lost after 1h\n",
            "  alerts       to https://events.pagerduty.com/v2/enqueue\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("0123456789abcdef"), "{text}");
        let alone = "[alert.pagerduty]\nrouting_key_file = 'key'\n";
        let text = to_text(&"t.toml", &Config::parse(alone, &folder.path().join("t.toml")));
        assert!(text.contains("/v2/enqueue, only to end those that an earlier [probe] has raised\n"), "{text}");
    }

    #[test]
    fn every_fault_of_a_wrong_file_is_printed_with_line_and_key() {
        let checked = parse("[api]\nlisten = ['nowhere']\n\n[sink]\nmax_size = 0\n");
        let text = to_text(&"t.toml", &checked);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("t.toml:2: api.listen: expected an IP address and a port"), "{text}");
        assert!(lines[1].starts_with("t.toml:5: sink.max_size: expected a whole number"), "{text}");
        let value: serde_json::Value = serde_json::from_str(&to_json(&"t.toml", &checked)).unwrap();
        assert_eq!((&value["ok"], &value["faults"][1]["line"]), (&false.into(), &5.into()));
        assert_eq!(value["faults"][1]["key"], "sink.max_size");
    }

    #[test]
    fn a_store_that_no_service_could_use_is_a_fault_and_one_in_use_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("timecop.toml");
        let checked = |path: &str| {
            let config = Config::parse(&format!("[store]\npath = '{path}'\n"), &file);
            to_text(&"t.toml", &config.and_then(|config| with_its_store(config, &file)))
        };
        std::fs::write(folder.path().join("text"), "no database").unwrap();
        let text = checked("text");
        assert!(text.contains(": store.path: store ") && text.contains("not a database"), "{text}");
        assert!(!text.contains("no faults"), "{text}");
        assert!(checked("new/jobs.db").contains("no faults") && !folder.path().join("new").exists());
        let _store = store::Store::open(&folder.path().join("jobs.db"), 10).unwrap();
        let text = checked("jobs.db");
        assert!(text.contains("no faults") && text.contains("warning: store ") && text.contains("in use by"), "{text}");
    }

    #[test]
    fn a_certificate_and_a_foreign_key_are_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = [(); 2].map(|()| rcgen::generate_simple_self_signed(["mx.example".to_owned()]).unwrap());
        std::fs::write(folder.path().join("cert.pem"), one.cert.pem()).unwrap();
        let file = folder.path().join("timecop.toml");
        for (key, is_its) in [(one.signing_key.serialize_pem(), true), (other.signing_key.serialize_pem(), false)] {
            std::fs::write(folder.path().join("key.pem"), key).unwrap();
            let text = "[smtp]\nlisten = ['127.0.0.1:0']\ncert_file = 'cert.pem'\nkey_file = 'key.pem'\n\
                        [probe]\naddress = 'probe@example.com'\n";
            let checked = Config::parse(text, &file).and_then(|config| with_its_key(config, &file));
            let words = checked.as_ref().map_or_else(ToString::to_string, |_| String::new());
            assert_eq!(checked.is_ok(), is_its, "{words}");
            let said =
                "smtp.key_file: expected the private key of the first certificate in `cert_file`, got that of another";
            assert!(is_its || words.contains(said), "{words}");
        }
    }
}
