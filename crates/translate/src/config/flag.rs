//! The flags of ingress-nginx, as data: the meaning, default and verdict of each. The command line and its reference are built from this
//! table.

use std::fmt::Write;

use crate::value::Value;
use crate::verdict::Verdict::{self, Differs, Harmless, Refused, Same};
use crate::verdict::{nearest, sentence};

/// One flag.
#[derive(Debug)]
pub struct Flag {
    /// Its long name, without the dashes.
    pub name: &'static str,
    /// Its one-letter form.
    pub short: Option<char>,
    /// The kind of its value.
    pub takes: Takes,
    /// Its default, as a user would write it; empty for none.
    pub default: &'static str,
    /// What it does, in a sentence.
    pub doc: &'static str,
    /// How far it works.
    pub verdict: Verdict,
}

/// The kind of a flag's value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Takes {
    /// None, or `=true` or `=false`, as with Go's flags.
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
    /// Values separated by commas.
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

const TUNING: Verdict = Harmless("it tunes a part of ingress-nginx that Fairway doesn't have");
const PROFILER: Verdict = Harmless("Fairway has no Go profiler");
const DOWNLOAD: Verdict = Refused {
    reason: "nothing is downloaded",
    instead: "a volume with the files of the databases in /etc/ingress-controller/geoip, which geoipupdate keeps up to date",
};
const LOG_LIBRARY: Verdict = Harmless("Fairway logs lines to standard error, without Go's logging library");
const ADMISSION_FILES: Verdict =
    Differs("where it can't be read, the process starts, and the webhook closes connections until it can");

impl Flag {
    /// The notice for this value of the flag; `None` if it works, or asks for what Fairway does anyway.
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
        /// Every flag that ingress-nginx knows, by name; the last ones are those of its logging library.
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

/// How the buckets of sizes differ.
const BUCKETS: &str = "with this flag, or with --metrics-detail full, all request histograms of ingress-nginx are shown; otherwise sizes are a sum and a count";

flags! {
    /// Read annotations under this prefix.
    "annotations-prefix" Text = "nginx.ingress.kubernetes.io": Same;
    /// Use the API server at this URL.
    "apiserver-host" Text = "": Same;
    /// Let the buckets of native histograms grow by this factor.
    "bucket-factor" Number = "0": Differs("the protobuf format, which alone has native histograms, is offered only with this flag; a factor above 1 also shows all request histograms, as --metrics-detail full does");
    /// Verify the API server with the certificate authority in this file; read with `--apiserver-host` only.
    "certificate-authority" Text = "": Same;
    /// Read the global settings from this ConfigMap.
    "configmap" Object = "": Same;
    /// Serve IngressClasses that have this text as `spec.controller`.
    "controller-class" Text = "k8s.io/ingress-nginx": Same;
    /// Skip Ingresses whose hosts, paths or TLS entries contain patterns of known attacks.
    "deep-inspect" Bool = "true": Same;
    /// Let this Service answer for unknown hosts and paths, instead of the built-in 404.
    "default-backend-service" Object = "": Differs("where it doesn't exist, the process starts, and the built-in 404 answers until it does");
    /// Set the port of nginx's default server.
    "default-server-port" Port = "8181": Harmless("there is no such server");
    /// Serve names without a certificate with this Secret, instead of a self-signed certificate.
    "default-ssl-certificate" Object = "": Same;
    /// Ignore every Ingress that has a `spec.defaultBackend`.
    "disable-catch-all" Bool = "false": Same;
    /// Test only the submitted object in admission.
    "disable-full-test" Bool = "false": Harmless("a review takes no longer with more Ingresses, so it always considers those of the same hosts");
    /// Use no Lease: let every replica write the status.
    "disable-leader-election" Bool = "false": Same;
    /// Don't serve Services of type ExternalName, nor external hosts of XBackends.
    "disable-svc-external-name" Bool = "false": Same;
    /// Don't write Sync events.
    "disable-sync-events" Bool = "false": Same;
    /// Try this often to post endpoints to nginx.
    "dynamic-configuration-retries" Int = "15": TUNING;
    /// Use the Lease of this name.
    "election-id" Text = "ingress-controller-leader": Same;
    /// Hold the Lease for this time.
    "election-ttl" Duration = "30s": Same;
    /// Check the values of annotations.
    "enable-annotation-validation" Bool = "true":
        Refused { reason: "values are always checked", instead: "values that are accepted, see docs/annotations.md" };
    /// Count requests and connections.
    "enable-metrics" Bool = "false": Differs("requests are always counted; it costs almost nothing");
    /// Fetch missing intermediate certificates.
    "enable-ssl-chain-completion" Bool = "false":
        Refused { reason: "the controller makes no requests to addresses that a certificate names", instead: "Secrets with the whole chain" };
    /// Enable the annotation `ssl-passthrough`.
    "enable-ssl-passthrough" Bool = "false": Same;
    /// Prefer endpoints for the zone of the own node, for Services with the annotation `service.kubernetes.io/topology-mode: Auto` or `trafficDistribution`.
    "enable-topology-aware-routing" Bool = "false":
        Differs("hints count only if all ready endpoints have one; without an endpoint for the zone, all are used");
    /// Leave out these request metrics.
    "exclude-socket-metrics" List = "": Same;
    /// Answer health checks at this path.
    "health-check-path" Text = "/healthz": Same;
    /// Limit a health check to this time.
    "health-check-timeout" Seconds = "10": Harmless("a health check depends on no other program and answers at once");
    /// Serve health checks and metrics at this address.
    "healthz-host" Text = "": Same;
    /// Serve health checks and metrics on this port.
    "healthz-port" Port = "10254": Same;
    /// Serve HTTP on this port.
    "http-port" Port = "80": Same;
    /// Serve HTTPS on this port.
    "https-port" Port = "443": Same;
    /// Serve Ingresses with this value of the annotation `kubernetes.io/ingress.class`.
    "ingress-class" Text = "nginx": Same;
    /// Serve an IngressClass of that name, whatever its controller.
    "ingress-class-by-name" Bool = "false": Same;
    /// Send nginx's stream logs to this address.
    "internal-logger-address" Text = "127.0.0.1:11514": TUNING;
    /// Reach the API server by this kubeconfig file.
    "kubeconfig" Text = "": Same;
    /// Use these buckets for histograms of lengths.
    "length-buckets" List = "10,20,30,40,50,60,70,80,90,100": Differs(BUCKETS);
    /// Limit a native histogram to this number of buckets.
    "max-buckets" Int = "100": Differs("at most 500, which 0 means as well");
    /// Use these geographic databases, with `use-geoip2`.
    "maxmind-edition-ids" List = "GeoLite2-City,GeoLite2-ASN": Differs("an unknown edition is reported and has no values, where ingress-nginx ends");
    /// Use this key to download them.
    "maxmind-license-key" Text = "": DOWNLOAD;
    /// Download them from here.
    "maxmind-mirror" Text = "": DOWNLOAD;
    /// Try the download this often.
    "maxmind-retries-count" Int = "1": Harmless("nothing is downloaded");
    /// Wait this long between two tries.
    "maxmind-retries-timeout" Duration = "0s": Harmless("nothing is downloaded");
    /// Count requests by host.
    "metrics-per-host" Bool = "true": Same;
    /// Count requests for hosts that no Ingress names exactly, each under its own host; needs `--metrics-per-host`. The last 10,000 hosts are counted separately, all others as `_`.
    "metrics-per-undefined-host" Bool = "false": Same;
    /// Send at most this many metrics at once from an nginx worker.
    "monitor-max-batch-size" Int = "10000": Harmless("each worker counts on its own and loses nothing");
    /// Wait this long between the end of traffic and the end of the process.
    "post-shutdown-grace-period" Seconds = "10": Same;
    /// Serve the profiler at this address.
    "profiler-address" Text = "127.0.0.1": PROFILER;
    /// Serve the profiler on this port.
    "profiler-port" Port = "10245": PROFILER;
    /// Serve the profiler.
    "profiling" Bool = "true": PROFILER;
    /// Write the address of this Service to the status of Ingresses; excludes `--publish-status-address`.
    "publish-service" Object = "": Differs("where it can't be read, the process starts, and status is written once it can be");
    /// Write these addresses and names to the status of Ingresses.
    "publish-status-address" List = "": Same;
    /// Write the internal addresses of nodes to the status, not the external ones.
    "report-node-internal-ip-address" Bool = "false": Same;
    /// Count statuses as 2xx, 3xx and so on.
    "report-status-classes" Bool = "false": Same;
    /// Wait this long after the signal to stop before the first listener closes; the health check already fails.
    "shutdown-grace-period" Seconds = "0": Same;
    /// Use these buckets for histograms of sizes.
    "size-buckets" List = "10,100,1000,10000,100000,1000000,10000000": Differs(BUCKETS);
    /// Use this port behind the router by server name.
    "ssl-passthrough-proxy-port" Port = "442": Harmless("one listener passes TLS through and ends it, so there is no such port");
    /// Receive endpoints for nginx on this port.
    "status-port" Port = "10246": Harmless("there is no such port");
    /// Wait this long between two writes of the status.
    "status-update-interval" Seconds = "60": Differs("the status is written as soon as it changes, and checked once in this time");
    /// Receive streams for nginx on this port.
    "stream-port" Port = "10247": Harmless("there is no such port");
    /// Read all objects again after this time.
    "sync-period" Duration = "0s": Harmless("watches miss nothing, and restart when they break");
    /// Load at most this many configurations a second.
    "sync-rate-limit" Number = "0.3": Harmless("a change costs little and is live at once");
    /// Serve the TCP services of this ConfigMap: a port and `namespace/service:port`, with `:PROXY` to read a PROXY header and a second `:PROXY` to send one.
    "tcp-services-configmap" Object = "":
        Differs("a port without endpoints is open and closes connections; a half-closed connection stays open; the PROXY header that is sent names the client of the one that was read; an entry with any other word than PROXY is refused");
    /// Use these buckets for histograms of times.
    "time-buckets" List = "0.005,0.01,0.025,0.05,0.1,0.25,0.5,1,2.5,5,10":
        Differs("without it the bounds are 0.05, 0.25, 1 and 5, unless --metrics-detail full is given");
    /// Serve the UDP services of this ConfigMap: a port and `namespace/service:port`.
    "udp-services-configmap" Object = "": Differs("a port without endpoints is open and drops datagrams");
    /// Write the status of Ingresses.
    "update-status" Bool = "true": Same;
    /// Clear the status of Ingresses when the last replica ends.
    "update-status-on-shutdown" Bool = "true": Differs("the status stays while another replica starts or is to follow, as in a rollout or when a node is drained");
    /// Serve the admission webhook at this address.
    "validating-webhook" Text = "":
        Differs("Exact and Prefix paths with the same text don't exclude each other, since both are served; a path of another Ingress is also refused where the new one has other paths of its own; what is only lost or denied is a warning");
    /// Use the certificate in this file for the webhook.
    "validating-webhook-certificate" Text = "/usr/local/certificates/cert": ADMISSION_FILES;
    /// Use the key in this file for the webhook.
    "validating-webhook-key" Text = "/usr/local/certificates/key": ADMISSION_FILES;
    /// Print the version.
    "version" Bool = "false": Same;
    /// Serve Ingresses that name no class.
    "watch-ingress-without-class" Bool = "false": Same;
    /// Serve this namespace only; excludes `--watch-namespace-selector`.
    "watch-namespace" Text = "": Same;
    /// Serve only namespaces with these labels.
    "watch-namespace-selector" Text = "": Differs("a change of a namespace's labels takes effect at once");

    /// Log more: a number from 0 to 5, or more.
    "v" 'v' Int = "0": Differs("2 and above log more, 5 logs each connection, 9 each step");
    /// Log more for these files.
    "vmodule" Text = "": LOG_LIBRARY;
    /// Log to standard error.
    "logtostderr" Bool = "true": LOG_LIBRARY;
    /// Log to files and to standard error.
    "alsologtostderr" Bool = "false": LOG_LIBRARY;
    /// Log messages of this severity to standard error.
    "stderrthreshold" Text = "2": LOG_LIBRARY;
    /// Write log files to this folder.
    "log_dir" Text = "": LOG_LIBRARY;
    /// Write the log to this file.
    "log_file" Text = "": LOG_LIBRARY;
    /// Limit the log file to this size.
    "log_file_max_size" Int = "1800": LOG_LIBRARY;
    /// Log a stack trace at this line.
    "log_backtrace_at" Text = ":0": LOG_LIBRARY;
    /// Log folders.
    "add_dir_header" Bool = "false": LOG_LIBRARY;
    /// Log without prefixes.
    "skip_headers" Bool = "false": LOG_LIBRARY;
    /// Start log files without a header.
    "skip_log_headers" Bool = "false": LOG_LIBRARY;
    /// Log each line once.
    "one_output" Bool = "false": LOG_LIBRARY;
}

/// The flag of a name without dashes; `None` if there is none.
pub fn flag(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

/// The flag that `name` was probably meant to be.
pub fn nearest_flag(name: &str) -> Option<&'static str> {
    nearest(name, FLAGS.iter().map(|flag| flag.name))
}

/// `docs/flags.md`.
pub fn flags_markdown() -> String {
    let mut out = "# Flags\n\nGenerated from the table in `crates/translate/src/config/flag.rs`; `UPDATE_DOCS=1 cargo test -p fairway-translate --test \
         tables` writes it.\n\nYou want to know how Fairway treats the flags of your controller. Fairway accepts all flags of ingress-nginx, so a Deployment's arguments can stay \
         as they are. At startup the log names each flag that is not supported yet, is refused, or has no effect.\n\n\
         | flag | default | meaning | verdict |\n| --- | --- | --- | --- |\n"
        .to_owned();
    for flag in FLAGS {
        let short = flag.short.map(|short| format!("`-{short}`, ")).unwrap_or_default();
        let value = match flag.takes.placeholder() {
            "" => String::new(),
            placeholder => format!(" {placeholder}"),
        };
        let default = if flag.default.is_empty() { "none".to_owned() } else { format!("`{}`", flag.default) };
        let note = flag.verdict.markdown();
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
        assert_eq!(notice("max-buckets", "20"), None);
        assert!(notice("maxmind-mirror", "a").is_some_and(|text| text.starts_with("--maxmind-mirror: refused")));
        assert_eq!(nearest_flag("ingres-class"), Some("ingress-class"));
    }
}
