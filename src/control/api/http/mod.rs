//! An HTTP/1.1 server on control's executor: whole requests in, whole responses out, and bounds on all that a client can
//! make grow or wait.

mod accept;
mod stream;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use bytes::Bytes;
use futures_lite::future::or;
use http_body_util::{BodyExt as _, Full};
use hyper::StatusCode;
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::rt::Write as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;

use accept::Acceptor;
use stream::{Deadlines, Phase, Stream};

use crate::job::record::rfc_1123;
use crate::shard::clock::wall_now;

/// Octets of a request's head, and of each buffer of a connection. A longer head is answered with 431, as is one of more
/// than hyper's 100 fields.
pub const HEAD_BYTES_MAX: usize = 16 << 10;
/// Octets of the bodies of all requests under way, over all connections of the API.
pub const BODIES_BYTES_MAX: usize = 256 << 20;
/// When a client that is refused for want of room may try again, in seconds.
const RETRY_AFTER_S: &str = "1";
/// Characters of a client's own words that a reason repeats.
const SHOWN_CHARS_MAX: usize = 80;

/// A request with its whole body.
pub type Request = hyper::Request<Bytes>;
/// A response with its whole body.
pub type Response = hyper::Response<Full<Bytes>>;

/// What one listener's clients may take.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Connections served at once. Further ones wait in the kernel's backlog: it is bounded, they get their turn as
    /// soon as one ends, and none costs us anything. While so many are open, each is closed after its response.
    pub connections_max: usize,
    /// Octets of a request's body; 413 beyond.
    pub body_bytes_max: usize,
    /// Octets of all bodies that are read or handled at once; a request for whose body there is no room is answered
    /// with 503, and the rest of the body is not read.
    pub bodies_bytes_max: usize,
    /// From a request's first octet to the end of its head; for a connection's first request, from its acceptance.
    pub header_within: Duration,
    /// From the end of a request's head to the end of its body.
    pub body_within: Duration,
    /// From a response's last octet to the first one of the next request.
    pub idle_within: Duration,
    /// How long a response may make no progress.
    pub write_within: Duration,
    /// How long requests under way may go on once the server shuts down.
    pub shutdown_within: Duration,
}

impl Default for HttpLimits {
    fn default() -> HttpLimits {
        HttpLimits {
            connections_max: 64,
            body_bytes_max: 32 << 20,
            bodies_bytes_max: BODIES_BYTES_MAX,
            header_within: Duration::from_secs(10),
            body_within: Duration::from_secs(30),
            idle_within: Duration::from_secs(60),
            write_within: Duration::from_secs(30),
            shutdown_within: Duration::from_secs(5),
        }
    }
}

/// Why a request is not answered as it was meant to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 4xx or 5xx.
    pub status: StatusCode,
    /// What was expected, what came, what to do about it.
    pub reason: String,
}

impl Refusal {
    /// A refusal with its reason.
    pub fn new(status: StatusCode, reason: impl Into<String>) -> Refusal {
        Refusal { status, reason: reason.into() }
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Response {
        reason(refusal.status, &refusal.reason)
    }
}

/// The response to a request that failed: `{"Reason":"…"}`. A 401 names the scheme that is wanted (RFC 9110 §11.6.1),
/// a 503 when to try again (RFC 9110 §10.2.3).
pub fn reason(status: StatusCode, text: &str) -> Response {
    let mut response = json(status, serde_json::json!({ "Reason": text }).to_string());
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
    }
    response
}

/// A response of JSON that is written already.
pub fn json(status: StatusCode, text: String) -> Response {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A client's own words as a reason may repeat them: quoted, escaped, at most 80 characters.
pub fn shown(words: &[u8]) -> String {
    let mut escaped = words.escape_ascii().map(char::from);
    let start: String = escaped.by_ref().take(SHOWN_CHARS_MAX).collect();
    let more = if escaped.next().is_some() { "…" } else { "" };
    format!("\"{start}{more}\"")
}

/// Serves until `shutdown` resolves; then accepts nothing, closes idle connections, lets requests under way end within
/// `shutdown_within`, and returns once the port is free and the last connection closed.
///
/// `listener` is bound by [`listen`](crate::shard::listen::listen). `before_body` judges a request by its head: the body
/// of a refused one is neither invited (`Expect: 100-continue`) nor read. `handler` answers the others. An error says
/// that nothing could be served.
pub async fn serve<G, H>(
    listener: TcpListener,
    limits: HttpLimits,
    before_body: Rc<G>,
    handler: Rc<H>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()>
where
    G: Fn(&Parts) -> Result<(), Refusal> + 'static,
    H: AsyncFn(Request) -> Response + 'static,
{
    let acceptor = Acceptor::start(listener)?;
    // A message in the channel of slots is an open connection. The other channel carries none: it tells all
    // connections of the shutdown by being closed.
    let connections_max = limits.connections_max.max(1);
    let (slots, freed) = async_channel::bounded(connections_max);
    let (serving, shutting_down) = async_channel::bounded::<Infallible>(1);
    let bodies_bytes = Cell::new(0);
    let server = Rc::new(Server { limits, before_body, handler, slots: slots.clone(), bodies_bytes });
    let accept = async {
        while let Ok((socket, peer)) = acceptor.connections.recv().await {
            let slot = take_slot(&slots, &freed).await;
            let connection = connection(Rc::clone(&server), socket, peer, shutting_down.clone(), slot);
            glommio::spawn_local(connection).detach();
        }
    };
    or(shutdown, accept).await;
    drop(acceptor);
    drop(serving);
    // Every connection ends within its time; when all slots can be had, all have ended.
    for _ in 0..connections_max {
        let _ = slots.send(()).await;
    }
    Ok(())
}

/// The place of one connection among those that may be open; free again when it is dropped.
struct Slot(Receiver<()>);

async fn take_slot(slots: &Sender<()>, freed: &Receiver<()>) -> Slot {
    let _ = slots.send(()).await;
    Slot(freed.clone())
}

impl Drop for Slot {
    fn drop(&mut self) {
        let _ = self.0.try_recv();
    }
}

/// What all connections of a listener share.
struct Server<G, H> {
    limits: HttpLimits,
    before_body: Rc<G>,
    handler: Rc<H>,
    slots: Sender<()>,
    /// Octets of the bodies that are held now.
    bodies_bytes: Cell<usize>,
}

/// The room of one request's body, given back when the request is answered.
struct Held<'a> {
    all: &'a Cell<usize>,
    octets: usize,
}

impl Held<'_> {
    /// Takes room for more octets, unless all bodies together would have more than `bytes_max`.
    fn grow(&mut self, octets: usize, bytes_max: usize) -> bool {
        let fits = self.all.get() + octets <= bytes_max;
        if fits {
            self.all.set(self.all.get() + octets);
            self.octets += octets;
        }
        fits
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.all.set(self.all.get() - self.octets);
    }
}

/// How a connection came to its end.
enum End {
    /// hyper has done with it.
    Over(hyper::Result<()>),
    /// Its client missed a deadline.
    Missed,
    /// The server shuts down, and its time is over.
    ShutDown,
}

/// The whole life of a connection.
async fn connection<G, H>(
    server: Rc<Server<G, H>>,
    socket: TcpStream,
    peer: SocketAddr,
    shutting_down: Receiver<Infallible>,
    _slot: Slot,
) where
    G: Fn(&Parts) -> Result<(), Refusal> + 'static,
    H: AsyncFn(Request) -> Response + 'static,
{
    let deadlines = Rc::new(Deadlines::new(server.limits));
    let stream = Stream::new(socket, Rc::clone(&deadlines));
    let service = service_fn(|request| {
        let (server, deadlines) = (Rc::clone(&server), Rc::clone(&deadlines));
        Box::pin(async move { Ok::<_, Infallible>(server.answer(request, peer, &deadlines).await) })
    });
    let mut connection = http1::Builder::new()
        .header_read_timeout(None)
        // A client that has sent all it wants to send may say so and still gets its response. And hyper then reads
        // nothing while a request is handled, so that every read belongs to the phase that the deadlines know.
        .half_close(true)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(stream, service);
    // The stream is closed below: behind what hyper leaves unsaid.
    let over = async { End::Over(poll_fn(|context| connection.poll_without_shutdown(context)).await) };
    let missed = async {
        deadlines.missed().await;
        End::Missed
    };
    let told_to_end = async {
        let _ = shutting_down.recv().await;
        End::ShutDown
    };
    let mut end = or(over, or(missed, told_to_end)).await;
    if matches!(end, End::ShutDown) {
        Pin::new(&mut connection).graceful_shutdown();
        let over = async { End::Over(poll_fn(|context| connection.poll_without_shutdown(context)).await) };
        let missed = async {
            deadlines.missed().await;
            End::Missed
        };
        let too_late = async {
            glommio::timer::sleep(server.limits.shutdown_within).await;
            End::ShutDown
        };
        end = or(over, or(missed, too_late)).await;
    }
    let refusal = match end {
        End::Over(Ok(())) => None,
        End::Over(Err(error)) if error.is_parse() => Some(no_request(&error)),
        // A client that has begun no request, or reads no response, is cut off without a word.
        End::Missed => match deadlines.unmet() {
            Some(refusal) => Some(refusal),
            None => return,
        },
        // It has gone, or there is no time left.
        End::Over(Err(_)) | End::ShutDown => return,
    };
    let mut stream = connection.into_parts().io;
    deadlines.enter(Phase::Closing);
    let close = async {
        if let Some(refusal) = refusal {
            tracing::debug!(%peer, status = refusal.status.as_u16(), reason = refusal.reason, "refused");
            stream.say(&last_words(&refusal)).await?;
        }
        poll_fn(|context| Pin::new(&mut stream).poll_shutdown(context)).await
    };
    // Whatever goes wrong now, the connection is over.
    let _ = or(close, async {
        deadlines.missed().await;
        Ok(())
    })
    .await;
}

/// Why hyper takes something for no request. Its own answer, which the stream has held back, has no reason.
fn no_request(error: &hyper::Error) -> Refusal {
    match error.is_parse_too_large() {
        true => Refusal::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            format!(
                "head: expected at most {HEAD_BYTES_MAX} octets and 100 fields, got more; send fewer or shorter ones"
            ),
        ),
        false => Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("head: expected that of a request by HTTP/1.1, got what is none ({error})"),
        ),
    }
}

/// A refusal as it is written where hyper no longer writes: the connection's last octets.
fn last_words(Refusal { status, reason }: &Refusal) -> Vec<u8> {
    let body = serde_json::json!({ "Reason": reason }).to_string();
    let date = rfc_1123(wall_now()).replace("UTC", "GMT");
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncache-control: no-store\r\n\
         x-content-type-options: nosniff\r\nconnection: close\r\ncontent-length: {}\r\ndate: {date}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

impl<G, H> Server<G, H>
where
    G: Fn(&Parts) -> Result<(), Refusal>,
    H: AsyncFn(Request) -> Response,
{
    async fn answer(&self, request: hyper::Request<Incoming>, peer: SocketAddr, deadlines: &Deadlines) -> Response {
        deadlines.enter(Phase::Body);
        let (head, mut body) = request.into_parts();
        let (method, path) = (head.method.clone(), head.uri.path().to_owned());
        let mut held = Held { all: &self.bodies_bytes, octets: 0 };
        let read = match (self.before_body)(&head) {
            Ok(()) => read_body(&mut body, &self.limits, &mut held).await,
            Err(refusal) => Err(refusal),
        };
        deadlines.enter(Phase::Handling);
        let (mut response, is_unread) = match read {
            Ok(body) => ((self.handler)(Request::from_parts(head, body)).await, false),
            Err(refusal) => (refusal.into(), !body.is_end_stream()),
        };
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // The rest of a body would stand where the next request is looked for; others may wait for the slot; and a
        // server that shuts down has taken all that are free.
        if is_unread || self.slots.is_full() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        tracing::debug!(%peer, %method, path, status = response.status().as_u16(), "answered");
        deadlines.enter(Phase::Idle);
        response
    }
}

/// Reads a body whole. Chunks are joined as they come: thousands of tiny ones, kept apart, would take many times the
/// room of their octets.
async fn read_body(body: &mut Incoming, limits: &HttpLimits, held: &mut Held<'_>) -> Result<Bytes, Refusal> {
    let bytes_max = limits.body_bytes_max;
    let too_large = |got: String| {
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        Refusal::new(status, format!("body: expected at most {bytes_max} octets (body_bytes_max in [api]), got {got}"))
    };
    let announced = body.size_hint().lower();
    if announced > bytes_max as u64 {
        return Err(too_large(announced.to_string()));
    }
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Refusal::new(StatusCode::BAD_REQUEST, format!("body: expected one framed as its head says: {error}"))
        })?;
        // Trailers are of no use here.
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > bytes_max {
            return Err(too_large("more".to_owned()));
        }
        if !held.grow(data.len(), limits.bodies_bytes_max) {
            let reason = format!(
                "body: expected all requests under way to have at most {} octets of body, got more; try again later",
                limits.bodies_bytes_max
            );
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.into())
}
