//! What Prometheus sees.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Port, Process, Service, agent, poll};

const SHORT: &str = r#"{"smtp_connection_type":"plain","msg_size":500,"messages":100,"connections":3}"#;

#[test]
fn prometheus_tools_find_no_fault_with_the_metrics() {
    let service = Service::start("");
    let before = service.get("/metrics").1;
    service.ended(&service.run(SHORT));
    for text in [before, service.get("/metrics").1] {
        let file = service.folder().join("metrics");
        fs::write(&file, &text).expect("a file can be written");
        let input = fs::File::open(&file).expect("it is there");
        let checked = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::from(input)).output();
        let checked = checked.expect("promtool can be run; tools/test installs it");
        assert!(checked.status.success(), "{}\n{text}", String::from_utf8_lossy(&checked.stderr));
        assert!(checked.stderr.is_empty(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
}

#[test]
fn prometheus_scrapes_what_the_jobs_report() {
    let service = Service::start("");
    let mut accepted = 0;
    for _ in 0..2 {
        let job = service.ended(&service.run(SHORT));
        accepted += job["result"]["messages"]["accepted"].as_u64().expect("a count");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let target = service.api.trim_start_matches("http://");
    let configuration = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: timecop, static_configs: [{{targets: ['{target}']}}]}}]\n"
    );
    fs::write(folder.path().join("prometheus.yml"), configuration).expect("a file can be written");
    let port = Port::claim();
    let mut prometheus = Process::start(
        Command::new("prometheus")
            .arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{}", port.number())),
    );
    prometheus.wait_port(port.number());
    let query = |expression: &str| -> Option<f64> {
        let url = format!("http://127.0.0.1:{}/api/v1/query", port.number());
        let mut answer = agent().get(url).query("query", expression).call().ok()?;
        let answer: Value = serde_json::from_str(&answer.body_mut().read_to_string().ok()?).ok()?;
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    };
    let scraped = poll("a scrape", || query(r#"sum(timecop_hammer_messages_total{outcome="accepted"})"#));
    assert_eq!(scraped, accepted as f64);
    let counted = r#"sum(timecop_hammer_message_seconds_count{time="response",outcome="accepted"})"#;
    assert_eq!(query(counted), Some(accepted as f64));
    assert_eq!(query("timecop_hammer_jobs_running"), Some(0.0));
    assert_eq!(query(r#"sum(timecop_hammer_jobs_total{state="finished"})"#), Some(2.0));
}

#[test]
fn file_slots_are_taken_by_connections_and_given_back() {
    let service = Service::start("");
    let value = |name: &str| -> f64 {
        let text = service.get("/metrics").1;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().expect("a number")
    };
    assert_eq!(value("timecop_engine_file_slots_used"), 0.0);
    let id =
        service.run(r#"{"smtp_connection_type":"plain","msg_size":500,"duration":"1h","rate":200,"connections":4}"#);
    // Four of the job's, and as many of the embedded sink's.
    poll("all connections", || (value("timecop_engine_file_slots_used") == 8.0).then_some(()));
    assert!(value("timecop_engine_file_slots") >= 8.0);
    service.post(&format!("/v1/hammer/job.stop?id={id}"), None);
    service.ended(&id);
    poll("no connection", || (value("timecop_engine_file_slots_used") == 0.0).then_some(()));
}

#[test]
fn jobs_that_share_a_shard_agree_on_how_busy_it_was_and_share_its_cpu_by_messages() {
    let service = Service::start("[hammer]\nshards = 1\n");
    let greedy = service.run(r#"{"smtp_connection_type":"plain","msg_size":500,"duration":"3s","connections":10}"#);
    let idle =
        service.run(r#"{"smtp_connection_type":"plain","msg_size":500,"duration":"3s","rate":5,"connections":1}"#);
    let figures = [greedy, idle].map(|id| {
        let generator = &service.ended(&id)["result"]["generator"];
        ["busy", "cpu_us_per_message"].map(|name| generator[name].as_f64().expect("a number"))
    });
    let [[greedy_busy, greedy_cpu], [idle_busy, idle_cpu]] = figures;
    assert!(idle_busy > greedy_busy / 2.0, "{figures:?}");
    // A few messages among thousands have not used seconds.
    assert!(idle_cpu < greedy_cpu * 20.0, "{figures:?}");
}
