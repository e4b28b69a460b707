//! The admin listener of the process, joined to the proxy that it speaks for.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use fairway_proxy::Proxy;
use fairway_proxy::admin::{AdminServer, AdminSource, Lifecycle};
use fairway_proxy::metrics::{Buckets, ConfigStatus, ConstantLabels, MetricOptions, ProxyFigures};
use fairway_translate::options::Options;

use crate::flags::{Flags, UsageError};

/// Tells probes where in its life the process is, and scrapers what it counted.
pub(crate) struct Admin {
    lifecycle: Lifecycle,
    address: Option<SocketAddr>,
}

impl Admin {
    /// Binds the listener, if there is to be one, and answers from now on; `/readyz` fails until [`serving`](Self::serving).
    pub(crate) async fn start(
        address: Option<SocketAddr>,
        proxy: &Proxy,
        flags: &Flags,
        options: &Options,
    ) -> anyhow::Result<Self> {
        let lifecycle = Lifecycle::default();
        let Some(address) = address else { return Ok(Self { lifecycle, address: None }) };
        let server = AdminServer::bind(address).await.with_context(|| {
            format!("the admin listener can't have {address}; --admin or --healthz-port chooses another one")
        })?;
        let address = server.local_address()?;
        let publisher = proxy.publisher();
        let source = AdminSource {
            lifecycle: lifecycle.clone(),
            health_path: flags.text("health-check-path").unwrap_or_else(|| "/healthz".into()),
            patience: flags.time("health-check-timeout").max(std::time::Duration::from_secs(1)),
            metrics: Arc::new(metric_options(flags, options)?),
            ping: Box::new(Vec::new),
            reports: Box::new(|_| Vec::new()),
            running: Box::new(move || {
                let status = ConfigStatus { version: publisher.version(), ..ConfigStatus::default() };
                (publisher.snapshot(), status)
            }),
            figures: Box::new(ProxyFigures::default),
        };
        tokio::spawn(server.run(Arc::new(source)));
        Ok(Self { lifecycle, address: Some(address) })
    }

    /// The first complete configuration is live.
    pub(crate) fn serving(&self) {
        self.lifecycle.serving();
    }

    /// The process was asked to end: probes fail from now on, so that traffic goes elsewhere.
    pub(crate) fn stopping(&self) {
        self.lifecycle.stopping();
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

/// What is counted and how it is labelled, by the flags of ingress-nginx.
pub(crate) fn metric_options(flags: &Flags, options: &Options) -> anyhow::Result<MetricOptions> {
    let defaults = MetricOptions::default();
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    Ok(MetricOptions {
        constant: ConstantLabels {
            namespace: variable("POD_NAMESPACE"),
            class: options.controller_class.clone(),
            pod: variable("POD_NAME"),
        },
        per_host: flags.bool("metrics-per-host"),
        undefined_hosts: flags.bool("metrics-per-undefined-host"),
        status_classes: flags.bool("report-status-classes"),
        excluded: flags.list("exclude-socket-metrics").into_iter().collect::<BTreeSet<_>>(),
        time_buckets: buckets(flags, "time-buckets")?.unwrap_or(defaults.time_buckets),
        length_buckets: buckets(flags, "length-buckets")?.unwrap_or(defaults.length_buckets),
        size_buckets: buckets(flags, "size-buckets")?.unwrap_or(defaults.size_buckets),
    })
}

fn buckets(flags: &Flags, name: &str) -> anyhow::Result<Option<Buckets>> {
    let texts = flags.list(name);
    if texts.is_empty() {
        return Ok(None);
    }
    let wrong = |text: &str| UsageError(format!("--{name}: {text}: expected rising numbers, parted by commas"));
    let bounds = texts.iter().map(|text| text.parse().map_err(|_| wrong(text))).collect::<Result<Vec<f64>, _>>()?;
    Ok(Some(Buckets::new(&bounds).map_err(|error| wrong(&error.to_string()))?))
}
