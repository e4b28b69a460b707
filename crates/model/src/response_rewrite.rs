//! Rewrites of what a backend's response says about its own addresses: redirects, and the scope of cookies.

use serde::{Deserialize, Serialize};

use crate::{FieldName, FieldSink, Fields, KnownField, KnownSet, SearchRegex};

const LOCATION: FieldName<'_> = FieldName::from_static("Location");
const REFRESH: FieldName<'_> = FieldName::from_static("Refresh");
const SET_COOKIE: FieldName<'_> = FieldName::from_static("Set-Cookie");

/// Rewrites of the fields of a response.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct ResponseRewrites {
    /// The start of URLs in Location and Refresh (nginx `proxy_redirect`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Replacement>,
    /// The Domain of cookies, as a whole and in any letter case (nginx `proxy_cookie_domain`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_domain: Option<Replacement>,
    /// The start of the Path of cookies (nginx `proxy_cookie_path`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_path: Option<Replacement>,
    /// Attributes of cookies; the first rule for a cookie counts (nginx `proxy_cookie_flags`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cookie_flags: Vec<CookieFlags>,
}

/// Changes to the attributes of some cookies.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct CookieFlags {
    /// The cookies.
    pub cookies: Cookies,
    /// Whether Secure is set or removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure: Option<bool>,
    /// Whether HttpOnly is set or removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_only: Option<bool>,
    /// The value of SameSite; empty to remove it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_site: Option<Box<str>>,
}

/// Cookies, by name.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum Cookies {
    /// All of them.
    #[default]
    All,
    /// The one with this name, in any letter case.
    Named(Box<str>),
    /// Those whose name contains a match of a pattern.
    Matching(SearchRegex),
}

impl Cookies {
    fn contain(&self, name: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Named(own) => own.as_bytes().eq_ignore_ascii_case(name),
            Self::Matching(pattern) => pattern.is_match(name),
        }
    }
}

impl CookieFlags {
    /// Writes a cookie with other attributes.
    fn write(&self, value: &[u8], out: &mut Vec<u8>) {
        let (mut secure, mut http_only, mut same_site) = (false, false, false);
        for (at, part) in value.split(|&byte| byte == b';').enumerate() {
            let part = part.trim_ascii();
            let name = part.split(|&byte| byte == b'=').next().unwrap_or_default().trim_ascii();
            let is = |attribute: &str| at > 0 && name.eq_ignore_ascii_case(attribute.as_bytes());
            if is("Secure") {
                secure = true;
                if self.secure == Some(false) {
                    continue;
                }
            } else if is("HttpOnly") {
                http_only = true;
                if self.http_only == Some(false) {
                    continue;
                }
            } else if is("SameSite") && self.same_site.is_some() {
                if !std::mem::replace(&mut same_site, true) {
                    self.write_same_site(out);
                }
                continue;
            }
            if at > 0 {
                out.extend_from_slice(b"; ");
            }
            out.extend_from_slice(part);
        }
        if self.secure == Some(true) && !secure {
            out.extend_from_slice(b"; Secure");
        }
        if self.http_only == Some(true) && !http_only {
            out.extend_from_slice(b"; HttpOnly");
        }
        if !same_site {
            self.write_same_site(out);
        }
    }

    fn write_same_site(&self, out: &mut Vec<u8>) {
        if let Some(value) = self.same_site.as_ref().filter(|value| !value.is_empty()) {
            out.extend_from_slice(b"; SameSite=");
            out.extend_from_slice(value.as_bytes());
        }
    }
}

/// A text and its replacement.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Replacement {
    /// The text.
    pub from: Box<str>,
    /// Its replacement.
    pub to: Box<str>,
}

impl ResponseRewrites {
    /// Whether nothing is rewritten.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The fields that [`write`](Self::write) writes in place of the received ones.
    pub fn fields(&self) -> KnownSet {
        let mut fields = KnownSet::EMPTY;
        if self.redirect.is_some() {
            fields = fields.with(KnownField::Location).with(KnownField::Refresh);
        }
        if self.cookie_domain.is_some() || self.cookie_path.is_some() || !self.cookie_flags.is_empty() {
            fields = fields.with(KnownField::SetCookie);
        }
        fields
    }

    /// Writes the rewritten fields of a response, except those in `gone`.
    pub fn write<'f, F: Fields<'f>, S: FieldSink<F>>(
        &self,
        fields: F,
        gone: KnownSet,
        sink: &mut S,
        text: &mut Vec<u8>,
    ) {
        let written = self.fields() - gone;
        for (field, name) in
            [(KnownField::Location, LOCATION), (KnownField::Refresh, REFRESH), (KnownField::SetCookie, SET_COOKIE)]
        {
            if written.contains(field) {
                for value in fields.all(field) {
                    text.clear();
                    match field {
                        KnownField::Location => self.location(value, text),
                        KnownField::Refresh => self.refresh(value, text),
                        _ => self.cookie(value, text),
                    }
                    sink.field(name, text);
                }
            }
        }
    }

    fn location(&self, url: &[u8], out: &mut Vec<u8>) {
        start(self.redirect.as_ref(), url, out);
    }

    fn refresh(&self, value: &[u8], out: &mut Vec<u8>) {
        let at = value.windows(4).position(|part| part.eq_ignore_ascii_case(b"url=")).map_or(value.len(), |at| at + 4);
        out.extend_from_slice(&value[..at]);
        self.location(&value[at..], out);
    }

    fn cookie(&self, value: &[u8], out: &mut Vec<u8>) {
        let name = value.split(|&byte| matches!(byte, b'=' | b';')).next().unwrap_or_default().trim_ascii();
        match self.cookie_flags.iter().find(|flags| flags.cookies.contain(name)) {
            Some(flags) => {
                let mut flagged = Vec::new();
                flags.write(value, &mut flagged);
                self.scope(&flagged, out);
            }
            None => self.scope(value, out),
        }
    }

    /// Writes a cookie with another domain and path.
    fn scope(&self, value: &[u8], out: &mut Vec<u8>) {
        for (at, part) in value.split(|&byte| byte == b';').enumerate() {
            if at > 0 {
                out.push(b';');
            }
            let Some(equals) = part.iter().position(|&byte| byte == b'=').filter(|_| at > 0) else {
                out.extend_from_slice(part);
                continue;
            };
            let (name, attribute) = (part[..equals].trim_ascii(), part[equals + 1..].trim_ascii());
            out.extend_from_slice(&part[..=equals]);
            if name.eq_ignore_ascii_case(b"Domain") {
                let bare = |domain: &'_ [u8]| domain.strip_prefix(b".").unwrap_or(domain).to_ascii_lowercase();
                let replaced =
                    self.cookie_domain.as_ref().filter(|domain| bare(domain.from.as_bytes()) == bare(attribute));
                out.extend_from_slice(replaced.map_or(attribute, |domain| domain.to.as_bytes()));
            } else if name.eq_ignore_ascii_case(b"Path") {
                start(self.cookie_path.as_ref(), attribute, out);
            } else {
                out.extend_from_slice(&part[equals + 1..]);
            }
        }
    }
}

/// Appends a text with its start replaced, if it is the one to replace.
fn start(replacement: Option<&Replacement>, text: &[u8], out: &mut Vec<u8>) {
    let rest = replacement.and_then(|own| Some((own, text.strip_prefix(own.from.as_bytes())?)));
    match rest {
        Some((own, rest)) => {
            out.extend_from_slice(own.to.as_bytes());
            out.extend_from_slice(rest);
        }
        None => out.extend_from_slice(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(from: &str, to: &str) -> Option<Replacement> {
        Some(Replacement { from: from.into(), to: to.into() })
    }

    fn rewritten(rewrite: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        rewrite(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_start_of_a_redirect_is_replaced() {
        let rewrites =
            ResponseRewrites { redirect: pair("http://web:80/", "https://shop.example/"), ..Default::default() };
        for (value, expected) in [
            ("http://web:80/a?b", "https://shop.example/a?b"),
            ("http://web/a", "http://web/a"),
            ("/a", "/a"),
            ("", ""),
        ] {
            assert_eq!(rewritten(|out| rewrites.location(value.as_bytes(), out)), expected);
        }
        for (value, expected) in
            [("5; URL=http://web:80/a", "5; URL=https://shop.example/a"), ("5", "5"), ("0;url=", "0;url=")]
        {
            assert_eq!(rewritten(|out| rewrites.refresh(value.as_bytes(), out)), expected);
        }
    }

    #[test]
    fn only_attributes_of_a_cookie_are_replaced() {
        let rewrites = ResponseRewrites {
            cookie_domain: pair("web.internal", "shop.example"),
            cookie_path: pair("/app/", "/"),
            ..Default::default()
        };
        for (value, expected) in [
            ("a=b; Path=/app/x; HttpOnly", "a=b; Path=/x; HttpOnly"),
            ("Path=/app/; path = /app/; domain=.WEB.internal", "Path=/app/; path =/; domain=shop.example"),
            ("a=b; Domain=x.web.internal; Path=/other/app/", "a=b; Domain=x.web.internal; Path=/other/app/"),
            ("a=b;Secure;;Expires=Thu, 01 Jan 2026 00:00:00 GMT", "a=b;Secure;;Expires=Thu, 01 Jan 2026 00:00:00 GMT"),
        ] {
            assert_eq!(rewritten(|out| rewrites.cookie(value.as_bytes(), out)), expected);
        }
    }

    #[test]
    fn attributes_are_set_and_removed_and_the_first_rule_counts() {
        let named = |name: &str| CookieFlags { cookies: Cookies::Named(name.into()), ..CookieFlags::default() };
        let flags = |own: CookieFlags| ResponseRewrites { cookie_flags: vec![own], ..Default::default() };
        let both = CookieFlags { secure: Some(true), http_only: Some(true), ..CookieFlags::default() };
        let first = ResponseRewrites { cookie_flags: vec![named("SID"), both.clone()], ..Default::default() };
        let lax = CookieFlags { same_site: Some("Lax".into()), ..CookieFlags::default() };
        let none = CookieFlags {
            cookies: Cookies::Matching("^s".parse().unwrap()),
            secure: Some(false),
            http_only: Some(false),
            same_site: Some("".into()),
        };
        for (rewrites, value, expected) in [
            (flags(both.clone()), "a=b; Path=/", "a=b; Path=/; Secure; HttpOnly"),
            (flags(both), "a=b;secure;Path=/;HTTPONLY", "a=b; secure; Path=/; HTTPONLY"),
            (first.clone(), "sid=b", "sid=b"),
            (first, "Secure=b", "Secure=b; Secure; HttpOnly"),
            (flags(lax.clone()), "a=b; SameSite=None; Secure", "a=b; SameSite=Lax; Secure"),
            (flags(lax), "a=b", "a=b; SameSite=Lax"),
            (flags(none.clone()), "sid=b; Secure; HttpOnly; SameSite=Strict; Path=/", "sid=b; Path=/"),
            (flags(none), "a=b; Secure", "a=b; Secure"),
        ] {
            assert_eq!(rewritten(|out| rewrites.cookie(value.as_bytes(), out)), expected, "{value}");
        }
    }
}
