//! Fetches OCSP responses for the certificates in use, off the path of handshakes, and staples them.
//!
//! One task on the control thread asks for the whole process. A certificate is asked about after its first use. Handshakes before the
//! answer arrives, and while there is none, have no staple: clients check revocation themselves, or not at all, as they do where nothing is
//! stapled. An answer is served until it expires, and a new one is fetched before that.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fairway_model::{Certificate, CertificateName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::ocsp::{BadResponse, Question};
use super::resolve::AddressPolicy;
use super::tls::Certificates;
use crate::limit::{
    OCSP_AT_ONCE, OCSP_KNOWN, OCSP_LONGEST_PAUSE, OCSP_RESPONSE, OCSP_SHORTEST_PAUSE, OCSP_TIMEOUT, OCSP_UNDATED,
};

/// The task, before it runs.
#[derive(Debug)]
pub(crate) struct Stapling {
    wanted: mpsc::UnboundedReceiver<Arc<Certificate>>,
    certificates: Weak<Certificates>,
    counts: Arc<StapleCounts>,
    policy: AddressPolicy,
}

/// Figures for the metrics.
#[derive(Debug, Default)]
pub(crate) struct StapleCounts {
    /// Certificates with a staple.
    pub(crate) stapled: AtomicU64,
    /// Questions to responders.
    pub(crate) fetches: AtomicU64,
    /// Those without a usable answer.
    pub(crate) failures: AtomicU64,
}

/// When certificates are due, at most one time for each.
#[derive(Debug, Default)]
struct Agenda {
    by_time: BTreeSet<(Instant, CertificateName)>,
    times: HashMap<CertificateName, Instant>,
}

impl Agenda {
    /// The earliest time.
    fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(time, _)| *time)
    }

    /// Takes the certificate that is due first.
    fn take(&mut self) -> Option<CertificateName> {
        let (_, name) = self.by_time.pop_first()?;
        self.times.remove(&name);
        Some(name)
    }

    fn has(&self, name: &CertificateName) -> bool {
        self.times.contains_key(name)
    }

    /// Sets the time of a certificate, in place of the one that it had.
    fn set(&mut self, name: &CertificateName, time: Option<Instant>) {
        if let Some(before) = self.times.remove(name) {
            self.by_time.remove(&(before, name.clone()));
        }
        if let Some(time) = time {
            self.times.insert(name.clone(), time);
            self.by_time.insert((time, name.clone()));
        }
    }
}

/// A certificate that is asked about.
struct AskedAbout {
    certificate: Arc<Certificate>,
    question: Arc<Question>,
    pause: Duration,
    /// Until when the current staple is valid, in seconds since 1970.
    until: Option<i64>,
}

struct Fetched {
    certificate: Arc<Certificate>,
    answer: Result<(Vec<u8>, Option<i64>), FetchError>,
}

/// Why there is no staple.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("no answer in time")]
    Late,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the address {0} is refused")]
    Address(SocketAddr),
    #[error("the responder has no address")]
    NoAddress,
    #[error("the responder answers with no status 200")]
    Status,
    #[error("the answer is too large")]
    TooLarge,
    #[error(transparent)]
    Response(#[from] BadResponse),
}

impl Stapling {
    /// The task for these certificates, and its figures.
    pub(crate) fn new(certificates: &Arc<Certificates>, policy: AddressPolicy) -> (Self, Arc<StapleCounts>) {
        let counts = Arc::<StapleCounts>::default();
        let wanted = certificates.staple_by();
        (Self { wanted, certificates: Arc::downgrade(certificates), counts: counts.clone(), policy }, counts)
    }

    /// Fetches and staples until the certificates are gone.
    pub(crate) async fn run(mut self) {
        let mut known: HashMap<CertificateName, AskedAbout> = HashMap::new();
        // When to ask about a certificate; not while a question about it is under way.
        let mut due = Agenda::default();
        // When staples expire.
        let mut ends = Agenda::default();
        let mut fetches: JoinSet<Fetched> = JoinSet::new();
        loop {
            let (next, end) = (due.next(), ends.next());
            let may_ask = fetches.len() < OCSP_AT_ONCE;
            tokio::select! {
                wanted = self.wanted.recv() => {
                    let Some(certificate) = wanted else { return };
                    if let Some(new) = self.begin(certificate, known.len()) {
                        let name = new.certificate.name.clone();
                        due.set(&name, Some(Instant::now()));
                        ends.set(&name, None);
                        if let Some(before) = known.insert(name, new) {
                            self.ended(&before);
                        }
                    }
                }
                Some(fetched) = fetches.join_next() => {
                    // One that panicked leaves its certificate as it is.
                    let Ok(fetched) = fetched else { continue };
                    let name = fetched.certificate.name.clone();
                    let Some(one) = known.get_mut(&name) else { continue };
                    // It has been announced anew meanwhile.
                    if due.has(&name) || !Arc::ptr_eq(&one.certificate, &fetched.certificate) {
                        continue;
                    }
                    let wait = self.take(one, fetched.answer);
                    ends.set(&name, one.until.map(|until| Instant::now() + left(until)));
                    due.set(&name, Some(Instant::now() + wait));
                }
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => {
                    let Some(name) = ends.take() else { continue };
                    let Some(one) = known.get_mut(&name) else { continue };
                    self.expire(one);
                    // The clock of the machine was set back meanwhile.
                    ends.set(&name, one.until.map(|until| Instant::now() + left(until).max(OCSP_SHORTEST_PAUSE)));
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if may_ask && next.is_some() => {
                    let Some(name) = due.take() else { continue };
                    let Some(one) = known.get_mut(&name) else { continue };
                    let Some(certificates) = self.certificates.upgrade() else { return };
                    // It was replaced, or is no longer used: if it is used again, it is announced again.
                    if !certificates.holds(&one.certificate) {
                        self.ended(one);
                        ends.set(&name, None);
                        known.remove(&name);
                        continue;
                    }
                    let (certificate, question, policy) =
                        (one.certificate.clone(), one.question.clone(), self.policy.clone());
                    fetches.spawn(async move {
                        let answer = timeout(OCSP_TIMEOUT, fetch(&question, &policy)).await;
                        let answer = answer.unwrap_or(Err(FetchError::Late)).and_then(|answer| {
                            let until = question.check(&answer, now())?;
                            Ok((answer, until))
                        });
                        Fetched { certificate, answer }
                    });
                }
            }
        }
    }

    /// A certificate that is used for the first time.
    fn begin(&self, certificate: Arc<Certificate>, known: usize) -> Option<AskedAbout> {
        if known >= OCSP_KNOWN {
            return None;
        }
        match Question::new(&certificate.chain) {
            Ok(question) => {
                Some(AskedAbout { certificate, question: Arc::new(question), pause: OCSP_SHORTEST_PAUSE, until: None })
            }
            Err(error) => {
                let (namespace, name) = (&*certificate.origin.namespace, &*certificate.origin.name);
                tracing::info!(namespace, name, %error, "no OCSP response can be stapled");
                None
            }
        }
    }

    /// Staples an answer; returns when to ask again. Without one, what was stapled holds until it expires.
    fn take(&self, one: &mut AskedAbout, answer: Result<(Vec<u8>, Option<i64>), FetchError>) -> Duration {
        self.counts.fetches.fetch_add(1, Ordering::Relaxed);
        let Some(certificates) = self.certificates.upgrade() else { return OCSP_LONGEST_PAUSE };
        let had = one.until.is_some();
        let wait = match answer {
            Ok((response, until)) => {
                one.pause = OCSP_SHORTEST_PAUSE;
                let until = until.unwrap_or_else(|| now() + OCSP_UNDATED.as_secs().cast_signed());
                one.until = certificates.staple(&one.certificate, Some(response)).then_some(until);
                (left(until) / 2).clamp(OCSP_SHORTEST_PAUSE, OCSP_LONGEST_PAUSE)
            }
            Err(error) => {
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
                let (namespace, name) = (&*one.certificate.origin.namespace, &*one.certificate.origin.name);
                let responder = &*one.question.responder;
                tracing::warn!(namespace, name, responder, %error, "no OCSP response is stapled");
                let wait = one.pause;
                one.pause = (one.pause * 2).min(OCSP_LONGEST_PAUSE);
                wait
            }
        };
        match (had, one.until.is_some()) {
            (false, true) => self.counts.stapled.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.counts.stapled.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
        wait
    }

    /// Removes a staple that has expired: clients would refuse it.
    fn expire(&self, one: &mut AskedAbout) {
        if one.until.is_some_and(|until| until <= now()) {
            if let Some(certificates) = self.certificates.upgrade() {
                certificates.staple(&one.certificate, None);
            }
            self.ended(one);
            one.until = None;
        }
    }

    fn ended(&self, one: &AskedAbout) {
        if one.until.is_some() {
            self.counts.stapled.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Asks a responder over HTTP/1.0, which has no chunked coding.
async fn fetch(question: &Question, policy: &AddressPolicy) -> Result<Vec<u8>, FetchError> {
    let (authority, path) = match question.responder.split_once('/') {
        Some((authority, path)) => (authority, path),
        None => (&*question.responder, ""),
    };
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let target = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    let mut refused = None;
    let mut connected = None;
    for address in lookup_host(target).await? {
        // A user chose the URL, and its host gets a request from inside.
        if policy.admits_responder(address) {
            connected = Some(TcpStream::connect(address).await?);
            break;
        }
        refused = Some(address);
    }
    let mut stream = match (connected, refused) {
        (Some(stream), _) => stream,
        (None, Some(address)) => return Err(FetchError::Address(address)),
        (None, None) => return Err(FetchError::NoAddress),
    };
    let head = format!(
        "POST /{path} HTTP/1.0\r\nHost: {authority}\r\nUser-Agent: fairway/{}\r\nContent-Type: application/ocsp-request\r\n\
         Accept: application/ocsp-response\r\nContent-Length: {}\r\n\r\n",
        env!("CARGO_PKG_VERSION"),
        question.request.len(),
    );
    stream.write_all(&[head.as_bytes(), &question.request].concat()).await?;
    let mut answer = Vec::new();
    loop {
        let ended = (&mut stream).take((OCSP_RESPONSE + 1) as u64).read_buf(&mut answer).await? == 0;
        if let Some(body) = body(&answer, ended)? {
            return Ok(body.to_vec());
        }
        if ended {
            return Err(FetchError::Status);
        }
        if answer.len() > OCSP_RESPONSE {
            return Err(FetchError::TooLarge);
        }
    }
}

/// The body of an answer, once it is complete.
fn body(answer: &[u8], ended: bool) -> Result<Option<&[u8]>, FetchError> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(head)) = response.parse(answer) else { return Ok(None) };
    if response.code != Some(200) {
        return Err(FetchError::Status);
    }
    let length = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse::<usize>().ok());
    let rest = &answer[head..];
    Ok(match length {
        Some(length) => rest.get(..length),
        None => ended.then_some(rest),
    })
}

/// The time left until a moment, at most a fraction of a second too long.
fn left(until: i64) -> Duration {
    Duration::from_secs(until.saturating_sub(now()).max(0).unsigned_abs())
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_has_one_time_however_often_it_is_set() {
        let (mut agenda, begin) = (Agenda::default(), Instant::now());
        let at = |seconds| Some(begin + Duration::from_secs(seconds));
        let (one, other): (CertificateName, CertificateName) = ("a".into(), "b".into());
        for seconds in [5, 1, 9] {
            agenda.set(&one, at(seconds));
            agenda.set(&other, at(7));
        }
        assert_eq!((agenda.by_time.len(), agenda.times.len(), agenda.next()), (2, 2, at(7)));
        assert_eq!(agenda.take(), Some(other.clone()));
        assert!(agenda.has(&one) && !agenda.has(&other));
        agenda.set(&one, None);
        assert_eq!((agenda.next(), agenda.take(), agenda.times.len()), (None, None, 0));
    }

    #[test]
    fn a_body_ends_with_its_length_or_with_the_connection() {
        let complete = |answer: &str, ended| body(answer.as_bytes(), ended).map(|body| body.map(<[u8]>::to_vec));
        assert_eq!(complete("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", false).unwrap(), Some(b"ab".to_vec()));
        assert_eq!(complete("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nab", true).unwrap(), None);
        assert_eq!(complete("HTTP/1.0 200 OK\r\n\r\nab", false).unwrap(), None);
        assert_eq!(complete("HTTP/1.0 200 OK\r\n\r\nab", true).unwrap(), Some(b"ab".to_vec()));
        assert!(complete("HTTP/1.0 503 No\r\n\r\n", false).is_err());
    }
}
