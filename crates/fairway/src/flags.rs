//! The flags of ingress-nginx, parsed as Go parses flags: `--flag value`, `--flag=value`, and for switches `--flag` or
//! `--flag=false`.
//!
//! One table, `fairway_translate::flag`, defines them. All of them are accepted, so that the arguments of a Deployment can stay
//! unchanged; the verdicts on flags without effect are logged when the process starts.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser, ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command};
use fairway_translate::flag::{FLAGS, Flag, Takes, flag};
use fairway_translate::options::{GatewayAddressing, LabelSelector, Options, RESERVED_PORTS};

/// The flags that decide how objects are read: they have the same meaning in `dev`, `check` and `explain` as in `run`.
const READING: [&str; 20] = [
    "annotations-prefix",
    "configmap",
    "controller-class",
    "deep-inspect",
    "default-backend-service",
    "default-ssl-certificate",
    "disable-catch-all",
    "disable-svc-external-name",
    "enable-annotation-validation",
    "enable-ssl-passthrough",
    "http-port",
    "https-port",
    "ingress-class",
    "ingress-class-by-name",
    "report-status-classes",
    "tcp-services-configmap",
    "udp-services-configmap",
    "watch-ingress-without-class",
    "watch-namespace",
    "watch-namespace-selector",
];

/// The value of a flag.
#[derive(Clone, Debug, PartialEq)]
enum FlagValue {
    Bool(bool),
    Int(i64),
    Number(f64),
    Port(u16),
    Time(Duration),
    Object(String, String),
    List(Vec<String>),
    Text(String),
}

/// The flags that the user set, by name. Others have the default from the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    set: BTreeMap<&'static str, FlagValue>,
    /// `--allow-backend-address`, which decides how objects are read too.
    allowed: Vec<IpAddr>,
    /// `--gateway-address`, likewise.
    gateway_address: GatewayAddressing,
    /// `--gateway-controller-name`, likewise.
    gateway_controller: Option<String>,
}

/// Flags that contradict each other, or a value that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// Refuses the flags that select a cluster, for commands that read files only.
pub(crate) fn refuse_cluster(flags: &Flags, instead: &str) -> Result<(), UsageError> {
    match ["kubeconfig", "apiserver-host"].into_iter().find(|name| flags.is_set(name)) {
        Some(name) => Err(UsageError(format!("--{name}: this command reads files, not a cluster: {instead}"))),
        None => Ok(()),
    }
}

/// The flags that a proxy heeds whose controller is another process; what the others say comes from there.
pub(crate) const OF_PROXY: &[&str] = &[
    "bucket-factor",
    "controller-class",
    "exclude-socket-metrics",
    "health-check-path",
    "health-check-timeout",
    "healthz-host",
    "healthz-port",
    "length-buckets",
    "max-buckets",
    "metrics-per-host",
    "metrics-per-undefined-host",
    "post-shutdown-grace-period",
    "report-status-classes",
    "shutdown-grace-period",
    "size-buckets",
    "time-buckets",
    "v",
    "version",
];

/// Adds all flags to a command. With `complete`, its help shows all that work, else only those that concern reading objects.
pub(crate) fn add(command: Command, complete: bool) -> Command {
    FLAGS.iter().filter(|flag| flag.name != "version" || complete).fold(command, |command, flag| {
        let shown = flag.verdict.works() && (complete || READING.contains(&flag.name));
        command.arg(arg(flag).hide(!shown))
    })
}

/// The flags that have no effect in a proxy whose controller is another process.
pub(crate) fn only_of_controller() -> impl Iterator<Item = &'static str> {
    FLAGS.iter().map(|flag| flag.name).filter(|name| !OF_PROXY.contains(name))
}

fn arg(flag: &'static Flag) -> Arg {
    let default = match flag.default {
        "" | "false" => String::new(),
        default => format!(" [default: {default}]"),
    };
    let arg = Arg::new(flag.name)
        .long(flag.name)
        .help(format!("{}{default}", flag.doc.trim().trim_end_matches('.')))
        .help_heading("Flags of ingress-nginx")
        .action(ArgAction::Set)
        .allow_hyphen_values(matches!(flag.takes, Takes::Int | Takes::Number | Takes::Seconds))
        // The last one counts, as with Go's flags.
        .overrides_with(flag.name)
        .value_parser(parser(flag.takes));
    let arg = match flag.short {
        Some(short) => arg.short(short),
        None => arg,
    };
    match flag.takes {
        Takes::Bool => arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("true|false"),
        takes => arg.num_args(1).value_name(takes.placeholder()),
    }
}

fn parser(takes: Takes) -> ValueParser {
    match takes {
        // The values that Go's strconv.ParseBool accepts.
        Takes::Bool => {
            PossibleValuesParser::new(["true", "false", "1", "0", "t", "f", "T", "F", "TRUE", "FALSE", "True", "False"])
                .map(|text| FlagValue::Bool(text.starts_with(['1', 't', 'T'])))
                .into()
        }
        Takes::Int => {
            ValueParser::new(|text: &str| text.parse().map(FlagValue::Int).map_err(|_| "expected a whole number"))
        }
        Takes::Number => {
            ValueParser::new(|text: &str| text.parse().map(FlagValue::Number).map_err(|_| "expected a number"))
        }
        Takes::Port => {
            ValueParser::new(|text: &str| text.parse().map(FlagValue::Port).map_err(|_| "expected a port, 0 to 65535"))
        }
        Takes::Seconds => ValueParser::new(|text: &str| {
            let seconds: i64 = text.parse().map_err(|_| "expected a whole number of seconds")?;
            Ok::<_, &str>(FlagValue::Time(Duration::from_secs(u64::try_from(seconds).unwrap_or_default())))
        }),
        Takes::Duration => ValueParser::new(|text: &str| {
            duration(text).map(FlagValue::Time).ok_or("expected a duration as Go writes it, such as 30s or 1m30s")
        }),
        Takes::Object => ValueParser::new(|text: &str| match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(FlagValue::Object(namespace.to_owned(), name.to_owned()))
            }
            _ => Err("expected NAMESPACE/NAME"),
        }),
        Takes::List => ValueParser::new(|text: &str| {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok::<_, &str>(FlagValue::List(items.map(str::to_owned).collect()))
        }),
        Takes::Text => ValueParser::new(|text: &str| Ok::<_, &str>(FlagValue::Text(text.to_owned()))),
    }
}

/// Go's notation of durations: numbers with units in a row. Negative ones count as zero.
fn duration(text: &str) -> Option<Duration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
        let (name, factor) = unit.into_iter().find(|(name, _)| rest.starts_with(name))?;
        seconds += number * factor;
        rest = &rest[name.len()..];
    }
    if text.is_empty() || text == "-" {
        return None;
    }
    if negative { Some(Duration::ZERO) } else { Duration::try_from_secs_f64(seconds).ok() }
}

impl Flags {
    /// The values on the command line.
    pub(crate) fn from_matches(matches: &ArgMatches) -> Self {
        let given = |flag: &'static Flag| {
            let value = matches.try_get_one::<FlagValue>(flag.name).ok().flatten()?;
            Some((flag.name, value.clone()))
        };
        let allowed = matches.try_get_many("allow-backend-address").ok().flatten();
        let gateway_address = matches.try_get_one::<String>("gateway-address").ok().flatten();
        let gateway_controller = matches.try_get_one::<String>("gateway-controller-name").ok().flatten();
        Self {
            set: FLAGS.iter().filter_map(given).collect(),
            allowed: allowed.into_iter().flatten().copied().collect(),
            gateway_address: match gateway_address.map(String::as_str) {
                Some("own") => GatewayAddressing::Own,
                Some("asked") => GatewayAddressing::Asked,
                _ => GatewayAddressing::Shared,
            },
            gateway_controller: gateway_controller.cloned(),
        }
    }

    /// The flags that were set and don't work as in ingress-nginx.
    pub(crate) fn not_honoured(&self) -> impl Iterator<Item = &'static Flag> {
        self.set.keys().filter_map(|name| flag(name)).filter(|flag| !flag.verdict.works())
    }

    /// The flags that were set, work, and have no effect in a proxy whose controller is another process.
    #[cfg(any(test, feature = "cluster"))]
    pub(crate) fn of_controller(&self) -> impl Iterator<Item = &'static str> {
        let working = self.set.keys().filter_map(|name| flag(name)).filter(|flag| flag.verdict.works());
        working.map(|flag| flag.name).filter(|name| !OF_PROXY.contains(name))
    }

    /// Whether the user set the flag.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.set.contains_key(name)
    }

    /// A switch.
    pub(crate) fn bool(&self, name: &str) -> bool {
        match self.set.get(name) {
            Some(FlagValue::Bool(value)) => *value,
            _ => default(name) == "true",
        }
    }

    /// A text; `None` for an empty one.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let text = match self.set.get(name) {
            Some(FlagValue::Text(text)) => text,
            _ => default(name),
        };
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// A port.
    pub(crate) fn port(&self, name: &str) -> u16 {
        match self.set.get(name) {
            Some(FlagValue::Port(port)) => *port,
            _ => default(name).parse().expect("the default of a port is a port"),
        }
    }

    /// The ports that nothing of the configuration may open, each with the flag that has it.
    fn reserved_ports(&self) -> BTreeMap<u16, String> {
        let webhook = self.text("validating-webhook").and_then(|address| address.rsplit_once(':')?.1.parse().ok());
        let webhook = webhook.map(|port| (port, "validating-webhook".to_owned()));
        RESERVED_PORTS.iter().map(|(_, flag)| (self.port(flag), (*flag).to_owned())).chain(webhook).collect()
    }

    /// A whole number.
    pub(crate) fn int(&self, name: &str) -> i64 {
        match self.set.get(name) {
            Some(FlagValue::Int(value)) => *value,
            _ => default(name).parse().expect("the default of a number is a number"),
        }
    }

    /// A number.
    pub(crate) fn number(&self, name: &str) -> f64 {
        match self.set.get(name) {
            Some(FlagValue::Number(value)) => *value,
            _ => default(name).parse().expect("the default of a number is a number"),
        }
    }

    /// A duration, in any notation.
    pub(crate) fn time(&self, name: &str) -> Duration {
        match self.set.get(name) {
            Some(FlagValue::Time(time)) => *time,
            _ => {
                let text = default(name);
                let seconds = text.parse().ok().map(Duration::from_secs);
                seconds.or_else(|| duration(text)).expect("the default of a time is a time")
            }
        }
    }

    /// Namespace and name of an object.
    pub(crate) fn object(&self, name: &str) -> Option<(String, String)> {
        match self.set.get(name) {
            Some(FlagValue::Object(namespace, name)) => Some((namespace.clone(), name.clone())),
            _ => None,
        }
    }

    /// A list.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        match self.set.get(name) {
            Some(FlagValue::List(items)) => items.clone(),
            _ => Vec::new(),
        }
    }

    /// How to read objects. Listeners are those in a cluster: all addresses, the ports of the flags.
    pub(crate) fn options(&self) -> Result<Options, UsageError> {
        let exclusive = |one: &str, other: &str| {
            let both = self.is_set(one) && self.is_set(other);
            if both {
                Err(UsageError(format!("--{one} and --{other} exclude each other: give one of them")))
            } else {
                Ok(())
            }
        };
        exclusive("watch-namespace", "watch-namespace-selector")?;
        exclusive("publish-service", "publish-status-address")?;
        if self.bool("metrics-per-undefined-host") && !self.bool("metrics-per-host") {
            return Err(UsageError("--metrics-per-undefined-host needs --metrics-per-host: give both or none".into()));
        }
        let selector = self.text("watch-namespace-selector").map(|text| text.parse::<LabelSelector>()).transpose();
        let defaults = Options::default();
        let anywhere = [IpAddr::from([0, 0, 0, 0])];
        Ok(Options {
            annotations_prefix: self.text("annotations-prefix").unwrap_or_else(|| defaults.annotations_prefix.clone()),
            controller_class: self.text("controller-class").unwrap_or_else(|| defaults.controller_class.clone()),
            ingress_class: self.text("ingress-class").unwrap_or_else(|| defaults.ingress_class.clone()),
            ingress_class_by_name: self.bool("ingress-class-by-name"),
            watch_ingress_without_class: self.bool("watch-ingress-without-class"),
            watch_namespace: self.text("watch-namespace"),
            namespace_selector: selector.map_err(|error| UsageError(format!("--watch-namespace-selector: {error}")))?,
            configmap: self.object("configmap"),
            tcp_services: self.object("tcp-services-configmap"),
            udp_services: self.object("udp-services-configmap"),
            reserved_ports: self.reserved_ports(),
            default_backend_service: self.object("default-backend-service"),
            publish_service: self.object("publish-service"),
            default_ssl_certificate: self.object("default-ssl-certificate"),
            geo_editions: Some(self.list("maxmind-edition-ids"))
                .filter(|editions| !editions.is_empty())
                .unwrap_or_else(|| Options::default().geo_editions),
            ssl_passthrough: self.bool("enable-ssl-passthrough"),
            allowed_backend_addresses: self.allowed.clone(),
            gateway_controller: self.gateway_controller.clone().unwrap_or_else(|| defaults.gateway_controller.clone()),
            gateway_address: self.gateway_address,
            disable_catch_all: self.bool("disable-catch-all"),
            disable_external_name: self.bool("disable-svc-external-name"),
            deep_inspect: self.bool("deep-inspect"),
            annotation_validation: self.bool("enable-annotation-validation"),
            http: anywhere.iter().map(|ip| SocketAddr::new(*ip, self.port("http-port"))).collect(),
            https: anywhere.iter().map(|ip| SocketAddr::new(*ip, self.port("https-port"))).collect(),
            ..defaults
        })
    }
}

fn default(name: &str) -> &'static str {
    flag(name).map_or("", |flag| flag.default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Flags, clap::Error> {
        let command = add(Command::new("run").disable_version_flag(true), true);
        let args = std::iter::once("run").chain(args.iter().copied());
        command.try_get_matches_from(args).map(|matches| Flags::from_matches(&matches))
    }

    #[test]
    fn every_flag_is_accepted_in_all_notations() {
        for flag in FLAGS {
            let value = match flag.takes {
                Takes::Bool => "false",
                Takes::Int | Takes::Number | Takes::Port | Takes::Seconds => "3",
                Takes::Duration => "1m30s",
                Takes::Object => "a/b",
                Takes::List | Takes::Text => "x",
            };
            let flags = parse(&[&format!("--{}={value}", flag.name)]).unwrap_or_else(|error| panic!("{error}"));
            assert!(flags.is_set(flag.name), "{}", flag.name);
            if flag.takes == Takes::Bool {
                assert!(parse(&[&format!("--{}", flag.name)]).unwrap().bool(flag.name));
            } else {
                assert!(parse(&[&format!("--{}", flag.name), value]).unwrap().is_set(flag.name));
            }
            if let Some(short) = flag.short {
                assert!(parse(&[&format!("-{short}={value}")]).unwrap().is_set(flag.name));
            }
        }
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        let flags = parse(&[]).unwrap();
        for flag in FLAGS {
            match flag.takes {
                Takes::Bool => assert_eq!(flags.bool(flag.name).to_string(), flag.default),
                Takes::Port => assert_eq!(flags.port(flag.name).to_string(), flag.default),
                Takes::Int => assert_eq!(flags.int(flag.name).to_string(), flag.default),
                Takes::Seconds | Takes::Duration => assert!(flags.time(flag.name) < Duration::from_secs(1000)),
                Takes::Number | Takes::Object | Takes::List | Takes::Text => {}
            }
        }
        assert_eq!(flags.options().unwrap(), Options::default());
    }

    #[test]
    fn the_last_of_several_counts() {
        let flags = parse(&["--http-port=1", "--http-port=2", "--deep-inspect", "--deep-inspect=0"]).unwrap();
        assert_eq!((flags.port("http-port"), flags.bool("deep-inspect")), (2, false));
    }

    #[test]
    fn durations_are_those_of_go() {
        for (text, expected) in [
            ("30s", Some(30_000)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("0", Some(0)),
            ("-1s", Some(0)),
            ("100ms", Some(100)),
            ("5", None),
            ("s", None),
            ("", None),
            ("1x", None),
        ] {
            assert_eq!(duration(text).map(|found| found.as_millis()), expected, "{text}");
        }
    }

    #[test]
    fn bad_values_and_contradictions_are_told() {
        for bad in [
            "--http-port=x",
            "--configmap=a",
            "--configmap=a/b/c",
            "--deep-inspect=maybe",
            "--election-ttl=5",
            "--nope",
        ] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
        let flags = parse(&["--watch-namespace=a", "--watch-namespace-selector=b=c"]).unwrap();
        assert!(flags.options().unwrap_err().to_string().contains("exclude each other"));
    }

    #[test]
    fn flags_without_effect_are_named() {
        let flags = parse(&["--profiling", "--http-port=1", "--sync-period=1s"]).unwrap();
        let names: Vec<_> = flags.not_honoured().map(|flag| flag.name).collect();
        assert_eq!(names, ["profiling", "sync-period"]);
    }

    #[test]
    fn flags_of_the_controller_are_told_from_those_of_a_proxy() {
        let flags = parse(&["--http-port=1", "--healthz-port=2", "--configmap=a/b", "--profiling"]).unwrap();
        let mut names: Vec<_> = flags.of_controller().collect();
        names.sort_unstable();
        assert_eq!(names, ["configmap", "http-port"]);
        assert!(OF_PROXY.iter().all(|name| flag(name).is_some()));
    }
}
