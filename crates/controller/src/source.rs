//! The watches: as few as the flags allow.

use std::collections::BTreeSet;

use fairway_translate::diagnostic::{Diagnostic, Reason, Severity};
use fairway_translate::objects::{Kind, ObjectKey};
use fairway_translate::options::{GatewayAddressing, Options};

use crate::config::{AddressSource, ControllerConfig};
use crate::watch::{Source, Wanted, WithoutRight, plural};

/// The watches for this configuration.
///
/// With `--watch-namespace`, only IngressClass is read cluster-wide. Objects named by flags may be elsewhere: their
/// namespaces are also watched for that kind.
pub(crate) fn sources(config: &ControllerConfig) -> Vec<Source> {
    use WithoutRight::{GoOn, Wait, WaitIfDefined};
    let Options { watch_namespace, default_backend_service, default_ssl_certificate, .. } = &config.options;
    let Options { configmap, tcp_services, udp_services, publish_service, .. } = &config.options;
    let namespaces = |named: &[&Option<(String, String)>]| -> Vec<Option<String>> {
        let Some(watched) = watch_namespace else { return vec![None] };
        let named = named.iter().copied().flatten().map(|(namespace, _)| namespace);
        let others: BTreeSet<_> = named.filter(|namespace| *namespace != watched).collect();
        [watched].into_iter().chain(others).cloned().map(Some).collect()
    };
    let mut sources = Vec::new();
    let mut add = |kind, named: &[&Option<(String, String)>], wanted, without_right| {
        for namespace in namespaces(named) {
            sources.push(Source { without_right, ..Source::new(kind, namespace.as_deref(), wanted) });
        }
    };
    add(Kind::Ingress, &[], Wanted::Object, Wait);
    add(Kind::Service, &[default_backend_service], Wanted::Object, Wait);
    // Gateways with an address of their own have the endpoints of the proxy's Service.
    let proxy = if config.gateway_api { publish_service } else { &None };
    add(Kind::EndpointSlice, &[default_backend_service, proxy], Wanted::Object, Wait);
    add(Kind::Secret, &[default_ssl_certificate], Wanted::Metadata, Wait);
    // Without a ConfigMap named by a flag, no right to read any is needed.
    let named = [configmap, tcp_services, udp_services];
    add(Kind::ConfigMap, &named, Wanted::Metadata, if named.iter().all(|named| named.is_none()) { GoOn } else { Wait });
    sources.push(Source { without_right: GoOn, ..Source::new(Kind::IngressClass, None, Wanted::Object) });
    // A single namespace needs no Namespace objects; if all are watched, they determine which Ingresses yield.
    if watch_namespace.is_none() {
        let without_right = if config.options.namespace_selector.is_none() { GoOn } else { Wait };
        sources.push(Source { without_right, ..Source::new(Kind::Namespace, None, Wanted::Object) });
    }
    if config.gateway_api {
        let of_namespace = |kind| namespaces(&[]).into_iter().map(move |namespace| (kind, namespace));
        let routes = Kind::ALL.iter().copied().filter(|kind| kind.is_route());
        let policies = [
            Kind::BackendTLSPolicy,
            Kind::XBackendTrafficPolicy,
            Kind::XTelemetryPolicy,
            Kind::RoutePolicy,
            Kind::XBackend,
        ];
        // GatewayParameters are about Services, which Gateways with a shared address don't have.
        let has_own = config.options.gateway_address != GatewayAddressing::Shared;
        let parameters = has_own.then_some(Kind::GatewayParameters);
        let others = [Kind::Gateway, Kind::ListenerSet].into_iter().chain(policies).chain(parameters);
        let kinds = others.chain(routes).flat_map(of_namespace);
        // Grants may be in any namespace whose objects are read.
        let all = [(Kind::GatewayClass, None)].into_iter().chain(kinds).chain(of_namespace(Kind::ReferenceGrant));
        for (kind, namespace) in all {
            // A policy's demands must not be dropped because the policy can't be read.
            let source = Source::new(kind, namespace.as_deref(), Wanted::Object);
            sources.push(Source { without_right: WaitIfDefined, ..source });
        }
    }
    if let AddressSource::Service { namespace, name } = &config.status.addresses
        && config.status.is_written()
    {
        let name = Some(name.clone());
        let source = Source::new(Kind::Service, Some(namespace), Wanted::Addresses);
        sources.push(Source { name, without_right: GoOn, ..source });
    }
    sources
}

/// The finding about a source that can't be read, with a key that stands for all of its objects.
pub(crate) fn unreadable(source: &Source, then: &str) -> (ObjectKey, Diagnostic) {
    let namespace = source.namespace.as_deref().unwrap_or_default();
    let key = ObjectKey::new(source.kind, namespace, "*");
    let message = format!("no right to list and watch {}: {then}", plural(source.kind));
    let found = Diagnostic::new(Severity::Error, Reason::MissingRight, &key.origin(), "", "", message);
    (key, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(config: &ControllerConfig) -> Vec<String> {
        let text = |source: Source| {
            let namespace = source.namespace.as_deref().unwrap_or("*");
            let name = source.name.map(|name| format!("/{name}")).unwrap_or_default();
            format!("{} {namespace}{name}", source.kind)
        };
        sources(config).into_iter().map(text).collect()
    }

    #[test]
    fn a_namespaced_controller_reads_nothing_cluster_wide_but_classes() {
        let mut config = ControllerConfig::default();
        config.options.watch_namespace = Some("shop".into());
        config.options.default_ssl_certificate = Some(("certs".into(), "default".into()));
        config.options.configmap = Some(("shop".into(), "config".into()));
        config.options.tcp_services = Some(("edge".into(), "tcp".into()));
        config.options.udp_services = Some(("edge".into(), "udp".into()));
        config.status.addresses = AddressSource::Service { namespace: "edge".into(), name: "lb".into() };
        assert_eq!(
            watched(&config),
            [
                "Ingress shop",
                "Service shop",
                "EndpointSlice shop",
                "Secret shop",
                "Secret certs",
                "ConfigMap shop",
                "ConfigMap edge",
                "IngressClass *",
                "Service edge/lb"
            ]
        );
    }

    #[test]
    fn what_is_about_services_of_gateways_is_read_where_they_may_have_some() {
        let mut config = ControllerConfig { gateway_api: true, ..ControllerConfig::default() };
        let reads = |config: &ControllerConfig| watched(config).contains(&"GatewayParameters *".to_owned());
        for (addresses, read) in
            [(GatewayAddressing::Shared, false), (GatewayAddressing::Asked, true), (GatewayAddressing::Own, true)]
        {
            config.options.gateway_address = addresses;
            assert_eq!(reads(&config), read, "{addresses:?}");
        }
    }

    #[test]
    fn namespaces_are_needed_only_for_a_selector() {
        let without_right = |config: &ControllerConfig| {
            sources(config).into_iter().find(|source| source.kind == Kind::Namespace).map(|source| source.without_right)
        };
        let mut config = ControllerConfig::default();
        assert_eq!(without_right(&config), Some(WithoutRight::GoOn));
        config.options.namespace_selector = Some("team=a".parse().unwrap());
        assert_eq!(without_right(&config), Some(WithoutRight::Wait));
    }
}
