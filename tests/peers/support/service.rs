//! A running `timecop serve`, and requests to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::{Finished, Process, poll, timecop};

/// A service on ports of its own, with a store of its own.
pub struct Service {
    process: Process,
    /// `http://ADDR:PORT`.
    pub api: String,
    /// `smtp://ADDR:PORT` of the embedded sink.
    pub sink: String,
    folder: TempDir,
}

/// The files of a service that has ended.
pub struct Stopped(TempDir);

impl Stopped {
    /// Starts it again.
    pub fn start(self) -> Service {
        Service::start_in(self.0)
    }
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Service {
    /// Starts one with this configuration added to that of the ports and the store.
    pub fn start(configuration: &str) -> Service {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("timecop.toml"), Service::complete(configuration)).expect("a file can be written");
        Service::start_in(folder)
    }

    fn complete(configuration: &str) -> String {
        let mut text = configuration.to_owned();
        for (section, keys) in [
            ("api", "listen = [\"127.0.0.1:0\"]"),
            ("sink", "listen = [\"127.0.0.1:0\"]\nhttp_listen = [\"127.0.0.1:0\"]"),
            ("store", "path = \"jobs.db\""),
        ] {
            let header = format!("[{section}]\n");
            if text.contains(&format!("{header}path = ")) {
                continue;
            }
            match text.contains(&header) {
                true => text = text.replace(&header, &format!("{header}{keys}\n")),
                false => text += &format!("\n{header}{keys}\n"),
            }
        }
        text
    }

    fn start_in(folder: TempDir) -> Service {
        let mut process =
            Process::start(timecop().arg("serve").arg("--config").arg(folder.path().join("timecop.toml")));
        let mut address = |scheme: &str| {
            let line = process.wait_line(&format!("listening on {scheme}://"));
            line.split(' ').nth(2).expect("an address").to_owned()
        };
        let api = address("http");
        let sink = address("smtp");
        Service { process, api, sink, folder }
    }

    /// Replaces the configuration file.
    pub fn configure(&self, configuration: &str) {
        fs::write(self.folder.path().join("timecop.toml"), Service::complete(configuration))
            .expect("it can be written");
    }

    /// The store's file.
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("jobs.db")
    }

    /// The folder of its files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it has logged so far.
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// Waits for its end; its files stay.
    pub fn wait(self) -> (Finished, Stopped) {
        let Service { process, folder, .. } = self;
        (process.finish(), Stopped(folder))
    }

    /// Sends a signal, by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Has it read its configuration again, and waits until that is done, whatever came of it.
    pub fn reload(&self) {
        let reloads = || self.stderr().matches(" reloaded").count();
        let before = reloads();
        self.signal("HUP");
        poll("the reload", || (reloads() > before).then_some(()));
    }

    /// Waits for its end.
    pub fn finish(self) -> Finished {
        self.process.finish()
    }

    /// Ends it with a signal and starts it again on the same store.
    pub fn restart_after(self, signal: &str) -> (Finished, Service) {
        self.process.signal(signal);
        let Service { process, folder, .. } = self;
        (process.finish(), Service::start_in(folder))
    }

    /// Ends it with a signal; its files stay.
    pub fn stop(self, signal: &str) -> Stopped {
        self.process.signal(signal);
        let Service { process, folder, .. } = self;
        let finished = process.finish();
        assert!(finished.status.success(), "{}", finished.stderr);
        Stopped(folder)
    }

    /// Asks for `path` with a body, if any.
    pub fn post(&self, path: &str, body: Option<&str>) -> Answer {
        let mut request = agent().post(format!("{}{path}", self.api));
        if body.is_some() {
            request = request.header("Content-Type", "application/json");
        }
        let answer = match body {
            Some(body) => request.send(body),
            None => request.send_empty(),
        };
        Answer::read(answer.expect("the service answers"))
    }

    /// The text at `path`, and its status.
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut answer = agent().get(format!("{}{path}", self.api)).call().expect("the service answers");
        (answer.status().as_u16(), answer.body_mut().read_to_string().expect("a text"))
    }

    /// Starts a job and gives its id.
    pub fn run(&self, request: &str) -> String {
        let answer = self.post("/v1/hammer/job.run", Some(request));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body["state"], "running", "{answer:?}");
        answer.body["id"].as_str().expect("an id").to_owned()
    }

    /// A job as it stands.
    pub fn job(&self, id: &str) -> Value {
        let answer = self.post(&format!("/v1/hammer/job.get?id={id}"), None);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    /// Waits until the job is no longer running and its result is whole: only then it has a verdict.
    pub fn ended(&self, id: &str) -> Value {
        poll(&format!("the end of job {id}"), || {
            let job = self.job(id);
            (job["state"] != "running" && job["result"]["verdict"].is_object()).then_some(job)
        })
    }

    /// Waits until so many messages of a running job were accepted.
    pub fn accepted(&self, id: &str, messages: u64) {
        poll(&format!("{messages} messages of job {id}"), || {
            (self.job(id)["result"]["messages"]["accepted"].as_u64().unwrap_or(0) >= messages).then_some(())
        });
    }
}

impl Answer {
    fn read(mut answer: ureq::http::Response<ureq::Body>) -> Answer {
        let text = answer.body_mut().read_to_string().expect("a text");
        let status = answer.status().as_u16();
        let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status}, no JSON ({error}): {text}"));
        Answer { status, body }
    }

    /// Why it was refused.
    pub fn reason(&self) -> &str {
        self.body["Reason"].as_str().unwrap_or_else(|| panic!("no Reason in {self:?}"))
    }
}

/// A client that takes every status as an answer.
pub fn agent() -> ureq::Agent {
    let config =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(60)));
    config.build().new_agent()
}
