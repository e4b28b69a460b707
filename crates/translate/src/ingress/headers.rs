//! Headers that an Ingress takes from ConfigMaps: `custom-headers` for responses, `auth-proxy-set-headers` for its authentication service.
//! If one can't be set, the paths are denied, as in ingress-nginx.

use fairway_model::{FieldEdit, Template};

use super::part::Part;
use crate::annotation::IngressAnnotations;
use crate::config::settings;
use crate::configmap::GlobalConfig;
use crate::diagnostic::{Diagnostic, Reason, Severity, bounded};
use crate::objects::{Kind, ObjectKey};
use crate::resource::config_maps::ConfigMaps;
use crate::value::{HeaderName, ObjectRef};

/// The headers to set, or why they can't be set.
type Headers = Result<Vec<FieldEdit>, Box<str>>;

/// The ConfigMaps that an Ingress names.
#[derive(Debug)]
pub(crate) struct HeaderMaps {
    responses: Option<ObjectKey>,
    authentication: Option<ObjectKey>,
}

/// The headers of an Ingress.
#[derive(Debug, Default)]
pub(crate) struct PartHeaders {
    /// Of its responses.
    pub(crate) responses: Option<Headers>,
    /// Of requests to its authentication service.
    pub(crate) authentication: Option<Headers>,
}

impl PartHeaders {
    /// The headers by the annotation that names their ConfigMap.
    pub(crate) fn by_name(&self) -> [(&'static str, Option<&Headers>); 2] {
        [("custom-headers", self.responses.as_ref()), ("auth-proxy-set-headers", self.authentication.as_ref())]
    }
}

impl HeaderMaps {
    pub(crate) fn of(annotations: &IngressAnnotations) -> Option<Box<Self>> {
        let key = |map: &ObjectRef| ObjectKey::new(Kind::ConfigMap, map.namespace.as_str(), map.name.as_str());
        let external = &annotations.external_auth;
        let responses = annotations.proxying.response_headers.as_deref().map(key);
        let authentication = external.url.as_ref().and(external.set_headers.as_deref()).map(key);
        let any = responses.is_some() || authentication.is_some();
        any.then(|| Box::new(Self { responses, authentication }))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.responses.iter().chain(&self.authentication)
    }
}

impl Part {
    /// The ConfigMaps that it refers to.
    pub(crate) fn config_maps(&self) -> impl Iterator<Item = &ObjectKey> {
        self.header_maps.iter().flat_map(|maps| maps.keys())
    }

    /// The headers that it takes from ConfigMaps.
    pub(crate) fn headers(&self, maps: &ConfigMaps, config: &GlobalConfig) -> PartHeaders {
        let Some(own) = &self.header_maps else { return PartHeaders::default() };
        let allowed = &config.global_allowed_response_headers.names;
        PartHeaders {
            responses: own.responses.as_ref().map(|key| {
                let built = build(key, maps, Some(allowed));
                if *key.namespace == *self.origin.namespace { built } else { built.map_err(|_| discreet(key)) }
            }),
            authentication: own.authentication.as_ref().map(|key| build(key, maps, None)),
        }
    }

    /// The findings about these headers.
    pub(super) fn header_faults(&self, headers: &PartHeaders, annotations_prefix: &str) -> Vec<Diagnostic> {
        let Some(own) = &self.header_maps else { return Vec::new() };
        let keys = [&own.responses, &own.authentication];
        let found = headers.by_name().into_iter().zip(keys).filter_map(|((name, headers), key)| {
            let (Some(key), Some(Err(why))) = (key, headers) else { return None };
            let field = format!("metadata.annotations[\"{annotations_prefix}/{name}\"]");
            let message = format!("{why}; all paths of this Ingress answer 503");
            let value = format!("{}/{}", key.namespace, key.name);
            let reason = Reason::InvalidConfiguration;
            Some(Diagnostic::new(Severity::Error, reason, &self.origin, field, &value, message).unserved())
        });
        found.collect()
    }
}

/// What the owner of an Ingress may learn about a ConfigMap of another namespace: neither its keys nor whether it exists.
fn discreet(key: &ObjectKey) -> Box<str> {
    format!(
        "expected ConfigMap {}/{}, of another namespace, to exist, with names that global-allowed-response-headers of the ConfigMap of \
         --configmap lists and with values whose variables exist",
        key.namespace, key.name
    )
    .into()
}

/// The headers of a ConfigMap. Without `allowed`, any name may be set.
fn build(key: &ObjectKey, maps: &ConfigMaps, allowed: Option<&Vec<HeaderName>>) -> Headers {
    let (namespace, map) = (&key.namespace, &key.name);
    let Some(data) = maps.data(key) else { return Err(format!("there is no ConfigMap {namespace}/{map}").into()) };
    let told = |name: &str, why: &str| -> Box<str> {
        format!("ConfigMap {namespace}/{map}, data[\"{}\"]: {why}", bounded(name)).into()
    };
    let mut edits = Vec::with_capacity(data.len());
    for (name, value) in data {
        let edit = settings::field(name, value).map_err(|why| told(name, why))?;
        let named = |allowed: &HeaderName| allowed.as_str().eq_ignore_ascii_case(edit.name().as_str());
        if allowed.is_some_and(|allowed| !allowed.iter().any(named)) {
            return Err(told(
                name,
                "expected a name that global-allowed-response-headers of the ConfigMap of --configmap lists",
            ));
        }
        if let Some(unknown) = edit.value().and_then(|value: &Template| value.unknown().next()) {
            return Err(told(name, &format!("the variable ${} has no value", bounded(unknown))));
        }
        edits.push(edit);
    }
    Ok(edits)
}
