//! The flags of ingress-nginx, as data: what each means, what it defaults to, and how far it works here. The command line is built
//! against this table, and its reference is generated from it.

use std::fmt::Write;

use crate::value::Value;
use crate::verdict::Verdict::{self, Differs, Harmless, NotYet, Refused, Same};
use crate::verdict::{nearest, sentence};

/// One flag.
#[derive(Debug)]
pub struct Flag {
    /// Its long name, without the dashes.
    pub name: &'static str,
    /// Its one-letter form.
    pub short: Option<char>,
    /// What it takes.
    pub takes: Takes,
    /// What holds without it, as a user would write it; empty for nothing.
    pub default: &'static str,
    /// What it does, in a sentence.
    pub doc: &'static str,
    /// How far it works.
    pub verdict: Verdict,
}

/// What a flag takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Takes {
    /// Nothing, or `=true` or `=false`, as Go's flags do.
    Bool,
    /// A whole number.
    Int,
    /// A number, fractions allowed.
    Number,
    /// The number of a port.
    Port,
    /// A number of seconds.
    Seconds,
    /// A duration such as `30s`.
    Duration,
    /// `namespace/name`.
    Object,
    /// Values parted by commas.
    List,
    /// Any text.
    Text,
}

impl Takes {
    /// The placeholder in a usage line; empty for a switch.
    pub const fn placeholder(self) -> &'static str {
        match self {
            Self::Bool => "",
            Self::Int | Self::Number => "NUMBER",
            Self::Port => "PORT",
            Self::Seconds => "SECONDS",
            Self::Duration => "DURATION",
            Self::Object => "NAMESPACE/NAME",
            Self::List => "VALUE,...",
            Self::Text => "VALUE",
        }
    }
}

const TUNING: Verdict = Harmless("it tunes something inside ingress-nginx that isn't here");
const PROFILER: Verdict = Harmless("there is no Go profiler here");
const GEO: Verdict = NotYet("there are no geographic variables yet");
const LOG_LIBRARY: Verdict = Harmless("logs are lines on standard error, and Go's logging library isn't here");
const ADMISSION: Verdict = NotYet("there is no admission webhook yet; objects are checked when they are read");
const PASSTHROUGH: Verdict = NotYet("TLS isn't passed through yet, it ends at the proxy");

impl Flag {
    /// What to say to someone who gives the flag this value; `None` where it works, or asks for what happens anyway.
    pub fn notice(&self, value: &str) -> Option<String> {
        let same_switch = self.takes == Takes::Bool && bool::parse(value) == bool::parse(self.default);
        if self.verdict.works() || value == self.default || same_switch {
            return None;
        }
        Some(format!("--{}: {}: {}", self.name, self.verdict.label(), self.verdict.note()))
    }
}

/// A row is `"name" Takes = "default": verdict`.
macro_rules! flags {
    ($($(#[doc = $doc:literal])+ $name:literal $($short:literal)? $takes:ident = $default:literal: $verdict:expr;)+) => {
        /// Every flag that ingress-nginx knows, in the order of its name; the last ones are those of its logging library.
        pub const FLAGS: &[Flag] = &[$(Flag {
            name: $name,
            short: [$(Some($short),)? None][0],
            takes: Takes::$takes,
            default: $default,
            doc: concat!($($doc),+),
            verdict: $verdict,
        },)+];
    };
}

/// What becomes of the buckets of sizes.
const BUCKETS: &str = "given, or with --metrics-detail full, all request histograms of ingress-nginx are shown; else sizes are a sum and a count";

flags! {
    /// Prefix of the annotations.
    "annotations-prefix" Text = "nginx.ingress.kubernetes.io": Same;
    /// URL of the API server.
    "apiserver-host" Text = "": Same;
    /// Growth of the buckets of native histograms.
    "bucket-factor" Number = "0": NotYet("there are no native histograms");
    /// File with the certificate authority of the API server; read with `--apiserver-host` only.
    "certificate-authority" Text = "": Same;
    /// The global ConfigMap.
    "configmap" Object = "": Same;
    /// What an IngressClass must have as `spec.controller` to be ours.
    "controller-class" Text = "k8s.io/ingress-nginx": Same;
    /// Skips Ingresses whose hosts, paths or TLS entries hold patterns of known attacks.
    "deep-inspect" Bool = "true": Same;
    /// The Service that answers for unknown hosts and paths; without it a built-in 404 does.
    "default-backend-service" Object = "": Differs("where it doesn't exist, the process starts, and the built-in 404 answers until it does");
    /// Port of nginx's default server.
    "default-server-port" Port = "8181": Harmless("there is no such server");
    /// The Secret for names without certificate; without it a self-signed certificate is made.
    "default-ssl-certificate" Object = "": Same;
    /// Ignores every Ingress with a `spec.defaultBackend`.
    "disable-catch-all" Bool = "false": Same;
    /// Tests only the object at hand in admission.
    "disable-full-test" Bool = "false": ADMISSION;
    /// Uses no Lease: every replica writes status.
    "disable-leader-election" Bool = "false": Same;
    /// Serves no Services of type ExternalName.
    "disable-svc-external-name" Bool = "false": Same;
    /// Writes no Sync events.
    "disable-sync-events" Bool = "false": Same;
    /// Attempts to post endpoints to nginx.
    "dynamic-configuration-retries" Int = "15": TUNING;
    /// Name of the Lease.
    "election-id" Text = "ingress-controller-leader": Same;
    /// How long the Lease holds.
    "election-ttl" Duration = "30s": Same;
    /// Checks the values of annotations.
    "enable-annotation-validation" Bool = "true":
        Refused { reason: "values are always checked", instead: "values that are accepted, see docs/annotations.md" };
    /// Counts requests and connections.
    "enable-metrics" Bool = "false": Differs("metrics cost next to nothing and are always counted");
    /// Fetches missing intermediate certificates.
    "enable-ssl-chain-completion" Bool = "false":
        Refused { reason: "the controller makes no requests to addresses that a certificate names", instead: "Secrets with the whole chain" };
    /// Makes the annotation ssl-passthrough work.
    "enable-ssl-passthrough" Bool = "false": PASSTHROUGH;
    /// Prefers endpoints of the own zone.
    "enable-topology-aware-routing" Bool = "false": NotYet("all zones are used alike");
    /// Metrics of requests that are not kept.
    "exclude-socket-metrics" List = "": Same;
    /// Path of the health check.
    "health-check-path" Text = "/healthz": Same;
    /// Time for a health check.
    "health-check-timeout" Seconds = "10": Harmless("a health check asks nobody else and answers at once");
    /// Address of the health checks and metrics.
    "healthz-host" Text = "": Same;
    /// Port of the health checks and metrics.
    "healthz-port" Port = "10254": Same;
    /// Port for HTTP.
    "http-port" Port = "80": Same;
    /// Port for HTTPS.
    "https-port" Port = "443": Same;
    /// Value of the annotation `kubernetes.io/ingress.class` that is ours.
    "ingress-class" Text = "nginx": Same;
    /// Takes an IngressClass of that name for ours, whatever its controller.
    "ingress-class-by-name" Bool = "false": Same;
    /// Where nginx sends stream logs.
    "internal-logger-address" Text = "127.0.0.1:11514": TUNING;
    /// A kubeconfig file.
    "kubeconfig" Text = "": Same;
    /// Buckets of the histograms of lengths.
    "length-buckets" List = "10,20,30,40,50,60,70,80,90,100": Differs(BUCKETS);
    /// Buckets of a native histogram.
    "max-buckets" Int = "100": NotYet("there are no native histograms");
    /// Geographic databases.
    "maxmind-edition-ids" List = "GeoLite2-City,GeoLite2-ASN": GEO;
    /// Key for downloading them.
    "maxmind-license-key" Text = "": GEO;
    /// Where they are downloaded.
    "maxmind-mirror" Text = "": GEO;
    /// How often that is tried.
    "maxmind-retries-count" Int = "1": GEO;
    /// How long to wait in between.
    "maxmind-retries-timeout" Duration = "0s": GEO;
    /// Counts requests by host.
    "metrics-per-host" Bool = "true": Same;
    /// Counts requests for hosts that no Ingress names exactly, each under its own host; needs `--metrics-per-host`. The 10,000 hosts seen last are told apart, the rest count as `_`.
    "metrics-per-undefined-host" Bool = "false": Same;
    /// Metrics sent at once by an nginx worker.
    "monitor-max-batch-size" Int = "10000": Harmless("workers count for themselves and lose nothing");
    /// Time between the end of traffic and the end of the process.
    "post-shutdown-grace-period" Seconds = "10": Same;
    /// Address of the profiler.
    "profiler-address" Text = "127.0.0.1": PROFILER;
    /// Port of the profiler.
    "profiler-port" Port = "10245": PROFILER;
    /// Serves the profiler.
    "profiling" Bool = "true": PROFILER;
    /// The Service whose address is written to the status of Ingresses; excludes `--publish-status-address`.
    "publish-service" Object = "": Differs("where it can't be read, the process starts, and status is written once it can be");
    /// Addresses and names that are written there.
    "publish-status-address" List = "": Same;
    /// Writes internal addresses of nodes, not external ones.
    "report-node-internal-ip-address" Bool = "false": Same;
    /// Counts statuses as 2xx, 3xx and so on.
    "report-status-classes" Bool = "false": Same;
    /// Time between the order to stop and the first closed listener, while the health check already fails.
    "shutdown-grace-period" Seconds = "0": Same;
    /// Buckets of the histograms of sizes.
    "size-buckets" List = "10,100,1000,10000,100000,1000000,10000000": Differs(BUCKETS);
    /// Port behind the router by server name.
    "ssl-passthrough-proxy-port" Port = "442": PASSTHROUGH;
    /// Port on which nginx takes endpoints.
    "status-port" Port = "10246": Harmless("there is no such port");
    /// Time between two writes of status.
    "status-update-interval" Seconds = "60": Differs("status is written at once when it changes; the interval is that of checks");
    /// Port on which nginx takes streams.
    "stream-port" Port = "10247": Harmless("there is no such port");
    /// Time between two complete reads of objects.
    "sync-period" Duration = "0s": Harmless("watches miss nothing, and start anew when they break");
    /// Configurations a second.
    "sync-rate-limit" Number = "0.3": Harmless("a change costs little, and is live at once");
    /// The ConfigMap of TCP services: port of ours to `namespace/service:port`, and `:PROXY` to read a PROXY header, a second one to send it.
    "tcp-services-configmap" Object = "":
        Differs("a port without endpoints is open and closes connections; a half-closed connection stays open; the client of the PROXY header that is read is the one that is sent; what else stands in an entry than PROXY is refused");
    /// Buckets of the histograms of times.
    "time-buckets" List = "0.005,0.01,0.025,0.05,0.1,0.25,0.5,1,2.5,5,10":
        Differs("without it the bounds are 0.05, 0.25, 1 and 5, unless --metrics-detail full is given");
    /// The ConfigMap of UDP services: port of ours to `namespace/service:port`.
    "udp-services-configmap" Object = "": Differs("a port without endpoints is open and drops datagrams");
    /// Writes the status of Ingresses.
    "update-status" Bool = "true": Same;
    /// Clears it when the last replica ends.
    "update-status-on-shutdown" Bool = "true": Differs("it stays while another replica starts or is to come, as in a rollout or when a node is drained");
    /// Address of the admission webhook.
    "validating-webhook" Text = "": ADMISSION;
    /// Its certificate.
    "validating-webhook-certificate" Text = "/usr/local/certificates/cert": ADMISSION;
    /// Its key.
    "validating-webhook-key" Text = "/usr/local/certificates/key": ADMISSION;
    /// Prints the version.
    "version" Bool = "false": Same;
    /// Serves Ingresses that name no class at all.
    "watch-ingress-without-class" Bool = "false": Same;
    /// Serves this namespace only; excludes `--watch-namespace-selector`.
    "watch-namespace" Text = "": Same;
    /// Serves namespaces with these labels only.
    "watch-namespace-selector" Text = "": Differs("a change of a namespace's labels acts at once");

    /// How much is logged, 0 to 5 and more.
    "v" 'v' Int = "0": Differs("2 and above log more, 5 logs each connection, 9 each step");
    /// How much is logged, by file.
    "vmodule" Text = "": LOG_LIBRARY;
    /// Logs to standard error.
    "logtostderr" Bool = "true": LOG_LIBRARY;
    /// Logs to files and to standard error.
    "alsologtostderr" Bool = "false": LOG_LIBRARY;
    /// What goes to standard error.
    "stderrthreshold" Text = "2": LOG_LIBRARY;
    /// Where log files are.
    "log_dir" Text = "": LOG_LIBRARY;
    /// The log file.
    "log_file" Text = "": LOG_LIBRARY;
    /// Its largest size.
    "log_file_max_size" Int = "1800": LOG_LIBRARY;
    /// Where a stack is logged.
    "log_backtrace_at" Text = ":0": LOG_LIBRARY;
    /// Logs directories.
    "add_dir_header" Bool = "false": LOG_LIBRARY;
    /// Logs without prefix.
    "skip_headers" Bool = "false": LOG_LIBRARY;
    /// Starts log files without a head.
    "skip_log_headers" Bool = "false": LOG_LIBRARY;
    /// Logs each line once.
    "one_output" Bool = "false": LOG_LIBRARY;
}

/// The flag of a name without dashes; `None` if nobody knows it.
pub fn flag(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

/// The flag that `name` was probably meant to be.
pub fn nearest_flag(name: &str) -> Option<&'static str> {
    nearest(name, FLAGS.iter().map(|flag| flag.name))
}

/// `docs/flags.md`.
pub fn flags_markdown() -> String {
    let mut out = "# Flags\n\nGenerated from the table in `crates/translate/src/flag.rs`; `UPDATE_DOCS=1 cargo test -p fairway-translate --test \
         tables` writes it.\n\nThe flags of ingress-nginx, all of which are accepted, so that a Deployment's arguments can stay as they are. \
         Those that aren't built, are refused or have no effect say so when the process starts.\n\n\
         | flag | default | meaning | verdict |\n| --- | --- | --- | --- |\n"
        .to_owned();
    for flag in FLAGS {
        let short = flag.short.map(|short| format!("`-{short}`, ")).unwrap_or_default();
        let value = match flag.takes.placeholder() {
            "" => String::new(),
            placeholder => format!(" {placeholder}"),
        };
        let default = if flag.default.is_empty() { "none".to_owned() } else { format!("`{}`", flag.default) };
        let note = flag.verdict.note();
        let note = if note.is_empty() { note } else { format!(". {}", sentence(&note)) };
        let (name, doc, label) = (flag.name, flag.doc.trim(), flag.verdict.label());
        let _ = writeln!(out, "| {short}`--{name}{value}` | {default} | {doc} | **{label}**{note} |");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_values_that_lose_something_are_worth_a_notice() {
        let notice = |name, value| flag(name).expect("known").notice(value);
        assert_eq!(notice("ingress-class", "public"), None);
        assert_eq!(notice("enable-annotation-validation", "TRUE"), None);
        assert!(notice("enable-annotation-validation", "false").is_some_and(|text| text.contains("always checked")));
        assert_eq!(notice("sync-rate-limit", "0.3"), None);
        assert_eq!(notice("tcp-services-configmap", "a/b"), None);
        assert!(
            notice("enable-ssl-passthrough", "true")
                .is_some_and(|text| text.starts_with("--enable-ssl-passthrough: not yet"))
        );
        assert_eq!(nearest_flag("ingres-class"), Some("ingress-class"));
    }
}
