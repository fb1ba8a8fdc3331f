//! What is kept through kills, reloads, and a store that cannot be written.

use serde_json::Value;

use crate::support::{Process, Service, poll, timecop};

/// Runs until it is stopped.
const ENDLESS: &str = r#"{"smtp_connection_type":"plain","msg_size":500,"duration":"1h","rate":200,"connections":4}"#;
const SHORT: &str = r#"{"smtp_connection_type":"plain","msg_size":500,"messages":100}"#;

#[test]
fn a_killed_service_keeps_its_jobs_and_calls_the_running_one_interrupted() {
    let service = Service::start("");
    let finished = service.ended(&service.run(SHORT));
    let id = service.run(ENDLESS);
    service.accepted(&id, 300);
    let (_, service) = service.restart_after("KILL");
    let interrupted = service.job(&id);
    assert_eq!(interrupted["state"], "interrupted", "{interrupted}");
    assert!(!interrupted["stop_time"].as_str().expect("a time").contains(" 0001 "), "{interrupted}");
    let accepted = interrupted["result"]["messages"]["accepted"].as_u64();
    assert!(accepted.is_some_and(|accepted| accepted > 0), "partial totals are kept: {interrupted}");
    assert_eq!(service.job(finished["id"].as_str().expect("an id")), finished);
    let next: u64 = service.run(SHORT).parse().expect("a decimal number");
    assert!(next > id.parse().expect("a decimal number"), "{next} comes after {id}");
    // The newest comes first.
    let list = service.post("/v1/hammer/job.list", None).body;
    let ids: Vec<u64> = list["Items"].as_array().expect("items").iter().map(|item| number(&item["id"])).collect();
    assert!(ids.is_sorted_by(|a, b| a > b), "{ids:?}");
}

#[test]
fn a_signal_drains_what_runs_and_stores_it_whole() {
    let service = Service::start("");
    let id = service.run(ENDLESS);
    service.accepted(&id, 100);
    let (finished, service) = service.restart_after("TERM");
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    let job = service.job(&id);
    assert_eq!(job["state"], "interrupted", "{job}");
    assert!(!job["stop_time"].as_str().expect("a time").contains(" 0001 "), "{job}");
    assert!(job["result"]["verdict"].is_object(), "judged, as one that was stopped: {job}");
    let messages = &job["result"]["messages"];
    let ends = ["accepted", "deferred", "rejected", "failed", "missed", "cut"]
        .map(|end| messages[end].as_u64().expect("a count"));
    assert_eq!(ends.iter().sum::<u64>(), messages["asked"].as_u64().expect("a count"), "{job}");
    assert_eq!(messages["cut"], 0, "{job}");
}

#[test]
fn a_stopped_job_that_a_kill_keeps_from_draining_is_interrupted() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let service = Service::start("");
    let target = format!("smtp://{}", silent.local_addr().expect("an address"));
    let id = service.run(&SHORT.replace('{', &format!(r#"{{"target":"{target}","#)));
    poll("the connection", || (service.job(&id)["result"]["connections"]["opened"] == 1).then_some(()));
    let stopped = service.post(&format!("/v1/hammer/job.stop?id={id}"), None).body;
    assert_eq!((&stopped["state"], &stopped["result"]["verdict"]), (&"stopped".into(), &Value::Null), "{stopped}");
    // That it was stopped is in the store when the next job is.
    service.ended(&service.run(SHORT));
    let (_, service) = service.restart_after("KILL");
    let job = service.job(&id);
    assert_eq!(job["state"], "interrupted", "{job}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    // A target that never greets: the job drains for as long as it may.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let service = Service::start("");
    let target = format!("smtp://{}", silent.local_addr().expect("an address"));
    let id = service
        .run(&format!(r#"{{"smtp_connection_type":"plain","msg_size":500,"messages":100,"target":"{target}"}}"#));
    poll("the connection", || (service.job(&id)["result"]["connections"]["opened"] == 1).then_some(()));
    service.signal("TERM");
    poll("no new jobs", || (service.post("/v1/hammer/job.run", Some(SHORT)).status == 503).then_some(()));
    service.signal("TERM");
    assert_eq!(service.finish().status.code(), Some(130));
}

#[test]
fn whoever_waits_for_a_job_of_a_service_that_is_gone_is_told_how_to_look_it_up() {
    let service = Service::start("");
    let mut command = timecop();
    command.args(["job", "run", "-d", "1h", "--rate", "100", "--wait", "--api", &service.api]);
    let waiting = Process::start(&mut command);
    let id = poll("the job", || {
        service.post("/v1/hammer/job.list", None).body["Items"][0]["id"].as_str().map(str::to_owned)
    });
    service.accepted(&id, 10);
    service.signal("KILL");
    let told = waiting.finish();
    assert!(!told.status.success());
    let words = [format!("error: job {id}: "), format!("timecop job get {id} shows what came of it")];
    assert!(words.iter().all(|words| told.stderr.contains(words)), "{}", told.stderr);
}

#[test]
fn a_reload_takes_new_targets_and_limits_and_leaves_running_jobs_alone() {
    let service = Service::start("[hammer]\njobs_max = 1\n");
    let id = service.run(ENDLESS);
    assert_eq!(service.post("/v1/hammer/job.run", Some(SHORT)).status, 429);
    let sink = &service.sink;
    service.configure(&format!("[hammer]\njobs_max = 2\n[targets.own]\nurl = \"{sink}\"\n"));
    service.signal("HUP");
    let request = r#"{"smtp_connection_type":"plain","msg_size":500,"messages":100,"target":"own"}"#;
    let other = poll("the reload", || {
        let answer = service.post("/v1/hammer/job.run", Some(request));
        (answer.status == 200).then(|| answer.body["id"].as_str().expect("an id").to_owned())
    });
    assert_eq!(service.ended(&other)["result"]["messages"]["accepted"], 100);
    assert_eq!(service.job(&id)["state"], "running");
    // A file with faults changes nothing.
    service.configure("[hammer]\njobs_max = 99\n");
    service.reload();
    service.ended(&service.run(request));
}

#[test]
fn a_reload_lets_in_no_more_connections_than_the_shards_were_made_for() {
    let service = Service::start("[hammer]\nconnections_max = 10\n");
    let id = service.run(ENDLESS);
    service.configure("[hammer]\nconnections_max = 1000\njobs_max = 3\n");
    service.signal("HUP");
    let many = r#"{"smtp_connection_type":"plain","msg_size":500,"messages":100,"connections":500}"#;
    let refused = service.post("/v1/hammer/job.run", Some(many));
    assert_eq!(refused.status, 422, "{refused:?}");
    // That the reload has come shows by the other cap.
    let others: Vec<String> =
        (0..2).map(|_| service.run(&ENDLESS.replace(r#""connections":4"#, r#""connections":1"#))).collect();
    poll("the reload", || (service.post("/v1/hammer/job.run", Some(many)).status == 429).then_some(()));
    service.post(&format!("/v1/hammer/job.stop?id={}", others[0]), None);
    service.ended(&others[0]);
    let refused = service.post("/v1/hammer/job.run", Some(many));
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(refused.reason().contains("connections_max"), "{refused:?}");
    assert_eq!(service.job(&id)["state"], "running");
}

#[test]
fn the_newest_jobs_are_kept_and_those_that_run_here_as_in_the_store() {
    let service = Service::start("[store]\njobs_kept = 2\n");
    let ids = |service: &Service| -> Vec<u64> {
        let list = service.post("/v1/hammer/job.list", None).body;
        list["Items"].as_array().expect("items").iter().map(|item| number(&item["id"])).collect()
    };
    let endless = service.run(ENDLESS);
    let short: Vec<String> = (0..4)
        .map(|_| {
            let id = service.run(SHORT);
            service.ended(&id);
            id
        })
        .collect();
    let kept: Vec<u64> = [&short[3], &short[2], &endless].map(|id| id.parse().expect("a decimal number")).to_vec();
    assert_eq!(ids(&service), kept);
    assert_eq!(service.post(&format!("/v1/hammer/job.get?id={}", short[0]), None).status, 404);
    service.post(&format!("/v1/hammer/job.stop?id={endless}"), None);
    poll("its end: what has ended is kept by its age", || (ids(&service) == kept[..2]).then_some(()));
    let (_, service) = service.restart_after("KILL");
    assert_eq!(ids(&service), kept[..2], "the store keeps the same ones");
}

#[test]
fn a_locked_store_holds_up_no_job_and_says_so() {
    let service = Service::start("");
    let lock = rusqlite::Connection::open(service.store()).expect("the store can be opened by others");
    lock.execute_batch("BEGIN IMMEDIATE").expect("it can be locked");
    let ended = service.ended(&service.run(SHORT));
    assert_eq!(ended["result"]["messages"]["accepted"], 100, "{ended}");
    poll("word that the store cannot be written", || (service.get("/readyz").0 == 503).then_some(()));
    assert_eq!(service.get("/healthz").0, 200);
    lock.execute_batch("ROLLBACK").expect("it can be unlocked");
    poll("word that it can", || (service.get("/readyz").0 == 200).then_some(()));
    let (_, service) = service.restart_after("KILL");
    assert_eq!(service.job(ended["id"].as_str().expect("an id")), ended, "written after all");
}

fn number(id: &Value) -> u64 {
    id.as_str().expect("a string").parse().expect("a decimal number")
}
