//! The target sent to an endpoint after a rewrite, and the locations of redirects.

use super::{Failure, Received, Scratch};
use crate::client::ClientView;
use crate::{
    CaptureTemplate, Fields, HttpsRedirect, Location, PathMatch, PathReplacement, Redirect, RedirectBase, Rewrite,
    Route, Scheme, Target, TooLong, UrlParts, decimal, path,
};

/// Replaces the path. The result must be canonical too: otherwise the backend could read a path that was never matched.
pub(super) fn rewrite(rewrite: &Rewrite, route: &Route, limit: usize, scratch: &mut Scratch) -> Result<(), Failure> {
    let Scratch { matched, prefix, expanded, .. } = scratch;
    expanded.clear();
    expanded.push(b'/');
    if !expand(&rewrite.target, route, matched, limit, expanded)? {
        return Ok(());
    }
    if let Some(template) = &rewrite.forwarded_prefix {
        expand(template, route, matched, limit, prefix)?;
    }
    if expanded.get(1) == Some(&b'/') {
        expanded.remove(0);
    }
    send_to(limit, scratch)
}

/// Replaces the path or its matched prefix. The result must be canonical too.
pub(super) fn replace(
    replacement: &PathReplacement,
    route: &Route,
    limit: usize,
    scratch: &mut Scratch,
) -> Result<(), Failure> {
    scratch.expanded.clear();
    replaced(replacement, route, &scratch.matched, &mut scratch.expanded);
    send_to(limit, scratch)
}

/// Makes the expanded path the one to send and to match from now on.
fn send_to(limit: usize, scratch: &mut Scratch) -> Result<(), Failure> {
    let Scratch { path, matched, target, expanded, .. } = scratch;
    target.clear();
    let is_canonical = path::encode_replaced(expanded, target, path);
    if target.len() > limit {
        return Err(TooLong.into());
    }
    if !is_canonical {
        return Err(Failure::Rewritten);
    }
    std::mem::swap(matched, expanded);
    Ok(())
}

/// Appends the replaced path: the value replaces the matched prefix, both without a trailing slash, and the rest keeps its slash.
fn replaced(replacement: &PathReplacement, route: &Route, matched: &[u8], out: &mut Vec<u8>) {
    let prefix = match &route.path {
        PathMatch::Prefix(prefix) => prefix.trim_end_matches('/'),
        PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Start(_) => "",
    };
    replacement.append(matched.strip_prefix(prefix.as_bytes()).unwrap_or(matched), out);
}

/// Appends the expansion of a template for a path, with the groups of the route's pattern if it has one. `false` if
/// that doesn't match.
fn expand(
    template: &CaptureTemplate,
    route: &Route,
    path: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<bool, TooLong> {
    match &route.path {
        PathMatch::Regex(regex) => regex.rewrite(path, template, limit, out),
        PathMatch::Exact(_) | PathMatch::Prefix(_) | PathMatch::Start(_) => {
            template.expand(|_| &[], limit, out).map(|()| true)
        }
    }
}

/// Appends `https://`, the host without port, the redirect's port and the target as received, without one trailing
/// slash.
pub(super) fn to_https<'a, F: Fields<'a>>(redirect: &HttpsRedirect, received: &Received<'a, F>, scratch: &mut Scratch) {
    let Scratch { client, location, .. } = scratch;
    location.clear();
    location.extend_from_slice(b"https://");
    location.extend_from_slice(without_port(client.host()));
    if let Some(port) = redirect.port {
        location.push(b':');
        decimal::number(port.into(), location);
    }
    push_target(received, redirect.preserve_trailing_slash, location);
}

pub(super) fn locate<'a, F: Fields<'a>>(
    redirect: &Redirect,
    route: &Route,
    limit: usize,
    received: &Received<'a, F>,
    scratch: &mut Scratch,
) -> Result<(), TooLong> {
    let Scratch { client, location, expanded, matched, target, .. } = scratch;
    location.clear();
    let origin = |location: &mut Vec<u8>, scheme: Scheme, host: &[u8]| {
        for part in [scheme.as_str().as_bytes(), b"://", host] {
            location.extend_from_slice(part);
        }
    };
    let base = |location: &mut Vec<u8>| {
        let host = match redirect.base {
            RedirectBase::Nothing => return,
            RedirectBase::HostAndPort => client.host(),
            RedirectBase::Host | RedirectBase::Listener => without_port(client.host()),
        };
        origin(location, client.scheme(), host);
        if redirect.base == RedirectBase::Listener {
            // A trusted peer that ended TLS knows the port better than our listener.
            let Received { arrival, .. } = received;
            let port = if arrival.scheme == client.scheme() { arrival.local.port() } else { client.forwarded_port() };
            if port != client.scheme().default_port() {
                location.push(b':');
                decimal::number(port.into(), location);
            }
        }
    };
    match &redirect.location {
        Location::Fixed(text) => {
            if text.starts_with('/') {
                base(location);
            }
            location.extend_from_slice(text.as_bytes());
        }
        Location::Captures(template) => {
            expanded.clear();
            expand(template, route, matched, limit, expanded)?;
            // Groups are parts of the canonical path: bytes not allowed in a URI are encoded, so that no value can end
            // the field.
            path::encode(expanded, location);
            push_query(received, location);
        }
        Location::AppRoot(path) => {
            // `$scheme://$http_host` of the template: the request's own values, regardless of trust.
            let host = received.head.authority.map_or(client.host(), |authority| authority.text);
            origin(location, received.arrival.scheme, host);
            location.extend_from_slice(path.as_bytes());
        }
        Location::AppendSlash => {
            base(location);
            location.extend_from_slice(target);
            location.push(b'/');
            push_query(received, location);
        }
        Location::OtherHost(name) => {
            for part in [client.scheme().as_str(), "://", name.as_str(), ":"] {
                location.extend_from_slice(part.as_bytes());
            }
            decimal::number(client.forwarded_port().into(), location);
            push_target(received, false, location);
        }
        Location::Parts(parts) => {
            let scheme = parts.scheme.unwrap_or(client.scheme());
            let host = parts.host.as_ref().map_or(without_port(client.host()), |host| host.as_str().as_bytes());
            origin(location, scheme, host);
            push_port(parts, scheme, client, location);
            match &parts.path {
                Some(path) => {
                    expanded.clear();
                    replaced(path, route, matched, expanded);
                    path::encode(expanded, location);
                }
                None => location.extend_from_slice(target),
            }
            push_query(received, location);
        }
    }
    Ok(())
}

/// Appends the port of a redirect, unless the scheme makes it needless.
fn push_port(parts: &UrlParts, scheme: Scheme, client: &ClientView, location: &mut Vec<u8>) {
    let named = || {
        let host = client.host();
        let digits = &host[without_port(host).len()..];
        std::str::from_utf8(digits.get(1..)?).ok()?.parse().ok()
    };
    let port = parts.port.or_else(|| if parts.scheme.is_some() { None } else { named() });
    if let Some(port) = port.filter(|port| *port != scheme.default_port()) {
        location.push(b':');
        decimal::number(port.into(), location);
    }
}

fn push_query<'a, F: Fields<'a>>(received: &Received<'a, F>, out: &mut Vec<u8>) {
    if let Some(query) = received.head.query() {
        out.push(b'?');
        out.extend_from_slice(query);
    }
}

/// Appends the target as the client sent it, reduced to path and query, without one trailing slash unless that is to be
/// kept.
fn push_target<'a, F: Fields<'a>>(received: &Received<'a, F>, keep_slash: bool, out: &mut Vec<u8>) {
    if let Target::Path(path, _) = received.head.target {
        out.extend_from_slice(path);
    }
    push_query(received, out);
    if !keep_slash && out.last() == Some(&b'/') {
        out.pop();
    }
}

pub(super) fn without_port(host: &[u8]) -> &[u8] {
    let from = memchr::memrchr(b']', host).unwrap_or(0);
    match memchr::memrchr(b':', &host[from..]) {
        Some(colon) => &host[..from + colon],
        None => host,
    }
}
