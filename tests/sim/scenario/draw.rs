//! What a seed decides: the job, the network, the server.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand_pcg::Pcg64;
use secrecy::SecretString;
use timecop::job::spec::http::{JobType, RawHttp};
use timecop::job::spec::{ConnectionType, JobSpec, Limit, RawSpec};
use timecop::load::warmup::Warmup;
use timecop::load::{Arrival, stages};
use timecop::measure::abort::AbortRule;
use timecop::message::{RecipientOrder, WeightedSize};
use timecop::sink::{FaultCounters, Faults, Rule, SinkSettings};
use timecop::wire::smtp::auth::{Credentials, Users};

use super::{MS, Weather};
use crate::network::Conditions;

/// True once in `n` times.
pub(super) fn one_in(random: &mut Pcg64, n: u32) -> bool {
    random.random_range(0..n) == 0
}

/// One of several.
pub(super) fn pick<'a, T>(random: &mut Pcg64, of: &'a [T]) -> &'a T {
    &of[random.random_range(0..of.len())]
}

/// What somebody asks for.
pub(super) fn raw_spec(kind: Weather, random: &mut Pcg64) -> RawSpec {
    let is_staged = one_in(random, 8);
    let is_open = !is_staged && random.random::<bool>();
    let by_time = one_in(random, 4);
    let ms = |ms: u64| Some(Duration::from_millis(ms));
    let mut raw = RawSpec {
        messages: (!by_time && !is_staged).then(|| random.random_range(1..=40)),
        duration: if by_time && !is_staged { ms(random.random_range(1..=30)) } else { None },
        connections: Some(random.random_range(1..=5)),
        recipients: (0..random.random_range(1..=7)).map(|i| format!("r{i}@example.com")).collect(),
        recipients_per_message: Some(random.random_range(1..=5)),
        messages_per_connection: *pick(random, &[None, None, Some(1), Some(3)]),
        pipelining: Some(!one_in(random, 3)),
        ..RawSpec::default()
    };
    if is_open {
        raw.rate = Some(*pick(random, &[5.0, 100.0, 1_000.0, 7_919.0]));
        raw.arrival = Some(*pick(random, &[Arrival::Constant, Arrival::Poisson]));
    }
    if is_staged {
        let stages = *pick(random, &["20ms@900", "5ms@2000,10ms@0,10ms@700", "0s@300,40ms@300", "1s@20,1s@0"]);
        raw.stages = Some(stages::parse(stages).expect("the stages are valid"));
        raw.arrival = Some(*pick(random, &[Arrival::Constant, Arrival::Poisson]));
    }
    match random.random_range(0..4) {
        0 => raw.msg_size = Some(random.random_range(600..1_000)),
        1 => raw.msg_size = Some(random.random_range(8_000..9_000)),
        _ => {
            let lines =
                ["Subject: x\r\n\r\n", ".\r\n", "..dots\r\n", "text.\n", "\r\n", ".\r\n.\r\n", "Gr\u{fc}\u{df}e\n"];
            let mut body = b"From: <a@example.com>\r\nSubject: x\r\n\r\n".to_vec();
            (0..random.random_range(0..9)).for_each(|_| body.extend_from_slice(pick(random, &lines[1..]).as_bytes()));
            if one_in(random, 2) {
                // Values that begin with a dot, or are empty, at the beginning of a line, in the middle, and in a row.
                let lines = [
                    "%recipient.dot%end\r\n",
                    "%recipient.none%.dot\r\n",
                    "%recipient.none%%recipient.dot%.\r\n",
                    "a %recipient% b\r\n",
                    "%recipient.none%\r\n",
                    "%recipient.dot%\r\n",
                ];
                (0..random.random_range(1..9)).for_each(|_| body.extend_from_slice(pick(random, &lines).as_bytes()));
                let values = |i| format!(r#""r{i}@example.com":{{"dot":".","none":"","i":{i}}}"#);
                raw.recipient_variables = Some(format!("{{{},{}}}", values(0), values(3)).into_bytes());
                raw.expand = Some(one_in(random, 2));
                raw.recipients_per_message = raw.recipients_per_message.filter(|_| raw.expand == Some(false));
            }
            raw.body = Some(body);
        }
    }
    if one_in(random, 3) {
        raw.recipients.push("p{07..123}@example.com".into());
        raw.recipient_order = Some(*pick(random, &RecipientOrder::ALL));
    }
    if raw.msg_size.is_some() && one_in(random, 3) {
        raw.msg_size = None;
        let size = |bytes, weight| WeightedSize { bytes, weight };
        raw.msg_size_mix = Some(vec![size(650, 5), size(1_000, 3), size(9_000, 1)]);
    }
    if kind != Weather::Kind {
        raw.timeout = ms(*pick(random, &[20, 500, 3_000, 30_000])).map(Into::into);
    }
    if one_in(random, 4) {
        raw.warmup = match (raw.messages, raw.duration) {
            (Some(messages), _) if messages > 1 && one_in(random, 2) => {
                Some(Warmup::Messages(random.random_range(1..messages)))
            }
            (_, Some(run)) => Some(Warmup::Duration(run / 2)),
            _ => Some(Warmup::Duration(Duration::from_millis(3))),
        };
    }
    if kind == Weather::Faulty && one_in(random, 6) {
        let rule = *pick(random, &["failures>5%,window=1s,grace=0s", "failures>50%,window=2s,grace=1s"]);
        raw.abort_on.push(AbortRule::parse(rule).expect("the rule is valid"));
    }
    raw.audit = Some(one_in(random, 3));
    if kind != Weather::Hostile && one_in(random, 4) {
        by_http(&mut raw, random);
    }
    raw
}

/// Users that the server may ask for.
pub(super) fn users() -> Arc<Users> {
    Arc::new(Users::parse("tim:tanstaaftanstaaf").expect("a table of one"))
}

/// Whether the server asks for a login, which it takes under TLS alone. In a kind world the job has the right password.
pub(super) fn login(kind: Weather, connection: ConnectionType, raw: &mut RawSpec, random: &mut Pcg64) -> bool {
    if raw.job_type.is_http() || connection == ConnectionType::Plain || one_in(random, 2) {
        return false;
    }
    let is_wrong = kind != Weather::Kind && one_in(random, 5);
    let password = SecretString::from(if is_wrong { "tanstaaf" } else { "tanstaaftanstaaf" });
    raw.auth = Some(Credentials::new("tim".into(), password).expect("a user and a password"));
    true
}

/// Makes requests to the stub of the messages; what means nothing by HTTP is left out.
fn by_http(raw: &mut RawSpec, random: &mut Pcg64) {
    raw.job_type = *pick(random, &[JobType::Http, JobType::HttpMime]);
    let path = "/v3/sim.example";
    raw.http = RawHttp { host: "api.example".into(), path: path.into(), ..RawHttp::default() };
    raw.auth = Some(Credentials::new("api".into(), SecretString::from("key")).expect("a user and a key"));
    (raw.pipelining, raw.audit) = (None, None);
    raw.recipients.retain(|recipient| !recipient.starts_with("p{"));
    // The stub is no place for content that Mailgun would refuse.
    (raw.body, raw.recipient_variables, raw.expand) = (None, None, None);
    (raw.msg_size, raw.msg_size_mix) = (Some(random.random_range(1_500..9_000)), None);
}

/// What the network does.
pub(super) fn conditions(kind: Weather, spec: &JobSpec, random: &mut Pcg64) -> Conditions {
    let most = *pick(random, &[1_000, 100_000, 2 * MS]);
    // A closed loop that runs by time goes through tens of thousands of messages where the network costs next to nothing.
    let least = if matches!(spec.limit, Limit::Duration(_)) { 20_000 } else { 500 };
    let mut conditions = Conditions {
        latency_ns: (least, most.max(least)),
        jitter_ns: *pick(random, &[0, 0, 1_000, 300_000]),
        split: *pick(random, &[0.0, 0.2, 0.9]),
        turn_ns: *pick(random, &[0, 100, 30_000]),
        dialing_max: *pick(random, &[0, 1, 2]),
        short_write: *pick(random, &[0.0, 0.0, 0.2, 0.9]),
        ..Conditions::default()
    };
    if kind == Weather::Faulty {
        let rare = [0.0, 0.0, 0.01, 0.1];
        conditions.refuse = *pick(random, &[0.0, 0.0, 0.1, 0.6, 1.0]);
        conditions.ignore = *pick(random, &rare);
        conditions.no_ports = *pick(random, &rare);
        conditions.reset = *pick(random, &rare);
        conditions.swallow = *pick(random, &rare);
        conditions.rude_close = *pick(random, &[0.0, 0.2, 1.0]);
        conditions.tls_fail = *pick(random, &[0.0, 0.1, 0.5]);
        conditions.tls_break = *pick(random, &rare);
    }
    conditions
}

/// What the server does.
pub(super) fn settings(kind: Weather, random: &mut Pcg64) -> SinkSettings {
    let phases = ["banner", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "final", "quit", "http"];
    let mut rules: Vec<Rule> = Vec::new();
    let mut add = |rule: String| rules.push(rule.parse().expect("the rule is valid"));
    for phase in phases {
        // By HTTP nothing is reset, and connections are not counted.
        let is_http = phase == "http";
        if one_in(random, 4) {
            let delay = pick(random, &["1ms", "exp:2ms", "10us", "300ms"]);
            add(format!("{phase}=delay:{delay}"));
        }
        if one_in(random, 6) && kind == Weather::Faulty {
            let actions: &[&str] = if is_http { &["drop"] } else { &["drop", "reset"] };
            let (action, percent) = (pick(random, actions), pick(random, &[1, 10, 100]));
            add(format!("{phase}={action},{percent}%"));
        }
        // In a kind world the server may still say no to a message, but not to a session.
        let of_message = !matches!(phase, "banner" | "ehlo" | "starttls" | "auth" | "quit");
        if one_in(random, 4) && (of_message || kind == Weather::Faulty) {
            let codes: &[u16] = match (phase, kind) {
                ("http", Weather::Kind) => &[400, 404, 429],
                ("http", _) => &[401, 429, 500, 503],
                (_, Weather::Kind) => &[450, 452, 550, 554],
                _ => &[421, 451, 503, 550],
            };
            let (code, percent) = (pick(random, codes), pick(random, &[5, 50, 100]));
            let conditions = ["", "", ",above:20/s", ",connections:2"];
            let condition = pick(random, if is_http { &conditions[..3] } else { &conditions });
            add(format!("{phase}={code},{percent}%{condition}"));
        }
    }
    if kind == Weather::Faulty {
        for (phase, actions) in
            [("connect", &["drop", "reset"][..]), ("tls", &["refuse", "expired", "wrong-name", "drop", "reset"])]
        {
            if one_in(random, 5) {
                add(format!("{phase}={},{}%", pick(random, actions), pick(random, &[5, 30, 100])));
            }
        }
    }
    // In a kind world nothing is withheld that a job may have to have.
    if one_in(random, 6) {
        let kindly: &[&str] = &["PIPELINING", "SIZE", "PIPELINING+SIZE"];
        let all: &[&str] = &["PIPELINING", "AUTH", "STARTTLS", "8BITMIME", "SMTPUTF8+SIZE", "ENHANCEDSTATUSCODES+AUTH"];
        add(format!("ehlo=without:{}", pick(random, if kind == Weather::Kind { kindly } else { all })));
    }
    // What a slow read does is the engine's; that it is asked for changes nothing here.
    if one_in(random, 8) {
        add(format!("{}=slow:1000/s", pick(random, &["banner", "data", "auth"])));
    }
    if one_in(random, 8) {
        add(format!("rcpt=450,greylist:{}", pick(random, &["1ms", "100ms", "1h"])));
    }
    if one_in(random, 8) {
        add(format!("{}:*1*=452", pick(random, &["rcpt", "data", "final"])));
    }
    let stall = one_in(random, 6).then(|| "40ms@5ms".parse().expect("the stall is valid"));
    let faults = Faults::new(rules, FaultCounters::default()).expect("they are few");
    SinkSettings { faults, stall, keep_bytes_max: 1 << 20, ..SinkSettings::default() }
}
