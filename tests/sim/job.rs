//! A job by SMTP as the simulation runs it.

use std::sync::Arc;

use timecop::job::plan::{Circumstances, Job};
use timecop::job::spec::{ConnectionType, JobSpec, RawSpec, Target};
use timecop::time::{Instant, WallTime};

/// The job that begins at this time.
pub fn job(raw: RawSpec, now_ns: u64) -> (JobSpec, Arc<Job>) {
    let target = Target {
        name: "smtp://sim".into(),
        host: "127.0.0.1".into(),
        address: ([127, 0, 0, 1], 25).into(),
        connection: ConnectionType::Plain,
    };
    let spec = JobSpec::new(raw, target, 1).expect("the job is valid");
    let (now, wall) = (Instant::from_ns(now_ns), WallTime::default());
    let at = Circumstances { now, wall, run_id: 1, host: "load.example".into(), audit: None };
    let job = Job::new(&spec, &at).expect("the job is valid").0;
    (spec, Arc::new(job))
}
