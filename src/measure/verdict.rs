//! The verdict that ends every run: whether its figures can be relied on, and why not.
//!
//! `docs/verdict.md` has the rules as a table. Where they come from: the achieved rate from Nighthawk, late sends from
//! fortio, the generator's share of its cores from k6, Little's law from wrk, connections held from wrk2.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::confidence;
use super::recorder::Blame;
use super::report::Report;
use super::words::{percent, rate, thousands, time};

/// An open loop that offers less than this share of the rate asked for is invalid.
pub const RATE_SHARE_MIN: f64 = 0.99;
/// So much, or a tenth of the run where that is less, the last message may be late without a word on the rate: the longest
/// time for which the generator's loop may be away without having stood still. In a short run it says of the last
/// message alone what it says; in one that lasts for seconds it is far less than [`RATE_SHARE_MIN`] leaves.
pub const BEHIND_S_MAX: f64 = 0.01;
/// Where more messages than this share got no answer, what was not offered is no matter of rate or connections.
const FAILED_SHARE_MAX: f64 = 0.01;
/// A message that was begun later than this after it was due is late.
pub const LATE_NS: u64 = 1_000_000;
/// The share of messages that may be late.
pub const LATE_SHARE_MAX: f64 = 0.05;
/// The share of its cores that the generator may use.
pub const BUSY_MAX: f64 = 0.8;
/// How long one turn in a hundred may be, as a share of the median response time.
pub const TURN_SHARE_MAX: f64 = 0.1;
/// Share of its time, the drain included, for which the generator may have stood still: beyond it, p99.9 is told by that.
pub const STANDSTILL_SHARE_MAX: f64 = 0.001;
/// How far the mean number of messages in flight may be from what Little's law says.
pub const LITTLE_SHARE_MAX: f64 = 0.05;
/// One in so many of the most connections of a ramp may be missing.
const RAMP_PART: u64 = 20;
/// Messages a connection from which on the run's two ends do not disturb Little's law.
const LITTLE_MESSAGES_PER_CONNECTION: u64 = 100;

/// Whether a run's figures can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Validity {
    /// They are what they say.
    Valid,
    /// They are true, but may not say what the reader thinks; the reasons tell.
    Suspect,
    /// The run did not do what was asked.
    Invalid,
}

impl Validity {
    /// All of them, the best first.
    pub const ALL: [Validity; 3] = [Validity::Valid, Validity::Suspect, Validity::Invalid];

    /// As every output spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Validity::Valid => "VALID",
            Validity::Suspect => "SUSPECT",
            Validity::Invalid => "INVALID",
        }
    }
}

/// What a reason does to the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing: it is to be known.
    Note,
    /// SUSPECT at best.
    Suspect,
    /// INVALID.
    Invalid,
}

impl Severity {
    /// As every output spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Suspect => "suspect",
            Severity::Invalid => "invalid",
        }
    }
}

/// The rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// No message was answered.
    Unanswered,
    /// Messages were answered, and none was accepted.
    NoneAccepted,
    /// The run was given up or stopped.
    Aborted,
    /// An open loop offered less than the rate asked for.
    Rate,
    /// Messages never left, or were in flight at the end.
    Missed,
    /// Messages were begun late.
    Late,
    /// The generator used up its cores.
    Busy,
    /// The generator's turns are long against the times it measured.
    Turns,
    /// The generator stood still.
    Standstill,
    /// Rate, times and connections contradict each other.
    LittlesLaw,
    /// Fewer connections were held than asked for.
    Connections,
    /// Errors that are the generator's own.
    Generator,
    /// Other jobs shared the machine.
    OtherJobs,
    /// The target's certificate was not checked.
    SkipVerify,
    /// A percentile has no interval.
    FewSamples,
}

impl Rule {
    /// Every rule, in the order in which reasons are given.
    pub const ALL: [Rule; 15] = [
        Rule::Unanswered,
        Rule::NoneAccepted,
        Rule::Aborted,
        Rule::Rate,
        Rule::Missed,
        Rule::Late,
        Rule::Busy,
        Rule::Turns,
        Rule::Standstill,
        Rule::LittlesLaw,
        Rule::Connections,
        Rule::Generator,
        Rule::OtherJobs,
        Rule::SkipVerify,
        Rule::FewSamples,
    ];

    fn judge(self, run: &Run) -> Option<(Severity, String)> {
        match self {
            Rule::Unanswered => run.unanswered(),
            Rule::NoneAccepted => run.none_accepted(),
            Rule::Aborted => run.aborted(),
            Rule::Rate => run.rate(),
            Rule::Missed => run.missed(),
            Rule::Late => run.late(),
            Rule::Busy => run.busy(),
            Rule::Turns => run.turns(),
            Rule::Standstill => run.standstill(),
            Rule::LittlesLaw => run.littles_law(),
            Rule::Connections => run.connections(),
            Rule::Generator => run.generator(),
            Rule::OtherJobs => run.other_jobs(),
            Rule::SkipVerify => run.skip_verify(),
            Rule::FewSamples => run.few_samples(),
        }
    }
}

/// Why a verdict is what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// Which rule speaks.
    pub rule: Rule,
    /// What it does to the verdict.
    pub severity: Severity,
    /// In plain words, with the figures.
    pub text: String,
}

/// The verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verdict {
    /// As bad as the worst reason.
    pub result: Validity,
    /// In the order of [`Rule::ALL`].
    pub reasons: Vec<Reason>,
}

impl Verdict {
    /// Judges the report of a run that has ended.
    pub fn of(report: &Report) -> Verdict {
        let run = Run::new(report);
        let reasons = Rule::ALL.into_iter().filter_map(|rule| {
            let (severity, text) = rule.judge(&run)?;
            Some(Reason { rule, severity, text })
        });
        Verdict::new(reasons.collect())
    }

    /// The verdict that follows from these reasons.
    pub(super) fn new(reasons: Vec<Reason>) -> Verdict {
        let result = match reasons.iter().map(|reason| reason.severity).max() {
            None | Some(Severity::Note) => Validity::Valid,
            Some(Severity::Suspect) => Validity::Suspect,
            Some(Severity::Invalid) => Validity::Invalid,
        };
        Verdict { result, reasons }
    }
}

impl Report {
    /// Gives the verdict, which whoever completes the report of an ended run does last.
    pub fn judge(&mut self) {
        self.verdict = Some(Verdict::of(self));
    }

    /// Whether the run has ended and did not do what was asked.
    pub fn is_invalid(&self) -> bool {
        self.verdict.as_ref().is_some_and(|verdict| verdict.result == Validity::Invalid)
    }
}

/// A report with what several rules look at.
struct Run<'a> {
    report: &'a Report,
    is_open: bool,
    /// Messages that were taken from the schedule.
    taken: u64,
    /// Connections are closed after some messages, so that not all are there at any time.
    reconnects: bool,
    /// A closed loop whose number of connections goes up and down.
    ramps: bool,
}

impl Run<'_> {
    fn new(report: &Report) -> Run<'_> {
        Run {
            report,
            is_open: report.load_model.starts_with("open"),
            taken: report.messages.asked.saturating_sub(report.messages.missed),
            reconnects: report.spec["messages_per_connection"].is_number(),
            ramps: report.load_model == "closed" && report.spec["stages"].is_array(),
        }
    }

    fn unanswered(&self) -> Option<(Severity, String)> {
        let messages = &self.report.messages;
        (messages.accepted + messages.deferred + messages.rejected == 0)
            .then(|| (Severity::Invalid, "no message was answered, so there is nothing to measure".into()))
    }

    /// How fast a target refuses says nothing of how it takes mail, and every figure that is shown is one of accepted mail.
    fn none_accepted(&self) -> Option<(Severity, String)> {
        let messages = &self.report.messages;
        (messages.accepted == 0 && messages.deferred + messages.rejected > 0).then(|| {
            let text = "no message was accepted, so nothing is known of how the target takes mail; its replies say why";
            (Severity::Invalid, text.into())
        })
    }

    fn aborted(&self) -> Option<(Severity, String)> {
        let reason = self.report.aborted.as_ref()?;
        Some((
            Severity::Suspect,
            format!("the run ended before its time ({reason}); its figures are of the part until then"),
        ))
    }

    /// Random arrivals do not add up to the rate, so a run by time is held against the messages that fell due, and one by
    /// number against when the last of them was due.
    fn rate(&self) -> Option<(Severity, String)> {
        let asked = self.report.spec["rate"].as_f64().filter(|_| self.is_open && self.taken > 0)?;
        let messages = &self.report.messages;
        let taken = self.taken as f64;
        let share = match self.report.spec["messages"].as_u64() {
            None => taken / self.report.messages.asked as f64,
            Some(_) => {
                // When the last message was due holds what chance has done, and when it was begun nothing of its own time.
                // A longer standstill may have been at the very end, and has a rule of its own.
                let scheduled_s = taken / asked;
                let of_one = (scheduled_s / 10.0).clamp(LATE_NS as f64 / 1e9, BEHIND_S_MAX);
                let behind_s = (self.report.behind_s - of_one.max(self.report.generator.standstill.longest_s)).max(0.0);
                scheduled_s / (scheduled_s + behind_s)
            }
        };
        (share < RATE_SHARE_MIN).then(|| {
            // Neither a lower rate nor more connections are of any use where the target was gone; why a run ended before
            // its time is said elsewhere.
            let advice = match (messages.failed as f64 > FAILED_SHARE_MAX * taken, &self.report.aborted) {
                (true, _) => "; many messages failed, and the errors say why",
                (false, Some(_)) => "",
                (false, None) => "; ask for a lower rate or give it more connections",
            };
            let text = format!(
                "{} of the {} messages a second asked for were offered{}{advice}",
                percent(share),
                rate(asked),
                self.scarce_connections()
            );
            (Severity::Invalid, text)
        })
    }

    fn missed(&self) -> Option<(Severity, String)> {
        let messages = &self.report.messages;
        // What was not begun when a run was stopped is no fault of its own.
        let missed = if self.report.aborted.is_some() { 0 } else { messages.missed };
        let text = match (missed, messages.cut) {
            (0, 0) => return None,
            (missed, 0) => format!("{} messages never left", thousands(missed)),
            (0, cut) => format!("{} messages were still in flight at the end", thousands(cut)),
            (missed, cut) => format!(
                "{} messages never left, and {} were still in flight at the end",
                thousands(missed),
                thousands(cut)
            ),
        };
        Some((Severity::Suspect, format!("{text}; times are of the others, so the truth is worse")))
    }

    fn late(&self) -> Option<(Severity, String)> {
        if !self.is_open {
            return self.late_between_messages();
        }
        let latency = &self.report.latency_s;
        let begun = latency.accepted.lateness.count + latency.other.lateness.count;
        let share = latency.late as f64 / begun.max(1) as f64;
        (share > LATE_SHARE_MAX).then(|| {
            let text = format!(
                "{} of the messages were begun more than {} after they were due{}; response times count that, the \
                 target's own are the service times",
                percent(share),
                time(LATE_NS as f64 / 1e9),
                self.scarce_connections()
            );
            (Severity::Suspect, text)
        })
    }

    /// In closed loop a message is due when the one before has ended, so that its lateness is the generator's own doing: of a
    /// core that others have, no turn and no wait need tell. Where times are coarse anyhow, turns are named for it.
    fn late_between_messages(&self) -> Option<(Severity, String)> {
        let accepted = &self.report.latency_s.accepted;
        let is_much = accepted.lateness.p99 > TURN_SHARE_MAX * accepted.response.p50;
        (self.report.generator.is_exact() && accepted.response.count > 0 && is_much).then(|| {
            let text = format!(
                "the generator itself took long between two messages of a connection, more than {} for one in a hundred, and \
                 the median response time, which holds that, is {}; the target's own are the service times",
                time(accepted.lateness.p99),
                time(accepted.response.p50)
            );
            (Severity::Suspect, text)
        })
    }

    /// A cause of lateness that the figures show.
    fn scarce_connections(&self) -> &'static str {
        let held = self.report.connections.held_max as f64;
        if self.in_flight(false) > 0.9 * held { ", since nearly all connections were in use all the time" } else { "" }
    }

    fn busy(&self) -> Option<(Severity, String)> {
        let generator = &self.report.generator;
        let busy = generator.busiest();
        let whose = if generator.shards == 1 { "it was busy for" } else { "the busiest of its shards was so for" };
        (busy > BUSY_MAX).then(|| {
            let text = match self.is_open {
                false => "the generator was the bottleneck: this is what it can send, not what the target can take",
                true => "the generator was near its own limit, so times hold waits for itself",
            };
            (Severity::Suspect, format!("{text} ({whose} {} of its core's time)", percent(busy)))
        })
    }

    fn turns(&self) -> Option<(Severity, String)> {
        let median = self.report.latency_s.accepted.response;
        let turn_s = self.report.generator.turn_us.p99 / 1e6;
        let is_coarse = !self.report.generator.is_exact() && turn_s > TURN_SHARE_MAX * median.p50;
        (median.count > 0 && is_coarse).then(|| {
            let text = format!(
                "times are coarse: each errs by up to a turn of the generator's loop, of which one in a hundred took \
                 more than {}, and the median response time is {}",
                time(turn_s),
                time(median.p50)
            );
            (Severity::Suspect, text)
        })
    }

    /// What was due or arrived in a standstill is a share of all messages like its length is one of the time, so it tells
    /// the percentiles beyond that share. As with turns it counts against the times that it blurs.
    fn standstill(&self) -> Option<(Severity, String)> {
        let (standstill, response) = (self.report.generator.standstill, &self.report.latency_s.accepted.response);
        let share = self.report.standstill_share();
        if share <= STANDSTILL_SHARE_MAX || standstill.longest_s <= TURN_SHARE_MAX * response.p99_9 {
            return None;
        }
        let text = format!(
            "the generator stood still for {} of its time, {} at the longest, stopped or without a core: times hold its \
             own waits, the highest percentiles first",
            percent(share),
            time(standstill.longest_s)
        );
        Some((Severity::Suspect, text))
    }

    /// Mean number of messages in flight by Little's law: rate times mean time; from due, or from begun.
    fn in_flight(&self, from_due: bool) -> f64 {
        let latency = &self.report.latency_s;
        let sum = [&latency.accepted, &latency.other].map(|times| {
            let summary = if from_due { &times.response } else { &times.service };
            summary.mean * summary.count as f64
        });
        if self.report.elapsed_s > 0.0 { (sum[0] + sum[1]) / self.report.elapsed_s } else { 0.0 }
    }

    /// In closed loop each connection always has a message, so as many are in flight as connections are held; in open
    /// loop there cannot be more.
    fn littles_law(&self) -> Option<(Severity, String)> {
        let held = self.report.connections.held_max;
        let begun = self.report.latency_s.accepted.service.count + self.report.latency_s.other.service.count;
        if held == 0 || self.reconnects || self.ramps || begun < LITTLE_MESSAGES_PER_CONNECTION * held {
            return None;
        }
        let in_flight = self.in_flight(!self.is_open);
        let share = in_flight / held as f64;
        let beginning = format!(
            "by Little's law {in_flight:.1} messages were in flight on average (rate times mean time), over {} \
             connections",
            thousands(held)
        );
        // Messages that are slow to end in the drain count with all of their time.
        let with_drain = share * self.report.elapsed_s / (self.report.elapsed_s + self.report.drain_s);
        if with_drain > 1.0 + LITTLE_SHARE_MAX {
            let text = format!("{beginning}: these figures contradict each other, do not rely on them");
            return Some((Severity::Suspect, text));
        }
        (!self.is_open && share < 1.0 - LITTLE_SHARE_MAX).then(|| {
            let text = format!("{beginning}: not all were in use all the time, so the load was less than it seems");
            (Severity::Suspect, text)
        })
    }

    fn connections(&self) -> Option<(Severity, String)> {
        let (held, asked) = (self.report.connections.held_max, self.report.connections.asked);
        // A ramp may touch its highest number for an instant only.
        let needed = if self.ramps { asked - asked.div_ceil(RAMP_PART).min(asked) } else { asked };
        (held < needed).then(|| {
            let text = format!("only {} of {} connections were held at once", thousands(held), thousands(asked));
            // A run with fewer messages than connections needs no more, and one that reconnects never has all of them.
            match self.report.messages.asked < asked || self.reconnects {
                true => (Severity::Note, text),
                false => (Severity::Suspect, format!("{text}, so the load was less than it seems")),
            }
        })
    }

    fn generator(&self) -> Option<(Severity, String)> {
        let errors = self.report.errors.iter().filter(|error| error.blame == Blame::Generator);
        let errors: u64 = errors.map(|error| error.count).sum();
        let exhausted = self.report.generator.buffers_exhausted;
        let text = match (errors, exhausted) {
            (0, 0) => return None,
            (0, exhausted) => format!("the generator had no receive buffer {} times", thousands(exhausted)),
            (errors, _) => format!("{} errors were the generator's own or its machine's", thousands(errors)),
        };
        Some((Severity::Suspect, text))
    }

    fn other_jobs(&self) -> Option<(Severity, String)> {
        let others = &self.report.other_jobs;
        let jobs = if others.len() == 1 { "another job" } else { "other jobs" };
        (!others.is_empty()).then(|| {
            let text = format!("{jobs} ran on this machine at the same time: {}", others.join(", "));
            (Severity::Suspect, text)
        })
    }

    fn skip_verify(&self) -> Option<(Severity, String)> {
        let text = "the target's certificate was not checked (skip_verify): who answered is not known";
        (self.report.spec["skip_verify"] == Value::Bool(true)).then(|| (Severity::Note, text.into()))
    }

    fn few_samples(&self) -> Option<(Severity, String)> {
        let response = &self.report.latency_s.accepted.response;
        let percentiles = [
            ("p50", confidence::P50),
            ("p90", confidence::P90),
            ("p95", confidence::P95),
            ("p99", confidence::P99),
            ("p99.9", confidence::P99_9),
        ];
        let (name, quantile) =
            percentiles.into_iter().find(|(_, quantile)| response.count < confidence::needed(*quantile))?;
        (response.count > 0).then(|| {
            let text = format!(
                "too few accepted messages ({}) to say how far {name} can be trusted; that needs {}",
                thousands(response.count),
                thousands(confidence::needed(quantile))
            );
            (Severity::Note, text)
        })
    }
}

#[cfg(test)]
mod tests;
