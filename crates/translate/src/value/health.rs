//! Values of active health checks.

use std::str::FromStr;

use super::Value;
use super::text::TEXT_LIMIT;

/// The request of a health check.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum HealthProbe {
    /// `GET` of a path.
    Path(String),
    /// The health service of gRPC, about a service; empty for the server as a whole.
    Grpc(String),
}

impl Value for HealthProbe {
    const SYNTAX: &'static str = "a path such as `/healthz`, `grpc`, or `grpc:` and the name of a service";

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim_matches(' ');
        if text.len() > TEXT_LIMIT {
            return None;
        }
        let is_path = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        let is_service = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte));
        match text.split_once(':').unwrap_or((text, "")) {
            _ if text.starts_with('/') => is_path(text).then(|| Self::Path(text.to_owned())),
            ("grpc", service) => is_service(service).then(|| Self::Grpc(service.to_owned())),
            _ => None,
        }
    }
}

/// The statuses of a healthy endpoint.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct HealthStatuses(pub Vec<(u16, u16)>);

impl HealthStatuses {
    /// The statuses of a healthy pod by the probes of Kubernetes.
    pub fn usual() -> Self {
        Self(vec![(200, 399)])
    }
}

impl Value for HealthStatuses {
    const SYNTAX: &'static str =
        "at most 16 statuses or ranges of statuses from 200 to 599, separated by commas, such as `200-299,401`";

    fn parse(text: &str) -> Option<Self> {
        let range = |entry: &str| {
            let entry = entry.trim();
            let (from, to) = entry.split_once('-').unwrap_or((entry, entry));
            let (from, to) = (u16::from_str(from).ok()?, u16::from_str(to).ok()?);
            (200 <= from && from <= to && to < 600).then_some((from, to))
        };
        let ranges: Option<Vec<_>> = text.split(',').take(17).map(range).collect();
        ranges.filter(|ranges| ranges.len() <= 16).map(Self)
    }
}

/// The time between two checks or for one, in whole seconds.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct HealthSeconds(pub u16);

impl Value for HealthSeconds {
    const SYNTAX: &'static str = "whole seconds from 1 to 3600, without a unit";

    fn parse(text: &str) -> Option<Self> {
        u32::parse(text).and_then(|seconds| u16::try_from(seconds).ok()).filter(|it| (1..=3600).contains(it)).map(Self)
    }
}

/// How many checks in a row decide.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct HealthCount(pub u16);

impl Value for HealthCount {
    const SYNTAX: &'static str = "a whole number from 1 to 100";

    fn parse(text: &str) -> Option<Self> {
        u32::parse(text).and_then(|count| u16::try_from(count).ok()).filter(|it| (1..=100).contains(it)).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_paths_or_grpc() {
        let path = |text: &str| Some(HealthProbe::Path(text.to_owned()));
        let grpc = |text: &str| Some(HealthProbe::Grpc(text.to_owned()));
        assert_eq!(HealthProbe::parse(" /healthz?full=1 "), path("/healthz?full=1"));
        assert_eq!(HealthProbe::parse("/a:b"), path("/a:b"));
        assert_eq!(HealthProbe::parse("grpc"), grpc(""));
        assert_eq!(HealthProbe::parse("grpc:shop.Orders"), grpc("shop.Orders"));
        for wrong in ["healthz", "/a b", "/a\r\nX: y", "/a#b", "grpcs", "grpc:a b", "GET /", ":"] {
            assert_eq!(HealthProbe::parse(wrong), None, "{wrong}");
        }
        assert_eq!(HealthProbe::parse(&"/".repeat(TEXT_LIMIT + 1)), None);
    }

    #[test]
    fn numbers_are_bounded() {
        let statuses = |text: &str| HealthStatuses::parse(text).map(|HealthStatuses(ranges)| ranges);
        assert_eq!(statuses("200"), Some(vec![(200, 200)]));
        assert_eq!(statuses("200-299, 401"), Some(vec![(200, 299), (401, 401)]));
        for wrong in ["", "100", "600", "300-200", "200-", "2xx", &"200,".repeat(16), "200,"] {
            assert_eq!(statuses(wrong), None, "{wrong}");
        }
        assert_eq!(HealthSeconds::parse("3600"), Some(HealthSeconds(3600)));
        assert_eq!(HealthCount::parse("1"), Some(HealthCount(1)));
        for wrong in ["0", "3601", "65537", "5s", "-1"] {
            assert_eq!((HealthSeconds::parse(wrong), HealthCount::parse(wrong)), (None, None), "{wrong}");
        }
    }
}
