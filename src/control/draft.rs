//! From a request's text to a job that has only to be started. All of it is computing, which for a request of megabytes
//! takes long enough to be noticed by whoever else asks: [`Helpers`] does that on threads of their own.

use std::sync::Arc;
use std::thread;

use hyper::body::Bytes;
use serde_json::value::RawValue;

use super::targets::ResolvedTarget;
use crate::audit::sent::AuditPlan;
use crate::config::{Defaults, Limits};
use crate::job::plan::{Circumstances, Job};
use crate::job::request::{JobRequest, RequestError};
use crate::job::search::{SearchSpec, Searching};
use crate::job::spec::{CONNECTIONS_OPEN_LOOP, JobSpec, RawSpec, SpecError};
use crate::load::stages::Stage;
use crate::measure::threshold::Threshold;
use crate::message::Conversion;
use crate::shard::clock::{Clock, wall_now};
use crate::time::WallTime;

/// What is at most so large, in octets of a request or of a message, is handled where it is asked for: it takes less than
/// a millisecond, and a thread would cost as much.
pub const INLINE_BYTES_MAX: usize = 64 << 10;
/// Threads that handle what is larger, at once.
pub const HELPERS_MAX: usize = 8;

/// A request that was read, with what its job shows of it.
#[derive(Debug)]
pub struct Read {
    /// What was asked for.
    pub request: JobRequest,
    /// See [`JobRequest::echo`].
    pub echo: Arc<RawValue>,
    /// Octets of what takes long to handle: the request, or a message that it asks for.
    bytes: u64,
}

impl Read {
    fn parse(text: &[u8]) -> Result<Read, RequestError> {
        let request = JobRequest::parse(text)?;
        let bytes = request.generated_bytes().max(text.len() as u64);
        Ok(Read { echo: request.echo(), request, bytes })
    }
}

/// What a job is built of.
#[derive(Debug)]
pub struct Draft {
    /// What was asked for.
    pub read: Read,
    /// Where it goes.
    pub target: ResolvedTarget,
    /// What it may ask for.
    pub limits: Limits,
    /// What it is like where it says nothing.
    pub defaults: Defaults,
    /// The shards' clock.
    pub clock: Clock,
    /// This host's name, for EHLO and Message-ID.
    pub host: String,
    /// What an audit needs; without it there can be none.
    pub audit: Option<AuditPlan>,
}

/// A job that has only to be started.
#[derive(Debug)]
pub struct Built {
    /// What it shows of its request.
    pub echo: Arc<RawValue>,
    /// Its values.
    pub spec: JobSpec,
    /// What its shards share, and what had to be changed in a given message.
    pub job: (Job, Conversion),
    /// Where it goes.
    pub target: ResolvedTarget,
    /// Shards that were asked for.
    pub shards: Option<u64>,
    /// Conditions under which its result is a failure.
    pub fail_if: Vec<Threshold>,
    /// The search whose first trial it is, if it is one.
    pub searching: Option<Searching>,
    /// When it begins.
    pub start: WallTime,
}

impl Draft {
    fn build(self) -> Result<Built, SpecError> {
        let Draft { read: Read { mut request, echo, .. }, target, limits, defaults, clock, host, audit } = self;
        let left_out = defaults.complete(&mut request);
        let shards = request.shards;
        let search =
            request.search.clone().map(|search| limits.search(search).and_then(SearchSpec::new)).transpose()?;
        let fail_if = request.fail_if.take().map_or_else(Vec::new, |list| list.0);
        // Whoever chose the target has seen to it that it has credentials where they are asked for.
        let auth = request.auth.unwrap_or(false).then(|| target.credentials.clone()).flatten();
        let mut raw = RawSpec { auth, ..target.complete(request.into_raw_spec()) };
        // Nobody asked for the usual number, so that it is no reason to refuse a job.
        let of_rates = |list: &Vec<Stage>| !list.iter().any(Stage::is_of_connections);
        let is_open = raw.rate.is_some() || raw.stages.as_ref().is_some_and(of_rates) || search.is_some();
        if raw.connections.is_none() && is_open && CONNECTIONS_OPEN_LOOP > limits.connections_max {
            raw.connections = Some(limits.connections_max);
        }
        // A fresh seed is kept short enough for a person to type, and for JSON's numbers to hold.
        let seed = rand::random::<u64>() >> 33;
        let (mut spec, searching) = match search {
            None => (JobSpec::new(raw, target.as_target(), seed)?, None),
            Some(search) => {
                let searching = Searching::new(search, raw, &target.as_target(), seed)?;
                (searching.job().clone(), Some(searching))
            }
        };
        limits.check(&spec)?;
        spec.notes.extend(left_out);
        if spec.audit && audit.is_none() {
            let expected = "false in a service whose sink takes no mail by SMTP (`listen` in [sink])";
            return Err(SpecError::new("audit", expected, "true"));
        }
        let at = Circumstances { now: clock.now(), wall: wall_now(), run_id: rand::random(), host, audit };
        let job = Job::new(&spec, &at)?;
        limits.check_expanded(job.0.expanded_bytes_max())?;
        Ok(Built { echo, spec, job, target, shards, fail_if, searching, start: at.wall })
    }
}

/// All helpers are at work, or the machine has no thread for another one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected fewer than {HELPERS_MAX} large requests under way, got {0}; try again later")]
pub struct Busy(String);

/// Handles what is large on threads of its own, so that control answers others meanwhile.
#[derive(Debug, Default)]
pub struct Helpers {
    /// Every thread holds a clone for as long as it lives: the count of them is that of the threads.
    threads: Arc<()>,
}

impl Helpers {
    /// Reads a request.
    ///
    /// # Errors
    ///
    /// It is larger than [`INLINE_BYTES_MAX`], and [`HELPERS_MAX`] are at work.
    pub async fn read(&self, text: Bytes) -> Result<Result<Read, RequestError>, Busy> {
        self.run(text.len() as u64, move || Read::parse(&text)).await
    }

    /// Builds a job.
    ///
    /// # Errors
    ///
    /// As [`Helpers::read`].
    pub async fn build(&self, draft: Draft) -> Result<Result<Built, SpecError>, Busy> {
        // What a configured target's requests are made of is as large as its file.
        let data = draft.target.request.data.as_ref().map_or(0, |data| data.len() as u64);
        self.run(draft.read.bytes.max(data), move || draft.build()).await
    }

    /// Does work that grows with so many octets.
    ///
    /// # Errors
    ///
    /// As [`Helpers::read`].
    pub async fn run<T: Send + 'static>(
        &self,
        bytes: u64,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        if bytes <= INLINE_BYTES_MAX as u64 {
            return Ok(work());
        }
        if Arc::strong_count(&self.threads) > HELPERS_MAX {
            return Err(Busy("one beside them".to_owned()));
        }
        let (answer, answered) = async_channel::bounded(1);
        let counted = Arc::clone(&self.threads);
        let thread = thread::Builder::new().name("timecop-request".to_owned()).spawn(move || {
            let done = work();
            // Whoever hears of the answer may count on the thread's place.
            drop(counted);
            // Nobody waits any longer where the client has gone.
            let _ = answer.try_send(done);
        });
        thread.map_err(|error| Busy(format!("no thread: {error}")))?;
        // Without an answer the thread has panicked, of which the process tells by itself.
        answered.recv().await.map_err(|_| Busy("one that could not be handled".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::mpsc;

    use futures_lite::future::{block_on, zip};

    use super::*;
    use crate::config::TargetUrl;
    use crate::control::targets::{self, Unresolved};

    const LARGE: u64 = INLINE_BYTES_MAX as u64 + 1;

    #[test]
    fn what_is_large_keeps_nobody_else_waiting() {
        let helpers = Helpers::default();
        let done = RefCell::new(Vec::new());
        let (release, released) = mpsc::channel();
        // It ends only after the other one: on the caller's own thread, neither ever would.
        let large = async {
            helpers.run(LARGE, move || released.recv()).await.unwrap().unwrap();
            done.borrow_mut().push("large");
        };
        let small = async {
            helpers.run(1, || ()).await.unwrap();
            done.borrow_mut().push("small");
            release.send(()).unwrap();
        };
        block_on(zip(large, small));
        assert_eq!(done.into_inner(), ["small", "large"]);
    }

    #[test]
    fn a_request_that_its_target_makes_large_is_built_on_a_thread_of_its_own() {
        let helpers = Helpers::default();
        let build = |data: usize| {
            let url = TargetUrl::parse("http://127.0.0.1:1/").unwrap();
            let mut target = targets::resolve(Unresolved::unrestricted(url)).unwrap();
            target.request.data = Some(vec![b'x'; data].into());
            let read = Read::parse(br#"{"Type":"http.raw","target":"raw","messages":1}"#).unwrap();
            let (limits, defaults, host) = (Limits::default(), Defaults::default(), "generator.test".to_owned());
            block_on(helpers.build(Draft { read, target, limits, defaults, clock: Clock::start(), host, audit: None }))
        };
        let at_work: Vec<_> = (0..HELPERS_MAX).map(|_| Arc::clone(&helpers.threads)).collect();
        assert!(build(INLINE_BYTES_MAX).unwrap().is_ok());
        assert!(build(INLINE_BYTES_MAX + 1).is_err(), "there is no thread for it");
        drop(at_work);
        assert!(build(INLINE_BYTES_MAX + 1).unwrap().is_ok());
    }

    #[test]
    fn helpers_are_bounded_and_free_again_when_they_have_answered() {
        let helpers = Helpers::default();
        let mut held = Vec::new();
        let mut running = Vec::new();
        for _ in 0..HELPERS_MAX {
            let (release, released) = mpsc::channel::<()>();
            held.push(release);
            let mut run = Box::pin(helpers.run(LARGE, move || released.recv().is_err()));
            assert!(block_on(futures_lite::future::poll_once(&mut run)).is_none());
            running.push(run);
        }
        assert_eq!(block_on(helpers.run(LARGE, || ())), Err(Busy("one beside them".to_owned())));
        assert_eq!(block_on(helpers.run(1, || ())), Ok(()), "small ones need none");
        drop(held);
        for run in running {
            assert_eq!(block_on(run), Ok(true));
        }
        assert_eq!(block_on(helpers.run(LARGE, || ())), Ok(()));
    }
}
