//! Kubernetes' syntax of names, keys and ports. Each function describes a text's flaw, in the API server's words.

use std::net::IpAddr;

/// Longest DNS subdomain, and longest key of a ConfigMap or Secret.
const SUBDOMAIN: usize = 253;
/// Longest label of a DNS name, and longest name part of a key.
const LABEL: usize = 63;
/// Longest name of a pod's port.
const PORT_NAME: usize = 15;

const WRONG_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with \
                           an alphanumeric character";
const WRONG_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
                               and end with an alphanumeric character";
const WRONG_WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of \
                              lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
const TOO_LONG_LABEL: &str = "must be no more than 63 bytes";
const TOO_LONG_SUBDOMAIN: &str = "must be no more than 253 bytes";

/// `None` if the text is valid.
pub(in super::super) type Flaw = Option<&'static str>;

/// The name of a Namespace, of a Service, or of a Service's port.
pub(super) fn label(text: &str) -> Flaw {
    match text {
        _ if text.len() > LABEL => Some(TOO_LONG_LABEL),
        _ if is_label(text) => None,
        _ if is_subdomain(text) => Some("must not contain dots"),
        _ => Some(WRONG_LABEL),
    }
}

/// The name of any other object.
pub(in super::super) fn subdomain(text: &str) -> Flaw {
    match text {
        _ if text.len() > SUBDOMAIN => Some(TOO_LONG_SUBDOMAIN),
        _ if is_subdomain(text) => None,
        _ => Some(WRONG_SUBDOMAIN),
    }
}

/// A host of an Ingress. A `tls` section may list an address, a rule may not.
pub(super) fn host(text: &str) -> Flaw {
    if !text.contains('*') {
        return subdomain(text);
    }
    match text.strip_prefix("*.") {
        _ if text.len() > SUBDOMAIN => Some(TOO_LONG_SUBDOMAIN),
        Some(rest) if is_subdomain(rest) => None,
        _ => Some(WRONG_WILDCARD),
    }
}

/// The host of a rule.
pub(super) fn rule_host(text: &str) -> Flaw {
    if text.parse::<IpAddr>().is_ok() { Some("must be a DNS name, not an IP address") } else { host(text) }
}

/// The number of a port.
pub(super) fn port_number(number: i32) -> Flaw {
    (!(1..=65535).contains(&number)).then_some("must be between 1 and 65535, inclusive")
}

/// The name of a pod's port, which Services and Ingresses refer to.
pub(super) fn port_name(text: &str) -> Flaw {
    let letter_or_digit = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    match text {
        _ if text.len() > PORT_NAME => Some("must be no more than 15 characters"),
        _ if !text.bytes().all(|b| letter_or_digit(b) || b == b'-') || text.is_empty() => {
            Some("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
        }
        _ if !text.bytes().any(|b| b.is_ascii_lowercase()) => Some("must contain at least one letter (a-z)"),
        _ if text.contains("--") => Some("must not contain consecutive hyphens"),
        _ if text.starts_with('-') || text.ends_with('-') => Some("must not begin or end with a hyphen"),
        _ => None,
    }
}

/// The key of a label or annotation: a name, optionally after a domain and a slash.
pub(in super::super) fn qualified_name(text: &str) -> Flaw {
    let (prefix, name) = match text.split_once('/') {
        Some((_, name)) if name.contains('/') => {
            return Some(
                "a valid label key has a name and optionally a DNS subdomain and '/' before it (e.g. 'example.com/MyName')",
            );
        }
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    match prefix {
        Some("") => return Some("prefix part must be non-empty"),
        Some(prefix) if subdomain(prefix).is_some() => {
            return Some("prefix part must be a lowercase RFC 1123 subdomain, such as example.com");
        }
        _ => {}
    }
    match name {
        "" => Some("name part must be non-empty"),
        _ if name.len() > LABEL => Some("name part must be no more than 63 bytes"),
        _ if is_key_name(name) => None,
        _ => Some(
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
        ),
    }
}

/// The value of a label.
pub(super) fn label_value(text: &str) -> Flaw {
    match text {
        "" => None,
        _ if text.len() > LABEL => Some(TOO_LONG_LABEL),
        _ if is_key_name(text) => None,
        _ => Some(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
             alphanumeric character",
        ),
    }
}

/// A key in the data of a ConfigMap or Secret.
pub(super) fn data_key(text: &str) -> Flaw {
    match text {
        _ if text.len() > SUBDOMAIN => Some("must be no more than 253 characters"),
        "." => Some("must not be '.'"),
        ".." => Some("must not be '..'"),
        _ if text.starts_with("..") => Some("must not start with '..'"),
        _ if !text.is_empty() && text.bytes().all(is_key_byte) => None,
        _ => Some("a valid config key must consist of alphanumeric characters, '-', '_' or '.'"),
    }
}

/// A name that is used as a URL path segment.
pub(super) fn path_segment(text: &str) -> Flaw {
    match text {
        "." => Some("may not be '.'"),
        ".." => Some("may not be '..'"),
        _ if text.contains('/') => Some("may not contain '/'"),
        _ if text.contains('%') => Some("may not contain '%'"),
        _ => None,
    }
}

/// The controller of an IngressClass.
pub(super) fn domain_prefixed_path(text: &str) -> Flaw {
    let path_byte = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
    match text.split_once('/') {
        None | Some(("", _) | (_, "")) => Some("must be a domain-prefixed path (such as \"acme.io/foo\")"),
        Some((domain, _)) if subdomain(domain).is_some() => subdomain(domain),
        Some((_, path)) if path.bytes().all(path_byte) => None,
        Some(_) => Some("Invalid path"),
    }
}

fn is_label(text: &str) -> bool {
    let letter_or_digit = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(letter_or_digit)
        && bytes.last().is_some_and(letter_or_digit)
        && bytes.iter().all(|b| letter_or_digit(b) || *b == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_key_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-_.".contains(&b)
}

fn is_key_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| is_key_byte(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks valid and invalid texts.
    fn separates(syntax: fn(&str) -> Flaw, good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(syntax(text), None, "{text}");
        }
        for text in bad {
            assert!(syntax(text).is_some(), "{text}");
        }
    }

    #[test]
    fn names_and_hosts() {
        let (long, longer) = ("a".repeat(63), "a".repeat(64));
        let names = vec!["a".repeat(49); 5].join(".");
        separates(label, &["a", "0", "a-b", &long], &["", "A", "a.b", "-a", "a-", "a_b", &longer]);
        separates(
            subdomain,
            &["a", "a.b", "1.2.3.4", &longer, &names],
            &["", ".a", "a.", "a..b", "a.-b", "A", "a_b", &format!("{names}.bbbbb")],
        );
        separates(host, &["a.b", "*.a", "*.a.b", "10.0.0.1"], &["*", "*.", "a.*", "*.*.a", "*a.b", "**.a", "*.A"]);
        separates(rule_host, &["a.b", "*.a"], &["10.0.0.1", "::1", "*", "A.b", "a b", "a.b:80", "https://a.b"]);
    }

    #[test]
    fn ports() {
        separates(
            port_name,
            &["http", "h2", "a-b", "2h"],
            &["", "80", "-a", "a-", "a--b", "Http", "a.b", "sixteencharacter"],
        );
        for (number, well) in [(-1, false), (0, false), (1, true), (65535, true), (65536, false)] {
            assert_eq!(port_number(number).is_none(), well, "{number}");
        }
    }

    #[test]
    fn keys_and_labels() {
        let (long, longer) = (format!("a.b/{}", "n".repeat(63)), format!("a.b/{}", "n".repeat(64)));
        separates(
            qualified_name,
            &["a", "A_b.c", "a.b/C", &long],
            &["", "/a", "a/", "a/b/c", "A.b/c", "a b", "-a", "a_", &longer],
        );
        separates(label_value, &["", "a", "A_b.c", &"n".repeat(63)], &["a b", "-a", "a/b", &"n".repeat(64)]);
        separates(
            data_key,
            &["a", "tls.crt", "A_b-c", ".a", "-a"],
            &["", ".", "..", "..a", "a b", "a/b", &"k".repeat(254)],
        );
        separates(path_segment, &["a", "A b"], &[".", "..", "a/b", "a%b"]);
        separates(
            domain_prefixed_path,
            &["k8s.io/ingress-nginx", "a/b/c"],
            &["", "a", "a/", "/a", "A/b", "a/b c", "a/ü"],
        );
    }
}
