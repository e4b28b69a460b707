//! What a process counts about the channel between a controller and its proxies, where these are separate processes.

use super::MetricFormat;
use super::protobuf::Sample;
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
    /// Whether a controller is connected and everything that it has sent is in effect.
    pub current: bool,
    /// Seconds since that was last true.
    pub age: f64,
    /// Resources of the configuration.
    pub resources: u64,
    /// Those that are not understood.
    pub refused: u64,
    /// Connections so far.
    pub connections: u64,
    /// Rounds so far.
    pub rounds: u64,
    /// Whether the configuration is from a file, and no controller has said yet that it is the newest.
    pub from_file: bool,
    /// When the file was last written or found to be the newest, in seconds since 1970, if there is one.
    pub file: f64,
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
    /// Limits of clients whose shares are dealt.
    pub shared: u64,
    /// Times until all connected proxies had a change.
    pub propagation: Distribution,
    /// The last proxy to get the last of these changes, and its time in seconds.
    pub slowest: Option<(String, f64)>,
}

/// A distribution of times in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// Upper bounds, and the number of times up to each and above the previous one.
    pub buckets: Vec<(f64, u64)>,
    /// How many are above all bounds.
    pub above: u64,
    /// The sum of all.
    pub sum: f64,
}

impl ChannelFigures {
    /// Writes all of them.
    pub(super) fn write(&self, text: &mut Text, labels: &Labels) {
        fn write(text: &mut Text, labels: &Labels, (name, kind, help): (&str, &str, &str), value: f64) {
            text.metric("fairway_channel_", name, kind, help);
            text.value(labels, value);
        }
        match self {
            Self::Proxy(end) => {
                let mut number =
                    |name: &str, kind: &str, help: &str, value| write(text, labels, (name, kind, help), value);
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
                number(
                    "from_file",
                    "gauge",
                    "Whether the configuration is from `--snapshot-file`, and no controller has said yet that it is the newest.",
                    f64::from(u8::from(end.from_file)),
                );
                number(
                    "file_timestamp_seconds",
                    "gauge",
                    "When that file was last written or found to be the newest, since 1970; 0 without one.",
                    end.file,
                );
            }
            Self::Controller(end) => {
                let mut number =
                    |name: &str, kind: &str, help: &str, value| write(text, labels, (name, kind, help), value);
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
                number(
                    "shared_limits",
                    "gauge",
                    "Limits that a client is close to, or was lately, so that shares of them are dealt to the proxies by demand.",
                    end.shared as f64,
                );
                let help = "Time from a change to its last acknowledgement by the proxies that were connected.";
                text.metric("fairway_channel_", "propagation_seconds", "histogram", help);
                end.propagation.write(text, labels);
                if let Some((proxy, seconds)) = &end.slowest {
                    let help =
                        "Time of the last change that all proxies have at the proxy that was the last to have it.";
                    text.metric("fairway_channel_", "slowest_proxy_seconds", "gauge", help);
                    let mut labels = labels.clone();
                    labels.push("proxy", proxy);
                    text.value(&labels, *seconds);
                }
            }
        }
    }
}

impl Distribution {
    fn write(&self, text: &mut Text, labels: &Labels) {
        let mut total = 0;
        let up_to = |&(bound, count): &(f64, u64)| {
            total += count;
            (bound, total)
        };
        let classic: Vec<_> = self.buckets.iter().map(up_to).collect();
        let count = total + self.above;
        if text.format() == MetricFormat::Protobuf {
            return text.sample(labels, &Sample { sum: self.sum, count, classic: &classic, native: None }, true);
        }
        for (bound, up_to) in classic {
            text.part("_bucket", labels, &format!("le=\"{bound}\""), up_to);
        }
        text.part("_bucket", labels, "le=\"+Inf\"", count);
        text.part("_sum", labels, "", self.sum);
        text.part("_count", labels, "", count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_is_written_as_a_histogram() {
        let (mut text, labels) = (Text::default(), Labels::default());
        text.metric("fairway_", "x", "histogram", "Help.");
        Distribution { buckets: vec![(0.5, 2), (1.0, 1)], above: 4, sum: 7.5 }.write(&mut text, &labels);
        assert_eq!(
            String::from_utf8_lossy(text.page()),
            "# HELP fairway_x Help.\n# TYPE fairway_x histogram\nfairway_x_bucket{le=\"0.5\"} 2\nfairway_x_bucket{le=\"1\"} 3\n\
             fairway_x_bucket{le=\"+Inf\"} 7\nfairway_x_sum 7.5\nfairway_x_count 7\n"
        );
    }
}
