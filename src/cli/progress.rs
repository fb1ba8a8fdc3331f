//! The live line of a run.

use std::cell::Cell;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::complain;
use crate::control::running::Progress;
use crate::job::spec::{JobSpec, Limit};
use crate::measure::words::time;

/// A progress line on standard error; nothing when that is no terminal.
pub(super) struct Bar {
    bar: ProgressBar,
    limit: Limit,
    /// There is no line to be seen, but somebody who might want a word.
    is_silent: bool,
    said_stopping: Cell<bool>,
}

impl Bar {
    pub(super) fn new(spec: &JobSpec, quiet: bool) -> Bar {
        let length = match spec.limit {
            Limit::Messages(messages) => messages,
            Limit::Duration(duration) => duration.as_millis() as u64,
        };
        let bar = ProgressBar::with_draw_target(
            Some(length),
            if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() },
        );
        let style =
            ProgressStyle::with_template("{spinner} {elapsed} [{bar:16}] {wide_msg}").expect("a constant template");
        bar.set_style(style.progress_chars("=> "));
        bar.set_message(format!("{} connections to {}; figures come every second", spec.connections, spec.target.name));
        bar.enable_steady_tick(Duration::from_millis(200));
        let is_silent = bar.is_hidden() && !quiet;
        Bar { bar, limit: spec.limit, is_silent, said_stopping: Cell::new(false) }
    }

    pub(super) fn show(&self, progress: &Progress) {
        let messages = &progress.messages;
        self.bar.set_position(match self.limit {
            Limit::Messages(_) => messages.accepted + messages.not_accepted(),
            Limit::Duration(_) => progress.elapsed.as_millis() as u64,
        });
        if progress.stopping && self.is_silent && !self.said_stopping.replace(true) {
            complain(format_args!("stopping: what is in flight has 10 s{}", at_once(progress)));
        }
        let Some(last) = progress.last else { return };
        let mut text = format!("{}/s", HumanCount(last.accepted));
        if let (Some(p50), Some(p99)) = (last.p50, last.p99) {
            text += &format!("  p50 {}  p99 {}", time(p50), time(p99));
        }
        text += &format!("  {} accepted", HumanCount(messages.accepted));
        if messages.not_accepted() > 0 {
            text += &format!("  {} not accepted", HumanCount(messages.not_accepted()));
        }
        if progress.connections.waiting > 0 {
            text += &format!("  {} connections waiting", progress.connections.waiting);
        }
        if progress.stopping {
            text = format!("stopping, 10 s at most{}  {text}", at_once(progress));
        }
        self.bar.set_message(text);
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// What ends a run at once that a signal has stopped already.
fn at_once(progress: &Progress) -> &'static str {
    if progress.by_signal { "; interrupt again to end at once" } else { "" }
}
