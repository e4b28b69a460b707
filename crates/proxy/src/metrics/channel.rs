//! What a process counts about the channel between a controller and its proxies, where these are separate processes.

use super::text::{Labels, Text};

/// The figures of one end of the channel.
#[derive(Clone, Debug, PartialEq)]
pub enum ChannelFigures {
    /// Of a proxy.
    Proxy(ProxyEnd),
    /// Of a controller.
    Controller(ControllerEnd),
}

/// What a proxy knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProxyEnd {
    /// Whether a controller is connected and all that it has sent is in force.
    pub current: bool,
    /// Seconds since that was so.
    pub age: f64,
    /// Resources of the configuration.
    pub resources: u64,
    /// Those that are not understood.
    pub refused: u64,
    /// Connections so far.
    pub connections: u64,
    /// Rounds so far.
    pub rounds: u64,
}

/// What a controller knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ControllerEnd {
    /// Connected proxies.
    pub proxies: u64,
    /// Those that serve the newest change.
    pub current: u64,
    /// Resources of the configuration.
    pub resources: u64,
    /// Those that a proxy does not understand, for each proxy.
    pub refused: u64,
    /// Published changes.
    pub changes: u64,
    /// Rounds sent, for each proxy.
    pub rounds: u64,
    /// Resources and removals in them.
    pub sent: u64,
}

impl ChannelFigures {
    /// Writes all of them.
    pub(super) fn write(&self, text: &mut Text, labels: &Labels) {
        let mut number = |name: &str, kind: &str, help: &str, value: f64| {
            text.metric("fairway_channel_", name, kind, help);
            text.value(labels, value);
        };
        match self {
            Self::Proxy(end) => {
                number(
                    "current",
                    "gauge",
                    "Whether a controller is connected and all that it has sent is in force.",
                    f64::from(u8::from(end.current)),
                );
                number(
                    "age_seconds",
                    "gauge",
                    "Time since a controller was last connected: so old the configuration may be.",
                    end.age,
                );
                number("resources", "gauge", "Resources of the configuration.", end.resources as f64);
                number(
                    "refused_resources",
                    "gauge",
                    "Resources that are not understood here; their last good forms are in force.",
                    end.refused as f64,
                );
                number("connections_total", "counter", "Connections to controllers.", end.connections as f64);
                number("rounds_total", "counter", "Changes that were taken.", end.rounds as f64);
            }
            Self::Controller(end) => {
                number("proxies", "gauge", "Connected proxies.", end.proxies as f64);
                number("current_proxies", "gauge", "Proxies that serve the newest change.", end.current as f64);
                number("resources", "gauge", "Resources of the configuration.", end.resources as f64);
                number(
                    "refused_resources",
                    "gauge",
                    "Resources that a proxy does not understand, for each proxy.",
                    end.refused as f64,
                );
                number("changes_total", "counter", "Published changes.", end.changes as f64);
                number("rounds_total", "counter", "Changes sent, for each proxy.", end.rounds as f64);
                number(
                    "sent_resources_total",
                    "counter",
                    "Resources and removals sent, for each proxy.",
                    end.sent as f64,
                );
            }
        }
    }
}
