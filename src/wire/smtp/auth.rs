//! AUTH (RFC 4954) with the SASL mechanisms PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login) and CRAM-MD5
//! (RFC 2195): what either side says, without I/O and without randomness.
//!
//! User names and passwords go out as they were given, without the preparation of RFC 4013.
//!
//! [`ClientExchange`] writes the client's lines, [`ServerExchange`] judges them against a table of [`Users`]. Neither
//! keeps a password; what holds one here is wiped when it is dropped, but for what a growing buffer has left behind.

mod command;

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac as _};
use md5::Md5;
use memchr::memchr;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use thiserror::Error;

pub use command::Auth;

/// Longest line of an exchange, in octets without its CRLF (RFC 4954 §4: 12288 with it).
pub const EXCHANGE_LINE_BYTES_MAX: usize = 12_286;
/// Longest AUTH command, in octets with its CRLF: the limit of all commands (RFC 5321 §4.5.3.1.4).
pub const COMMAND_LINE_BYTES_MAX: usize = 512;
/// Longest user name, and longest password, in octets. RFC 4616 §2 has 255; tokens that serve as passwords are longer.
pub const CREDENTIAL_BYTES_MAX: usize = 4_096;
/// Most users of one table.
pub const USERS_MAX: usize = 100_000;

/// Ends an exchange before its time (RFC 4954 §4); the server answers 501.
pub const CANCEL: &[u8] = b"*\r\n";

/// So much of an encoded password or response gives it away.
const SHOWN_CHARS: usize = 8;

/// LOGIN's prompts, `Username:` and `Password:`.
const LOGIN_USER: &[u8] = b"VXNlcm5hbWU6";
const LOGIN_PASSWORD: &[u8] = b"UGFzc3dvcmQ6";

/// A SASL mechanism that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mechanism {
    /// The password is proved by a keyed digest of a challenge.
    CramMd5,
    /// User and password in one answer, base64 and nothing else.
    Plain,
    /// User and password in two answers, likewise.
    Login,
}

impl Mechanism {
    /// All of them, in the order in which a server of ours offers them.
    pub const ALL: [Mechanism; 3] = [Mechanism::Plain, Mechanism::Login, Mechanism::CramMd5];

    /// The registered name.
    pub const fn name(self) -> &'static str {
        match self {
            Mechanism::CramMd5 => "CRAM-MD5",
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
        }
    }

    /// The mechanism of this name, in any case.
    pub fn parse(name: &[u8]) -> Option<Mechanism> {
        Mechanism::ALL.into_iter().find(|mechanism| mechanism.name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// Whether whoever reads the connection learns the password.
    pub const fn shows_password(self) -> bool {
        !matches!(self, Mechanism::CramMd5)
    }
}

/// The mechanisms that a server offers, as far as we know them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    cram_md5: bool,
    plain: bool,
    login: bool,
}

impl Offered {
    /// Takes up what follows the keyword AUTH in a line of the EHLO reply; a server may have several such lines. What
    /// is not known is passed over.
    pub fn note(&mut self, parameters: &[u8]) {
        for name in parameters.split(|octet| matches!(octet, b' ' | b'\t')) {
            match Mechanism::parse(name) {
                Some(Mechanism::CramMd5) => self.cram_md5 = true,
                Some(Mechanism::Plain) => self.plain = true,
                Some(Mechanism::Login) => self.login = true,
                None => {}
            }
        }
    }

    /// The best of them for such a connection; `None` if we know none of them.
    ///
    /// Over TLS that is PLAIN, then LOGIN, then CRAM-MD5: nobody listens, PLAIN takes one round trip, and it is what
    /// servers that keep no passwords in clear can check. Without TLS CRAM-MD5 comes first, since it alone keeps the
    /// password to itself. Whether a password may be sent without TLS at all is for the caller to say.
    pub fn best(self, is_tls: bool) -> Option<Mechanism> {
        let [first, second] = [(self.plain, Mechanism::Plain), (self.login, Mechanism::Login)];
        let digest = (self.cram_md5, Mechanism::CramMd5);
        let order = if is_tls { [first, second, digest] } else { [digest, first, second] };
        order.into_iter().find(|(is_offered, _)| *is_offered).map(|(_, mechanism)| mechanism)
    }
}

/// The best mechanism of one AUTH line's parameters; see [`Offered::best`].
pub fn best_offered(parameters: &[u8], is_tls: bool) -> Option<Mechanism> {
    let mut offered = Offered::default();
    offered.note(parameters);
    offered.best(is_tls)
}

// ------------------------------------------------------------------------------------------------------- credentials

/// A user and its password.
#[derive(Clone)]
pub struct Credentials {
    user: String,
    password: SecretString,
}

/// What cannot be a user or a password. Tells nothing of what was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CredentialsError {
    /// Nothing.
    #[error("expected 1 to {CREDENTIAL_BYTES_MAX} octets, got none")]
    Empty,
    /// More than [`CREDENTIAL_BYTES_MAX`].
    #[error("expected 1 to {CREDENTIAL_BYTES_MAX} octets, got more")]
    TooLong,
    /// PLAIN separates its parts by NUL, and no mechanism can carry the ends of lines for sure.
    #[error("expected no NUL, CR or LF, got one")]
    Control,
}

impl Credentials {
    /// A user and its password, both UTF-8 of 1 to [`CREDENTIAL_BYTES_MAX`] octets without NUL, CR and LF.
    pub fn new(user: String, password: SecretString) -> Result<Credentials, CredentialsError> {
        check_credential(&user)?;
        check_credential(password.expose_secret())?;
        Ok(Credentials { user, password })
    }

    /// The user's name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password, which is shown nowhere.
    pub fn password(&self) -> &SecretString {
        &self.password
    }

    /// The password in the clear, for whoever is about to send it.
    pub(crate) fn exposed_password(&self) -> &str {
        self.password.expose_secret()
    }

    /// Whether a text holds the password, what Basic authentication makes of it, or the beginning of what PLAIN and LOGIN do: some servers repeat a
    /// line that they do not like.
    pub fn is_shown_by(&self, text: &[u8]) -> bool {
        let password = self.password_bytes();
        let holds = |part: &[u8]| memchr::memmem::find(text, part).is_some();
        let beginning = |line: &str| holds(&line.as_bytes()[..line.len().min(SHOWN_CHARS)]);
        let basic = encoded(&[self.user.as_bytes(), b":", password].concat());
        holds(password) || holds(basic.as_bytes()) || beginning(&encoded(password)) || beginning(&plain_response(self))
    }

    fn password_bytes(&self) -> &[u8] {
        self.password.expose_secret().as_bytes()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

fn check_credential(text: &str) -> Result<(), CredentialsError> {
    match text.len() {
        0 => Err(CredentialsError::Empty),
        1..=CREDENTIAL_BYTES_MAX if text.bytes().any(|octet| matches!(octet, 0 | b'\r' | b'\n')) => {
            Err(CredentialsError::Control)
        }
        1..=CREDENTIAL_BYTES_MAX => Ok(()),
        _ => Err(CredentialsError::TooLong),
    }
}

// ------------------------------------------------------------------------------------------------------------ client

/// A challenge that cannot be answered. The client sends [`CANCEL`] or ends the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ChallengeError {
    /// CRAM-MD5's challenge is no base64.
    #[error("expected a challenge in base64")]
    Base64,
    /// The mechanism has nothing more to say.
    #[error("a challenge more than the mechanism has")]
    TooMany,
}

/// The client's side of one AUTH command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientExchange {
    mechanism: Mechanism,
    /// Answers given, an initial response included.
    answered: u8,
}

impl ClientExchange {
    /// An exchange in which nothing was said yet.
    pub fn new(mechanism: Mechanism) -> ClientExchange {
        ClientExchange { mechanism, answered: 0 }
    }

    /// How the client proves itself.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Writes the AUTH command, with its CRLF. PLAIN's answer goes with it, unless the command would be too long.
    pub fn first(&mut self, credentials: &Credentials, out: &mut Vec<u8>) {
        let beginning = out.len();
        out.extend_from_slice(b"AUTH ");
        out.extend_from_slice(self.mechanism.name().as_bytes());
        if self.mechanism == Mechanism::Plain {
            let response = plain_response(credentials);
            if out.len() - beginning + response.len() < COMMAND_LINE_BYTES_MAX - 2 {
                out.push(b' ');
                out.extend_from_slice(response.as_bytes());
                self.answered = 1;
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Writes the answer to a challenge, with its CRLF. `text` is what stood behind 334. LOGIN's prompts, and what
    /// asks for PLAIN's response, may say anything.
    pub fn challenge(
        &mut self,
        text: &[u8],
        credentials: &Credentials,
        out: &mut Vec<u8>,
    ) -> Result<(), ChallengeError> {
        let answer = match (self.mechanism, self.answered) {
            (Mechanism::Plain, 0) => plain_response(credentials),
            (Mechanism::Login, 0) => encoded(credentials.user.as_bytes()),
            (Mechanism::Login, 1) => encoded(credentials.password_bytes()),
            (Mechanism::CramMd5, 0) => {
                let challenge = STANDARD.decode(text.trim_ascii()).map_err(|_| ChallengeError::Base64)?;
                let digest = cram_md5(credentials.password_bytes(), &challenge);
                encoded(&[credentials.user.as_bytes(), b" ", &digest].concat())
            }
            _ => return Err(ChallengeError::TooMany),
        };
        self.answered += 1;
        out.extend_from_slice(answer.as_bytes());
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

fn encoded(bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(bytes))
}

/// The client authorizes as whom it authenticates: the authorization identity stays empty.
fn plain_response(credentials: &Credentials) -> Zeroizing<String> {
    let message = Zeroizing::new([b"\0", credentials.user.as_bytes(), b"\0", credentials.password_bytes()].concat());
    encoded(&message)
}

/// The digest in lower-case hexadecimal.
fn cram_md5(password: &[u8], challenge: &[u8]) -> [u8; 32] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut mac = Hmac::<Md5>::new_from_slice(password).expect("HMAC takes a key of any length");
    mac.update(challenge);
    let mut digits = [0; 32];
    for (pair, octet) in digits.chunks_exact_mut(2).zip(mac.finalize().into_bytes()) {
        pair.copy_from_slice(&[HEX[usize::from(octet >> 4)], HEX[usize::from(octet & 15)]]);
    }
    digits
}

// ------------------------------------------------------------------------------------------------------------- users

/// Who may log in, and by which password.
#[derive(Default)]
pub struct Users(BTreeMap<String, SecretString>);

/// A line of a table of users that is none. Tells nothing of the line but its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {problem}")]
pub struct UsersError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: UsersProblem,
}

/// What is wrong with a line of a table of users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UsersProblem {
    /// There is no colon.
    #[error("expected user:password, or # and a comment")]
    NoColon,
    /// Not a user's name.
    #[error("user: {0}")]
    User(CredentialsError),
    /// Not a password.
    #[error("password: {0}")]
    Password(CredentialsError),
    /// Another line has this user already.
    #[error("expected each user once, got one a second time")]
    Twice,
    /// More than [`USERS_MAX`] users.
    #[error("expected at most {USERS_MAX} users, got more")]
    TooMany,
}

impl Users {
    /// Reads lines `user:password`. Empty lines and those that begin with `#` are passed over; a password may hold
    /// colons, and whatever stands at the line's end belongs to it.
    pub fn parse(text: &str) -> Result<Users, UsersError> {
        let mut users = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |problem| UsersError { line: index + 1, problem };
            let (user, password) = line.split_once(':').ok_or(wrong(UsersProblem::NoColon))?;
            check_credential(user).map_err(|error| wrong(UsersProblem::User(error)))?;
            check_credential(password).map_err(|error| wrong(UsersProblem::Password(error)))?;
            if users.len() == USERS_MAX {
                return Err(wrong(UsersProblem::TooMany));
            }
            if users.insert(user.to_owned(), SecretString::from(password)).is_some() {
                return Err(wrong(UsersProblem::Twice));
            }
        }
        Ok(Users(users))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody may log in.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the user's password is, and whether there is such a user: without one, the same work is done for nothing.
    fn password(&self, user: &str) -> (&[u8], bool) {
        match self.0.get(user) {
            Some(password) => (password.expose_secret().as_bytes(), true),
            None => (b"no such user", false),
        }
    }

    fn has_password(&self, user: &str, given: &[u8]) -> bool {
        let (password, exists) = self.password(user);
        // Digests have one length, so that the comparison does not tell the password's.
        let is_equal: bool = Sha256::digest(password).ct_eq(&Sha256::digest(given)).into();
        is_equal && exists
    }

    fn has_digest(&self, user: &str, challenge: &[u8], given: &[u8]) -> bool {
        let (password, exists) = self.password(user);
        let is_equal: bool = cram_md5(password, challenge).ct_eq(given).into();
        is_equal && exists
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.0.len())
    }
}

// ------------------------------------------------------------------------------------------------------------ server

/// What the server does next. All but a challenge end the exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send 334 and this text, which is base64 or empty.
    Challenge(Vec<u8>),
    /// The client is this user.
    Verified(String),
    /// No such user, not its password, or not allowed to act for another one.
    Denied,
    /// No base64, not what the mechanism's messages look like, or a response where the server begins.
    Malformed,
    /// A line longer than [`EXCHANGE_LINE_BYTES_MAX`].
    TooLong,
    /// The client has thought better of it.
    Cancelled,
}

impl Step {
    /// The reply that ends the exchange (RFC 4954 §6); `None` for a challenge.
    pub const fn reply(&self) -> Option<&'static [u8]> {
        match self {
            Step::Challenge(_) => None,
            Step::Verified(_) => Some(b"235 2.7.0 authentication succeeded\r\n"),
            Step::Denied => Some(b"535 5.7.8 authentication credentials invalid\r\n"),
            Step::Malformed => Some(b"501 5.5.2 malformed authentication response\r\n"),
            Step::TooLong => Some(b"500 5.5.6 authentication line is too long\r\n"),
            Step::Cancelled => Some(b"501 5.7.0 authentication cancelled\r\n"),
        }
    }
}

/// The server's side of one AUTH command.
#[derive(Debug)]
pub struct ServerExchange {
    awaited: Awaited,
}

/// What the client's next line is to be.
#[derive(Debug)]
enum Awaited {
    Plain,
    LoginUser,
    LoginPassword { user: String },
    CramMd5 { challenge: Vec<u8> },
    Nothing,
}

impl ServerExchange {
    /// Begins, with what stood behind the mechanism's name, if anything did. `challenge` is CRAM-MD5's, to be sent in
    /// base64: a fresh one each time, of the form `<digits.digits@host>` (RFC 2195 §2).
    pub fn start(
        mechanism: Mechanism,
        initial: Option<&[u8]>,
        challenge: &[u8],
        users: &Users,
    ) -> (ServerExchange, Step) {
        let (awaited, prompt) = match mechanism {
            Mechanism::Plain => (Awaited::Plain, Vec::new()),
            Mechanism::Login => (Awaited::LoginUser, LOGIN_USER.to_vec()),
            Mechanism::CramMd5 => {
                (Awaited::CramMd5 { challenge: challenge.to_vec() }, STANDARD.encode(challenge).into_bytes())
            }
        };
        let mut exchange = ServerExchange { awaited };
        let step = match initial {
            None => Step::Challenge(prompt),
            // The server begins, so that nothing can have been answered yet.
            Some(_) if mechanism == Mechanism::CramMd5 => exchange.over(Step::Malformed),
            // How an empty response is written, where nothing would mean that there is none (RFC 4954 §4).
            Some(b"=") => exchange.respond(b"", users),
            // Cancelling takes a line of its own.
            Some(b"*") => exchange.over(Step::Malformed),
            Some(response) => exchange.respond(response, users),
        };
        (exchange, step)
    }

    /// Takes the client's next line, without its CRLF.
    pub fn respond(&mut self, line: &[u8], users: &Users) -> Step {
        if line.len() > EXCHANGE_LINE_BYTES_MAX {
            return self.over(Step::TooLong);
        }
        if line == b"*" {
            return self.over(Step::Cancelled);
        }
        let Ok(response) = STANDARD.decode(line).map(Zeroizing::new) else { return self.over(Step::Malformed) };
        let step = match std::mem::replace(&mut self.awaited, Awaited::Nothing) {
            Awaited::Plain => plain(&response, users),
            Awaited::LoginUser => match std::str::from_utf8(&response) {
                Ok(user) => {
                    self.awaited = Awaited::LoginPassword { user: user.to_owned() };
                    Some(Step::Challenge(LOGIN_PASSWORD.to_vec()))
                }
                Err(_) => None,
            },
            Awaited::LoginPassword { user } => Some(verdict(users.has_password(&user, &response), &user)),
            Awaited::CramMd5 { challenge } => digest(&response, &challenge, users),
            Awaited::Nothing => None,
        };
        step.unwrap_or(Step::Malformed)
    }

    fn over(&mut self, step: Step) -> Step {
        self.awaited = Awaited::Nothing;
        step
    }
}

fn verdict(is_right: bool, user: &str) -> Step {
    if is_right { Step::Verified(user.to_owned()) } else { Step::Denied }
}

/// `[authzid] NUL authcid NUL passwd`. Nobody may act for another one. `None` is no such message.
fn plain(message: &[u8], users: &Users) -> Option<Step> {
    let (authorization, rest) = message.split_at(memchr(0, message)?);
    let (user, password) = rest[1..].split_at(memchr(0, &rest[1..])?);
    let password = &password[1..];
    let user = std::str::from_utf8(user).ok()?;
    if memchr(0, password).is_some() || user.is_empty() || password.is_empty() {
        return None;
    }
    let acts_for_itself = authorization.is_empty() || authorization == user.as_bytes();
    Some(verdict(users.has_password(user, password) && acts_for_itself, user))
}

/// `user SP digest`; the user's name may hold spaces. `None` is no such message.
fn digest(message: &[u8], challenge: &[u8], users: &Users) -> Option<Step> {
    let space = message.iter().rposition(|octet| *octet == b' ')?;
    let user = std::str::from_utf8(&message[..space]).ok()?;
    Some(verdict(users.has_digest(user, challenge, &message[space + 1..]), user))
}

#[cfg(test)]
mod tests;
