//! The environment of a container: literals, references to fields, resources, Secrets and ConfigMaps, and `$(NAME)`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, Node, ObjectFieldSelector, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::objects::{Key, Objects};

/// Why a container can't be configured.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConfigError(pub String);

/// The targets of references.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its address, or the Node's in the Node's network.
    pub pod_ip: &'a str,
    /// The Node's address.
    pub host_ip: &'a str,
    /// Capacity of the Node, for limits that a container does not set.
    pub node: &'a Node,
}

/// Reads a field of the pod, in the syntax of the downward API.
///
/// # Errors
/// If the field is not one that Kubernetes offers.
pub(crate) fn field(sources: &Sources<'_>, path: &str) -> Result<String, ConfigError> {
    let metadata = &sources.pod.metadata;
    let spec = sources.pod.spec.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    if let Some((name, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match name {
            "metadata.labels" => &metadata.labels,
            "metadata.annotations" => &metadata.annotations,
            _ => return Err(ConfigError(format!("unsupported fieldPath: {path}"))),
        };
        return Ok(text(map.as_ref().and_then(|map| map.get(key))));
    }
    Ok(match path {
        "metadata.name" => text(metadata.name.as_ref()),
        "metadata.namespace" => text(metadata.namespace.as_ref()),
        "metadata.uid" => text(metadata.uid.as_ref()),
        "metadata.labels" => lines(metadata.labels.as_ref()),
        "metadata.annotations" => lines(metadata.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.podIP" | "status.podIPs" => sources.pod_ip.to_owned(),
        "status.hostIP" | "status.hostIPs" => sources.host_ip.to_owned(),
        _ => return Err(ConfigError(format!("unsupported fieldPath: {path}"))),
    })
}

/// Formats `key="value"` lines, as in files of the downward API.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Reads a resource of a container, divided and rounded up as the downward API does.
///
/// # Errors
/// If the resource or a quantity is unknown to Kubernetes.
pub(crate) fn resource(
    sources: &Sources<'_>,
    container: &str,
    selector: &ResourceFieldSelector,
) -> Result<String, ConfigError> {
    let name = selector.container_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(container);
    let spec = sources.pod.spec.as_ref();
    let all = spec.iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let found = all.into_iter().find(|container| container.name == name);
    let found = found.ok_or_else(|| ConfigError(format!("container {name} not found")))?;
    let resources = found.resources.as_ref();
    let bad = || ConfigError(format!("unsupported resource: {}", selector.resource));
    let (kind, resource) = selector.resource.split_once('.').ok_or_else(bad)?;
    let own = match kind {
        "limits" => resources.and_then(|resources| resources.limits.as_ref()),
        "requests" => resources.and_then(|resources| resources.requests.as_ref()),
        _ => return Err(bad()),
    };
    let mut value = own.and_then(|map| map.get(resource));
    if value.is_none() && kind == "limits" {
        let status = sources.node.status.as_ref();
        value = status.and_then(|status| status.allocatable.as_ref()).and_then(|map| map.get(resource));
    }
    let zero = Quantity("0".to_owned());
    let value = thousandths(value.unwrap_or(&zero)).ok_or_else(bad)?;
    let divisor = selector.divisor.as_ref().filter(|divisor| divisor.0 != "0");
    let divisor = divisor.map_or(Some(1000), thousandths).filter(|divisor| *divisor > 0).ok_or_else(bad)?;
    Ok(value.div_ceil(divisor).to_string())
}

/// A quantity times 1000; exact for everything down to "m".
fn thousandths(quantity: &Quantity) -> Option<u128> {
    let text = quantity.0.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let factor: u128 = match suffix {
        "m" => 1,
        "" => 1000,
        "k" => 1000 * 1000,
        "M" => 1000 * 1000_u128.pow(2),
        "G" => 1000 * 1000_u128.pow(3),
        "T" => 1000 * 1000_u128.pow(4),
        "Ki" => 1000 * 1024,
        "Mi" => 1000 * 1024_u128.pow(2),
        "Gi" => 1000 * 1024_u128.pow(3),
        "Ti" => 1000 * 1024_u128.pow(4),
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    let fraction: String = fraction.chars().take(9).collect();
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = if fraction.is_empty() { 0 } else { fraction.parse::<u64>().ok()? };
    Some(u128::from(whole) * factor + (u128::from(part) * factor).div_ceil(scale))
}

/// Replaces `$(NAME)` with the variable's value; `$$(NAME)` stands for `$(NAME)`, and unknown names are kept.
pub(crate) fn expand(text: &str, known: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            match known(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// The variables that `container` sets for itself, later ones replacing earlier ones of the same name. `fixed` are those that
/// every container has; they come first.
///
/// # Errors
/// If a required reference has no target.
pub(crate) fn variables(
    container: &Container,
    sources: &Sources<'_>,
    objects: &Objects,
    fixed: Vec<(String, String)>,
) -> Result<Vec<(String, String)>, ConfigError> {
    let namespace = sources.pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut variables = Variables(fixed);
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let (key, optional) = match (&source.config_map_ref, &source.secret_ref) {
            (Some(map), _) => (Key::config_map(namespace, &map.name), map.optional),
            (None, Some(secret)) => (Key::secret(namespace, &secret.name), secret.optional),
            (None, None) => continue,
        };
        match objects.data(&key) {
            Some(data) => {
                // The variables of a ConfigMap are its `data`; non-text values can only be in its `binaryData`.
                let is_text = |value: &[u8]| !value.contains(&0) && std::str::from_utf8(value).is_ok();
                let all = source.secret_ref.is_some();
                for (name, value) in data.iter().filter(|(_, value)| all || is_text(value)) {
                    variables.set(&format!("{prefix}{name}"), String::from_utf8_lossy(value).into_owned());
                }
            }
            None if optional == Some(true) => {}
            None => return Err(ConfigError(format!("{key} not found"))),
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value(variable, container, sources, objects, &variables)? {
            variables.set(&variable.name, value);
        }
    }
    Ok(variables.0)
}

fn value(
    variable: &EnvVar,
    container: &Container,
    sources: &Sources<'_>,
    objects: &Objects,
    known: &Variables,
) -> Result<Option<String>, ConfigError> {
    let Some(from) = &variable.value_from else {
        let text = variable.value.as_deref().unwrap_or_default();
        return Ok(Some(expand(text, &|name| known.get(name))));
    };
    let namespace = sources.pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(ObjectFieldSelector { field_path, .. }) = &from.field_ref {
        return field(sources, field_path).map(Some);
    }
    if let Some(selector) = &from.resource_field_ref {
        return resource(sources, &container.name, selector).map(Some);
    }
    let (object, key, optional) = match (&from.config_map_key_ref, &from.secret_key_ref) {
        (Some(map), _) => (Key::config_map(namespace, &map.name), &map.key, map.optional),
        (None, Some(secret)) => (Key::secret(namespace, &secret.name), &secret.key, secret.optional),
        (None, None) => return Err(ConfigError(format!("variable {}: unsupported source", variable.name))),
    };
    let optional = optional == Some(true);
    match objects.data(&object) {
        Some(data) => match data.get(key) {
            Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
            None if optional => Ok(None),
            None => Err(ConfigError(format!("couldn't find key {key} in {object}"))),
        },
        None if optional => Ok(None),
        None => Err(ConfigError(format!("{object} not found"))),
    }
}

/// The Secrets and ConfigMaps named in a container's environment.
pub(crate) fn references(container: &Container, metadata: &ObjectMeta) -> Vec<Key> {
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let mut keys = Vec::new();
    for source in container.env_from.iter().flatten() {
        keys.extend(source.config_map_ref.iter().map(|map| Key::config_map(namespace, &map.name)));
        keys.extend(source.secret_ref.iter().map(|secret| Key::secret(namespace, &secret.name)));
    }
    for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        keys.extend(source.config_map_key_ref.iter().map(|map| Key::config_map(namespace, &map.name)));
        keys.extend(source.secret_key_ref.iter().map(|secret| Key::secret(namespace, &secret.name)));
    }
    keys
}

struct Variables(Vec<(String, String)>);

impl Variables {
    fn get(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    fn set(&mut self, name: &str, value: String) {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value));
    }
}

#[cfg(test)]
mod tests;
