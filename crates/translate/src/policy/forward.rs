//! How requests are forwarded: limits, time, retries and buffers.

use std::num::NonZeroU64;
use std::sync::{Arc, LazyLock};

use fairway_model::{
    Bandwidth, ByteLimit, ForwardPolicy, RequestBuffering, Retry, RetryOn, Template, UpstreamProtocol, UpstreamTls,
};

use crate::annotation::{IngressAnnotations, Proxying};
use crate::configmap::GlobalConfig;
use crate::engine::shared::Shared;
use crate::limit;
use crate::value::{self, BackendProtocol, ConnectionHeader, RetryCondition, Switch};

/// The configuration without a ConfigMap.
pub(crate) static PLAIN: LazyLock<GlobalConfig> = LazyLock::new(GlobalConfig::default);

/// Forwarding policies in use: routes that forward alike share one.
#[derive(Debug, Default)]
pub(crate) struct Policies(pub(crate) Shared<ForwardPolicy>);

impl Policies {
    pub(crate) fn of(
        &mut self,
        annotations: &IngressAnnotations,
        config: &GlobalConfig,
        protocol: UpstreamProtocol,
        tls: Option<Arc<UpstreamTls>>,
    ) -> Arc<ForwardPolicy> {
        let mut policy = ForwardPolicy { tls, protocol, ..policy(annotations, config) };
        if protocol == UpstreamProtocol::Http2 {
            // The settings are those of `proxy_pass`; those of `grpc_pass` have their defaults (nginx `grpc_next_upstream`).
            policy.retry = Retry { tries: None, ..Retry::default() };
        }
        self.0.of(policy)
    }

    /// The policy without any annotations.
    pub(crate) fn plain(&mut self, config: &GlobalConfig) -> Arc<ForwardPolicy> {
        self.of(&IngressAnnotations::default(), config, UpstreamProtocol::Http1, None)
    }
}

/// The size of response heads that the proxy always accepts.
const RESPONSE_HEAD: u32 = 128 << 10;

fn policy(annotations: &IngressAnnotations, config: &GlobalConfig) -> ForwardPolicy {
    let proxying = &annotations.proxying;
    let seconds = |own: Option<value::Seconds>, global: value::Seconds| own.unwrap_or(global).duration();
    let on = proxying.next_upstream.unwrap_or(config.proxy_next_upstream);
    let has = |condition| on.contains(condition);
    let mut retry = RetryOn::default();
    if !has(RetryCondition::Off) {
        retry = RetryOn {
            connect: false,
            error: has(RetryCondition::Error),
            timeout: has(RetryCondition::Timeout),
            invalid_header: has(RetryCondition::InvalidHeader),
            non_idempotent: has(RetryCondition::NonIdempotent) || config.retry_non_idempotent,
            statuses: on.iter().filter_map(status).collect(),
        };
    }
    let response_head = proxying.buffer_size.unwrap_or(config.proxy_buffer_size).0.min(limit::RESPONSE_HEAD) as u32;
    let tries = proxying.next_upstream_tries.unwrap_or(config.proxy_next_upstream_tries);
    let within = seconds(proxying.next_upstream_timeout, config.proxy_next_upstream_timeout);
    ForwardPolicy {
        response_within: None,
        whole_head: false,
        connect_timeout: seconds(proxying.connect_timeout, config.proxy_connect_timeout),
        send_timeout: seconds(proxying.send_timeout, config.proxy_send_timeout),
        read_timeout: seconds(proxying.read_timeout, config.proxy_read_timeout),
        max_body: proxying.body_size.unwrap_or(config.proxy_body_size).limit().map_or(ByteLimit::NONE, ByteLimit::of),
        request_buffering: match (proxying.request_buffering, config.proxy_request_buffering) {
            (Some(Switch::On), _) => RequestBuffering::All,
            (None, Switch::On) => RequestBuffering::Unmeasured,
            (Some(Switch::Off), _) | (None, Switch::Off) => RequestBuffering::Off,
        },
        max_response_head: Some(response_head).filter(|bytes| *bytes > RESPONSE_HEAD),
        response_buffer: response_buffer(proxying, config),
        retry: Retry {
            on: retry,
            tries: Some(tries).filter(|tries| *tries > 0),
            within: Some(within).filter(|within| !within.is_zero()),
        },
        upstream_host: proxying.vhost.as_ref().map(|vhost| Template::parse(vhost.as_str())),
        bandwidth: bandwidth(annotations, config),
        close: proxying.connection == Some(ConnectionHeader::Close),
        tls: None,
        protocol: UpstreamProtocol::default(),
        session: None,
    }
}

/// The policy with the values that these annotations set; all others stay as they are.
pub(crate) fn adjusted(policy: &ForwardPolicy, annotations: &IngressAnnotations) -> ForwardPolicy {
    let (set, mut policy) = (self::policy(annotations, &PLAIN), policy.clone());
    let (proxying, limits) = (&annotations.proxying, &annotations.limits);
    if proxying.body_size.is_some() {
        policy.max_body = set.max_body;
    }
    if proxying.request_buffering.is_some() {
        policy.request_buffering = set.request_buffering;
    }
    if proxying.buffering.is_some() {
        policy.response_buffer = set.response_buffer;
    }
    if limits.rate.is_some() {
        policy.bandwidth = set.bandwidth;
    }
    let times = [
        (proxying.connect_timeout, &mut policy.connect_timeout, set.connect_timeout),
        (proxying.send_timeout, &mut policy.send_timeout, set.send_timeout),
        (proxying.read_timeout, &mut policy.read_timeout, set.read_timeout),
    ];
    for (own, time, set) in times {
        if own.is_some() {
            *time = set;
        }
    }
    if proxying.next_upstream.is_some() {
        policy.retry.on = set.retry.on;
    }
    if proxying.next_upstream_tries.is_some() {
        policy.retry.tries = set.retry.tries;
    }
    if proxying.next_upstream_timeout.is_some() {
        policy.retry.within = set.retry.within;
    }
    policy
}

/// How much of a response may wait for its client. The proxy has its own limit.
fn response_buffer(proxying: &Proxying, config: &GlobalConfig) -> Option<u32> {
    if proxying.buffering.unwrap_or(config.proxy_buffering) == Switch::Off {
        return None;
    }
    let number = proxying.buffers_number.unwrap_or(config.proxy_buffers_number);
    let size = proxying.buffer_size.unwrap_or(config.proxy_buffer_size).0;
    Some(u32::try_from(size.saturating_mul(number.into())).unwrap_or(u32::MAX))
}

/// The protocol to speak to endpoints.
pub(crate) fn protocol(annotations: &IngressAnnotations) -> UpstreamProtocol {
    match annotations.proxying.protocol {
        None | Some(BackendProtocol::Http | BackendProtocol::Https | BackendProtocol::Fcgi) => UpstreamProtocol::Http1,
        Some(BackendProtocol::AutoHttp) => UpstreamProtocol::LikeClient,
        Some(BackendProtocol::Grpc | BackendProtocol::Grpcs) => UpstreamProtocol::Http2,
    }
}

fn status(condition: RetryCondition) -> Option<u16> {
    match condition {
        RetryCondition::Http500 => Some(500),
        RetryCondition::Http502 => Some(502),
        RetryCondition::Http503 => Some(503),
        RetryCondition::Http504 => Some(504),
        RetryCondition::Http403 => Some(403),
        RetryCondition::Http404 => Some(404),
        RetryCondition::Http429 => Some(429),
        _ => None,
    }
}

/// The bandwidth of each response.
fn bandwidth(annotations: &IngressAnnotations, config: &GlobalConfig) -> Option<Bandwidth> {
    let limits = &annotations.limits;
    let bytes = |kilobytes: u32| u64::from(kilobytes) << 10;
    let rate = NonZeroU64::new(bytes(limits.rate.unwrap_or(config.limit_rate)))?;
    Some(Bandwidth { rate, after: bytes(limits.rate_after.unwrap_or(config.limit_rate_after)) })
}
