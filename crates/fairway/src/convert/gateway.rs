//! The Gateway, its listeners, and permission for what is referred to in other namespaces.

use std::collections::BTreeSet;

use fairway_model::HostPattern;
use fairway_translate::annotation::IngressAnnotations;
use fairway_translate::gateway::api::{
    self, AllowedRoutes, Gateway, GatewayClass, GatewayClassSpec, GatewayListener, GatewaySpec, GrantFrom, GrantTo,
    ListenerTls, ObjectReference, ReferenceGrant, ReferenceGrantSpec, RouteNamespaces,
};
use fairway_translate::gateway::{CONTROLLER, policy};
use fairway_translate::objects::{Kind, Object, ObjectKey};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::assemble::{Assembling, Verdict};
use super::policy::Obstacle;
use super::whole::judged;

/// The listener for plain HTTP.
pub(super) const HTTP: &str = "http";
/// Most listeners that keep the requests of a name from wider ones: room is left for those with certificates.
const BARRIERS: usize = 16;
/// Most listeners of a Gateway that the API server takes.
pub(super) const LISTENERS: usize = 64;

impl Assembling<'_> {
    /// The listener for https of a host.
    pub(super) fn listener(&mut self, host: &str, secret: ObjectKey) {
        if secret.namespace != self.gateway.namespace {
            self.secrets.insert(secret.clone());
        }
        self.listeners.entry(host.to_owned()).or_insert(secret);
    }

    /// The listeners for plain HTTP of hosts. Names of which requests would go on to wider hosts get one of their own, which is noted in
    /// `barriers`.
    pub(super) fn plain_listeners<'h>(
        &self,
        hosts: impl Iterator<Item = &'h HostPattern>,
        barriers: &mut BTreeSet<String>,
    ) -> Vec<String> {
        let mut listeners = BTreeSet::new();
        for host in hosts {
            let name = host.to_string();
            let is_known = self.barriers.contains(&name) || barriers.contains(&name);
            let has_room = is_known || self.barriers.union(barriers).count() < BARRIERS;
            if has_room && self.served.ends_before_a_wider_one(host) {
                listeners.insert(plain_listener_name(&name));
                barriers.insert(name);
            } else {
                listeners.insert(HTTP.to_owned());
            }
        }
        listeners.into_iter().collect()
    }

    /// Permission to ask an authentication service of another namespace.
    pub(super) fn grant(&mut self, key: &ObjectKey, values: &IngressAnnotations) {
        let Some(url) = &values.external_auth.url else { return };
        let host = url.host.strip_suffix(".svc.cluster.local").or_else(|| url.host.strip_suffix(".svc"));
        let Some((service, namespace)) = host.and_then(|host| host.split_once('.')) else { return };
        if namespace == &*key.namespace || namespace.contains('.') {
            return;
        }
        let from = GrantFrom {
            group: policy::GROUP.to_owned(),
            kind: "RoutePolicy".to_owned(),
            namespace: key.namespace.to_string(),
        };
        let name = format!("{}-to-{service}", key.namespace);
        self.push_grant(namespace, &name, from, "Service", service);
    }

    fn push_grant(&mut self, namespace: &str, name: &str, from: GrantFrom, kind: &str, to: &str) {
        let key = ObjectKey::new(Kind::ReferenceGrant, namespace, name);
        if !self.names.insert(key.clone()) {
            return;
        }
        let to = GrantTo { group: String::new(), kind: kind.to_owned(), name: Some(to.to_owned()) };
        let grant = ReferenceGrant {
            metadata: self.metadata(&key, name),
            spec: ReferenceGrantSpec { from: vec![from], to: vec![to] },
            ..ReferenceGrant::default()
        };
        self.converted.objects.push(grant.into());
    }

    /// The Gateway and its class, before everything else.
    pub(super) fn finish(mut self, class: &str) {
        if self.converted.objects.is_empty() {
            return;
        }
        let from = || GrantFrom {
            group: api::GROUP.to_owned(),
            kind: Kind::Gateway.as_str().to_owned(),
            namespace: self.gateway.namespace.to_string(),
        };
        let grants: Vec<_> = self.secrets.iter().map(|secret| (secret.clone(), from())).collect();
        for (secret, from) in grants {
            let name = format!("{}-to-{}", self.gateway.name, secret.name);
            self.push_grant(&secret.namespace, &name, from, "Secret", &secret.name);
        }
        let all = || {
            let namespaces = RouteNamespaces { from: Some("All".to_owned()), selector: None };
            Some(AllowedRoutes { namespaces: Some(namespaces), kinds: Vec::new() })
        };
        let plain = |name: String, hostname: Option<String>| GatewayListener {
            name,
            hostname,
            port: 80,
            protocol: "HTTP".to_owned(),
            allowed_routes: all(),
            ..GatewayListener::default()
        };
        let mut listeners = vec![plain(HTTP.to_owned(), None)];
        listeners.extend(self.barriers.iter().map(|host| plain(plain_listener_name(host), Some(host.clone()))));
        self.converted.certificates = self.listeners.values().cloned().collect();
        self.converted.secured = self.listeners.keys().cloned().collect();
        for (host, secret) in &self.listeners {
            let namespace = (secret.namespace != self.gateway.namespace).then(|| secret.namespace.to_string());
            let reference = ObjectReference { name: secret.name.to_string(), namespace, ..ObjectReference::default() };
            listeners.push(GatewayListener {
                name: listener_name(host),
                hostname: Some(host.clone()),
                port: 443,
                protocol: "HTTPS".to_owned(),
                tls: Some(ListenerTls { certificate_refs: vec![reference], ..ListenerTls::default() }),
                allowed_routes: all(),
                filters: None,
            });
        }
        let gateway = Gateway {
            metadata: self.metadata(&self.gateway, &self.gateway.name),
            spec: GatewaySpec { gateway_class_name: class.to_owned(), listeners, ..GatewaySpec::default() },
            ..Gateway::default()
        };
        let class = GatewayClass {
            metadata: ObjectMeta { name: Some(class.to_owned()), ..ObjectMeta::default() },
            spec: GatewayClassSpec { controller_name: CONTROLLER.to_owned(), ..GatewayClassSpec::default() },
            ..GatewayClass::default()
        };
        self.converted.objects.splice(0..0, [class.into(), gateway.into()]);
        let refusal = |object: &Object| judged(object).err().map(|Obstacle { why, .. }| (object.key(), why));
        let refused: Vec<_> = self.converted.objects.iter().filter_map(refusal).collect();
        for (key, why) in refused {
            self.note(&key, Verdict::NotConverted, "", &why);
        }
    }
}

/// The name of the HTTPS listener of a host, which no other host has.
pub(super) fn listener_name(host: &str) -> String {
    host.strip_prefix("*.").map_or_else(|| format!("https-{host}"), |parent| format!("wildcard-https-{parent}"))
}

/// The same of its own listener for plain HTTP.
fn plain_listener_name(host: &str) -> String {
    host.strip_prefix("*.").map_or_else(|| format!("http-{host}"), |parent| format!("wildcard-http-{parent}"))
}

/// Whether a wildcard has a name.
pub(super) fn covers(wildcard: &str, name: &str) -> bool {
    let parent = name.split_once('.').map(|(_, parent)| parent);
    wildcard.strip_prefix("*.").is_some_and(|known| Some(known) == parent)
}
