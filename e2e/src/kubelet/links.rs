//! The variables that name the Services of a pod's namespace ("service links"), as Docker's links did. A pod has them unless it
//! says `enableServiceLinks: false`.

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::ListParams;
use kube::{Api, Client};

/// The variables of the present Services.
///
/// # Errors
/// If the API server doesn't list them.
pub(crate) async fn find(client: &Client, pod: &Pod) -> kube::Result<Vec<(String, String)>> {
    if pod.spec.as_ref().and_then(|spec| spec.enable_service_links) == Some(false) {
        return Ok(Vec::new());
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    // From the API server's cache: many containers may start at once.
    let cached = ListParams::default().match_any();
    let services = Api::<Service>::namespaced(client.clone(), namespace).list(&cached).await?;
    Ok(services.iter().flat_map(variables).collect())
}

/// The variables of one Service; none without an address.
fn variables(service: &Service) -> Vec<(String, String)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let Some(address) = spec.cluster_ip.as_deref().filter(|address| !matches!(*address, "" | "None")) else {
        return Vec::new();
    };
    let upper = |name: &str| name.to_uppercase().replace('-', "_");
    let name = upper(service.metadata.name.as_deref().unwrap_or_default());
    let mut variables = vec![(format!("{name}_SERVICE_HOST"), address.to_owned())];
    let ports = spec.ports.as_deref().unwrap_or_default();
    for (index, port) in ports.iter().enumerate() {
        let number = port.port.to_string();
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{address}:{number}", protocol.to_lowercase());
        if index == 0 {
            variables.push((format!("{name}_SERVICE_PORT"), number.clone()));
            variables.push((format!("{name}_PORT"), url.clone()));
        }
        if let Some(port) = port.name.as_deref().filter(|name| !name.is_empty()) {
            variables.push((format!("{name}_SERVICE_PORT_{}", upper(port)), number.clone()));
        }
        let prefix = format!("{name}_PORT_{number}_{protocol}");
        variables.push((format!("{prefix}_PROTO"), protocol.to_lowercase()));
        variables.push((format!("{prefix}_PORT"), number));
        variables.push((format!("{prefix}_ADDR"), address.to_owned()));
        variables.push((prefix, url));
    }
    variables
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: Value) -> Vec<(String, String)> {
        let metadata = json!({"namespace": "shop", "name": "redis-primary"});
        variables(&serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
    }

    #[test]
    fn variables_are_those_of_the_kubelet() {
        let ports = json!([{"name": "p-1", "port": 81, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]);
        let mut found = of(json!({"clusterIP": "10.0.0.11", "ports": ports}));
        found.sort();
        let mut expected = [
            ("REDIS_PRIMARY_SERVICE_HOST", "10.0.0.11"),
            ("REDIS_PRIMARY_SERVICE_PORT", "81"),
            ("REDIS_PRIMARY_SERVICE_PORT_P_1", "81"),
            ("REDIS_PRIMARY_PORT", "tcp://10.0.0.11:81"),
            ("REDIS_PRIMARY_PORT_81_TCP", "tcp://10.0.0.11:81"),
            ("REDIS_PRIMARY_PORT_81_TCP_PROTO", "tcp"),
            ("REDIS_PRIMARY_PORT_81_TCP_PORT", "81"),
            ("REDIS_PRIMARY_PORT_81_TCP_ADDR", "10.0.0.11"),
            ("REDIS_PRIMARY_PORT_53_UDP", "udp://10.0.0.11:53"),
            ("REDIS_PRIMARY_PORT_53_UDP_PROTO", "udp"),
            ("REDIS_PRIMARY_PORT_53_UDP_PORT", "53"),
            ("REDIS_PRIMARY_PORT_53_UDP_ADDR", "10.0.0.11"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        expected.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_service_without_an_address_has_none() {
        assert!(of(json!({"clusterIP": "None", "ports": [{"port": 80}]})).is_empty());
        assert!(of(json!({"type": "ExternalName", "externalName": "a.example"})).is_empty());
    }
}
