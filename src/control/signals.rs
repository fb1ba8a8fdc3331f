//! SIGINT, SIGTERM and SIGHUP.

use std::io::{self, Write as _};

use async_channel::{Receiver, Sender};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Exit code of a process that a second signal ended.
const INTERRUPTED: i32 = 130;

/// What a signal asks a service for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A gentle end.
    Stop,
    /// To read its configuration again.
    Reload,
}

/// Asks for a gentle end at the first SIGINT or SIGTERM; the second ends the process at once.
pub fn stop_requests() -> io::Result<Receiver<()>> {
    let (sender, receiver) = async_channel::bounded(1);
    watch(&[SIGINT, SIGTERM], move |_| tell(&sender))?;
    Ok(receiver)
}

/// The same, and asks for a reload at each SIGHUP.
pub fn service_requests() -> io::Result<Receiver<Signal>> {
    // Reloads that nobody has taken yet are as good as one.
    let (sender, receiver) = async_channel::bounded(2);
    let mut stopping = false;
    watch(&[SIGINT, SIGTERM, SIGHUP], move |signal| {
        if signal == SIGHUP {
            let _ = sender.try_send(Signal::Reload);
        } else if std::mem::replace(&mut stopping, true) {
            end_at_once();
        } else {
            // A reload in the way is of no use any more.
            let _ = sender.force_send(Signal::Stop);
        }
    })?;
    Ok(receiver)
}

fn watch(signals: &[i32], mut handle: impl FnMut(i32) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new(signals)?;
    std::thread::Builder::new()
        .name("timecop-signals".into())
        .spawn(move || signals.forever().for_each(&mut handle))?;
    Ok(())
}

fn tell(sender: &Sender<()>) {
    if sender.try_send(()).is_err() {
        end_at_once();
    }
    sender.close();
}

fn end_at_once() -> ! {
    let _ = writeln!(io::stderr(), "interrupted again: ended at once");
    std::process::exit(INTERRUPTED);
}
