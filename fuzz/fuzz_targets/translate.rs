//! Arbitrary objects: translation never panics, and gives the same result for the same input, even if it receives the objects one by one.
#![no_main]

use std::collections::BTreeMap;

use fairway_translate::{Change, Object, Objects, Options, Translator, translate};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec,
    IngressTLS, ServiceBackendPort,
};
use libfuzzer_sys::fuzz_target;

type Paths = Vec<(Option<String>, u8, String, i32)>;
type Input = (Vec<(u8, Vec<(u8, String)>, Option<String>, Paths)>, Vec<(u8, String)>);

fuzz_target!(|input: Input| {
    let (ingresses, config) = input;
    let names: Vec<&str> = fairway_translate::annotation::names().collect();
    let keys: Vec<&str> = fairway_translate::configmap::names().collect();
    let pick = |names: &[&str], at: u8| names[usize::from(at) % names.len()].to_owned();
    let mut objects: Vec<Object> = ingresses
        .into_iter()
        .take(4)
        .map(|(name, annotations, host, paths)| {
            let annotations: BTreeMap<_, _> = annotations
                .into_iter()
                .map(|(at, value)| (format!("nginx.ingress.kubernetes.io/{}", pick(&names, at)), value))
                .collect();
            ingress(&format!("i{}", name % 4), annotations, host, paths)
        })
        .collect();
    let mut map = ConfigMap::default();
    map.metadata.namespace = Some("default".into());
    map.metadata.name = Some("config".into());
    map.data = Some(config.into_iter().map(|(at, value)| (pick(&keys, at), value)).collect());
    objects.push(map.into());

    let options = Options {
        configmap: Some(("default".into(), "config".into())),
        watch_ingress_without_class: true,
        ..Options::default()
    };
    let set: Objects = objects.iter().cloned().collect();
    let whole = translate(&set, &options, 0);
    assert_eq!(whole.snapshot, translate(&set, &options, 0).snapshot);
    let mut translator = Translator::new(options);
    // In the order given, which decides between objects without a time of creation.
    translator.apply(objects.into_iter().map(Change::Upsert), 0);
    assert_eq!(translator.snapshot(), &whole.snapshot);
});

fn ingress(name: &str, annotations: BTreeMap<String, String>, host: Option<String>, paths: Paths) -> Object {
    let mut ingress = Ingress::default();
    ingress.metadata.namespace = Some("default".into());
    ingress.metadata.name = Some(name.into());
    ingress.metadata.annotations = Some(annotations);
    let paths = paths.into_iter().take(8).map(|(path, kind, service, port)| HTTPIngressPath {
        path,
        path_type: ["Exact", "Prefix", "ImplementationSpecific", ""][usize::from(kind % 4)].into(),
        backend: IngressBackend {
            service: Some(IngressServiceBackend {
                name: service,
                port: Some(ServiceBackendPort { number: Some(port), name: None }),
            }),
            resource: None,
        },
    });
    ingress.spec = Some(IngressSpec {
        tls: Some(vec![IngressTLS { hosts: host.clone().map(|host| vec![host]), secret_name: Some("tls".into()) }]),
        rules: Some(vec![IngressRule { host, http: Some(HTTPIngressRuleValue { paths: paths.collect() }) }]),
        ..IngressSpec::default()
    });
    ingress.into()
}
