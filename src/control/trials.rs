//! A search as the service runs it: between two trials the target rests, and the next trial's job is built meanwhile.

use std::thread;

use async_channel::{Receiver, TryRecvError};

use super::running::RunningJob;
use crate::job::plan::{Circumstances, Job};
use crate::job::search::Searching;
use crate::job::spec::SpecError;
use crate::message::Conversion;
use crate::shard::clock::wall_now;
use crate::shard::pool::Pool;
use crate::shard::tls::ClientTls;
use crate::time::Instant;

/// A search under way, without the trial that runs.
pub(super) struct Trials {
    /// What is known, and what comes next.
    pub(super) searching: Searching,
    tls: Option<ClientTls>,
    /// The pool's shards that run the trials.
    shards: Vec<usize>,
    host: String,
    /// While the target rests: when the next trial may begin, and where its job comes from.
    rest: Option<(Instant, Receiver<Built>)>,
}

type Built = Result<(Job, Conversion), SpecError>;

impl Trials {
    /// The first trial runs already.
    pub(super) fn new(searching: Searching, tls: Option<ClientTls>, shards: Vec<usize>, host: String) -> Trials {
        Trials { searching, tls, shards, host, rest: None }
    }

    /// Whether no trial is under way.
    pub(super) fn is_resting(&self) -> bool {
        self.rest.is_some()
    }

    /// Lets the target rest, and has the next trial's job built: of a large message that takes so long that control must not
    /// do it.
    pub(super) fn rest(&mut self, pool: &Pool) {
        let Some(spec) = self.searching.trial().cloned() else { return };
        let now = pool.clock().now();
        let at = Circumstances { now, wall: wall_now(), run_id: rand::random(), host: self.host.clone(), audit: None };
        let (answer, built) = async_channel::bounded(1);
        // Without a thread nobody answers, which `begin` finds.
        let _ = thread::Builder::new().name("timecop-trial".to_owned()).spawn(move || {
            let _ = answer.try_send(Job::new(&spec, &at));
        });
        self.rest = Some((now + self.searching.spec().cool_down, built));
    }

    /// Begins the next trial when its time has come and its job is built; an error says why there is none.
    pub(super) fn begin(&mut self, id: u64, pool: &Pool) -> Option<Result<RunningJob, String>> {
        let (at, built) = self.rest.as_ref()?;
        if pool.clock().now() < *at {
            return None;
        }
        let job = match built.try_recv() {
            Ok(Ok(job)) => job,
            Err(TryRecvError::Empty) => return None,
            Ok(Err(error)) => return Some(Err(error.to_string())),
            Err(TryRecvError::Closed) => return Some(Err("the machine has no thread to build the next trial".into())),
        };
        self.rest = None;
        let spec = self.searching.trial()?;
        Some(Ok(RunningJob::start(id, spec, job, self.tls.as_ref(), pool, &self.shards)))
    }
}
