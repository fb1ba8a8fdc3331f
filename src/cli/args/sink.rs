//! `timecop sink`.

use std::path::PathBuf;

use clap::Args;

use super::audit::SinkAuditArguments;
use super::value::{Cpus, cpus, whole_number};
use crate::control::sink::Listen;
use crate::shard::sink_service::Protocol;
use crate::sink::{Capacity, RateLimit, Rule, Stall};

const SINK_EXAMPLES: &str = "\
Examples:
  timecop sink --listen 127.0.0.1:2525
      accept all mail at full speed; Ctrl-C ends it and prints what arrived
  timecop sink --listen 127.0.0.1:2525 --delay final=exp:10ms --reply rcpt=451,5%
      accept messages after 10 ms on average, and defer one recipient in twenty
  timecop sink --listen 127.0.0.1:2525 --capacity 5000/s
      accept 5,000 messages a second and let the others wait, so that a search has something known to find
  timecop sink --listen 127.0.0.1:2525 --save /tmp/mail
      write each message to a file, to look at it
  timecop sink --listen smtps://127.0.0.1:4465 --tls-cert cert.pem --tls-key key.pem
      TLS from the first byte, with this certificate
  timecop sink --http 127.0.0.1:8026 --http-rate 1000/s --reply http=503,1%
      a stub of Mailgun's messages API (POST /v3/DOMAIN/messages and /messages.mime), which answers 429 above 1,000
      messages a second, and 503 to one request in a hundred
  timecop sink --listen 127.0.0.1:2525 --http https://127.0.0.1:8443 --http-key-file key.txt
      SMTP, and the stub with TLS and for those who know its key
  timecop sink --listen 127.0.0.1:2525 --audit-key audit.key --audit-report arrived.json
      put down which messages of `timecop hammer --audit --audit-key audit.key` have arrived, for `timecop audit`

  timecop sink --listen 127.0.0.1:2525 --fault 'rcpt:*@slow.example=delay:2s' --fault 'rcpt=450,greylist:1m'
      make recipients of one domain slow, and every one come back after a minute

PHASE is one of connect, tls, banner, ehlo, starttls, auth, mail, rcpt, data, final (the reply to the message), quit, or
http (the response to a request, whose CODE is a status from 400 to 599).
A RULE is PHASE[:TO]=ACTION[,CONDITION...][,TEXT]. TO is a pattern of recipients, such as *@example.com, at rcpt, data and
final. ACTION is one of
  CODE                    answer 4xx or 5xx instead, with TEXT, which stands behind a condition such as 100%
  drop, reset             close the connection instead of answering; or end it by a RST
  delay:[exp:]TIME        hold the reply back
  slow:OCTETS/s           read the client so slowly from then on, with a small window
  refuse, expired, wrong-name (at tls)
                          refuse the handshake, or show a certificate that has expired or is another host's
  without:CAPABILITY[+CAPABILITY...] (at ehlo)
                          do not offer PIPELINING, SIZE, 8BITMIME, SMTPUTF8, ENHANCEDSTATUSCODES, STARTTLS or AUTH
and happens if all CONDITIONs are true:
  5%                      with this probability
  above:100/s             more than so many a second came over all shards
  connections:10          more connections than that are open; with /address, of the client's address
  greylist:5m (at rcpt, with 4xx)
                          the first try of sender, recipient and client was less than this ago
Rules are tried in their order: delays add up, and of the others the first one holds. The service takes the same rules, and
others while it runs: POST /v1/sink/fault.set.
Exit code: 0 it was told to end; 1 its counts could not be written; 2 it could not start.";

#[derive(Debug, Args)]
#[command(after_help = SINK_EXAMPLES, allow_negative_numbers = true)]
pub(in crate::cli) struct SinkArguments {
    /// Where to listen, in the clear with STARTTLS on offer, or with TLS from the first byte as smtps://ADDR:PORT; repeat
    /// it for more; port 0 takes a free one [default: 127.0.0.1:2525, or nowhere with --http]
    #[arg(long, value_name = "[smtps://]ADDR:PORT", value_parser = listen)]
    pub(in crate::cli) listen: Vec<Listen>,
    /// Where to listen for HTTP, as a stub of Mailgun's messages API, or with TLS as https://ADDR:PORT; repeat it for more;
    /// without --listen there is no SMTP then
    #[arg(long, value_name = "[https://]ADDR:PORT", value_parser = http)]
    pub(in crate::cli) http: Vec<Listen>,
    /// The only key that the stub lets in, with the user api: the file's one line [default: any key]
    #[arg(long, value_name = "FILE", requires = "http")]
    pub(in crate::cli) http_key_file: Option<PathBuf>,
    /// Answer 429 above so many messages a second over all shards; those of one second may come at once
    #[arg(long, value_name = "RATE/s", requires = "http", help_heading = "Faults")]
    pub(in crate::cli) http_rate: Option<RateLimit>,
    /// Name in the greeting [default: this host's name]
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) hostname: Option<String>,
    /// Largest message that is taken, in octets
    #[arg(long, value_name = "BYTES", value_parser = whole_number::<u64>, default_value_t = 50 << 20)]
    pub(in crate::cli) max_size: u64,
    /// The certificate (PEM), and those that lead to its issuer [default: a fresh one that nobody has signed but itself]
    #[arg(long, value_name = "FILE.pem", requires = "tls_key")]
    pub(in crate::cli) tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE.pem", requires = "tls_cert")]
    pub(in crate::cli) tls_key: Option<PathBuf>,
    /// Do not offer STARTTLS
    #[arg(long)]
    pub(in crate::cli) no_starttls: bool,
    /// Take mail from these users only, once they have logged in (AUTH), which they can under TLS alone: lines user:password
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) auth_file: Option<PathBuf>,
    /// Take mail for this domain, and none for domains not named; repeat it for more [default: all domains]
    #[arg(long, value_name = "DOMAIN")]
    pub(in crate::cli) accept_domain: Vec<String>,
    /// Write each message that comes by SMTP as it was received, without dot-stuffing, to a file in this folder; for looking,
    /// not for speed
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) save: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) audit: SinkAuditArguments,
    /// Shards: threads that serve, each on a CPU of its own [default: half of the CPUs]
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>)]
    pub(in crate::cli) shards: Option<usize>,
    /// CPUs that the shards may run on, such as 0,2-5
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    pub(in crate::cli) cpus: Option<Cpus>,
    /// Write the counts as one JSON object, at the end: to a file, or to standard output instead of the summary
    #[arg(long, value_name = "FILE|-")]
    pub(in crate::cli) json: Option<PathBuf>,
    /// Accept so many messages a second over all shards, one after the other; the others wait in line. Where MESSAGES
    /// wait already, one more is answered 452, or 429 by HTTP
    #[arg(long, value_name = "RATE/s[,queue=MESSAGES]", help_heading = "Faults")]
    pub(in crate::cli) capacity: Option<Capacity>,
    /// What goes wrong, where, and when: PHASE[:TO]=ACTION[,CONDITION...][,TEXT], see below; repeatable
    #[arg(long, value_name = "RULE", help_heading = "Faults")]
    pub(in crate::cli) fault: Vec<Rule>,
    /// Hold the reply of a phase back: for a fixed time, or exponentially with this mean; short for --fault
    /// PHASE=delay:TIME; repeatable
    #[arg(long, value_name = "PHASE=[exp:]TIME", value_parser = Rule::delay, help_heading = "Faults")]
    pub(in crate::cli) delay: Vec<Rule>,
    /// Answer a phase with this code, always or with this probability, and with this text; a --fault, too; repeatable
    #[arg(long, value_name = "PHASE=CODE[,P%[,TEXT]]", value_parser = Rule::reply, help_heading = "Faults")]
    pub(in crate::cli) reply: Vec<Rule>,
    /// Drop the connection instead of answering a phase; short for --fault PHASE=drop,P%; repeatable
    #[arg(long, value_name = "PHASE=P%", value_parser = Rule::drop, help_heading = "Faults")]
    pub(in crate::cli) drop: Vec<Rule>,
    /// Do not offer PIPELINING
    #[arg(long, help_heading = "Faults")]
    pub(in crate::cli) no_pipelining: bool,
    /// Answer nothing for a time, beginning so long after the start, as in 1s@5s
    #[arg(long, value_name = "TIME@AFTER", help_heading = "Faults")]
    pub(in crate::cli) stall: Option<Stall>,
    /// Repeats the rolls of the faults
    #[arg(long, value_name = "N", value_parser = whole_number::<u64>, default_value_t = 1, help_heading = "Faults")]
    pub(in crate::cli) seed: u64,
}

fn listen(text: &str) -> Result<Listen, String> {
    let (implicit_tls, address) = match text.strip_prefix("smtps://") {
        Some(address) => (true, address),
        None => (false, text.strip_prefix("smtp://").unwrap_or(text)),
    };
    let address = address.trim_end_matches('/').parse().map_err(|_| {
        format!("expected an IP address and a port, such as 127.0.0.1:2525, [::1]:2525 or smtps://127.0.0.1:4465, got {text:?}")
    })?;
    Ok(Listen { address, implicit_tls, protocol: Protocol::Smtp })
}

fn http(text: &str) -> Result<Listen, String> {
    let (implicit_tls, address) = match text.strip_prefix("https://") {
        Some(address) => (true, address),
        None => (false, text.strip_prefix("http://").unwrap_or(text)),
    };
    let address = address.trim_end_matches('/').parse().map_err(|_| {
        format!("expected an IP address and a port, such as 127.0.0.1:8026, [::1]:8026 or https://127.0.0.1:8443, got {text:?}")
    })?;
    Ok(Listen { address, implicit_tls, protocol: Protocol::Http })
}
