//! What one shard measures of one job, and the form in which it crosses to control.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::effort::Effort;
use super::histogram::{Digits, LatencyHistogram};
use super::waiting::Waiting;
use crate::phase::Phase;
use crate::time::Instant;

/// Octets of a reply's or error's text that are kept as its example.
pub const EXAMPLE_BYTES_MAX: usize = 200;
/// Kinds of replies told apart in one phase; beyond them, replies are told apart by code alone.
pub const REPLY_KINDS_MAX: usize = 32;
/// Kinds of errors told apart; the kinds come from closed sets, so this is never reached.
pub const ERROR_KINDS_MAX: usize = 256;

/// Messages by outcome. Every message that was asked for ends in exactly one of accepted, deferred, rejected, failed,
/// missed and cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageCounts {
    /// Taken from the schedule by a connection, or failed for want of one.
    pub taken: u64,
    /// MAIL was written.
    pub sent: u64,
    /// The server took responsibility.
    pub accepted: u64,
    /// Those of them that were accepted after the last message was dispatched, while the run drained.
    pub accepted_in_drain: u64,
    /// Answered 4xx.
    pub deferred: u64,
    /// Answered 5xx.
    pub rejected: u64,
    /// No answer: connection refused or broken, time-out, protocol error.
    pub failed: u64,
    /// Due, but never dispatched.
    pub missed: u64,
    /// In flight when the drain time was over.
    pub cut: u64,
}

impl MessageCounts {
    /// Adds what another one counted.
    pub fn add(&mut self, other: &MessageCounts) {
        self.taken += other.taken;
        self.sent += other.sent;
        self.accepted += other.accepted;
        self.accepted_in_drain += other.accepted_in_drain;
        self.deferred += other.deferred;
        self.rejected += other.rejected;
        self.failed += other.failed;
        self.missed += other.missed;
        self.cut += other.cut;
    }

    /// Messages that ended in any outcome but accepted.
    pub fn not_accepted(&self) -> u64 {
        self.deferred + self.rejected + self.failed
    }
}

/// Recipients by the reply to RCPT or to their message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecipientCounts {
    /// 2xx throughout.
    pub accepted: u64,
    /// 4xx.
    pub deferred: u64,
    /// 5xx.
    pub rejected: u64,
}

/// Connections of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// Opened since the last delta.
    pub opened: u64,
    /// Those of them that were not the first of their slot.
    pub reopened: u64,
    /// Open now, session or not.
    pub open: u64,
    /// Sessions now: connections on which the server's reply to EHLO was good.
    pub held: u64,
    /// Most sessions at once, since the job began.
    pub held_max: u64,
    /// Waiting now before they connect again.
    pub waiting: u64,
    /// Most that were waiting at once, since the job began.
    pub waiting_max: u64,
}

/// Response, service and lateness, and the phases, of either successes or everything else.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// From when the message was due to its outcome.
    pub response: LatencyHistogram,
    /// From when work on the message began to its outcome.
    pub service: LatencyHistogram,
    /// From when the message was due to when work on it began.
    pub lateness: LatencyHistogram,
    /// One for each of [`Phase::MEASURED`].
    pub phases: [LatencyHistogram; Phase::MEASURED.len()],
}

impl Latencies {
    fn new() -> Latencies {
        Latencies {
            response: LatencyHistogram::new(Digits::Three),
            service: LatencyHistogram::new(Digits::Three),
            lateness: LatencyHistogram::new(Digits::Three),
            phases: [const { LatencyHistogram::new(Digits::Two) }; Phase::MEASURED.len()],
        }
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut LatencyHistogram> {
        [&mut self.response, &mut self.service, &mut self.lateness].into_iter().chain(&mut self.phases)
    }

    fn all(&self) -> impl Iterator<Item = &LatencyHistogram> {
        [&self.response, &self.service, &self.lateness].into_iter().chain(&self.phases)
    }

    fn merge(&mut self, other: &Latencies) {
        self.all_mut().zip(other.all()).for_each(|(own, other)| own.merge(other));
    }
}

/// Replies that agree in phase, code and enhanced code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyKind {
    /// What they answered.
    pub phase: Phase,
    /// 200 to 599.
    pub code: u16,
    /// Class, subject and detail of the enhanced status code.
    pub enhanced: Option<(u8, u16, u16)>,
    /// How many.
    pub count: u64,
    /// The text of the first one.
    pub example: String,
}

/// Who must act on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Blame {
    /// The target, or the network on the way to it.
    Peer,
    /// Whoever wrote the job.
    Configuration,
    /// This program or its machine.
    Generator,
}

impl Blame {
    /// The name in reports and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Blame::Peer => "peer",
            Blame::Configuration => "configuration",
            Blame::Generator => "generator",
        }
    }
}

/// Errors that agree in blame, kind and phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorKind {
    /// Who must act.
    pub blame: Blame,
    /// A name from a closed set: `refused`, `reset`, `closed`, `timeout`, `protocol`, …
    pub kind: Cow<'static, str>,
    /// Where it happened.
    pub phase: Phase,
    /// How many.
    pub count: u64,
    /// The first one in words.
    pub example: String,
}

/// TLS handshakes that agree in version and cipher suite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TlsKind {
    /// The protocol's name.
    pub version: Cow<'static, str>,
    /// The cipher suite's name.
    pub cipher: Cow<'static, str>,
    /// How many were full.
    pub full: u64,
    /// How many resumed an earlier session.
    pub resumed: u64,
}

/// Logins (AUTH) by one mechanism.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuthKind {
    /// The mechanism's name.
    pub mechanism: Cow<'static, str>,
    /// How often it was begun.
    pub tried: u64,
    /// How often the server was content.
    pub granted: u64,
}

/// Waits of connections that answers asked for (`Retry-After`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryAfterCounts {
    /// How many.
    pub waits: u64,
    /// How long they were in all, in nanoseconds.
    pub waited_ns: u64,
}

/// What a shard measured of a job since its last delta; merged deltas are a job's totals.
///
/// Sender: a shard, once a second, through a bounded channel. Owner: whoever holds the box; control empties it and
/// hands it back. Loss: none. When the channel is full the shard goes on filling the one it has.
#[derive(Clone, Debug)]
pub struct Delta {
    /// Messages by outcome.
    pub messages: MessageCounts,
    /// Messages of the warm-up by outcome. Of them nothing else is measured, but errors and effort.
    pub warmup: MessageCounts,
    /// When the last one of them that was taken was due.
    pub warmup_until: Instant,
    /// Messages that were written, by their size's place in the job's mix; empty without one.
    pub sizes: Vec<u64>,
    /// Recipients by outcome.
    pub recipients: RecipientCounts,
    /// Octets of SMTP written to the target, commands included; what TLS adds is not counted.
    pub bytes_sent: u64,
    /// Connections; the gauges are those of the moment the delta was sent.
    pub connections: ConnectionCounts,
    /// Latencies of accepted messages, and of phases whose reply was positive.
    pub accepted: Latencies,
    /// Latencies of deferred, rejected and failed messages, and of phases whose reply was not positive.
    pub other: Latencies,
    /// Replies by phase.
    pub replies: [Vec<ReplyKind>; Phase::ALL.len()],
    /// Errors.
    pub errors: Vec<ErrorKind>,
    /// TLS handshakes that came to a good end. Versions and cipher suites come from closed sets.
    pub tls: Vec<TlsKind>,
    /// Logins. Mechanisms come from a closed set.
    pub auth: Vec<AuthKind>,
    /// Waits that answers asked for.
    pub retry_after: RetryAfterCounts,
    /// What had no outcome at the moment the delta was sent; as a gauge it belongs to one shard.
    pub waiting: Waiting,
    /// What it cost.
    pub effort: Effort,
    /// When the last message had its outcome.
    pub last_outcome: Instant,
    /// When the last message that was taken was due.
    pub last_due: Instant,
    /// When work on a message last began.
    pub last_begun: Instant,
    /// When the share was stopped, or its time was over; [`Instant::ZERO`] when it ended by itself.
    pub stopped: Instant,
    /// Transactions were sent as groups (PIPELINING), so that their phases count from the group's write.
    pub grouped: bool,
}

impl Delta {
    /// Nothing measured yet.
    pub fn new() -> Delta {
        Delta {
            messages: MessageCounts::default(),
            warmup: MessageCounts::default(),
            warmup_until: Instant::ZERO,
            sizes: Vec::new(),
            recipients: RecipientCounts::default(),
            bytes_sent: 0,
            connections: ConnectionCounts::default(),
            accepted: Latencies::new(),
            other: Latencies::new(),
            replies: [const { Vec::new() }; Phase::ALL.len()],
            errors: Vec::new(),
            tls: Vec::new(),
            auth: Vec::new(),
            retry_after: RetryAfterCounts::default(),
            waiting: Waiting::new(),
            effort: Effort::new(),
            last_outcome: Instant::ZERO,
            last_due: Instant::ZERO,
            last_begun: Instant::ZERO,
            stopped: Instant::ZERO,
            grouped: false,
        }
    }

    /// Back to nothing, keeping all memory and the names of the kinds of replies and errors.
    pub fn clear(&mut self) {
        self.messages = MessageCounts::default();
        self.warmup = MessageCounts::default();
        self.sizes.fill(0);
        self.recipients = RecipientCounts::default();
        self.bytes_sent = 0;
        self.connections = ConnectionCounts::default();
        self.accepted.all_mut().chain(self.other.all_mut()).for_each(LatencyHistogram::clear);
        self.replies.iter_mut().flatten().for_each(|kind| kind.count = 0);
        self.errors.iter_mut().for_each(|kind| kind.count = 0);
        self.tls.iter_mut().for_each(|kind| (kind.full, kind.resumed) = (0, 0));
        self.auth.iter_mut().for_each(|kind| (kind.tried, kind.granted) = (0, 0));
        self.retry_after = RetryAfterCounts::default();
        self.waiting.clear();
        self.effort.clear();
    }

    /// Counts a message that was written, whose size has this place in the job's mix.
    #[inline]
    pub fn size(&mut self, index: usize) {
        *self.size_mut(index) += 1;
    }

    fn size_mut(&mut self, index: usize) -> &mut u64 {
        if index >= self.sizes.len() {
            self.sizes.resize(index + 1, 0);
        }
        &mut self.sizes[index]
    }

    /// Adds what another delta counted. The gauges among the connections are left alone: they belong to one shard.
    pub fn merge(&mut self, other: &Delta) {
        self.messages.add(&other.messages);
        self.warmup.add(&other.warmup);
        self.warmup_until = self.warmup_until.max(other.warmup_until);
        other.sizes.iter().enumerate().for_each(|(index, count)| *self.size_mut(index) += count);
        self.recipients.accepted += other.recipients.accepted;
        self.recipients.deferred += other.recipients.deferred;
        self.recipients.rejected += other.recipients.rejected;
        self.bytes_sent += other.bytes_sent;
        self.last_outcome = self.last_outcome.max(other.last_outcome);
        self.last_due = self.last_due.max(other.last_due);
        self.last_begun = self.last_begun.max(other.last_begun);
        self.stopped = self.stopped.max(other.stopped);
        self.grouped |= other.grouped;
        self.connections.opened += other.connections.opened;
        self.connections.reopened += other.connections.reopened;
        self.accepted.merge(&other.accepted);
        self.other.merge(&other.other);
        for kind in other.replies.iter().flatten().filter(|kind| kind.count > 0) {
            self.reply_kind(kind.phase, kind.code, kind.enhanced, || kind.example.clone()).count += kind.count;
        }
        for kind in other.errors.iter().filter(|kind| kind.count > 0) {
            self.error_kind(kind.blame, kind.kind.clone(), kind.phase, || kind.example.clone()).count += kind.count;
        }
        self.add_tls(&other.tls);
        self.add_auth(&other.auth);
        self.retry_after.waits += other.retry_after.waits;
        self.retry_after.waited_ns += other.retry_after.waited_ns;
        self.effort.merge(&other.effort);
    }

    /// Counts a reply. In the steady state this finds the kind at the first look and allocates nothing.
    #[inline]
    pub fn reply(&mut self, phase: Phase, code: u16, enhanced: Option<(u8, u16, u16)>, text: &[u8]) {
        self.reply_kind(phase, code, enhanced, || example(text)).count += 1;
    }

    /// As [`Delta::reply`], for replies whose text is worked out only for the first of its kind.
    #[inline]
    pub fn reply_by<'a>(
        &mut self,
        phase: Phase,
        code: u16,
        enhanced: Option<(u8, u16, u16)>,
        text: impl FnOnce() -> Cow<'a, [u8]>,
    ) {
        self.reply_kind(phase, code, enhanced, || example(&text())).count += 1;
    }

    #[inline]
    fn reply_kind(
        &mut self,
        phase: Phase,
        code: u16,
        mut enhanced: Option<(u8, u16, u16)>,
        example: impl FnOnce() -> String,
    ) -> &mut ReplyKind {
        let kinds = &mut self.replies[phase as usize];
        let find = |kinds: &[ReplyKind], enhanced| kinds.iter().position(|k| k.code == code && k.enhanced == enhanced);
        let mut at = find(kinds, enhanced);
        if at.is_none() && kinds.len() >= REPLY_KINDS_MAX {
            enhanced = None;
            at = find(kinds, enhanced);
        }
        let at = at.unwrap_or_else(|| {
            kinds.push(ReplyKind { phase, code, enhanced, count: 0, example: example() });
            kinds.len() - 1
        });
        &mut kinds[at]
    }

    /// Counts a TLS handshake.
    pub fn tls(&mut self, version: &'static str, cipher: &'static str, resumed: bool) {
        let kind = self.tls_kind(Cow::Borrowed(version), Cow::Borrowed(cipher));
        *(if resumed { &mut kind.resumed } else { &mut kind.full }) += 1;
    }

    /// Adds handshakes that were counted elsewhere.
    pub(super) fn add_tls(&mut self, kinds: &[TlsKind]) {
        for kind in kinds {
            let own = self.tls_kind(kind.version.clone(), kind.cipher.clone());
            own.full += kind.full;
            own.resumed += kind.resumed;
        }
    }

    fn tls_kind(&mut self, version: Cow<'static, str>, cipher: Cow<'static, str>) -> &mut TlsKind {
        let known = self.tls.iter().position(|kind| (&kind.version, &kind.cipher) == (&version, &cipher));
        let at = known.unwrap_or_else(|| {
            self.tls.push(TlsKind { version, cipher, full: 0, resumed: 0 });
            self.tls.len() - 1
        });
        &mut self.tls[at]
    }

    /// Counts a login that is begun.
    pub fn auth_tried(&mut self, mechanism: &'static str) {
        self.auth_kind(Cow::Borrowed(mechanism)).tried += 1;
    }

    /// Counts a login that was granted.
    pub fn auth_granted(&mut self, mechanism: &'static str) {
        self.auth_kind(Cow::Borrowed(mechanism)).granted += 1;
    }

    /// Adds what others counted of logins.
    pub(super) fn add_auth(&mut self, kinds: &[AuthKind]) {
        for kind in kinds {
            let own = self.auth_kind(kind.mechanism.clone());
            own.tried += kind.tried;
            own.granted += kind.granted;
        }
    }

    fn auth_kind(&mut self, mechanism: Cow<'static, str>) -> &mut AuthKind {
        let at = self.auth.iter().position(|kind| kind.mechanism == mechanism).unwrap_or_else(|| {
            self.auth.push(AuthKind { mechanism, tried: 0, granted: 0 });
            self.auth.len() - 1
        });
        &mut self.auth[at]
    }

    /// Counts an error; `text` is asked for only for the first of its kind.
    pub fn error(&mut self, blame: Blame, kind: &'static str, phase: Phase, text: impl FnOnce() -> String) {
        self.error_kind(blame, Cow::Borrowed(kind), phase, || example(text().as_bytes())).count += 1;
    }

    fn error_kind(
        &mut self,
        blame: Blame,
        kind: Cow<'static, str>,
        phase: Phase,
        example: impl FnOnce() -> String,
    ) -> &mut ErrorKind {
        let known = self.errors.iter().position(|e| (e.blame, &e.kind, e.phase) == (blame, &kind, phase));
        let at = known.unwrap_or_else(|| {
            debug_assert!(self.errors.len() < ERROR_KINDS_MAX, "kinds come from closed sets");
            self.errors.push(ErrorKind { blame, kind, phase, count: 0, example: example() });
            self.errors.len() - 1
        });
        &mut self.errors[at]
    }

    /// Records how long a phase took; phases that are not measured are passed over.
    #[inline]
    pub fn phase(&mut self, phase: Phase, positive: bool, ns: u64) {
        let latencies = if positive { &mut self.accepted } else { &mut self.other };
        if let Some(histogram) = latencies.phases.get_mut(phase as usize) {
            histogram.record(ns);
        }
    }

    /// Records the three latencies of a message that has its outcome.
    #[inline]
    pub fn message(&mut self, accepted: bool, times: MessageTimes) {
        let latencies = if accepted { &mut self.accepted } else { &mut self.other };
        latencies.response.record(times.ended.ns_since(times.due));
        debug_assert!(times.due <= times.ended, "no message ends before it is due: {times:?}");
        if let Some(started) = times.started {
            // Neither lateness nor service time is ever negative; a difference of instants would hide it.
            debug_assert!(times.due <= started && started <= times.ended, "{times:?}");
            latencies.service.record(times.ended.ns_since(started));
            latencies.lateness.record(started.ns_since(times.due));
        }
        self.last_outcome = self.last_outcome.max(times.ended);
    }
}

impl Default for Delta {
    fn default() -> Self {
        Delta::new()
    }
}

/// When a message was due, begun and ended.
#[derive(Clone, Copy, Debug)]
pub struct MessageTimes {
    /// What response time counts from.
    pub due: Instant,
    /// What service time counts from; `None` for a message that failed before any work on it began.
    pub started: Option<Instant>,
    /// When the deciding reply arrived, or the failure was noticed.
    pub ended: Instant,
}

/// Text from a peer, made fit for reports and terminals: bounded, and without characters that control anything.
fn example(text: &[u8]) -> String {
    let cut = &text[..text.len().min(EXAMPLE_BYTES_MAX)];
    String::from_utf8_lossy(cut).chars().map(|c| if controls(c) { '\u{fffd}' } else { c }).collect()
}

/// Whether a character does something to its surroundings: control, line and paragraph ends, direction, invisible marks.
fn controls(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_phases_come_first_so_that_their_number_is_their_index() {
        for (index, phase) in Phase::MEASURED.into_iter().enumerate() {
            assert_eq!(phase as usize, index);
        }
    }

    #[test]
    fn merged_deltas_equal_one_that_saw_everything() {
        let at = Instant::from_ns;
        let (mut whole, mut totals, mut delta) = (Delta::new(), Delta::new(), Delta::new());
        for i in 0..1_000u64 {
            for target in [&mut whole, &mut delta] {
                target.reply(Phase::Rcpt, if i % 7 == 0 { 550 } else { 250 }, Some((5, 7, (i % 3) as u16)), b"text");
                target.phase(Phase::Rcpt, i % 7 != 0, i * 1_000);
                target.tls("TLSv1.3", "A", i % 3 == 0);
                target.auth_tried("PLAIN");
                target.error(Blame::Peer, "reset", Phase::Data, || "reset".into());
                target.message(
                    i % 5 != 0,
                    MessageTimes { due: at(i), started: Some(at(i + 10)), ended: at(i * 100 + 10) },
                );
                target.messages.accepted += 1;
            }
            if i % 100 == 99 {
                totals.merge(&delta);
                delta.clear();
            }
        }
        assert_eq!(totals.messages, whole.messages);
        assert_eq!(totals.replies, whole.replies);
        assert_eq!(totals.errors, whole.errors);
        assert_eq!(totals.tls, whole.tls);
        assert_eq!(totals.auth, whole.auth);
        for (merged, seen) in totals.accepted.all().zip(whole.accepted.all()) {
            assert_eq!(merged.encode(), seen.encode());
        }
    }

    #[test]
    fn a_server_that_invents_reply_codes_cannot_make_the_table_grow() {
        let mut delta = Delta::new();
        for detail in 0..10_000u16 {
            delta.reply(Phase::Mail, 451, Some((4, 3, detail)), b"x");
        }
        let kinds = &delta.replies[Phase::Mail as usize];
        assert_eq!(kinds.len(), REPLY_KINDS_MAX + 1);
        assert_eq!(kinds.iter().map(|kind| kind.count).sum::<u64>(), 10_000);
    }

    #[test]
    fn examples_are_bounded_and_hold_no_control_bytes() {
        let text = example(&[b"\x1b[31mred\r\n".as_slice(), &[b'x'; 5_000]].concat());
        assert!(text.len() <= EXAMPLE_BYTES_MAX * 3);
        assert!(!text.contains(['\x1b', '\r', '\n']));
        assert_eq!(example("a\u{202e}b\u{2028}c\u{2066}ü".as_bytes()), "a\u{fffd}b\u{fffd}c\u{fffd}ü");
    }
}
