//! `timecop job`: a thin client of a service's job API.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::args::{
    ConnectionTypeArgument, JobArguments, JobCommand, JobIdArguments, JobRunArguments, LoadArguments,
    PipeliningArgument, ServiceAddress, ServiceArguments, SizesArgument, Stages,
};
use super::client::{self, Failure, escaped, parse};
use super::output::{complain, say};
use super::{NOT_ALL_ACCEPTED, OK, StartError, content, report, search};
use crate::job::record::ZERO_TIME;
use crate::job::request::load_control::{limits_to_json, stage_to_json};
use crate::job::request::search::to_json as search_to_json;
use crate::job::request::{JobType, duration};
use crate::job::search::SearchReport;
use crate::load::Arrival;
use crate::load::warmup::Warmup;
use crate::measure::report::Report;
use crate::message::{RecipientOrder, WeightedSize};

/// How often a job that is waited for is asked whether it has ended.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How often it is asked for its whole result, to show how it stands, as long as that is small.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Octets of results that are asked for in a second.
const ASKED_A_SECOND: usize = 256 << 10;
/// The longest time between two looks at the result.
const LOOK_AGAIN_WITHIN: Duration = Duration::from_secs(30);
/// How often in a row the service may have no room for a question.
const REFUSED_MAX: u32 = 30;
/// How often it is asked for the last of a job that the end of the service interrupted, which has 10 s to drain.
const LOOKS_AFTER_END_MAX: u32 = 30;

pub(super) fn run(arguments: JobArguments) -> Result<u8, StartError> {
    match arguments.command {
        JobCommand::Run(arguments) => start(*arguments),
        JobCommand::Get(JobIdArguments { id, service }) => show(&service, &format!("job.get?id={}", escaped(&id))),
        JobCommand::Wait(JobIdArguments { id, service }) => wait(&id, &service),
        JobCommand::Stop(JobIdArguments { id, service }) => show(&service, &format!("job.stop?id={}", escaped(&id))),
        JobCommand::List(service) => list(&service),
    }
}

/// A job as the API shows it.
#[derive(Deserialize)]
struct Job {
    id: String,
    job: BTreeMap<String, Value>,
    start_time: String,
    stop_time: String,
    state: String,
    #[serde(default)]
    verdict: Option<String>,
    result: Option<JobResult>,
}

/// What came of a job.
#[derive(Deserialize)]
#[serde(untagged)]
enum JobResult {
    Job(Box<Report>),
    Search(Box<SearchReport>),
}

impl JobResult {
    /// Whether all is as it was to be.
    fn is_well(&self) -> bool {
        match self {
            JobResult::Job(report) => {
                report.messages.accepted == report.messages.asked
                    && !report.is_invalid()
                    && report.thresholds.iter().all(|threshold| threshold.met)
            }
            JobResult::Search(report) => search::has_a_rate(report),
        }
    }

    /// How it stands, in a line.
    fn stands(&self) -> String {
        match self {
            JobResult::Job(report) => {
                format!("{} of {} accepted", report.messages.accepted, report.messages.asked)
            }
            JobResult::Search(report) => search::stands(report),
        }
    }
}

impl Job {
    /// Whether its result still changes: one that was stopped drains yet, and is judged at its very end.
    fn is_under_way(&self) -> bool {
        self.state == "running" || (self.state == "stopped" && self.verdict.is_none())
    }

    /// Where its messages go.
    fn target(&self) -> &str {
        let said = |field| self.job.get(field).and_then(Value::as_str);
        let kind = said("Type").unwrap_or_default();
        said("target").unwrap_or(if kind.starts_with("http") {
            "the service's HTTP stub"
        } else {
            "the service's sink"
        })
    }
}

#[derive(Deserialize)]
struct Jobs {
    #[serde(rename = "Items")]
    items: Vec<Job>,
}

fn start(arguments: JobRunArguments) -> Result<u8, StartError> {
    let wait = arguments.wait;
    let (request, service) = request(arguments)?;
    let answer = ask(&service.address, "job.run", Some(request.to_string()))?;
    let job: Job = parse(&answer)?;
    if !wait {
        match service.json {
            true => say(answer)?,
            false => say(format_args!("job {} runs; timecop job get {} shows how it stands", job.id, job.id))?,
        }
        return Ok(OK);
    }
    complain(format_args!("job {0} runs; an interrupt leaves it running, timecop job stop {0} ends it", job.id));
    follow(&job.id, &service)
}

/// `timecop job wait`.
fn wait(id: &str, service: &ServiceArguments) -> Result<u8, StartError> {
    // What is no job of the service is refused in its own words, before it is waited for.
    ask(&service.address, &format!("job.get?id={}&result=false", escaped(id)), None)?;
    follow(id, service)
}

/// Waits for the end of a job, and shows what came of it.
fn follow(id: &str, service: &ServiceArguments) -> Result<u8, StartError> {
    let (answer, job) = wait_for(id, &service.address).map_err(|error| {
        StartError::new(format!("job {id}: {error}; timecop job get {id} shows what came of it, when the service runs"))
    })?;
    print(&job, &answer, service)?;
    let all = job.result.is_some_and(|result| result.is_well());
    Ok(if all && job.state == "finished" { OK } else { NOT_ALL_ACCEPTED })
}

/// Follows a job to its end: the service's last answer, and what it says.
fn wait_for(id: &str, service: &ServiceAddress) -> Result<(String, Job), StartError> {
    let whole = format!("/v1/hammer/job.get?id={}", escaped(id));
    let record = format!("{whole}&result=false");
    let bar = indicatif::ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(200));
    let (mut looks_after_end, mut look_at) = (0, Instant::now() + LOOK_EVERY);
    loop {
        let job: Job = parse(&ask_patiently(service, &record)?)?;
        // What a service leaves that was killed never becomes final.
        let is_over = !job.is_under_way() && (job.verdict.is_some() || looks_after_end >= LOOKS_AFTER_END_MAX);
        looks_after_end += u32::from(!job.is_under_way());
        if is_over || Instant::now() >= look_at {
            let answer = ask_patiently(service, &whole)?;
            let job: Job = parse(&answer)?;
            if is_over {
                bar.finish_and_clear();
                return Ok((answer, job));
            }
            if let Some(result) = &job.result {
                bar.set_message(format!("job {}: {}", job.id, result.stands()));
            }
            look_at = Instant::now() + look_again_after(answer.len());
        }
        std::thread::sleep(ASK_EVERY);
    }
}

/// Asks again where the service has no room for the question.
fn ask_patiently(service: &ServiceAddress, path: &str) -> Result<String, StartError> {
    let mut refused = 0;
    loop {
        match client::try_ask(service, path, None) {
            Ok(answer) => return Ok(answer),
            Err(Failure::Busy(after, _)) if refused < REFUSED_MAX => {
                refused += 1;
                std::thread::sleep(after.min(LOOK_AGAIN_WITHIN));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// A live result grows by the second, and is made anew for each answer: the larger it is the less often it is asked for.
fn look_again_after(octets: usize) -> Duration {
    LOOK_EVERY.max(Duration::from_secs((octets / ASKED_A_SECOND) as u64)).min(LOOK_AGAIN_WITHIN)
}

/// What `job.run` is asked, from the same arguments as a run of this process.
fn request(arguments: JobRunArguments) -> Result<(Value, ServiceArguments), StartError> {
    let JobRunArguments {
        target,
        mut load,
        form,
        connection_type,
        auth,
        skip_verify,
        audit,
        shards,
        wait: _,
        fail_if,
        search: _,
        slo,
        search_options,
        service,
    } = arguments;
    let scheme = target.as_deref().and_then(|url| url.split_once("://")).map(|(scheme, _)| scheme);
    let usual = if matches!(scheme, Some("http" | "https")) { JobType::Http } else { JobType::Smtp };
    let kind = form.job_type.map_or(usual, JobType::from);
    // A configured target has one of its own, which the service knows.
    let connection_type = connection_type.or(match scheme {
        Some("smtps") => Some(ConnectionTypeArgument::Tls),
        Some("smtp+starttls" | "mx+starttls") => Some(ConnectionTypeArgument::Starttls),
        None if target.is_some() => None,
        _ => Some(ConnectionTypeArgument::Plain),
    });
    let connection_type = connection_type.map(|how| match how {
        ConnectionTypeArgument::Plain => "plain",
        ConnectionTypeArgument::Tls => "tls",
        ConnectionTypeArgument::Starttls => "starttls",
    });
    refuse_files_of_this_machine(&load)?;
    let recipients = content::recipients(&mut load)?;
    let text =
        |option, path: &Option<PathBuf>| path.as_deref().map(|path| content::read_text(option, path)).transpose();
    let (text, html) = (text("--text", &load.text)?, text("--html", &load.html)?);
    let variables = load.recipient_variables.as_deref();
    let variables = variables.map(|path| content::read_text("--recipient-variables", path)).transpose()?;
    let msg_size = match &load.msg_size {
        Some(SizesArgument::Exactly(bytes)) => Some(json!(bytes)),
        Some(SizesArgument::Mix(mix)) => {
            let size = |size: &WeightedSize| json!({ "bytes": size.bytes, "weight": size.weight });
            Some(mix.iter().map(size).collect())
        }
        None if kind != JobType::HttpRaw && load.body.is_none() && text.is_none() && html.is_none() => {
            Some(json!(crate::job::spec::MESSAGE_BYTES))
        }
        None => None,
    };
    let body = match load.body.as_deref().map(content::read_body).transpose()? {
        None => None,
        Some(bytes) => Some(String::from_utf8(bytes).map_err(|_| {
            StartError::new("--body: expected a message in UTF-8, which JSON can carry, got other octets")
        })?),
    };
    let nanoseconds = |time: Duration| time.as_nanos() as u64;
    let fields = json!({
        "Type": kind.name(),
        "smtp_connection_type": connection_type.filter(|_| !kind.is_http()),
        "options": options(form.option)?,
        "target": target,
        "auth": auth.then_some(true),
        "skip_verify": skip_verify.then_some(true),
        "messages": load.messages,
        "duration": load.duration.map(nanoseconds),
        "connections": load.connections,
        "rate": load.rate,
        "stages": load.stages.map(|Stages(stages)| stages.iter().map(stage_to_json).collect::<Vec<_>>()),
        "arrival": load.arrival.map(|arrival| match arrival.into() { Arrival::Constant => "constant", Arrival::Poisson => "poisson" }),
        "audit": audit.then_some(true),
        "warmup": load.warmup.map(|warmup| match warmup {
            Warmup::Duration(time) => json!(duration::format(time)),
            Warmup::Messages(messages) => json!({ "messages": messages }),
        }),
        "abort_on": conditions(&load.abort_on),
        "fail_if": conditions(&fail_if.conditions),
        "search": slo.map(|slo| search_to_json(&search_options.with(slo))),
        "messages_per_connection": load.messages_per_connection,
        "msg_size": msg_size,
        "body": body,
        "subject": load.subject,
        "text": text,
        "html": html,
        "recipient_variables": variables,
        "expand": load.expand.then_some(true),
        "from": load.from,
        "recipients": (!recipients.is_empty()).then_some(recipients),
        "recipient_order": load.recipient_order.map(|order| RecipientOrder::from(order).name()),
        "recipients_per_message": load.recipients_per_message,
        "pipelining": (load.pipelining == PipeliningArgument::Off).then_some("off"),
        "timeout": load.timeout.as_ref().map(limits_to_json),
        "seed": load.seed,
        "shards": shards,
    });
    let Value::Object(fields) = fields else { unreachable!("an object was written down") };
    let said: Map<String, Value> = fields.into_iter().filter(|(_, value)| !value.is_null()).collect();
    Ok((Value::Object(said), service))
}

/// The options as an object, in which no name can stand twice.
fn options(list: Vec<(String, String)>) -> Result<Option<Map<String, Value>>, StartError> {
    let mut options = Map::new();
    for (name, value) in list {
        if options.insert(name.clone(), json!(value)).is_some() {
            return Err(StartError::new(format!(
                "--option: expected each name once for a job of a service, got {} twice; timecop hammer takes it",
                name.escape_debug()
            )));
        }
    }
    Ok((!options.is_empty()).then_some(options))
}

/// A request carries no attachments, and one body.
fn refuse_files_of_this_machine(load: &LoadArguments) -> Result<(), StartError> {
    let wrong = |what: &str| Err(StartError::new(format!("{what}; timecop hammer takes it")));
    match &load.body {
        Some(path) if path.is_dir() => wrong("--body: expected a file for a job of a service, got a folder"),
        _ if !load.attach.is_empty() => wrong("--attach: expected none for a job of a service, got one"),
        _ if load.verbatim => wrong("--verbatim: expected a run without it for a job of a service, got it"),
        _ => Ok(()),
    }
}

/// Conditions as they are written, unless there are none.
fn conditions(list: &[impl ToString]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.iter().map(ToString::to_string).collect())
}

fn show(service: &ServiceArguments, path: &str) -> Result<u8, StartError> {
    let answer = ask(&service.address, path, None)?;
    print(&parse(&answer)?, &answer, service)?;
    Ok(OK)
}

fn print(job: &Job, answer: &str, service: &ServiceArguments) -> Result<(), StartError> {
    if service.json {
        return say(answer);
    }
    let until = if has_ended(job) { format!(" to {}", job.stop_time) } else { String::new() };
    say(format_args!("job {}, {}: from {}{until}", job.id, job.state, job.start_time))?;
    for (field, value) in &job.job {
        say(format_args!("  {field}: {value}"))?;
    }
    match &job.result {
        Some(JobResult::Job(result)) => report::print(result).map_err(StartError::new),
        Some(JobResult::Search(result)) => {
            search::print(&search::render(result));
            Ok(())
        }
        None => Ok(()),
    }
}

fn list(service: &ServiceArguments) -> Result<u8, StartError> {
    let answer = ask(&service.address, "job.list", None)?;
    if service.json {
        say(answer)?;
        return Ok(OK);
    }
    let Jobs { items } = parse(&answer)?;
    match items.is_empty() {
        true => say("no jobs; timecop job run starts one")?,
        false => say(format_args!(
            "{:>8}  {:<11}  {:<10}  {:<29}  {:<29}  TARGET",
            "ID", "STATE", "VERDICT", "STARTED", "ENDED"
        ))?,
    }
    for job in items {
        let target = job.target();
        let stop_time = if has_ended(&job) { &*job.stop_time } else { "-" };
        let Job { id, state, start_time, .. } = &job;
        let verdict = job.verdict.as_deref().unwrap_or("-");
        say(format_args!("{id:>8}  {state:<11}  {verdict:<10}  {start_time:<29}  {stop_time:<29}  {target}"))?;
    }
    Ok(OK)
}

/// Whether it has ended, or was told to: Go's zero time stands for that it has not.
fn has_ended(job: &Job) -> bool {
    job.stop_time != ZERO_TIME
}

/// The result of a job that has ended and was judged, for those who compare and merge reports.
pub(super) fn result(service: &ServiceAddress, id: &str) -> Result<Report, StartError> {
    let job: Job = parse(&ask(service, &format!("job.get?id={}", escaped(id)), None)?)?;
    judged(job).map_err(StartError::new)
}

/// What of a job may be compared: a result that changes no more, which its verdict shows.
fn judged(job: Job) -> Result<Report, String> {
    let Job { id, state, .. } = &job;
    if job.is_under_way() {
        let got = if state == "running" { "one that runs" } else { "one that was stopped and still drains" };
        return Err(format!("job {id}: expected one that has ended, got {got}; try again when it has its verdict"));
    }
    match job.result {
        Some(JobResult::Job(result)) if result.verdict.is_some() => Ok(*result),
        Some(JobResult::Search(_)) => {
            Err(format!("job {id}: expected the report of a run, got a search, whose trials have none"))
        }
        Some(_) => Err(format!(
            "job {id}: expected a result with a verdict, got that of a job ({state}) that did not come to its end; what \
             there is can be compared as a file, which timecop job get {id} --json writes"
        )),
        None => Err(format!("job {id}: expected a result, got a job ({state}) without one")),
    }
}

fn ask(service: &ServiceAddress, path: &str, body: Option<String>) -> Result<String, StartError> {
    client::ask(service, &format!("/v1/hammer/{path}"), body)
}
