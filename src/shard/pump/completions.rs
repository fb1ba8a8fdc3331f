//! What has completed, and what became of its time: who owns the connection is told.

use std::rc::Rc;

use super::Pump;
use crate::job::link::{TlsFailure, TlsSession};
use crate::shard::connections::Notice;
use crate::shard::ring::{Completion, Op};
use crate::time::Instant;

impl Pump {
    #[inline]
    pub(super) fn complete(&mut self, completion: Completion) {
        let arrived = completion.arrived;
        match completion.op {
            Op::Receive => self.receive(completion),
            Op::Send => {
                let notice = self.connections.send_completed(&completion);
                self.notify(completion.index, notice, arrived);
            }
            Op::Connect => {
                let notice = self.connections.connect_completed(&completion);
                self.notify(completion.index, notice, arrived);
            }
            Op::Accept => {
                if let Some(sink) = &mut self.sink {
                    sink.accept_completed(&completion, &mut self.connections);
                }
            }
            Op::Close => {
                let notice = self.connections.close_completed(&completion);
                self.notify(completion.index, notice, arrived);
            }
            Op::Wake => self.read_mail(arrived, completion.more),
            Op::Ignored => {}
        }
    }

    #[inline]
    fn receive(&mut self, mut completion: Completion) {
        let (file, now) = (completion.index, completion.arrived);
        if let Some(buffer) = completion.take_buffer() {
            if completion.result > 0 && self.connections.is_open(file) {
                let buffers = Rc::clone(&self.buffers);
                let (bytes, stamp) = buffers.received(&buffer, &completion);
                let mut arrived = now;
                if completion.is_stamped() {
                    let heard = self.connections.heard_mut(file);
                    arrived = self.calendar.arrival(stamp, *heard, now);
                    *heard = arrived;
                }
                match self.connections.is_secured(file) {
                    false => self.deliver(file, now, arrived, bytes),
                    true => self.decipher(file, now, arrived, bytes),
                }
            }
            self.buffers.give_back(buffer);
        }
        let notice = self.connections.receive_completed(&completion);
        self.notify(file, notice, now);
    }

    /// Gives bytes, plaintext in any case, to whoever owns the connection.
    #[inline]
    fn deliver(&mut self, file: u32, now: Instant, arrived: Instant, bytes: &[u8]) {
        match self.owners.get(file as usize) {
            Some(Some((job, slot))) => {
                let (worker, mut links) = self.jobs[*job as usize].parts(&mut self.connections);
                worker.received(*slot, now, arrived, bytes, &mut links);
            }
            Some(None) => {}
            None => {
                if let Some(sink) = &mut self.sink {
                    sink.received(file, now, bytes, &mut self.connections);
                }
            }
        }
    }

    /// Gives bytes to a connection's TLS, and what comes of them to whoever owns the connection.
    fn decipher(&mut self, file: u32, now: Instant, arrived: Instant, bytes: &[u8]) {
        let mut plain = std::mem::take(&mut self.plain);
        let heard = self.connections.decipher(file, bytes, &mut plain);
        if let Some(session) = heard.ready {
            self.tls_ready(file, now, arrived, session);
        }
        if !plain.is_empty() && self.connections.is_open(file) {
            self.deliver(file, now, arrived, &plain);
        }
        plain.clear();
        self.plain = plain;
        match heard.end {
            None => {}
            Some(_) if !self.connections.is_open(file) => {}
            Some(Ok(())) => self.notify(file, Notice::Closed(None), now),
            Some(Err(failure)) => self.tls_failed(file, now, &failure),
        }
        self.connections.seal(file);
    }

    fn tls_ready(&mut self, file: u32, now: Instant, arrived: Instant, session: TlsSession) {
        match self.owners.get(file as usize) {
            Some(&Some((job, slot))) => {
                let (worker, mut links) = self.jobs[job as usize].parts(&mut self.connections);
                worker.tls_ready(slot, now, arrived, session, &mut links);
            }
            Some(None) => {}
            None => {
                if let Some(sink) = &mut self.sink {
                    sink.tls_ready(file, now, session.resumed, &mut self.connections);
                }
            }
        }
    }

    fn tls_failed(&mut self, file: u32, now: Instant, failure: &TlsFailure) {
        match self.owners.get(file as usize) {
            Some(&Some((job, slot))) => {
                let (worker, mut links) = self.jobs[job as usize].parts(&mut self.connections);
                worker.tls_failed(slot, now, failure, &mut links);
            }
            Some(None) => {}
            None => {
                if let Some(sink) = &mut self.sink {
                    sink.tls_failed(file, now, &mut self.connections);
                }
            }
        }
    }

    #[inline]
    pub(super) fn notify(&mut self, file: u32, notice: Notice, now: Instant) {
        if notice == Notice::None {
            return;
        }
        match self.owners.get(file as usize) {
            Some(&Some((job, slot))) => {
                let (worker, mut links) = self.jobs[job as usize].parts(&mut self.connections);
                match notice {
                    Notice::None | Notice::Freed => {}
                    Notice::Left => worker.left(slot, now),
                    Notice::Connected => worker.connected(slot, now, &mut links),
                    Notice::ConnectFailed(error) => worker.connect_failed(slot, now, error, &mut links),
                    Notice::Closed(error) => worker.closed(slot, now, error, &mut links),
                }
            }
            Some(None) if notice == Notice::Freed => self.free_files.push(file),
            Some(None) => {}
            None => {
                if let (Some(sink), Notice::Closed(_)) = (&mut self.sink, notice) {
                    sink.closed(file, now, &mut self.connections);
                }
            }
        }
    }

    pub(super) fn expire(&mut self, file: u32, now: Instant) {
        match self.owners.get(file as usize) {
            Some(&Some((job, slot))) => {
                let (worker, mut links) = self.jobs[job as usize].parts(&mut self.connections);
                worker.timer(slot, now, &mut links);
            }
            Some(None) => {}
            None => {
                if let Some(sink) = &mut self.sink {
                    sink.expired(file, now, &mut self.connections);
                }
            }
        }
    }
}
