//! Reports of the proxy about its routes. Each becomes an Event on the object that the route comes from.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::SocketAddr;

use fairway_model::Origin;
use tokio::sync::mpsc;

/// Maximum number of queued reports. Workers send them and never wait: with more, some are lost.
const WAITING: usize = 256;

/// The most endpoints that a text names.
const NAMED: usize = 8;

/// A backend to whose endpoints no connection can be made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unreachable {
    /// The object whose route leads to it.
    pub origin: Origin,
    /// The backend, `NAMESPACE/SERVICE:PORT`.
    pub backend: String,
    /// Its endpoints, and why each can't be connected to, as one word.
    pub endpoints: Vec<(SocketAddr, Cow<'static, str>)>,
}

/// A proxy of another version can't understand the translation of an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NotUnderstood {
    /// The object.
    pub origin: Origin,
    /// The proxy.
    pub proxy: String,
    /// The part that it doesn't understand.
    pub reason: String,
}

/// A report of either kind.
#[derive(Debug)]
pub(crate) enum ProxyReport {
    Unreachable(Unreachable),
    NotUnderstood(NotUnderstood),
}

/// Takes reports. Clones report to the same receiver.
#[derive(Clone, Debug)]
pub struct Reporter(mpsc::Sender<ProxyReport>);

impl Reporter {
    /// A reporter, and where its reports arrive.
    pub(crate) fn new() -> (Self, mpsc::Receiver<ProxyReport>) {
        let (sender, reports) = mpsc::channel(WAITING);
        (Self(sender), reports)
    }

    /// Reports a backend. Never waits: if too many reports wait already, this one is lost.
    pub fn unreachable(&self, report: Unreachable) {
        let _ = self.0.try_send(ProxyReport::Unreachable(report));
    }

    /// Reports that a proxy continues with the last good form of an object. Never waits either.
    pub fn not_understood(&self, report: NotUnderstood) {
        let _ = self.0.try_send(ProxyReport::NotUnderstood(report));
    }
}

impl NotUnderstood {
    /// The text of the Event.
    pub(crate) fn text(&self) -> String {
        let Self { proxy, reason, .. } = self;
        format!(
            "the proxy {proxy} is of another version and does not understand this object, so that its last good form stays there: {reason}; \
             run proxies and controllers of the same version"
        )
    }
}

impl Unreachable {
    /// The text of the Event.
    pub(crate) fn text(&self) -> String {
        let mut endpoints = self.endpoints.clone();
        // Sorted, so that replicas report the same in the same words.
        endpoints.sort_unstable();
        let mut text = match endpoints.len() {
            1 => format!("connecting to the only endpoint of {} failed within the last minute: ", self.backend),
            count => format!(
                "connecting to each of the {count} endpoints of {} failed within the last minute: ",
                self.backend
            ),
        };
        for (at, (address, reason)) in endpoints.iter().take(NAMED).enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            let _ = write!(text, "{comma}{address} {reason}");
        }
        if endpoints.len() > NAMED {
            let _ = write!(text, ", and {} more", endpoints.len() - NAMED);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(count: u8) -> Unreachable {
        Unreachable {
            origin: Origin::new("Ingress", "shop", "web"),
            backend: "shop/cart:80".to_owned(),
            endpoints: (1..=count)
                .rev()
                .map(|last| (([10, 0, 0, last], 80).into(), "connect_refused".into()))
                .collect(),
        }
    }

    #[test]
    fn the_text_names_the_endpoints_in_order_and_not_too_many() {
        assert_eq!(
            report(1).text(),
            "connecting to the only endpoint of shop/cart:80 failed within the last minute: 10.0.0.1:80 connect_refused"
        );
        assert_eq!(
            report(2).text(),
            "connecting to each of the 2 endpoints of shop/cart:80 failed within the last minute: 10.0.0.1:80 connect_refused, \
             10.0.0.2:80 connect_refused"
        );
        let many = report(200).text();
        assert!(many.ends_with("10.0.0.8:80 connect_refused, and 192 more"), "{many}");
    }

    #[tokio::test]
    async fn reports_that_nobody_takes_are_lost_and_not_waited_for() {
        let (reporter, mut reports) = Reporter::new();
        for _ in 0..2 * WAITING {
            reporter.unreachable(report(1));
        }
        let mut count = 0;
        while reports.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, WAITING);
    }
}
