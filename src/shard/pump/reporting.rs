//! What a shard measured, on its way to control, which may be slow to take it.

use async_channel::TrySendError;

use super::{Pump, RunningJob};
use crate::shard::clock::thread_cpu_ns;
use crate::shard::mailbox::Event;
use crate::time::Instant;

impl Pump {
    /// Once a second of each job's time, and when it ends, what was measured goes to control.
    pub(super) fn report(&mut self, now: Instant) {
        for index in 0..self.jobs.len() {
            let running = &mut self.jobs[index];
            if running.ended {
                continue;
            }
            if !running.draining && running.worker.is_draining() {
                self.charge();
                self.jobs[index].draining = true;
            }
            if self.jobs[index].last.is_some() {
                self.offer_last(index);
                continue;
            }
            if now >= self.jobs[index].second_ends() {
                self.report_second(index, now);
            }
            if self.jobs[index].worker.is_finished() {
                let event = self.measured(index, now, true);
                self.jobs[index].last = Some(event);
                self.offer_last(index);
            }
        }
    }

    /// Charges what the shard has used since the last charge: its CPU time to its jobs, each by its part of the messages
    /// that were sent meanwhile. That the shard was busy, or short of buffers, every one of them has suffered alike.
    pub(super) fn charge(&mut self) {
        let cpu_ns = thread_cpu_ns();
        let used_ns = cpu_ns - std::mem::replace(&mut self.cpu_ns, cpu_ns);
        let exhausted = std::mem::take(&mut self.connections.buffers_exhausted);
        let short_writes = std::mem::take(&mut self.connections.short_writes);
        let rearms = std::mem::take(&mut self.connections.rearms);
        let stamps = std::mem::take(&mut self.calendar.stamps);
        let writes = std::mem::take(&mut self.writes);
        let charged = |running: &RunningJob| !running.ended && running.last.is_none();
        let (mut jobs, mut all_sent) = (0, 0);
        for running in self.jobs.iter().filter(|running| charged(running)) {
            jobs += 1;
            all_sent += running.worker.sent() - running.charged_sent;
        }
        for running in self.jobs.iter_mut().filter(|running| charged(running)) {
            let sent = running.worker.sent();
            let part = (sent - std::mem::replace(&mut running.charged_sent, sent), all_sent);
            let effort = &mut running.worker.delta_mut().effort;
            effort.charge(used_ns, if all_sent == 0 { (1, jobs) } else { part }, running.draining);
            effort.buffers_exhausted += exhausted;
            effort.short_writes += short_writes;
            effort.rearms += rearms;
            effort.stamps.add(&stamps);
            effort.writes.add(&writes);
        }
    }

    fn report_second(&mut self, index: usize, now: Instant) {
        let running = &mut self.jobs[index];
        if running.spare.is_none() {
            running.spare = running.spares.try_recv().ok();
        }
        if running.spare.is_none() || self.events.is_full() {
            // Control is behind: this second is reported together with the next one.
            running.worker.delta_mut().effort.deltas_held += 1;
            running.seconds += 1;
            return;
        }
        let event = self.measured(index, now, false);
        if let Err(TrySendError::Full((_, Event::Measured { delta, .. }))) = self.events.try_send((self.shard, event)) {
            // Another shard was quicker. What was taken out goes back in.
            let running = &mut self.jobs[index];
            running.spare = Some(running.worker.take_delta(delta));
            running.charged_sent = running.worker.sent();
            running.worker.delta_mut().effort.deltas_held += 1;
        }
    }

    fn measured(&mut self, index: usize, now: Instant, finished: bool) -> Event {
        self.charge();
        let running = &mut self.jobs[index];
        running.worker.measure_waiting(now);
        let delta = running.worker.take_delta(running.spare.take().unwrap_or_default());
        running.charged_sent = 0;
        let elapsed = now - running.worker.job().start;
        running.seconds += 1;
        Event::Measured { job: running.job, second: running.seconds, elapsed, delta, finished }
    }

    /// Offers a job's last measurement; when control has taken it, the job is forgotten.
    fn offer_last(&mut self, index: usize) {
        let running = &mut self.jobs[index];
        let Some(event) = running.last.take() else { return };
        match self.events.try_send((self.shard, event)) {
            Err(TrySendError::Full((_, event))) => running.last = Some(event),
            Ok(()) | Err(TrySendError::Closed(_)) => {
                running.ended = true;
                for file in std::mem::take(&mut running.files) {
                    self.owners[file as usize] = None;
                    if self.connections.is_free(file) {
                        self.free_files.push(file);
                    }
                }
            }
        }
    }

    /// Tells control something that must arrive; only at the shard's end, where waiting hurts nobody.
    pub(super) fn tell(&self, event: Event) {
        let _ = self.events.send_blocking((self.shard, event));
    }
}
