//! `fairway explain`: the response to a request, the route that it takes, and why, computed by the code of the proxy itself.

mod account;
mod backend_tls;
mod cause;
#[cfg(test)]
mod differential;
mod lookup;
mod passing;
mod snippet;
mod tell;
mod text;
mod words;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::ArgMatches;
use fairway_model::{Origin, Scheme};

pub(crate) use account::{Account, By, ChosenRoute};

use crate::cli;
use crate::flags::{Flags, UsageError, refuse_cluster};
use crate::manifest::Refused;
use crate::reading::{Missing, Reading, nothing, read};
use crate::terminal::Terminal;

/// The request to explain.
#[derive(Debug, PartialEq)]
struct Request {
    method: String,
    scheme: Scheme,
    authority: String,
    path: String,
    query: Option<String>,
    fields: Vec<(String, String)>,
    client: IpAddr,
}

/// Explains many requests to the same objects, in few words.
pub(crate) struct Explainer<'r> {
    reading: &'r Reading,
    basis: tell::Basis<'r>,
}

/// The shortest explanation of a request.
pub(crate) struct Told {
    /// The Ingress whose route takes the request.
    pub(crate) ingress: Option<Origin>,
    /// The status; `None` if the backend answers.
    pub(crate) status: Option<u16>,
    pub(crate) why: String,
}

impl<'r> Explainer<'r> {
    pub(crate) fn new(reading: &'r Reading) -> Self {
        Self { reading, basis: tell::Basis::new(reading) }
    }

    /// The whole account of a request of this client; `None` if it is no request.
    pub(crate) fn account(&self, method: &str, url: &str, fields: &[String], client: IpAddr) -> Option<Account> {
        let request = Request::parse(method, url, fields, client).ok()?;
        Some(tell::account_with(&request, self.reading, &self.basis))
    }

    /// Explains a request of a client on this machine; `None` if it is no request.
    pub(crate) fn of(&self, method: &str, url: &str, fields: &[String]) -> Option<Told> {
        let request = Request::parse(method, url, fields, Ipv4Addr::LOCALHOST.into()).ok()?;
        tell::told(&request, self.reading, &self.basis)
    }
}

/// Runs the command.
pub(crate) fn main(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let instead =
        "`kubectl fairway explain [METHOD] URL` reads one (the same binary, as kubectl-fairway in a folder of PATH)";
    refuse_cluster(&Flags::from_matches(matches), instead)?;
    let words = cli::all::<String>(matches, "words");
    let (paths, method, url) = split(&words)?;
    let paths: Vec<PathBuf> =
        if paths.is_empty() { vec![".".into()] } else { paths.iter().map(PathBuf::from).collect() };
    // As in fairway dev, what a cluster would not take is not there.
    let read = || {
        let reading = read(&paths, &Flags::from_matches(matches), Missing::Echo, Refused::LeftOut)?;
        match nothing(&reading.manifests) {
            None => Ok(reading),
            Some(found) => bail!(UsageError(format!("{}; expected [PATH]... [METHOD] URL", found.diagnostic.message))),
        }
    };
    answer(matches, method, url, read)
}

/// The same for the objects of a cluster: `words` are only `[METHOD] URL`.
pub(crate) fn in_cluster(
    matches: &ArgMatches,
    read: impl FnOnce() -> anyhow::Result<Reading>,
) -> anyhow::Result<ExitCode> {
    let words = cli::all::<String>(matches, "words");
    let (paths, method, url) = split(&words)?;
    if !paths.is_empty() {
        bail!(UsageError("expected [METHOD] URL".into()));
    }
    answer(matches, method, url, read)
}

/// The words `[PATH]... [METHOD] URL`. A word before the URL is a method if it is in capitals or a usual one, and names no file.
fn split(words: &[String]) -> Result<(&[String], &str, &str), UsageError> {
    let [before @ .., url] = words else { return Err(UsageError("expected a URL".into())) };
    match before {
        [paths @ .., method] if is_meant_as_method(method) && !Path::new(method).exists() => Ok((paths, method, url)),
        paths => Ok((paths, "GET", url)),
    }
}

fn is_meant_as_method(word: &str) -> bool {
    let usual = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let is_usual = usual.iter().any(|method| method.eq_ignore_ascii_case(word));
    is_usual || is_method(word) && !word.bytes().any(|b| b.is_ascii_lowercase())
}

fn is_method(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-' || b == b'_')
}

fn answer(
    matches: &ArgMatches,
    method: &str,
    url: &str,
    read: impl FnOnce() -> anyhow::Result<Reading>,
) -> anyhow::Result<ExitCode> {
    let client = matches.get_one::<IpAddr>("client").copied().unwrap_or(Ipv4Addr::LOCALHOST.into());
    let request = Request::parse(method, url, &cli::all::<String>(matches, "header"), client)?;
    let reading = read()?;
    let account = tell::account(&request, &reading);
    match matches.get_one::<String>("output").map(String::as_str) {
        Some("json") => Terminal::plain().print(&format!("{}\n", serde_json::to_string_pretty(&account)?)),
        _ => {
            let terminal = Terminal::new();
            terminal.print(&text::render(&account, terminal));
        }
    }
    Ok(if account.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Request {
    fn parse(method: &str, url: &str, fields: &[String], client: IpAddr) -> Result<Self, UsageError> {
        let wrong = |what: &str| {
            UsageError(format!("{what}: expected [METHOD] URL, such as GET http://shop.localhost/order/7"))
        };
        if !is_method(method) {
            return Err(wrong(&format!("{method:?} is not a method")));
        }
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            _ => return Err(wrong(&format!("{url:?} is not a URL that starts with http:// or https://"))),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        let mut named = Vec::new();
        for field in fields {
            let (name, value) = field
                .split_once(':')
                .ok_or_else(|| UsageError(format!("-H {field:?}: expected NAME:VALUE, such as 'Cookie: a=b'")))?;
            named.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        if authority.contains('@') {
            return Err(wrong(&format!("{url:?} has a user name, which clients send in a field of its own")));
        }
        // A Host field takes precedence, as on the wire.
        let host = named.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map(|(_, value)| value.clone());
        if authority.is_empty() && host.is_none() {
            return Err(wrong(&format!("{url:?} has no host")));
        }
        Ok(Self {
            method: method.to_ascii_uppercase(),
            scheme,
            authority: host.unwrap_or_else(|| authority.to_owned()),
            path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
            query,
            fields: named,
            client,
        })
    }

    /// The head as an HTTP/1.1 client sends it.
    fn head(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target(), self.authority);
        for (name, value) in self.fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// Path and query.
    fn target(&self) -> String {
        let query = self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}{query}", self.path)
    }

    fn asked(&self) -> account::Asked {
        account::Asked {
            method: self.method.clone(),
            url: format!("{}://{}{}", self.scheme, self.authority, self.target()),
            client: self.client,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, url: &str, fields: &[&str]) -> Result<Request, UsageError> {
        let fields: Vec<_> = fields.iter().map(ToString::to_string).collect();
        Request::parse(method, url, &fields, Ipv4Addr::LOCALHOST.into())
    }

    #[test]
    fn requests_are_read_as_a_client_would_send_them() {
        let request = parse("get", "HTTPS://a.example:8443?x=1#frag", &["host: b", "a:b:c"]).unwrap();
        assert_eq!((request.method.as_str(), request.scheme, request.authority.as_str()), ("GET", Scheme::Https, "b"));
        assert_eq!((request.path.as_str(), request.query.as_deref()), ("/", Some("x=1")));
        assert_eq!(request.fields[1], ("a".into(), "b:c".into()));
    }

    #[test]
    fn a_word_before_the_url_is_a_method_unless_it_is_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().to_str().unwrap();
        for (words, paths, method) in [
            (&["http://a"][..], &[][..], "GET"),
            (&["POST", "http://a"], &[], "POST"),
            (&["post", "http://a"], &[], "post"),
            (&["a.yaml", "http://a"], &["a.yaml"], "GET"),
            (&["no-such-folder", "http://a"], &["no-such-folder"], "GET"),
            (&["a.yaml", "M-SEARCH", "http://a"], &["a.yaml"], "M-SEARCH"),
            (&[folder, "http://a"], &[folder], "GET"),
        ] {
            let words: Vec<_> = words.iter().map(ToString::to_string).collect();
            assert_eq!(split(&words).unwrap(), (&words[..paths.len()], method, "http://a"), "{words:?}");
        }
        // A folder here, whose name could be a method.
        assert_eq!(split(&["src".to_owned(), "http://a".to_owned()]).unwrap().1, "GET");
    }

    #[test]
    fn what_is_no_request_is_told() {
        for (method, url, field) in [("G T", "http://a", "a:b"), ("GET", "a/b", "a:b"), ("GET", "http://a", "ab")] {
            assert!(
                parse(method, url, &[field]).unwrap_err().to_string().contains("expected"),
                "{method} {url} {field}"
            );
        }
    }
}
