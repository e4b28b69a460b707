use super::*;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Field, value and message of each reason.
fn reasons<T: DeserializeOwned + Validate + Metadata<Ty = ObjectMeta>>(object: Value) -> Vec<String> {
    let object: T = serde_json::from_value(object).unwrap();
    let line = |Refusal { field, value, message }| match &*value {
        "" => format!("{field}: {message}"),
        _ => format!("{field}: {value}: {message}"),
    };
    refusals(&object).into_iter().map(line).collect()
}

/// Each case is refused for exactly one reason, which begins with the given text.
fn one_each<T: DeserializeOwned + Validate + Metadata<Ty = ObjectMeta>>(cases: &[(Value, &str)]) {
    for (object, expected) in cases {
        let found = reasons::<T>(object.clone());
        assert!(found.len() == 1 && found[0].starts_with(expected), "{object}: expected {expected}, found {found:?}");
    }
}

fn backend() -> Value {
    json!({"service": {"name": "web", "port": {"number": 80}}})
}

fn ingress(spec: Value) -> Value {
    json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec})
}

/// An Ingress with one rule that has one path.
fn path(path: Value) -> Value {
    ingress(json!({"rules": [{"host": "a.example", "http": {"paths": [path]}}]}))
}

fn with_backend(backend: Value) -> Value {
    path(json!({"path": "/", "pathType": "Prefix", "backend": backend}))
}

fn host(host: &str) -> Value {
    ingress(json!({"rules": [{"host": host}]}))
}

#[test]
fn what_the_api_server_takes_is_not_refused() {
    for object in [
        host("a.example"),
        host("*.a.example"),
        host(""),
        ingress(json!({"defaultBackend": backend()})),
        ingress(json!({"defaultBackend": {"resource": {"kind": "Bucket", "name": "b", "apiGroup": "s.example"}}})),
        ingress(json!({"rules": [{}], "tls": [{}, {"hosts": ["*.a.example", "10.0.0.1"], "secretName": "s.t"}]})),
        path(json!({"path": "/a", "pathType": "Exact", "backend": backend()})),
        path(json!({"path": "/a(/|$)(.*)", "pathType": "Prefix", "backend": backend()})),
        path(json!({"pathType": "ImplementationSpecific", "backend": backend()})),
        path(json!({"path": "//a/../%2F", "pathType": "ImplementationSpecific", "backend": backend()})),
        with_backend(json!({"service": {"name": "1web", "port": {"name": "http"}}})),
    ] {
        assert_eq!(reasons::<Ingress>(object.clone()), [""; 0], "{object}");
    }
}

#[test]
fn paths_of_an_ingress() {
    const AT: &str = "spec.rules[0].http.paths[0]";
    let of_type = |kind: &str, text: &str| path(json!({"path": text, "pathType": kind, "backend": backend()}));
    one_each::<Ingress>(&[
        (
            path(json!({"path": "/", "backend": backend()})),
            &format!("{AT}.pathType: Required value: pathType must be specified"),
        ),
        (
            of_type("prefix", "/"),
            &format!(
                "{AT}.pathType: prefix: Unsupported value: supported are Exact, ImplementationSpecific, Prefix; did you mean Prefix?"
            ),
        ),
        (of_type("Prefix", ""), &format!("{AT}.path: Invalid value: must be an absolute path")),
        (of_type("Exact", "a"), &format!("{AT}.path: a: Invalid value: must be an absolute path")),
        (of_type("ImplementationSpecific", "a"), &format!("{AT}.path: a: Invalid value: must be an absolute path")),
        (of_type("Prefix", "//a"), &format!("{AT}.path: //a: Invalid value: must not contain '//'")),
        (of_type("Prefix", "/a/./b"), &format!("{AT}.path: /a/./b: Invalid value: must not contain '/./'")),
        (of_type("Exact", "/a/../b"), &format!("{AT}.path: /a/../b: Invalid value: must not contain '/../'")),
        (of_type("Exact", "/a%2fb"), &format!("{AT}.path: /a%2fb: Invalid value: must not contain '%2f'")),
        (of_type("Exact", "/a%2Fb"), &format!("{AT}.path: /a%2Fb: Invalid value: must not contain '%2F'")),
        (of_type("Exact", "/a/.."), &format!("{AT}.path: /a/..: Invalid value: cannot end with '/..'")),
        (of_type("Exact", "/a/."), &format!("{AT}.path: /a/.: Invalid value: cannot end with '/.'")),
        (ingress(json!({"rules": [{"http": {"paths": []}}]})), "spec.rules[0].http.paths: Required value"),
        (ingress(json!({})), "spec: Invalid value: either `defaultBackend` or `rules` must be specified"),
        (ingress(json!({"rules": []})), "spec: Invalid value: either"),
    ]);
}

#[test]
fn backends_of_an_ingress() {
    const AT: &str = "spec.rules[0].http.paths[0].backend";
    let port = |port: Value| with_backend(json!({"service": {"name": "web", "port": port}}));
    let resource = json!({"kind": "Bucket", "name": "b"});
    one_each::<Ingress>(&[
        (with_backend(json!({})), &format!("{AT}: Invalid value: resource or service backend is required")),
        (
            with_backend(json!({"resource": resource, "service": {"name": "web", "port": {"number": 80}}})),
            &format!("{AT}: Invalid value: cannot set both resource and service backends"),
        ),
        (with_backend(json!({"resource": {"kind": "", "name": "b"}})), &format!("{AT}.resource.kind: Required value")),
        (
            with_backend(json!({"resource": {"kind": "K", "name": "a/b"}})),
            &format!("{AT}.resource.name: a/b: Invalid value: may not contain '/'"),
        ),
        (
            with_backend(json!({"service": {"name": "", "port": {"number": 80}}})),
            &format!("{AT}.service.name: Required value"),
        ),
        (
            with_backend(json!({"service": {"name": "web.shop", "port": {"number": 80}}})),
            &format!("{AT}.service.name: web.shop: Invalid value: must not contain dots"),
        ),
        (
            port(json!({"name": "http", "number": 80})),
            &format!("{AT}: Invalid value: cannot set both port name & port number"),
        ),
        (port(json!({})), &format!("{AT}: Required value: port name or number is required")),
        (port(json!({"number": 0})), &format!("{AT}: Required value: port name or number is required")),
        (
            port(json!({"number": 65536})),
            &format!("{AT}.service.port.number: 65536: Invalid value: must be between 1 and 65535, inclusive"),
        ),
        (
            port(json!({"name": "80"})),
            &format!("{AT}.service.port.name: 80: Invalid value: must contain at least one letter"),
        ),
        (
            ingress(json!({"defaultBackend": {}})),
            "spec.defaultBackend: Invalid value: resource or service backend is required",
        ),
    ]);
}

#[test]
fn hosts_certificates_and_class_of_an_ingress() {
    let tls = |tls: Value| ingress(json!({"defaultBackend": backend(), "tls": [tls]}));
    one_each::<Ingress>(&[
        (host("A.Example"), "spec.rules[0].host: A.Example: Invalid value: a lowercase RFC 1123 subdomain"),
        (host("10.0.0.1"), "spec.rules[0].host: 10.0.0.1: Invalid value: must be a DNS name, not an IP address"),
        (host("::1"), "spec.rules[0].host: ::1: Invalid value: must be a DNS name, not an IP address"),
        (host("a.example:80"), "spec.rules[0].host: a.example:80: Invalid value: a lowercase RFC 1123 subdomain"),
        (host("*"), "spec.rules[0].host: *: Invalid value: a wildcard DNS-1123 subdomain must start with '*.'"),
        (host("a.*.example"), "spec.rules[0].host: a.*.example: Invalid value: a wildcard"),
        (host("*.*.example"), "spec.rules[0].host: *.*.example: Invalid value: a wildcard"),
        (
            tls(json!({"hosts": ["a.example", "a_b.example"]})),
            "spec.tls[0].hosts[1]: a_b.example: Invalid value: a lower",
        ),
        (tls(json!({"hosts": ["*a.example"]})), "spec.tls[0].hosts[0]: *a.example: Invalid value: a wildcard"),
        (
            tls(json!({"secretName": "shop/tls"})),
            "spec.tls[0].secretName: shop/tls: Invalid value: a lowercase RFC 1123",
        ),
        (
            ingress(json!({"defaultBackend": backend(), "ingressClassName": ""})),
            "spec.ingressClassName: Invalid value: a lowercase RFC 1123 subdomain",
        ),
    ]);
    assert!(reasons::<Ingress>(host("Shop.Example"))[0].ends_with(": write shop.example"));
}

#[test]
fn classes() {
    let class = |spec: Value| json!({"metadata": {"name": "nginx"}, "spec": spec});
    let parameters = |parameters: Value| class(json!({"controller": "k8s.io/ingress-nginx", "parameters": parameters}));
    one_each::<IngressClass>(&[
        (class(json!({})), "spec.controller: Required value"),
        (
            class(json!({"controller": "nginx"})),
            "spec.controller: nginx: Invalid value: must be a domain-prefixed path",
        ),
        (
            class(json!({"controller": "a/".to_owned() + &"b".repeat(249)})),
            "spec.controller: Too long: may not be more than 250",
        ),
        (parameters(json!({"kind": "K", "name": ""})), "spec.parameters.name: Required value"),
        (
            parameters(json!({"kind": "K", "name": "n", "scope": "Namespace"})),
            "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'",
        ),
        (
            parameters(json!({"kind": "K", "name": "n", "scope": "Cluster", "namespace": "a"})),
            "spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'",
        ),
        (
            parameters(json!({"kind": "K", "name": "n", "scope": "cluster"})),
            "spec.parameters.scope: cluster: Unsupported",
        ),
    ]);
    let whole = parameters(json!({"kind": "K", "name": "n", "scope": "Namespace", "namespace": "a"}));
    assert_eq!(reasons::<IngressClass>(whole), [""; 0]);
}

#[test]
fn services() {
    let service = |spec: Value| json!({"metadata": {"name": "web"}, "spec": spec});
    let port = |port: Value| service(json!({"ports": [port]}));
    one_each::<Service>(&[
        (service(json!({})), "spec.ports: Required value"),
        (service(json!({"type": "Clusterip", "ports": [{"port": 80}]})), "spec.type: Clusterip: Unsupported value"),
        (port(json!({"port": 0})), "spec.ports[0].port: 0: Invalid value: must be between 1 and 65535, inclusive"),
        (port(json!({"port": 65536})), "spec.ports[0].port: 65536: Invalid value"),
        (
            port(json!({"port": 80, "name": "Web"})),
            "spec.ports[0].name: Web: Invalid value: a lowercase RFC 1123 label",
        ),
        (
            port(json!({"port": 80, "protocol": "HTTP"})),
            "spec.ports[0].protocol: HTTP: Unsupported value: supported are SCTP, TCP, UDP",
        ),
        (port(json!({"port": 80, "targetPort": -1})), "spec.ports[0].targetPort: -1: Invalid value: must be between"),
        (
            port(json!({"port": 80, "targetPort": "8080"})),
            "spec.ports[0].targetPort: 8080: Invalid value: must contain at least",
        ),
        (port(json!({"port": 80, "appProtocol": "a b"})), "spec.ports[0].appProtocol: a b: Invalid value: name part"),
        (port(json!({"port": 80, "nodePort": 30080})), "spec.ports[0].nodePort: Forbidden: may not be used"),
        (service(json!({"ports": [{"port": 80, "name": "a"}, {"port": 81}]})), "spec.ports[1].name: Required value"),
        (
            service(json!({"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]})),
            "spec.ports[1].name: a: Duplicate value",
        ),
        (
            service(json!({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b", "protocol": "TCP"}]})),
            "spec.ports[1]: TCP 80: Duplicate value",
        ),
        (service(json!({"type": "ExternalName"})), "spec.externalName: Required value"),
        (
            service(json!({"type": "ExternalName", "externalName": "http://a.example"})),
            "spec.externalName: http://a.example: Invalid value: a lowercase RFC 1123 subdomain",
        ),
        (
            service(json!({"type": "ExternalName", "externalName": "a.example", "clusterIP": "None"})),
            "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
        ),
        (
            service(json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 80}]})),
            "spec.clusterIPs[0]: None: Invalid value: may not be set to 'None' for NodePort services",
        ),
        (
            service(json!({"ports": [{"port": 80}], "selector": {"app": "a b"}})),
            "spec.selector: a b: Invalid value: a valid label",
        ),
        (
            service(json!({"ports": [{"port": 80}], "sessionAffinity": "ClientIp"})),
            "spec.sessionAffinity: ClientIp: Unsupported",
        ),
    ]);
    for spec in [
        json!({"clusterIP": "None"}),
        json!({"type": "ExternalName", "externalName": "a.example."}),
        json!({"ports": [{"port": 53, "name": "a", "targetPort": 0}, {"port": 53, "name": "b", "protocol": "UDP"}]}),
        json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080, "targetPort": "http"}]}),
    ] {
        assert_eq!(reasons::<Service>(service(spec.clone())), [""; 0], "{spec}");
    }
}

#[test]
fn endpoint_slices() {
    let slice = |slice: Value| {
        let mut whole = json!({"metadata": {"name": "web-1"}, "addressType": "IPv4", "endpoints": []});
        whole.as_object_mut().unwrap().extend(slice.as_object().unwrap().clone());
        whole
    };
    one_each::<EndpointSlice>(&[
        (slice(json!({"addressType": "IP"})), "addressType: IP: Unsupported value: supported are FQDN, IPv4, IPv6"),
        (
            slice(json!({"endpoints": [{"addresses": []}]})),
            "endpoints[0].addresses: Required value: must contain at least 1",
        ),
        (slice(json!({"endpoints": [{"addresses": vec!["10.0.0.1"; 101]}]})), "endpoints[0].addresses: Too many: 101"),
        (slice(json!({"endpoints": vec![json!({"addresses": ["10.0.0.1"]}); 1001]})), "endpoints: Too many: 1001"),
        (slice(json!({"ports": [{"name": "a"}, {"name": "a"}]})), "ports[1].name: a: Duplicate value"),
        (slice(json!({"ports": [{"name": "A"}]})), "ports[0].name: A: Invalid value"),
        (slice(json!({"ports": [{"protocol": "tcp"}]})), "ports[0].protocol: tcp: Unsupported value"),
    ]);
    let own = json!({"endpoints": [{"addresses": ["127.0.0.1"]}], "ports": [{"port": 80}]});
    assert_eq!(reasons::<EndpointSlice>(slice(own)), [""; 0]);
}

#[test]
fn secrets_and_config_maps() {
    let secret = |kind: &str, data: Value| json!({"metadata": {"name": "s"}, "type": kind, "data": data});
    let (long, both) = ("a".repeat((1 << 20) + 1), json!({"a": ""}));
    one_each::<Secret>(&[
        (secret("kubernetes.io/tls", json!({"tls.crt": "YQ=="})), "data[tls.key]: Required value"),
        (secret("kubernetes.io/tls", json!({"tls.key": "YQ=="})), "data[tls.crt]: Required value"),
        (secret("kubernetes.io/dockerconfigjson", json!({})), "data[.dockerconfigjson]: Required value"),
        (secret("kubernetes.io/dockercfg", json!({})), "data[.dockercfg]: Required value"),
        (secret("kubernetes.io/ssh-auth", json!({})), "data[ssh-privatekey]: Required value"),
        (
            secret("kubernetes.io/service-account-token", json!({})),
            "metadata.annotations[kubernetes.io/service-account.name]: Required value",
        ),
        (secret("Opaque", json!({"a b": ""})), "data[a b]: a b: Invalid value: a valid config key"),
        (
            secret("Opaque", json!({"a": "QUFB".repeat((1 << 20) / 3 + 1)})),
            "data: Too long: may not be more than 1048576 bytes",
        ),
    ]);
    assert_eq!(reasons::<Secret>(secret("kubernetes.io/basic-auth", json!({}))).len(), 2);
    for whole in [
        secret("kubernetes.io/tls", json!({"tls.crt": "", "tls.key": "", "ca.crt": ""})),
        secret("kubernetes.io/basic-auth", json!({"password": ""})),
        secret("example.com/anything", json!({})),
    ] {
        assert_eq!(reasons::<Secret>(whole.clone()), [""; 0], "{whole}");
    }
    let config = |data: Value, binary: Value| json!({"metadata": {"name": "c"}, "data": data, "binaryData": binary});
    one_each::<ConfigMap>(&[
        (config(json!({"a/b": ""}), json!({})), "data[a/b]: a/b: Invalid value: a valid config key"),
        (config(json!({}), json!({"..": ""})), "binaryData[..]: ..: Invalid value: must not be '..'"),
        (config(both.clone(), both), "data[a]: a: Invalid value: duplicate of key present in binaryData"),
        (config(json!({"a": long}), json!({})), ": Too long: may not be more than 1048576 bytes"),
    ]);
}

#[test]
fn names_labels_and_annotations() {
    let named = |name: &str, namespace: &str| json!({"metadata": {"name": name, "namespace": namespace}});
    let with = |metadata: Value| {
        let mut whole = json!({"name": "a"});
        whole.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        json!({"metadata": whole})
    };
    one_each::<ConfigMap>(&[
        (named("A", "shop"), "metadata.name: A: Invalid value: a lowercase RFC 1123 subdomain"),
        (named("a_b", "shop"), "metadata.name: a_b: Invalid value: a lowercase RFC 1123 subdomain"),
        (named("a", "Shop"), "metadata.namespace: Shop: Invalid value: a lowercase RFC 1123 label"),
        (named("a", "a.b"), "metadata.namespace: a.b: Invalid value: must not contain dots"),
        (with(json!({"labels": {"a b": ""}})), "metadata.labels: a b: Invalid value: name part must consist"),
        (with(json!({"labels": {"A.b/c": ""}})), "metadata.labels: A.b/c: Invalid value: prefix part"),
        (with(json!({"labels": {"a": "b c"}})), "metadata.labels: b c: Invalid value: a valid label must be"),
        (with(json!({"annotations": {"a/b/c": ""}})), "metadata.annotations: a/b/c: Invalid value: a valid label key"),
        (
            with(json!({"annotations": {"a/": ""}})),
            "metadata.annotations: a/: Invalid value: name part must be non-empty",
        ),
        (
            with(json!({"annotations": {"a": "b".repeat(256 << 10)}})),
            "metadata.annotations: Too long: may not be more than 262144 bytes",
        ),
    ]);
    one_each::<Namespace>(&[(
        json!({"metadata": {"name": "a.b"}}),
        "metadata.name: a.b: Invalid value: must not contain dots",
    )]);
    let most = "b".repeat((256 << 10) - 3);
    assert_eq!(reasons::<ConfigMap>(with(json!({"annotations": {"A.b": most}}))), [""; 0]);
    assert_eq!(reasons::<ConfigMap>(named("1.2.3.4", "kube-system")), [""; 0]);
}

#[test]
fn the_list_is_bounded() {
    let data: serde_json::Map<_, _> = (0..10_000).map(|at| (format!("a/{at}"), json!(""))).collect();
    assert_eq!(reasons::<ConfigMap>(json!({"metadata": {"name": "c"}, "data": data})).len(), LISTED);
}
