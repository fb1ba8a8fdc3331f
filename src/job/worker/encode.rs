//! What a session wants written, in octets.

use super::Worker;
use super::machine::Machine;
use crate::job::plan::Job;
use crate::message::{AddressBuffer, Template};
use crate::outgoing::Outgoing;
use crate::time::{Instant, WallTime};
use crate::wire::smtp::client::{Client, Write};
use crate::wire::smtp::command::{self, Body, MailParameters};

impl Worker {
    #[inline]
    pub(super) fn encode(&mut self, slot: u32, write: Write, now: Instant, out: &mut Outgoing) {
        let job = &*self.job;
        let this = &mut self.slots[slot as usize];
        let Machine::Smtp(client) = &mut this.machine else { return };
        let sequence = this.ticket.map_or(0, |ticket| ticket.sequence);
        match write {
            Write::Ehlo => command::encode_ehlo(&mut out.bytes, &job.ehlo_name),
            Write::Helo => command::encode_helo(&mut out.bytes, &job.ehlo_name),
            Write::Mail => encode_mail(job, client, sequence, out),
            Write::Rcpt(index) => {
                let mut buffer = AddressBuffer::new();
                command::encode_rcpt(&mut out.bytes, job.recipients.of(sequence, index, &mut buffer));
            }
            Write::StartTls => out.push(command::STARTTLS),
            Write::Auth(mechanism) => {
                self.delta.auth_tried(mechanism.name());
                this.auth_begun = Instant::NEVER;
                client.write_auth(&mut out.bytes);
            }
            Write::AuthAnswer => client.write_auth(&mut out.bytes),
            Write::Data => out.push(command::DATA),
            Write::Group => {
                self.delta.grouped = true;
                encode_mail(job, client, sequence, out);
                let mut buffer = AddressBuffer::new();
                for index in 0..job.recipients.per_message() {
                    command::encode_rcpt(&mut out.bytes, job.recipients.of(sequence, index, &mut buffer));
                }
                out.push(command::DATA);
            }
            Write::Message => {
                if let Some(template) = job.template() {
                    template.write(sequence, job.wall(now), &mut self.dates, out);
                }
                out.push(b".\r\n");
                self.count_size(slot, sequence);
            }
            Write::EmptyMessage => out.push(b".\r\n"),
            Write::Rset => out.push(command::RSET),
            Write::Quit => out.push(command::QUIT),
        }
    }
}

impl Worker {
    /// Counts a message by its size, where they have several.
    #[inline]
    pub(super) fn count_size(&mut self, slot: u32, sequence: u64) {
        if let Some(sizes) = self.job.sizes().filter(|sizes| sizes.is_mix()) {
            let index = sizes.index_of(sequence);
            if !self.is_warm(slot) {
                self.delta.size(index);
            }
        }
    }
}

#[inline]
fn encode_mail(job: &Job, client: &Client, sequence: u64, out: &mut Outgoing) {
    let offered = client.capabilities();
    let parameters = MailParameters {
        size: job.template().filter(|_| offered.size).map(|template| template.bytes(sequence)),
        body: (offered.eight_bit_mime && job.template().is_some_and(Template::is_8bit)).then_some(Body::EightBitMime),
        smtputf8: offered.smtp_utf8 && job.needs_smtp_utf8,
    };
    command::encode_mail(&mut out.bytes, job.from.as_bytes(), &parameters);
}

/// A reply to AUTH or to a request, unless the server repeats in it what nobody else may read.
pub(super) fn fit_to_show<'a>(job: &Job, text: &'a [u8]) -> &'a [u8] {
    let shows_password = job.client.auth.as_ref().is_some_and(|credentials| credentials.is_shown_by(text));
    match shows_password || job.http().is_some_and(|http| http.is_shown_by(text)) {
        true => b"(withheld: the server repeats the password)",
        false => text,
    }
}

impl Job {
    /// The wall time at `now`, from the one that was read at the job's start.
    pub(super) fn wall(&self, now: Instant) -> WallTime {
        self.wall_start + (now - self.start)
    }
}
