//! The metrics to record and their labels, from the flags of ingress-nginx.

use clap::ArgMatches;
use fairway_proxy::metrics::{Buckets, ConstantLabels, Detail, MetricOptions, NativeBuckets};
use fairway_translate::options::Options;

use crate::flags::{Flags, UsageError};

/// The options of the command line; `POD_NAME` and `POD_NAMESPACE` identify the pod.
pub(crate) fn options(matches: &ArgMatches, flags: &Flags, options: &Options) -> Result<MetricOptions, UsageError> {
    let native = NativeBuckets::new(flags.number("bucket-factor"), flags.int("max-buckets").try_into().unwrap_or(0));
    // A user who chooses the buckets of a histogram wants to see it.
    let chosen = flags.is_set("length-buckets") || flags.is_set("size-buckets") || native.is_some();
    let full = matches.get_one::<String>("metrics-detail").map_or(chosen, |text| text == "full");
    let detail = if full { Detail::Full } else { Detail::Standard };
    let defaults = MetricOptions::default();
    let excluded = flags.list("exclude-socket-metrics");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let mut metrics = MetricOptions {
        constant: ConstantLabels {
            namespace: variable("POD_NAMESPACE"),
            class: options.controller_class.clone(),
            pod: variable("POD_NAME"),
        },
        per_host: flags.bool("metrics-per-host"),
        undefined_hosts: flags.bool("metrics-per-undefined-host"),
        status_classes: flags.bool("report-status-classes"),
        undefined_host_limit: defaults.undefined_host_limit,
        detail,
        time_buckets: buckets(flags, "time-buckets")?.unwrap_or(match detail {
            Detail::Standard => defaults.time_buckets,
            Detail::Full => Buckets::times(),
        }),
        length_buckets: buckets(flags, "length-buckets")?.unwrap_or(defaults.length_buckets),
        size_buckets: buckets(flags, "size-buckets")?.unwrap_or(defaults.size_buckets),
        native,
        excluded: defaults.excluded,
    };
    metrics.exclude(excluded.iter().map(String::as_str));
    Ok(metrics)
}

fn buckets(flags: &Flags, name: &str) -> Result<Option<Buckets>, UsageError> {
    let texts = flags.list(name);
    if texts.is_empty() {
        return Ok(None);
    }
    let wrong = |text: &str| UsageError(format!("--{name}: {text}: expected rising numbers, separated by commas"));
    let bounds = texts.iter().map(|text| text.parse().map_err(|_| wrong(text))).collect::<Result<Vec<f64>, _>>()?;
    Ok(Some(Buckets::new(&bounds).map_err(|error| wrong(&error.to_string()))?))
}
