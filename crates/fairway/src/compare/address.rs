//! One of the two addresses, as written on the command line: a name or IP address, and a port for each scheme.

use std::fmt;
use std::str::FromStr;

use fairway_model::Scheme;

/// Where to send requests. Connections go nowhere else.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Address {
    /// A name that DNS knows, or an IP address without brackets.
    pub(super) name: String,
    http: Option<u16>,
    https: Option<u16>,
}

impl Address {
    /// The port for a scheme; `None` if the user named none.
    pub(super) fn port(&self, scheme: Scheme) -> Option<u16> {
        match scheme {
            Scheme::Http => self.http,
            Scheme::Https => self.https,
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            format!(
                "expected ADDRESS, ADDRESS:PORT or ADDRESS:PORT,TLS-PORT, such as 127.0.0.1:8080,8443, not {text:?}"
            )
        };
        if text.contains("://") {
            return Err(format!("{}: write the address without scheme and path", expected()));
        }
        let (name, ports) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or_else(expected)?,
            None if text.matches(':').count() > 1 => (text, ""),
            None => text.find(':').map_or((text, ""), |colon| text.split_at(colon)),
        };
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.:%".contains(&b);
        if name.is_empty() || !name.bytes().all(fits) {
            return Err(expected());
        }
        let port = |text: &str| match text {
            "" => Ok(None),
            digits => digits.parse().ok().filter(|port| *port != 0).map(Some).ok_or_else(expected),
        };
        let (http, https) = match ports.strip_prefix(':') {
            None if ports.is_empty() => (Some(80), Some(443)),
            None => return Err(expected()),
            Some(ports) => {
                let (http, https) = ports.split_once(',').unwrap_or((ports, ""));
                (port(http)?, port(https)?)
            }
        };
        if http.is_none() && https.is_none() {
            return Err(expected());
        }
        Ok(Self { name: name.to_owned(), http, https })
    }
}

/// As written, with the default ports left out.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]", self.name)?;
        } else {
            write!(f, "{}", self.name)?;
        }
        match (self.http, self.https) {
            (Some(80), Some(443)) => Ok(()),
            (Some(http), None) => write!(f, ":{http}"),
            (http, https) => {
                let text = |port: Option<u16>| port.map(|port| port.to_string()).unwrap_or_default();
                write!(f, ":{},{}", text(http), text(https))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port_for_each_scheme() {
        for (text, name, http, https) in [
            ("192.0.2.1", "192.0.2.1", Some(80), Some(443)),
            ("lb.example.com", "lb.example.com", Some(80), Some(443)),
            ("127.0.0.1:8080,8443", "127.0.0.1", Some(8080), Some(8443)),
            ("127.0.0.1:8080", "127.0.0.1", Some(8080), None),
            ("localhost:,8443", "localhost", None, Some(8443)),
            ("[::1]:1,2", "::1", Some(1), Some(2)),
            ("[2001:db8::1]", "2001:db8::1", Some(80), Some(443)),
            ("2001:db8::1", "2001:db8::1", Some(80), Some(443)),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.name.as_str(), address.http, address.https), (name, http, https), "{text}");
            assert_eq!(address.to_string().parse::<Address>().unwrap(), address, "{text}");
        }
        for text in ["", ":80", "a:0", "a:x", "a:1,2,3", "[::1", "http://a", "a/b", "a b", "a:", "[::1]80"] {
            assert!(text.parse::<Address>().unwrap_err().contains("expected ADDRESS"), "{text}");
        }
    }
}
