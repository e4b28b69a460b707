//! `backend-protocol: HTTPS` and `proxy-ssl-*`, from manifests to a real backend that speaks TLS.

use std::fmt::Write;
use std::path::Path;

use crate::support::Dev;
use fairway_testkit::{Ca, Leaf, Origin, Reply, eventually};

/// One Ingress per host, each with its own annotations.
fn ingresses(hosts: &[(&str, &[(&str, &str)])]) -> String {
    let mut out =
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {ports: [{port: 443}]}\n"
            .to_owned();
    for (host, annotations) in hosts {
        let _ = write!(
            out,
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {host}\n  namespace: shop\n  annotations:\n"
        );
        for (name, value) in *annotations {
            let _ = writeln!(out, "    nginx.ingress.kubernetes.io/{name}: \"{value}\"");
        }
        let _ = write!(
            out,
            "spec:\n  rules:\n  - host: {host}.example\n    http:\n      paths:\n      - {{path: /, pathType: Prefix, backend: \
             {{service: {{name: web, port: {{number: 443}}}}}}}}\n"
        );
    }
    out
}

fn secret(name: &str, data: &[(&str, String)]) -> String {
    let mut out = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: shop}}\nstringData:\n");
    for (key, value) in data {
        let _ = writeln!(out, "  {key}: |\n    {}", value.trim().replace('\n', "\n    "));
    }
    out
}

fn certificate(leaf: &Leaf) -> [(&'static str, String); 2] {
    [("tls.crt", leaf.certificate_pem()), ("tls.key", leaf.key_pem())]
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("the file can be written");
}

/// The status of a host. Boxed: these futures are large, and a test has several.
async fn status(dev: &Dev, host: &str) -> u16 {
    Box::pin(dev.get(&format!("{host}.example"), "/")).await.status
}

const HTTPS: (&str, &str) = ("backend-protocol", "HTTPS");
const VERIFY: (&str, &str) = ("proxy-ssl-verify", "on");
const NAME: (&str, &str) = ("proxy-ssl-name", "web.shop.svc");

#[tokio::test]
async fn backends_are_spoken_to_over_tls_and_checked_as_the_annotations_say() {
    let ca = Ca::new("ours");
    let origin = Origin::new("secure").tls(&ca.leaf(&["web.shop.svc"])).reply(Reply::ok().body("over TLS")).start();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "ca.yaml", &secret("ca", &[("ca.crt", ca.pem())]));
    write(folder.path(), "other.yaml", &secret("other", &[("ca.crt", Ca::new("others").pem())]));
    let hosts: &[(&str, &[(&str, &str)])] = &[
        ("plain", &[HTTPS]),
        ("checked", &[HTTPS, ("proxy-ssl-secret", "shop/ca"), VERIFY, NAME, ("proxy-ssl-server-name", "on")]),
        ("untrusted", &[HTTPS, ("proxy-ssl-secret", "shop/other"), VERIFY, NAME]),
        ("misnamed", &[HTTPS, ("proxy-ssl-secret", "shop/ca"), VERIFY, ("proxy-ssl-name", "else.shop.svc")]),
        ("unchecked", &[HTTPS, ("proxy-ssl-secret", "shop/other"), NAME]),
        ("missing", &[HTTPS, ("proxy-ssl-secret", "shop/gone"), VERIFY, NAME]),
        ("clear", &[]),
    ];
    write(folder.path(), "ingress.yaml", &ingresses(hosts));
    let backend = format!("--backend=shop/web:443={}", origin.address());
    let dev = Dev::start([folder.path().as_os_str(), backend.as_ref()]);
    for (host, expected, sni) in [
        ("plain", 200, Some(None)),
        ("checked", 200, Some(Some("web.shop.svc"))),
        ("untrusted", 502, None),
        ("misnamed", 502, None),
        ("unchecked", 200, Some(None)),
        ("missing", 503, None),
    ] {
        assert_eq!(status(&dev, host).await, expected, "{host}");
        if let Some(sni) = sni {
            assert_eq!(Box::pin(origin.next_request()).await.sni.as_deref(), sni, "{host}");
        }
    }
    assert_ne!(status(&dev, "clear").await, 200, "the backend speaks nothing but TLS");
    assert!(dev.greeting.contains("there is no Secret shop/gone"), "{}", dev.greeting);
    // The Secret appears: denied requests are served without a change of the Ingress.
    write(folder.path(), "gone.yaml", &secret("gone", &[("ca.crt", ca.pem())]));
    let dev = &dev;
    Box::pin(eventually("the check can be done", || async { status(dev, "missing").await == 200 })).await;
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_backends_that_ask_for_one() {
    let (ca, clients) = (Ca::new("servers"), Ca::new("clients"));
    let origin = Origin::new("mutual").mutual_tls(&ca.leaf(&["web"]), &clients).reply(Reply::ok()).start();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "ours.yaml", &secret("ours", &certificate(&clients.leaf(&["proxy"]))));
    write(folder.path(), "theirs.yaml", &secret("theirs", &certificate(&Ca::new("x").leaf(&["proxy"]))));
    let hosts: &[(&str, &[(&str, &str)])] = &[
        ("ours", &[HTTPS, ("proxy-ssl-secret", "shop/ours")]),
        ("theirs", &[HTTPS, ("proxy-ssl-secret", "shop/theirs")]),
        ("none", &[HTTPS]),
    ];
    write(folder.path(), "ingress.yaml", &ingresses(hosts));
    let backend = format!("--backend=shop/web:443={}", origin.address());
    let dev = Dev::start([folder.path().as_os_str(), backend.as_ref()]);
    for (host, expected) in [("ours", 200), ("theirs", 502), ("none", 502)] {
        assert_eq!(status(&dev, host).await, expected, "{host}");
    }
}

#[tokio::test]
async fn the_echo_of_development_is_spoken_to_in_the_clear() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "ingress.yaml", &ingresses(&[("web", &[HTTPS])]));
    let dev = Dev::start([folder.path()]);
    assert_eq!(dev.service("web.example", "/").await, "shop/web:443");
}
