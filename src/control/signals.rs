//! SIGINT and SIGTERM.

use std::io::{self, Write as _};

use async_channel::Receiver;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Exit code of a process that a second signal ended.
const INTERRUPTED: i32 = 130;

/// Asks for a gentle end at the first SIGINT or SIGTERM; the second ends the process at once.
pub fn stop_requests() -> io::Result<Receiver<()>> {
    let (sender, receiver) = async_channel::bounded(1);
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("timecop-signals".into()).spawn(move || {
        for _ in signals.forever() {
            if sender.try_send(()).is_err() {
                let _ = writeln!(io::stderr(), "interrupted again: ended at once");
                std::process::exit(INTERRUPTED);
            }
            sender.close();
        }
    })?;
    Ok(receiver)
}
