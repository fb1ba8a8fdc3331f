//! `timecop hammer`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::audit::HammerAuditArguments;
use super::http::HttpArguments;
use super::load::{FailIfArguments, GeneratorArguments, LoadArguments, TlsArguments};

const HAMMER_EXAMPLES: &str = "\
Examples:
  timecop hammer
      load an embedded sink for 10 seconds: what can this machine generate?
  timecop hammer smtp://127.0.0.1:2525 -m 200000 -c 100
      200,000 messages over 100 connections, as fast as the server takes them (closed loop)
  timecop hammer smtp://127.0.0.1:2525 --rate 5000 -d 1m
      5,000 messages a second for a minute, whatever the server does (open loop, Poisson arrivals)
  timecop hammer smtp://127.0.0.1:2525 --stages 1m@1000,5m@1000,1m@0
      up to 1,000 messages a second in a minute, five minutes there, down again
  timecop hammer smtp://127.0.0.1:2525 --stages 1m@50c,5m@50c
      one connection after the other up to 50 in a minute, five minutes with all of them (closed loop)
  timecop hammer smtp://127.0.0.1:2525 -m 1000 --messages-per-connection 1 --json - --quiet
      a connection a message, the result as one JSON object on standard output
  timecop hammer smtp://127.0.0.1:2525 -m 5000 -s 2000:70,100000:30 --to 'user{1..100000}@example.com'
      seven messages in ten of 2,000 octets, the others of 100,000, to a hundred thousand recipients in turns
  timecop hammer smtp://127.0.0.1:2525 -m 100 --subject News --text news.txt --html news.html --attach news.pdf
      a message that is put together
  timecop hammer smtp://127.0.0.1:2525 -m 100 --to-file to.txt --body body.eml --recipient-variables all.json --expand
      a message of your own, in which each recipient finds what is his
  timecop hammer smtps://mail.example.com -m 100 --ca-file ca.pem
      TLS from the first byte, for a server whose certificate this issuer has signed
  timecop hammer smtp+starttls://127.0.0.1:2525 -d 10s -c 50 --skip-verify
      STARTTLS, for a sink with a certificate of its own making
  timecop hammer mx+starttls://example.com -m 100 --to postmaster@example.com
      the most preferred mail exchanger of a domain, as its MX records name it
  timecop hammer smtps://mail.example.com -m 100 --user joe --password-file joe.password
      log in before mail is sent
  timecop hammer https://api.mailgun.net/v3/DOMAIN -m 100 -c 10 --password-file api.key --option o:testmode=yes
      the form API of Mailgun, or of what is like it, with the key as password; --type http.mime sends whole messages
  timecop hammer https://api.example.com/mail --type http.raw --data mail.json --header 'Authorization: Bearer KEY' -m 10
      any other API: one request a message, its body with %recipient%, %from%, %message_id%, … replaced
  timecop hammer smtp://127.0.0.1:2525 --rate 500 -d 1m --fail-if 'p99>300ms' --fail-if 'failures>0.1%'
      a test that fails when the server is too slow
  timecop hammer smtp://relay.example.com -m 100000 -c 50 --audit --audit-key audit.key --audit-report accepted.json
      stamp each message, and put down which were accepted, to be held against what arrives at a sink with the same key

Exit code: 0 all messages were accepted; 1 some were not, the run was given up, a condition of --fail-if is true of
it, or its verdict is INVALID; 2 it could not start; 130 a second interrupt ended it at once.";

#[derive(Debug, Args)]
#[command(after_help = HAMMER_EXAMPLES, allow_negative_numbers = true)]
pub(in crate::cli) struct HammerArguments {
    /// The server, as smtp://HOST[:PORT], smtps:// (TLS), smtp+starttls://, http:// or https:// with a path, or mx://DOMAIN
    /// (mx+starttls://) for the domain's most preferred mail exchanger; without it a sink on loopback is started and loaded, for
    /// --type http and http.mime a stub of Mailgun's API
    #[arg(value_name = "TARGET")]
    pub(in crate::cli) target: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) load: LoadArguments,
    #[command(flatten)]
    pub(in crate::cli) http: HttpArguments,
    #[command(flatten)]
    pub(in crate::cli) tls: TlsArguments,
    /// Log in as this user: by SMTP (AUTH) with the best of PLAIN, LOGIN and CRAM-MD5 that the server offers, by HTTP with
    /// Basic authentication [default: api for http and http.mime with --password-file]; the password is that of
    /// --password-file, or of the environment's TIMECOP_PASSWORD
    #[arg(long, value_name = "NAME", requires = "target", help_heading = "Login")]
    pub(in crate::cli) user: Option<String>,
    /// File with the user's password, or the API's key, one line
    #[arg(long, value_name = "FILE", requires = "target", help_heading = "Login")]
    pub(in crate::cli) password_file: Option<PathBuf>,
    /// Address of this machine that connections come from; repeat it for more, which take turns [default: the system
    /// chooses]
    #[arg(long, value_name = "IP", value_parser = ip_address, help_heading = "Run")]
    pub(in crate::cli) source_address: Vec<IpAddr>,
    /// How the kernel controls congestion on the connections, such as cubic or bbr [default: as the system does]
    #[arg(long, value_name = "NAME", help_heading = "Run")]
    pub(in crate::cli) congestion: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) audit: HammerAuditArguments,
    #[command(flatten)]
    pub(in crate::cli) generator: GeneratorArguments,
    /// Write the result as one JSON object to a file, or to standard output for -
    #[arg(long, value_name = "FILE|-", help_heading = "Output")]
    pub(in crate::cli) json: Option<PathBuf>,
    /// Neither progress nor report; errors still show
    #[arg(short, long, help_heading = "Output")]
    pub(in crate::cli) quiet: bool,
    #[command(flatten)]
    pub(in crate::cli) fail_if: FailIfArguments,
}

fn ip_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("expected an IP address, such as 192.0.2.1 or 2001:db8::1, got {text:?}"))
}
