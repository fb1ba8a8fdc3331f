//! Jobs that are searches: their trials are to be seen while they go on, they can be stopped, and they are kept.

use serde_json::Value;

use crate::support::{Process, Service, Sink, poll, timecop};

/// A request that searches the sink on `port`, with short trials.
fn request(port: u16, rest: &str) -> String {
    format!(
        r#"{{"smtp_connection_type":"plain","msg_size":1000,"target":"smtp://127.0.0.1:{port}","connections":50,
        "search":{{"slo":"p99<250ms,failures<0.1%","cool_down":"100ms"{rest}}}}}"#
    )
}

/// The job as soon as this is true of it.
fn until(service: &Service, id: &str, what: impl Fn(&Value) -> bool) -> Value {
    poll(&format!("job {id} to come so far"), || Some(service.job(id)).filter(|job| what(job)))
}

#[test]
fn a_search_shows_its_trials_live_and_finds_the_capacity_of_a_sink() {
    let sink = Sink::start(&["--capacity", "1000/s"]);
    let service = Service::start("");
    // A trial of a second is too short for this: what it offers too much is then less than what a queue may hold at its end.
    let rest = r#","start_rate":500,"max_rate":1200,"trial":"2s","confirm":"3s""#;
    let search = || {
        let id = service.run(&request(sink.port(), rest));
        let has_begun = |job: &Value| job["result"]["trials"].as_array().is_some_and(|trials| trials.len() > 1);
        let live = until(&service, &id, has_begun);
        assert_eq!((&live["state"], &live["result"]["result"]), (&"running".into(), &Value::Null), "{live:#}");
        let job = until(&service, &id, |job| job["state"] != "running");
        assert_eq!(job["state"], "finished", "{job:#}");
        (id, job)
    };
    // Where the generator goes without a core for long, trials are unknown, and the search says that the target holds at least
    // what it has held. What it says must be true at the first time.
    let is_cut_short = |job: &Value| {
        let trials = job["result"]["trials"].as_array().expect("its trials");
        job["verdict"] == "at_least" && trials.iter().any(|trial| trial["outcome"] == "unknown")
    };
    const SEARCHES_MAX: usize = 4;
    let mut searches = std::iter::repeat_with(search).take(SEARCHES_MAX);
    let (id, job) =
        searches.find(|(_, job)| job["verdict"] == "found" || is_cut_short(job)).expect("a search with a result");
    let verdict = job["verdict"].as_str().expect("its verdict");
    let rate = job["result"]["rate_per_s"].as_f64().expect("a rate was found");
    assert!((970.0..=1_030.0).contains(&rate), "{job:#}");
    assert_eq!(job["result"]["trials"][0]["outcome"], "held", "{job:#}");
    let trials = job["result"]["trials"].as_array().expect("its trials");
    assert!(verdict != "found" || trials.iter().any(|trial| trial["confirms"] == true), "{job:#}");
    assert!(trials.iter().all(|trial| trial["outcome"] != "running"), "{job:#}");
    let (_, metrics) = service.get("/metrics");
    let counted = format!(r#"timecop_hammer_searches_total{{type="smtp",result="{verdict}"}} 1"#);
    assert!(metrics.contains(&counted), "{metrics}");
    // Its messages are counted like all others, and add up.
    let count = |outcome: &str| {
        let name = format!(r#"timecop_hammer_messages_total{{type="smtp",outcome="{outcome}"}} "#);
        metrics.lines().find_map(|line| line.strip_prefix(&*name)?.parse::<f64>().ok()).expect("the counter")
    };
    assert!(count("accepted") > 2_000.0, "{metrics}");
    // It outlives the service.
    let (_, service) = service.restart_after("TERM");
    assert_eq!(service.job(&id)["result"], job["result"]);
    let listed = &service.post("/v1/hammer/job.list", None).body["Items"][0];
    assert_eq!((&listed["id"], &listed["verdict"]), (&id.as_str().into(), &verdict.into()), "{listed}");
}

#[test]
fn a_search_can_be_stopped_in_a_trial_and_between_two() {
    let sink = Sink::start(&[]);
    let service = Service::start("");
    let rest = r#","start_rate":10,"max_rate":20,"trial":"1m""#;
    let id = service.run(&request(sink.port(), rest));
    until(&service, &id, |job| job["result"]["trials"][0]["achieved_per_s"].as_f64().is_some_and(|rate| rate > 0.0));
    service.post(&format!("/v1/hammer/job.stop?id={id}"), None);
    let job = until(&service, &id, |job| job["result"]["result"].is_string());
    assert_eq!((&job["state"], &job["verdict"]), (&"stopped".into(), &"unfinished".into()), "{job:#}");
    assert_eq!(job["result"]["trials"][0]["outcome"], "interrupted", "{job:#}");
    // Between two trials there is nothing to drain.
    let rest = r#","start_rate":10,"max_rate":20,"trial":"200ms","cool_down":"1h""#;
    let resting = request(sink.port(), rest).replace(r#""cool_down":"100ms","#, "");
    let id = service.run(&resting);
    until(&service, &id, |job| job["result"]["trials"][0]["outcome"] == "held");
    let stopped = service.post(&format!("/v1/hammer/job.stop?id={id}"), None).body;
    assert_eq!((&stopped["state"], &stopped["verdict"]), (&"stopped".into(), &"unfinished".into()), "{stopped:#}");
    assert_eq!(stopped["result"]["rate_per_s"], 10.0, "{stopped:#}");
    // And the connections that it had are free again.
    let (_, metrics) = service.get("/metrics");
    assert!(metrics.contains("timecop_hammer_jobs_running 0"), "{metrics}");
}

#[test]
fn the_service_ends_in_the_middle_of_a_search() {
    let sink = Sink::start(&[]);
    let service = Service::start("");
    let id = service.run(&request(sink.port(), r#","start_rate":10,"trial":"1m""#));
    until(&service, &id, |job| job["result"]["trials"][0]["achieved_per_s"].as_f64().is_some_and(|rate| rate > 0.0));
    let (ended, service) = service.restart_after("TERM");
    assert!(ended.status.success(), "{}", ended.stderr);
    let job = service.job(&id);
    assert_eq!((&job["state"], &job["verdict"]), (&"interrupted".into(), &"unfinished".into()), "{job:#}");
}

#[test]
fn a_wrong_value_of_a_search_is_named() {
    let service = Service::start("[hammer]\nrate_max = 5000\nduration_max = '1m'\n");
    for (search, words) in [
        (r#"{"slo":"p99"}"#, "search: slo: expected a condition such as"),
        (r#"{}"#, "search: slo: expected 1 to 16 conditions"),
        (r#"{"slo":"p99<1s","start_rate":0}"#, "search: start_rate: expected messages a second"),
        (r#"{"slo":"p99<1s","max_rate":5001}"#, "search: max_rate: expected at most 5000 (rate_max in [hammer]"),
        (r#"{"slo":"p99<1s","confirm":"61s"}"#, "search: confirm: expected at most 1m (duration_max in [hammer]"),
        (r#"{"slo":"p99<1s","precision":0}"#, "search: precision: expected a share"),
    ] {
        let json = format!(r#"{{"smtp_connection_type":"plain","msg_size":1000,"search":{search}}}"#);
        let answer = service.post("/v1/hammer/job.run", Some(&json));
        assert!(answer.status == 422 && answer.reason().contains(words), "{search}: {answer:?}");
        assert!(answer.reason().contains("got"), "{answer:?}");
    }
    for (field, value) in [("messages", "5"), ("duration", "\"5s\""), ("rate", "5"), ("fail_if", "[\"p99>1s\"]")] {
        let json = format!(
            r#"{{"smtp_connection_type":"plain","msg_size":1000,"{field}":{value},"search":{{"slo":"p99<1s"}}}}"#
        );
        let answer = service.post("/v1/hammer/job.run", Some(&json));
        assert!(answer.status == 422 && answer.reason().starts_with(&format!("{field}: ")), "{answer:?}");
    }
}

#[test]
fn the_command_line_starts_searches_and_shows_them() {
    let service = Service::start("");
    let mut command = timecop();
    command.args(["job", "run", "--search", "--slo", "p50<5s", "--start-rate", "20", "--max-rate", "40"]);
    command.args(["--trial", "300ms", "--confirm", "300ms", "--cool-down", "0s", "--wait", "--api", &service.api]);
    let finished = Process::run(&mut command);
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    let shown = &finished.stdout;
    assert!(shown.contains("the target holds 40") && shown.contains("(confirms)"), "{shown}");
    let listed = Process::run(timecop().args(["job", "list", "--api", &service.api])).stdout;
    assert!(listed.contains("VERDICT") && listed.contains("at_least"), "{listed}");
}

#[test]
fn the_number_of_connections_goes_up_and_down_by_stages() {
    let service = Service::start("");
    let stages = r#"[{"duration":"300ms","connections":5},{"duration":"100ms","connections":0}]"#;
    let json = |rest: &str| format!(r#"{{"smtp_connection_type":"plain","msg_size":1000,"stages":{stages}{rest}}}"#);
    let job = service.ended(&service.run(&json("")));
    assert_eq!(job["result"]["load_model"], "closed", "{job:#}");
    assert_eq!(job["result"]["spec"]["stages"][0]["connections"], 5, "{job:#}");
    assert_eq!(job["result"]["connections"]["opened"], 5, "{job:#}");
    let refused = service.post("/v1/hammer/job.run", Some(&json(r#","connections":5"#)));
    assert!(refused.status == 422 && refused.reason().starts_with("connections: expected none beside `stages`"));
}

#[test]
fn the_configuration_says_what_jobs_are_like_that_say_nothing() {
    let service = Service::start(
        "[hammer.defaults]\nwarmup = '100ms'\nstages = '200ms@100,200ms@0'\nfail_if = ['p50<0.001us', 'failures>50%']\n\
         timeout = '9s,connect=8s'\nabort_on = ['failures>90%']\n[hammer.defaults.search]\nslo = ['p50<5s']\n\
         start_rate = 30\nmax_rate = 60\ntrial = '300ms'\nconfirm = '300ms'\ncool_down = '0s'\n",
    );
    let job = service.ended(&service.run(r#"{"smtp_connection_type":"plain","msg_size":1000}"#));
    let spec = &job["result"]["spec"];
    assert_eq!((&spec["stages"][0]["rate"], &spec["warmup"]["duration_s"]), (&100.0.into(), &0.1.into()), "{spec:#}");
    assert_eq!((&spec["timeout_s"], &spec["timeouts_s"]["connect"]), (&9.0.into(), &8.0.into()), "{spec:#}");
    assert_eq!(spec["abort_on"][0], "failures>90%,window=10s,grace=5s");
    let thresholds = job["result"]["thresholds"].as_array().expect("its conditions");
    assert_eq!(thresholds.len(), 2, "{job:#}");
    // A search that says nothing.
    let id = service.run(r#"{"smtp_connection_type":"plain","msg_size":1000,"search":{}}"#);
    let job = until(&service, &id, |job| job["state"] != "running");
    let (trial, result) = (&job["result"]["trials"][0], &job["result"]["result"]);
    assert_eq!((trial["rate_per_s"].as_f64(), trial["duration_s"].as_f64()), (Some(30.0), Some(0.3)), "{job:#}");
    assert_eq!((&job["result"]["slo"][0], result.as_str()), (&"p50<5s".into(), Some("at_least")), "{job:#}");
    // What a job says of itself counts alone.
    let own = r#"{"smtp_connection_type":"plain","msg_size":1000,"messages":10,"fail_if":["p99>9s"]}"#;
    let job = service.ended(&service.run(own));
    assert_eq!(job["result"]["spec"]["stages"], Value::Null);
    assert_eq!(job["result"]["thresholds"][0]["asked"], "p99>9s", "{job:#}");
}
