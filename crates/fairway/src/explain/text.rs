//! An account as text for people: the answer and why, then the trace.

use std::fmt::Write as _;

use fairway_proxy::http::reason;

use super::account::{Account, Answer, By, Endpoint, FilterEffect, Forwarded, PassedThrough, RouteName, Share};
use super::backend_tls;
use crate::terminal::{Style, Terminal, count, printable};

/// Maximum number of routes and endpoints shown one by one.
const SHOWN: usize = 10;

/// The whole text.
pub(crate) fn render(account: &Account, terminal: Terminal) -> String {
    let mut page = Page { terminal, out: String::new() };
    page.answer(&account.answer);
    let asked = &account.request;
    page.line("Request", &format!("{} {} from {}", asked.method, asked.url, asked.client));
    if account.client.trusted || account.client.address != asked.client {
        let client = &account.client;
        let trust = if client.trusted { "the peer is trusted" } else { "only the address is taken from the peer" };
        page.line("Client", &format!("{} for {}://{}: {trust}", client.address, client.scheme, client.host));
    }
    if let Some(passed) = &account.passthrough {
        page.passthrough(passed);
    } else if asked.url.starts_with("https:") {
        let certificate = account.certificate.as_deref().unwrap_or("by default, since none covers the host");
        page.line("TLS", &format!("certificate {certificate}"));
    }
    if let Some(path) = account.path.as_ref().filter(|path| !asked.url.contains(path.as_str())) {
        page.line("Path", &format!("{path} in canonical form: routes are matched on that"));
    }
    if let Some(host) = &account.host {
        page.line("Host", &format!("{}, {}", host.pattern, host.why));
    }
    if let Some(route) = &account.route {
        page.line("Route", &named(&route.name));
        page.line("", &route.why);
        for other in route.beaten.iter().take(SHOWN) {
            page.line("", &format!("before {}", named(other)));
        }
        page.more(route.beaten.len());
        for policy in &route.policies {
            let place = at_place(policy.file.as_deref(), policy.line);
            page.line("Policy", &format!("{} of {}{place}", policy.members.join(", "), policy.object));
        }
    }
    for (at, filter) in account.filters.iter().enumerate() {
        let effect = match filter.effect {
            FilterEffect::Passed => "",
            FilterEffect::Answered => " (answers this request)",
            FilterEffect::NotReached => " (not reached)",
        };
        page.line(if at == 0 { "Filters" } else { "" }, &format!("{}. {}{effect}", at + 1, filter.text));
    }
    if let Some(forward) = &account.forward {
        page.forward(forward);
    }
    for (at, field) in account.response.iter().enumerate() {
        let value = field.value.as_ref().map(|value| format!(": {value}")).unwrap_or_default();
        page.line(if at == 0 { "Response" } else { "" }, &format!("{} {}{value}", field.change, field.name));
    }
    for (at, finding) in account.findings.iter().enumerate() {
        page.line(if at == 0 { "Findings" } else { "" }, finding);
    }
    for left in &account.left_out {
        let place = at_place(left.file.as_deref(), left.line);
        page.line("Not loaded", &format!("{}{place} names the host: {}", left.object, left.why));
    }
    for other in account.elsewhere.iter().take(SHOWN) {
        let place = at_place(other.file.as_deref(), other.line);
        page.line("Elsewhere", &format!("{}{place} names the host {}", other.object, other.why));
    }
    page.out
}

/// The text so far.
struct Page {
    terminal: Terminal,
    out: String,
}

impl Page {
    fn answer(&mut self, answer: &Answer) {
        let what = match (answer.by, answer.status, &answer.location) {
            (By::Backend, ..) => "by the backend".to_owned(),
            (_, Some(status), Some(location)) => format!("{status} {} to {location}", reason(status)),
            (_, Some(status), None) => format!("{status} {}", reason(status)),
            (_, None, _) => "none".to_owned(),
        };
        let name = answer.reason.map(|reason| format!(" [{reason}]")).unwrap_or_default();
        self.line("Answer", &format!("{what}: {}{name}", answer.why));
    }

    fn forward(&mut self, forward: &Forwarded) {
        if let Some(sent) = &forward.request {
            self.line("Forward", &format!("{} {} to {}", sent.method, sent.target, forward.backend));
        }
        if let Some(other) = &forward.in_place_of {
            self.line("", &format!("in place of {other}, which has no endpoint"));
        }
        let all: u64 = forward.shares.iter().map(|share| u64::from(share.weight)).sum();
        for (at, Share { backend, weight }) in forward.shares.iter().enumerate() {
            let what = backend.as_deref().unwrap_or("no valid backend: an error");
            self.line(if at == 0 { "Shares" } else { "" }, &format!("{weight} of {all} requests to {what}"));
        }
        if forward.service.is_empty() {
            self.line("Backend", &format!("{} does not exist", forward.backend));
        } else {
            let place = at_place(forward.file.as_deref(), forward.line);
            self.line("Backend", &format!("{}, port {}{place}", forward.service, forward.port));
            self.line("", &forward.choice);
        }
        if let Some(tls) = &forward.tls {
            self.line("", &format!("over TLS: {}", backend_tls::text(tls)));
        }
        self.endpoints(&forward.endpoints);
        let limits = &forward.limits;
        let tries =
            limits.tries.map_or("any number of tries".to_owned(), |tries| count(tries as usize, "try", "tries"));
        let body = limits.max_body.map_or("any size".to_owned(), |bytes| format!("at most {bytes} bytes"));
        let statuses = limits.retried_statuses.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        let tries = if statuses.is_empty() { tries } else { format!("{tries}, also after {statuses}") };
        let mut times = format!(
            "connect {} s, send {} s, read {} s",
            limits.connect_timeout, limits.send_timeout, limits.read_timeout
        );
        if let Some(time) = limits.response_within {
            times += &format!(", response within {time} s");
        }
        self.line("Limits", &format!("{times}; {tries}; body {body}"));
        for (at, field) in forward.request.iter().flat_map(|sent| &sent.fields).enumerate() {
            self.line(if at == 0 { "Fields" } else { "" }, &format!("{}: {}", field.name, field.value));
        }
    }

    fn passthrough(&mut self, passed: &PassedThrough) {
        let header = if passed.proxy_header { ", after a PROXY header" } else { "" };
        let what = if passed.terminated { "ends at the proxy" } else { "passed through" };
        self.line("TLS", &format!("{what}, for {}{header}; no filters apply", passed.object));
        if passed.backend.is_none() {
            return;
        }
        let place = at_place(passed.file.as_deref(), passed.line);
        self.line("Backend", &format!("{}, port {}{place}", passed.service, passed.port));
        self.line("", &passed.choice);
        self.endpoints(&passed.endpoints);
    }

    fn endpoints(&mut self, endpoints: &[Endpoint]) {
        if endpoints.is_empty() {
            self.line("Endpoints", "none");
        }
        for (at, endpoint) in endpoints.iter().take(SHOWN).enumerate() {
            let text = match endpoint.state {
                "not_in_files" => "none in the files; `fairway dev` answers with its echo".to_owned(),
                "name" => format!("the addresses of {}", endpoint.address),
                "terminating" => format!("{} terminating: existing sessions only", endpoint.address),
                state => format!("{} {state}", endpoint.address),
            };
            self.line(if at == 0 { "Endpoints" } else { "" }, &text);
        }
        self.more(endpoints.len());
    }

    fn more(&mut self, all: usize) {
        if all > SHOWN {
            self.line("", &format!("and {} more", all - SHOWN));
        }
    }

    fn line(&mut self, label: &str, text: &str) {
        let padded = format!("{label:<10}");
        let _ = writeln!(self.out, "{} {}", self.terminal.style(Style::Bold, padded), printable(text));
    }
}

fn named(route: &RouteName) -> String {
    format!("{} of {}{}", route.path, route.object, at_place(route.file.as_deref(), route.line))
}

pub(super) fn at_place(file: Option<&str>, line: Option<u32>) -> String {
    match (file, line) {
        (Some(file), Some(line)) => format!(" ({file}:{line})"),
        (Some(file), None) => format!(" ({file})"),
        (None, _) => String::new(),
    }
}
