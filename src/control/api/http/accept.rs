//! The thread that accepts connections.
//!
//! glommio's own listener sets `SO_REUSEPORT`, under which two services would share a port without a word, and it
//! cannot take over a socket that was bound elsewhere. So connections are accepted by a blocking call on a thread of
//! their own, which hands them to the executor.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_channel::{Receiver, Sender};
use socket2::SockRef;

/// How long nothing is accepted after a failure: without a free descriptor the next attempt fails as well.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Accepts until it is dropped, then waits for its thread, which takes no longer than [`BACK_OFF`].
pub(super) struct Acceptor {
    listener: Arc<TcpListener>,
    /// What was accepted. While nobody takes it, all but two connections stay in the kernel's backlog.
    pub(super) connections: Receiver<(TcpStream, SocketAddr)>,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    pub(super) fn start(listener: TcpListener) -> io::Result<Acceptor> {
        listener.set_nonblocking(false)?;
        let listener = Arc::new(listener);
        let (sender, connections) = async_channel::bounded(1);
        let thread = thread::Builder::new().name("timecop-accept".into()).spawn({
            let listener = Arc::clone(&listener);
            move || accept(&listener, &sender)
        })?;
        Ok(Acceptor { listener, connections, thread: Some(thread) })
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.connections.close();
        // Wakes the thread: a socket that no longer listens accepts nothing (Linux: EINVAL).
        let _ = SockRef::from(&*self.listener).shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, connections: &Sender<(TcpStream, SocketAddr)>) {
    let mut is_failing = false;
    while !connections.is_closed() {
        match listener.accept() {
            Ok(connection) => {
                is_failing = false;
                // It is closed if nobody takes it any more.
                let _ = connections.send_blocking(connection);
            }
            // The client's doing.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) if connections.is_closed() => {}
            Err(error) => {
                if !is_failing {
                    tracing::warn!(%error, "cannot accept connections to the API; trying again");
                }
                is_failing = true;
                thread::sleep(BACK_OFF);
            }
        }
    }
}
