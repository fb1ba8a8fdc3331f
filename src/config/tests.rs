//! Every key right and wrong, and what the errors say.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::job::search::{RawSearch, SearchSpec};
use crate::job::time_limits::TimeLimits;
use crate::load::stages;
use crate::load::warmup::Warmup;
use crate::measure::abort::AbortRule;
use crate::measure::threshold::Threshold;

const EXAMPLE: &str = include_str!("../../docs/timecop.toml");
const TOKEN: &str = "0123456789abcdef";
const PASSWORD: &str = "pass word";

/// A folder with the files that the example names.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["mx.example.com".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    for (name, text) in [
        ("token", format!("{TOKEN}\n")),
        ("mail.json", "{}".to_owned()),
        ("password", format!("{PASSWORD}\r\n")),
        ("ca.pem", certificate.clone()),
        ("cert.pem", certificate),
        ("key.pem", key),
        ("pagerduty.key", format!("{TOKEN}\n")),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    folder
}

fn parse_in(folder: &Path, text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, &folder.join("timecop.toml"))
}

fn parse(text: &str) -> Config {
    parse_in(Path::new("/nowhere"), text).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The faults of a text, each as `LINE KEY: PROBLEM`.
fn faults_in(folder: &Path, text: &str) -> Vec<String> {
    let faults = parse_in(folder, text).expect_err(text).faults;
    let line = |fault: &Fault| fault.line.map_or("-".to_owned(), |line| line.to_string());
    faults.iter().map(|fault| format!("{} {}: {}", line(fault), fault.key, fault.problem)).collect()
}

/// All values, secrets not shown.
fn debug(config: &Config) -> String {
    format!("{config:#?}")
}

/// The example with all keys in force.
fn example_in_force() -> String {
    let is_key =
        |line: &&str| line.starts_with("#[") || line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
    EXAMPLE
        .lines()
        .map(|line| line.strip_prefix('#').filter(|_| is_key(&line)).unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_example_as_it_is_equals_the_defaults() {
    assert_eq!(debug(&parse(EXAMPLE)), debug(&Config::default()));
    assert_eq!(debug(&parse("")), debug(&Config::default()));
}

#[test]
fn the_example_names_each_default_and_each_key() {
    let folder = folder();
    let config = parse_in(folder.path(), &example_in_force()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.warnings, [""; 0]);
    // What has no default is given in the example, and here taken back.
    let mut usual = config.clone();
    let defaults = Config::default();
    assert_eq!(usual.api.token.take().unwrap().expose_secret(), TOKEN);
    assert_eq!(std::mem::replace(&mut usual.store.path, defaults.store.path.clone()), folder.path().join("timecop.db"));
    assert_eq!(usual.sink.hostname.take().unwrap(), "sink.example.com");
    let faults: Vec<String> = usual.sink.faults.drain(..).map(|rule| rule.to_string()).collect();
    assert_eq!(faults, ["rcpt=451,5%"]);
    assert_eq!((usual.hammer.shards.take(), usual.hammer.cpus.take()), (Some(1), Some(vec![0])));
    let of_jobs = std::mem::take(&mut usual.hammer.defaults);
    assert_eq!(of_jobs.warmup, Some(Warmup::Duration(Duration::from_secs(10))));
    assert_eq!(of_jobs.stages, Some(stages::parse("1m@1000,5m@1000").unwrap()));
    assert_eq!(of_jobs.timeout, Some(TimeLimits::parse("30s,connect=5s").unwrap()));
    let texts = |list: &[Threshold]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&of_jobs.fail_if), ["p99>300ms", "failures>0.1%"]);
    assert_eq!(of_jobs.abort_on, [AbortRule::parse("failures>5%,window=10s,grace=5s").unwrap()]);
    assert_eq!(texts(&of_jobs.search.slo), ["p99<250ms", "failures<0.1%"]);
    assert_eq!(of_jobs.search.max_rate.unwrap(), 100_000.0);
    let written = SearchSpec::new(of_jobs.search.clone()).unwrap();
    let usual_search = RawSearch { slo: written.slo.clone(), max_rate: Some(100_000.0), ..RawSearch::default() };
    assert_eq!(written, SearchSpec::new(usual_search).unwrap());
    let api = usual.targets.remove("api").unwrap();
    assert_eq!(api.url.to_string(), "https://api.example.com:443/mail");
    assert_eq!((api.request.path, api.request.host), ("/mail?key=1".to_owned(), "api.example.com".to_owned()));
    assert_eq!((api.request.method.as_deref(), api.request.data.as_deref()), (Some("POST"), Some(&b"{}"[..])));
    assert_eq!(api.request.headers[0].value(), "Bearer KEY");
    let target = usual.targets.remove("mx").unwrap();
    let files = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    assert_eq!(std::mem::take(&mut usual.smtp.listen), ["0.0.0.0:25".parse().unwrap()]);
    assert_eq!(usual.smtp.hostname.take().unwrap(), "timecop.example.com");
    assert_eq!(usual.smtp.certificate.take().map(|of| [of.cert_file, of.key_file]), Some(files));
    assert_eq!(usual.probe.address.take().unwrap(), "probe@timecop.example.com");
    let secret_file = std::mem::replace(&mut usual.probe.secret_file, defaults.probe.secret_file.clone());
    assert_eq!(secret_file, folder.path().join("probe.key"));
    let route = usual.probe.routes.remove(0);
    assert_eq!((&*route.name, &*route.target, route.from.as_deref()), ("mailgun", "mx", Some("timecop@example.com")));
    let pagerduty = usual.pagerduty.take().unwrap();
    assert_eq!((&*pagerduty.url, pagerduty.routing_key.expose_secret()), (PAGERDUTY_URL, TOKEN));
    assert_eq!(pagerduty.client_url.unwrap(), "https://grafana.example.com/d/timecop");
    // The values of a route in the example are its defaults.
    let text = "[smtp]\nlisten = ['0.0.0.0:25']\n[probe]\naddress = 'a@b'\n[[probe.route]]\nname = 'mailgun'\ntarget = \
                'smtp://mx'\n";
    let plain = parse(text).probe.routes.remove(0);
    assert_eq!(Route { target: "mx".to_owned(), from: route.from.clone(), ..plain }, route);
    assert_eq!(debug(&usual), debug(&defaults));
    assert_eq!(target.url.to_string(), "smtp+starttls://mx.example.com:587");
    assert_eq!(target.credentials.as_ref().unwrap().user(), "load");
    assert_eq!(target.credentials.unwrap().password().expose_secret(), PASSWORD);
    assert_eq!((target.ca_file, target.skip_verify), (Some(folder.path().join("ca.pem")), false));
    // An unknown key lists those that are known: all of them are in the example.
    let sections =
        ["api", "store", "sink", "hammer", "hammer.defaults", "log", "targets.mx", "smtp", "probe", "alert.pagerduty"];
    for section in sections.into_iter().chain(["hammer.defaults.search", "[probe.route]", "[sink.fault]"]) {
        let fault = faults_in(folder.path(), &format!("[{section}]\nzzzzzzzz = 1\n")).join("\n");
        let known = fault.lines().find_map(|fault| fault.split_once("known are ")).unwrap().1;
        for key in known.split(", ").filter(|key| !["route", "fault", "defaults", "search"].contains(key)) {
            assert!(EXAMPLE.contains(&format!("\n#{key} = ")), "{section}.{key} is not in the example");
        }
    }
}

#[test]
fn an_ipv4_mapped_address_is_loopback_if_what_it_maps_to_is() {
    for (address, is_it) in [
        ("127.0.0.1:1", true),
        ("127.255.0.9:1", true),
        ("[::1]:1", true),
        ("[::ffff:127.0.0.1]:1", true),
        ("[::ffff:10.0.0.1]:1", false),
        ("0.0.0.0:1", false),
        ("[::]:1", false),
        ("10.0.0.1:1", false),
    ] {
        assert_eq!(is_loopback(&address.parse().unwrap()), is_it, "{address}");
    }
}

#[test]
fn values_are_read() {
    let config = parse(
        "[api]\nlisten = ['[::1]:1', '127.9.9.9:0']\nhosts = ['Time.Example.COM.', '10.0.0.1', '[::1]']\n\
         [store]\npath = 'a/b.db'\njobs_kept = 1_0\n[sink]\nlisten = []\n\
         [hammer]\nallow_targets = ['10.0.0.0/8', 'fd00::/8', '192.0.2.1']\nduration_max = '1h 30m'\nrate_max = 0.5\n\
         jobs_max = 0x2\ncpus = [3, 1]\n[log]\nformat = 'json'\nlevel = 'off'\n\
         [targets]\nmx-1_a = { url = 'smtps://mx', skip_verify = true }\n",
    );
    assert_eq!(config.api.listen, ["[::1]:1".parse().unwrap(), "127.9.9.9:0".parse::<SocketAddr>().unwrap()]);
    assert_eq!(config.api.hosts, ["time.example.com", "10.0.0.1", "[::1]"]);
    assert_eq!((config.store.path, config.store.jobs_kept), (PathBuf::from("/nowhere/a/b.db"), 10));
    assert_eq!((config.sink.listen.len(), config.hammer.allow_targets.len()), (0, 3));
    let limits = &config.hammer.limits;
    assert_eq!((limits.duration_max, limits.rate_max, limits.jobs_max), (Duration::from_secs(5_400), 0.5, 2));
    assert_eq!((config.hammer.cpus, config.hammer.shards), (Some(vec![3, 1]), None));
    assert_eq!((config.log.format, config.log.level), (LogFormat::Json, LevelFilter::OFF));
    assert!(config.targets["mx-1_a"].skip_verify);
}

/// Each wrong text alone: the beginning of its only fault, and what else it must say.
#[test]
fn every_wrong_value_names_line_key_and_remedy() {
    let folder = folder();
    fs::write(folder.path().join("short"), "short-token-15c").unwrap();
    fs::write(folder.path().join("two"), "first line of it\nsecond line of it\n").unwrap();
    fs::write(folder.path().join("large"), "x".repeat(5_000)).unwrap();
    fs::write(folder.path().join("latin"), b"caf\xe9caf\xe9caf\xe9caf\xe9caf\xe9").unwrap();
    fs::write(folder.path().join("empty"), "").unwrap();
    let target = |rest: &str| format!("[targets.a]\nurl = 'smtps://a'\n{rest}");
    // What is given stands in line 6, 7 or 8.
    let route = |given: &str| {
        let or = |key: &str, usual: &str| if given.starts_with(key) { given.to_owned() } else { usual.to_owned() };
        let (name, target) = (or("name", "name = 'r'"), or("target", "target = 'smtp://a'"));
        let rest = if given == name || given == target { "" } else { given };
        let probe = "[smtp]\nlisten = ['127.0.0.1:25']\n[probe]\naddress = 'a@b'\n[[probe.route]]";
        format!("{probe}\n{name}\n{target}\n{rest}")
    };
    for (text, fault, remedy) in [
        ("[api]\nlisten = 8025", "2 api.listen: expected a list in brackets, each value an IP address", "got 8025"),
        ("[api]\nlisten = ['localhost:25']", "2 api.listen: expected an IP address and a port", "\"localhost:25\""),
        ("[api]\nlisten = [\n'127.0.0.1:1',\n25]", "4 api.listen: expected an IP address and a port", "got 25"),
        ("[api]\nlisten = []", "2 api.listen: expected at least one address", "leave the key out"),
        ("[api]\nlisten = ['127.0.0.1:1', '127.0.0.1:1']", "2 api.listen: expected each address once", "twice"),
        ("[api]\nlisten = ['0.0.0.0:8025']", "2 api.listen: expected loopback addresses", "token_file"),
        ("[api]\nlisten = ['127.0.0.1:1', '[::]:1']", "2 api.listen: expected loopback addresses", "[::]:1"),
        ("[api]\nlisten = ['[::ffff:10.0.0.1]:1']", "2 api.listen: expected loopback addresses", "10.0.0.1"),
        ("[api]\ntoken_file = 'none'", "2 api.token_file: expected a file with one line", "No such file"),
        ("[api]\ntoken_file = '.'", "2 api.token_file: expected a file with one line", "it is none"),
        ("[api]\ntoken_file = 'short'", "2 api.token_file: expected one line of at least 16", "openssl rand"),
        ("[api]\ntoken_file = 'two'", "2 api.token_file: expected one line of at least 16", "openssl rand"),
        ("[api]\ntoken_file = 'large'", "2 api.token_file: expected a file with one line", "more than 4096"),
        ("[api]\ntoken_file = 'latin'", "2 api.token_file: expected a file with one line", "UTF-8"),
        ("[api]\ntoken_file = ''", "2 api.token_file: expected a path", "got"),
        ("[api]\nhosts = ['a:80']", "2 api.hosts: expected a host name", "without a port"),
        ("[api]\nhosts = ['.']", "2 api.hosts: expected a host name", "got"),
        ("[api]\nhosts = ['::1']", "2 api.hosts: expected a host name", "[2001:db8::1]"),
        ("[api]\nhosts = ['a b']", "2 api.hosts: expected a host name", "\"a b\""),
        (
            "[[sink.fault]]\nrule = 'rcpt=250'",
            "2 sink.fault.rule: expected a reply code",
            "got \"250\"; for example rcpt=451",
        ),
        ("[[sink.fault]]\nrule = 451", "2 sink.fault.rule: expected a rule such as", "got 451"),
        ("[[sink.fault]]", "1 sink.fault.rule: expected a rule such as \"rcpt=451,5%\"", "none; add one"),
        (
            "[sink]\nfault = ['rcpt=451']",
            "2 sink.fault: expected tables, each written as [[sink.fault]]",
            "got the string",
        ),
        ("[api]\nconnections_max = 0", "2 api.connections_max: expected a whole number from 1 to 65535", "got 0"),
        ("[api]\nconnections_max = -1", "2 api.connections_max: expected a whole number", "got -1"),
        ("[api]\nconnections_max = 1.5", "2 api.connections_max: expected a whole number", "got 1.5"),
        ("[api]\nconnections_max = '1'", "2 api.connections_max: expected a whole number", "the string \"1\""),
        ("[api]\nbody_bytes_max = 33554433", "2 api.body_bytes_max: expected a whole number", "33554432"),
        ("[store]\npath = true", "2 store.path: expected a path, in quotes", "got true"),
        ("[store]\njobs_kept = 0", "2 store.jobs_kept: expected a whole number", "got 0"),
        ("[sink]\nlisten = ['127.0.0.1:8025']", "2 sink.listen: expected an address that the API does not", "for both"),
        (
            "[sink]\nhttp_listen = ['127.0.0.1:8025']",
            "2 sink.http_listen: expected an address that the API",
            "for both",
        ),
        ("[sink]\nhttp_listen = ['127.0.0.1:2525']", "2 sink.http_listen: expected an address that listen", "for both"),
        ("[sink]\nhostname = 'a b'", "2 sink.hostname: expected one word", "\"a b\""),
        ("[sink]\nmax_size = 99999999999999999999999999", "2 sink.max_size: expected a whole number", "999"),
        ("[hammer]\nallow_targets = ['example.com']", "2 hammer.allow_targets: expected a network", "example.com"),
        ("[hammer]\nallow_targets = ['10.0.0.1/8']", "2 hammer.allow_targets: expected a network", "write 10.0.0.0/8"),
        ("[hammer]\nallow_targets = ['::ffff:10.0.0.0/104']", "2 hammer.allow_targets: expected a network", "IPv4"),
        ("[hammer]\njobs_max = 17", "2 hammer.jobs_max: expected a whole number from 1 to 16", "got 17"),
        ("[hammer]\nconnections_max = 50001", "2 hammer.connections_max: expected", "50000"),
        ("[hammer]\nduration_max = 30", "2 hammer.duration_max: expected a time such as", "got 30"),
        ("[hammer]\nduration_max = '30'", "2 hammer.duration_max: expected a time such as", "\"30\""),
        ("[hammer]\nduration_max = '0s'", "2 hammer.duration_max: expected a time such as", "above 0"),
        ("[hammer]\nrate_max = 0", "2 hammer.rate_max: expected a number above 0", "got 0"),
        ("[hammer]\nrate_max = nan", "2 hammer.rate_max: expected a number above 0", "got nan"),
        ("[hammer]\nrate_max = inf", "2 hammer.rate_max: expected a number above 0", "got inf"),
        ("[hammer]\nshards = 0", "2 hammer.shards: expected a whole number", "got 0"),
        ("[hammer]\ncpus = '0-3'", "2 hammer.cpus: expected a list in brackets, each value a whole number", "\"0-3\""),
        ("[hammer]\ncpus = []", "2 hammer.cpus: expected at least one CPU", "leave the key out"),
        ("[hammer]\ncpus = [1, 1]", "2 hammer.cpus: expected each CPU once", "1 twice"),
        ("[log]\nformat = 'xml'", "2 log.format: expected one of text, json", "\"xml\""),
        ("[log]\nlevel = 'INFO'", "2 log.level: expected one of off, error", "\"INFO\""),
        ("api = 3", "1 api: expected a table, written as [api]", "got 3"),
        ("[[api]]", "1 api: expected a table, written as [api]", "got a list"),
        ("targets = []", "1 targets: expected a table", "got a list"),
        ("[targets]\na = 'smtp://a'", "2 targets.a: expected a table, written as [targets.a]", "the string"),
        ("[targets.a]", "1 targets.a.url: expected a URL", "add one"),
        ("[targets.a]\nurl = 'ftp://a'", "2 targets.a.url: expected smtp://HOST[:PORT]", "\"ftp\""),
        ("[targets.'a b']\nurl = 'smtp://a'", "1 targets.a b: expected a name of letters", "\"a b\""),
        (&target("user = 'x'"), "3 targets.a.user: expected a password_file", "leave both out"),
        (&target("password_file = 'password'"), "3 targets.a.password_file: expected a user", "leave both out"),
        (&target("user = ''\npassword_file = 'password'"), "3 targets.a.user: expected 1 to 255", "got"),
        (&target("user = 'x'\npassword_file = 'two'"), "4 targets.a.password_file: expected one line", "correct"),
        (&target("user = 'x'\npassword_file = 'empty'"), "4 targets.a.password_file: expected one line", "none"),
        (&target("ca_file = 'token'"), "3 targets.a.ca_file: expected a file of certificates", "none is in it"),
        (&target("ca_file = 'none'"), "3 targets.a.ca_file: expected a file of certificates", "No such file"),
        (&target("skip_verify = 'no'"), "3 targets.a.skip_verify: expected true or false", "\"no\""),
        ("[targets.a]\nurl = 'smtp://a'\nskip_verify = true", "3 targets.a.skip_verify: expected a URL of", "no TLS"),
        ("[targets.a]\nurl = 'smtp://a'\nca_file = 'ca.pem'", "3 targets.a.ca_file: expected a URL of", "no TLS"),
        (
            "[smtp]\nlisten = ['127.0.0.1:8025']\n[probe]\naddress = 'a@b'",
            "2 smtp.listen: expected an address that",
            "both",
        ),
        ("[smtp]\nlisten = ['127.0.0.1:25']", "- probe.address: expected the one address", "none; add it"),
        ("[smtp]\ncert_file = 'ca.pem'", "2 smtp.cert_file: expected a key_file beside it", "leave both out"),
        ("[smtp]\ncert_file = 'ca.pem'\nkey_file = 'token'", "3 smtp.key_file: expected a private key", "token"),
        ("[smtp]\nmax_size = 100", "2 smtp.max_size: expected a whole number from 65536", "got 100"),
        ("[probe]\naddress = 'a@b'", "2 probe.address: expected a listen in [smtp]", "0.0.0.0:25"),
        ("[probe]\nroute = 3", "2 probe.route: expected tables, each written as [[probe.route]]", "got 3"),
        ("[probe]\nsecret_file = 'token'", "2 probe.secret_file: expected 64 lower-case", "openssl rand -hex 32"),
        (&route("name = 'a b'"), "6 probe.route.name: expected a name of letters", "\"a b\""),
        (&route("target = 'mx'"), "7 probe.route.target: expected a URL such as", "\"mx\""),
        (&route("type = 'http'"), "8 probe.route.type: expected smtp, as the target has it", "got http"),
        (&route("type = 'http.raw'"), "8 probe.route.type: expected one of smtp, http, http.mime", "\"http.raw\""),
        (&route("target = 'http://a/b'\ntype = 'smtp'"), "8 probe.route.type: expected http or http.mime", "got smtp"),
        (&route("from = 'x'"), "8 probe.route.from: ", "x"),
        (&route("interval = '999ms'"), "8 probe.route.interval: expected at least 1s", "got 999ms"),
        (&route("timeout = '5m'"), "5 probe.route.threshold: expected less than the timeout, which is 5m", "got 5m"),
        (&route("threshold = '2h'"), "8 probe.route.threshold: expected less than the timeout, which is 1h", "got 2h"),
        (&route("interval = '1s'"), "5 probe.route.timeout: expected at most 1000 intervals", "got 1h"),
        (&route("size = 1000"), "8 probe.route.size: expected a whole number from 1024", "got 1000"),
        (&route("size = 6000000"), "8 probe.route.size: expected at most half of max_size", "6000000"),
        (&route("severity = 'bad'"), "8 probe.route.severity: expected one of critical, error, warning, info", "bad"),
        (&route("after = 0"), "8 probe.route.after: expected a whole number from 1", "got 0"),
        (&route("every = '1m'"), "8 probe.route.every: this key is unknown", "known are name, target"),
        ("[alert.pagerduty]", "1 alert.pagerduty.routing_key_file: expected a file", "none; add it"),
        ("[alert.pagerduty]\nrouting_key_file = 'token'\nurl = 'x'", "3 alert.pagerduty.url: expected https://", "x"),
        ("[alert.mail]", "1 alert.mail: this key is unknown", "pagerduty"),
        ("[api]\nlisten = ['127.0.0.1:1'", "2 : this is no TOML", "correct the line"),
        ("[api]\nhosts = []\nhosts = []", "3 : this is no TOML: duplicate key", "correct the line"),
        ("[api]\n[store]\n[api]", "3 : this is no TOML: duplicate key", "correct the line"),
    ] {
        let faults = faults_in(folder.path(), text);
        assert_eq!(faults.len(), 1, "{text}: {faults:#?}");
        assert!(faults[0].starts_with(fault) && faults[0].contains(remedy), "{text}: {faults:#?}");
        assert!(faults[0].len() < 500 && !faults[0].contains(char::is_control), "{text}: {faults:#?}");
    }
}

#[test]
fn all_faults_are_told_at_once_in_the_order_of_the_file() {
    let text = "[log]\nlevel = 1\n[api]\nhosts = [1, 'ok', 2]\nlisten = ['0.0.0.0:1']\n[hammer]\nrate = 1\n[web]\n";
    let errors = parse_in(Path::new("/etc"), text).unwrap_err();
    let shown = errors.to_string();
    let begins: Vec<&str> = shown.lines().map(|line| line.split(": ").next().unwrap()).collect();
    let at = |line: u32| format!("/etc/timecop.toml:{line}");
    assert_eq!(begins, [at(2), at(4), at(4), at(5), at(7), at(8)]);
    assert!(shown.contains(": hammer.rate: this key is unknown; did you mean rate_max ?"), "{shown}");
    let endless = format!("[api]\nhosts = [{}]", "1,".repeat(100_000));
    assert!(faults_in(Path::new(""), &endless).len() <= 100);
}

#[test]
fn an_unknown_key_is_refused_with_the_one_that_was_meant() {
    for (text, fault) in [
        ("[api]\nlisen = []", "2 api.lisen: this key is unknown; did you mean listen ?"),
        ("[api]\nTokenFile = ''", "2 api.TokenFile: this key is unknown; did you mean token_file ?"),
        ("[api]\ntoken = 'x'", "2 api.token: this key is unknown; did you mean token_file ?"),
        (
            "[targets.a]\nurl = 'smtp://a'\npassword = 'secret'",
            "3 targets.a.password: this key is unknown; did you mean password_file ?",
        ),
        ("[log]\nzzz = 1", "2 log.zzz: this key is unknown; known are format, level"),
        ("[hammers]", "1 hammers: this key is unknown; did you mean hammer ?"),
        ("zzz = 1", "1 zzz: this key is unknown; known are api, store, sink, hammer, log, targets, smtp, probe, alert"),
        (
            "[targets.a]\nurl = 'smtp://a'\n[targets.a.b]",
            "3 targets.a.b: this key is unknown; known are url, user, password_file, ca_file, skip_verify, method, headers, \
             data_file",
        ),
    ] {
        assert_eq!(faults_in(Path::new(""), text), [fault]);
    }
}

#[test]
fn secrets_are_read_and_shown_nowhere() {
    let folder = folder();
    let text = "[api]\nlisten = ['0.0.0.0:8025']\ntoken_file = 'token'\n\
                [targets.a]\nurl = 'smtp://a'\nuser = 'joe'\npassword_file = 'password'\n";
    let config = parse_in(folder.path(), text).unwrap();
    assert_eq!(config.api.token.as_ref().unwrap().expose_secret(), TOKEN);
    assert_eq!(config.targets["a"].credentials.as_ref().unwrap().password().expose_secret(), PASSWORD);
    assert!(!debug(&config).contains(TOKEN) && !debug(&config).contains(PASSWORD), "{}", debug(&config));
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("targets.a") && config.warnings[0].contains("unencrypted"));
    // Files that everybody may read are told of, and no error shows what is in one.
    for name in ["token", "password"] {
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    let warnings = parse_in(folder.path(), text).unwrap().warnings.join("\n");
    assert_eq!(warnings.matches("chmod o-rwx").count(), 2, "{warnings}");
    fs::write(folder.path().join("token"), "a secret that is not one word").unwrap();
    fs::write(folder.path().join("password"), "a secret\u{7}").unwrap();
    let faults = faults_in(folder.path(), text).join("\n");
    assert!(faults.contains("api.token_file") && faults.contains("targets.a.password_file"), "{faults}");
    assert!(!faults.contains("secret"), "{faults}");
    let faults = faults_in(folder.path(), "[targets.a]\nurl = 'smtp://joe:secret@a'\nuser = 'secret'\n").join("\n");
    assert!(!faults.contains("secret") && !faults.contains("joe"), "{faults}");
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_of_the_file() {
    let folder = folder();
    fs::write(folder.path().join("binary"), b"\xff\xfe").unwrap();
    fs::write(folder.path().join("large"), " ".repeat((1 << 20) + 1)).unwrap();
    for (name, got) in [("none", "No such file"), (".", "it is no file"), ("binary", "UTF-8"), ("large", "more than")] {
        let error = Config::load(&folder.path().join(name)).unwrap_err().to_string();
        assert!(error.contains(&format!("{name}: expected a file of TOML")) && error.contains(got), "{error}");
    }
    fs::write(folder.path().join("timecop.toml"), EXAMPLE).unwrap();
    assert_eq!(debug(&Config::load(&folder.path().join("timecop.toml")).unwrap()), debug(&Config::default()));
}

#[test]
fn what_needs_a_restart_is_named() {
    let folder = folder();
    let parse = |text: &str| parse_in(folder.path(), text).unwrap_or_else(|errors| panic!("{errors}"));
    let before = parse("");
    for text in [
        "",
        "[targets.a]\nurl = 'smtp://a'",
        "[[sink.fault]]\nrule = 'rcpt=451'",
        "[hammer]\nallow_targets = []\njobs_max = 1\nconnections_max = 1\nmessages_max = 1\nmsg_size_max = 1\n\
         recipients_max = 1\nduration_max = '1s'\nrate_max = 1",
    ] {
        assert_eq!(before.needs_restart(&parse(text)), [""; 0], "{text}");
    }
    for (text, named) in [
        ("[probe]\nsecret_file = 'other.key'", "address and secret_file of [probe]"),
        ("[smtp]\nmax_size = 100000", "[smtp]"),
        ("[alert.pagerduty]\nrouting_key_file = 'token'", "[alert.pagerduty]"),
        ("[api]\nlisten = ['127.0.0.1:1']", "[api]"),
        ("[api]\nhosts = ['a']", "[api]"),
        ("[api]\nconnections_max = 1", "[api]"),
        ("[api]\nbody_bytes_max = 1", "[api]"),
        ("[api]\ntoken_file = 'token'", "[api]"),
        ("[store]\njobs_kept = 1", "[store]"),
        ("[sink]\nmax_size = 1", "[sink]"),
        ("[hammer]\nshards = 3", "shards and cpus of [hammer]"),
        ("[hammer]\ncpus = [9]", "shards and cpus of [hammer]"),
        ("[log]\nlevel = 'warn'", "[log]"),
    ] {
        assert_eq!(before.needs_restart(&parse(text)), [named], "{text}");
    }
    let with_token = parse("[api]\ntoken_file = 'token'");
    assert_eq!(with_token.needs_restart(&parse("[api]\ntoken_file = 'token'")), [""; 0]);
    fs::write(folder.path().join("token"), "another-token-of-16").unwrap();
    assert_eq!(with_token.needs_restart(&parse("[api]\ntoken_file = 'token'")), ["[api]"]);
}

#[test]
fn what_a_request_says_is_looked_at() {
    let folder = folder();
    let fault = |keys: &str| faults_in(folder.path(), &format!("[targets.a]\n{keys}\n")).join("\n");
    for (keys, says) in [
        ("url = 'smtp://a'\nheaders = ['A: b']", "headers: expected a URL of http:// or https://"),
        ("url = 'smtp://a'\ndata_file = 'mail.json'", "data_file: expected a URL of http:// or https://"),
        ("url = 'http://a'\nmethod = 'PUT'", "method: expected a data_file beside it"),
        ("url = 'http://a'\ndata_file = 'mail.json'\nmethod = 'CONNECT'", "method: expected a method in capital"),
        ("url = 'http://a'\nheaders = ['Host: secret']", "expected a header field that is not one of the connection"),
        ("url = 'http://a'\ndata_file = 'none.json'", "data_file: expected a file that can be read"),
    ] {
        let fault = fault(keys);
        assert!(fault.contains(says) && !fault.contains("secret"), "{keys}: {fault}");
    }
}

#[test]
fn the_probes_key_is_made_once_for_this_user_alone_and_shown_nowhere() {
    let folder = folder();
    let path = folder.path().join("data/probe.key");
    let key = probe_key(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let token = crate::probe::header::Token {
        id: 1,
        route: "r".to_owned(),
        sent: crate::time::WallTime::from_unix_ns(1),
        nonce: 1,
    };
    assert_eq!(token.write(&key), token.write(&probe_key(&path).unwrap()), "the second start finds it");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    assert!(!format!("{key:?}").contains(text.trim()));
    fs::write(&path, "half a ke").unwrap();
    let error = probe_key(&path).unwrap_err();
    assert!(error.contains("probe.key") && error.contains("openssl rand") && !error.contains("half"), "{error}");
}

#[test]
fn two_routes_of_one_name_are_one_too_many() {
    let route = "[[probe.route]]\nname = 'r'\ntarget = 'smtp://a'\n";
    let text = format!("[smtp]\nlisten = ['127.0.0.1:25']\n[probe]\naddress = 'a@b'\n{route}{route}");
    let faults = faults_in(Path::new(""), &text);
    assert_eq!(faults, ["9 probe.route.name: expected a name that no other route has, got \"r\""]);
    let many: String = (0..=ROUTES_MAX).map(|n| route.replace("'r'", &format!("'r{n}'"))).collect();
    let text = format!("[smtp]\nlisten = ['127.0.0.1:25']\n[probe]\naddress = 'a@b'\n{many}");
    let faults = faults_in(Path::new(""), &text);
    assert!(faults.len() == 1 && faults[0].contains("at most 64 routes"), "{faults:?}");
}

#[test]
fn what_never_ends_or_is_no_file_is_not_read() {
    let folder = folder();
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let zero = Path::new("/dev/zero");
    for path in [&*fifo, zero] {
        let text = format!("[targets.a]\nurl = 'http://a'\ndata_file = '{}'\n", path.display());
        let faults = faults_in(folder.path(), &text);
        assert!(faults.len() == 1 && faults[0].contains("data_file: expected a file that can be read"), "{faults:?}");
        assert!(faults[0].ends_with("it is no file"), "{faults:?}");
        let error = Config::load(path).unwrap_err().to_string();
        assert!(error.contains("expected a file of TOML") && error.contains("it is no file"), "{error}");
    }
}

#[test]
fn no_two_listen_on_one_address() {
    let text = "[sink]\nhttp_listen = ['127.0.0.1:9000']\n[smtp]\nlisten = ['127.0.0.1:9000']\n\
                [probe]\naddress = 'a@b'\n[[probe.route]]\nname = 'r'\ntarget = 'smtp://a'\n";
    let faults = faults_in(Path::new(""), text);
    assert!(faults.len() == 1 && faults[0].contains("smtp.listen: expected"), "{faults:?}");
}

#[test]
fn no_more_jobs_are_kept_than_can_be_listed() {
    assert_eq!(parse("[store]\njobs_kept = 10000\n").store.jobs_kept, 10_000);
    let faults = faults_in(Path::new(""), "[store]\njobs_kept = 10001\n");
    assert!(faults[0].contains("store.jobs_kept: expected"), "{faults:?}");
}
