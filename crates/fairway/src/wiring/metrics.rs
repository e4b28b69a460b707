//! What is counted and how it is labelled, by the flags of ingress-nginx.

use fairway_proxy::metrics::{Buckets, ConstantLabels, MetricOptions};
use fairway_translate::options::Options;

use crate::flags::{Flags, UsageError};

/// The choices of the command line; the pod is known by `POD_NAME` and `POD_NAMESPACE`.
pub(crate) fn options(flags: &Flags, options: &Options) -> Result<MetricOptions, UsageError> {
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
        time_buckets: buckets(flags, "time-buckets")?.unwrap_or(defaults.time_buckets),
        length_buckets: buckets(flags, "length-buckets")?.unwrap_or(defaults.length_buckets),
        size_buckets: buckets(flags, "size-buckets")?.unwrap_or(defaults.size_buckets),
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
    let wrong = |text: &str| UsageError(format!("--{name}: {text}: expected rising numbers, parted by commas"));
    let bounds = texts.iter().map(|text| text.parse().map_err(|_| wrong(text))).collect::<Result<Vec<f64>, _>>()?;
    Ok(Some(Buckets::new(&bounds).map_err(|error| wrong(&error.to_string()))?))
}
