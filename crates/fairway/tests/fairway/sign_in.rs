//! Signing in through a service that behaves like Authelia: it redirects strangers to its portal, which sets a cookie, and it tells the
//! backend who the user is.

use crate::support::Dev;
use fairway_testkit::{Client, Origin, Reply, Request};

const MANIFESTS: &str = "\
apiVersion: v1
kind: Service
metadata: {name: authelia, namespace: sso}
spec: {ports: [{port: 9091}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: sso}
spec: {ports: [{port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  namespace: sso
  annotations:
    nginx.ingress.kubernetes.io/auth-method: GET
    nginx.ingress.kubernetes.io/auth-url: http://authelia.sso.svc.cluster.local:9091/api/authz/auth-request
    nginx.ingress.kubernetes.io/auth-signin: http://sso.example?rm=$request_method
    nginx.ingress.kubernetes.io/auth-response-headers: Remote-User,Remote-Groups
spec:
  ingressClassName: nginx
  rules:
  - {host: app.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: portal, namespace: sso}
spec:
  ingressClassName: nginx
  rules:
  - {host: sso.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: authelia, port: {number: 9091}}}}]}}
";

const COOKIE: &str = "authelia_session=kX3";

/// The portal at `/`, and the endpoint that decides on requests by their cookie, method and URL.
fn authelia(request: &Request) -> Reply {
    let field = |name: &str| request.headers().get(name).unwrap_or_default().to_owned();
    if !request.target.starts_with("/api/authz/auth-request") {
        return Reply::status(303)
            .header("set-cookie", format!("{COOKIE}; Path=/; HttpOnly"))
            .header("location", "http://app.example/orders?id=7");
    }
    let url = field("x-original-url");
    assert!(url.starts_with("http://app.example/"), "it can't judge {url:?}");
    match (field("cookie").contains(COOKIE), &*field("x-original-method")) {
        (true, "DELETE") => Reply::status(403),
        (true, _) => Reply::ok().header("remote-user", "john").header("remote-groups", "admins,dev"),
        (false, _) => Reply::status(401),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_signs_in_and_the_backend_learns_who_it_is() {
    let service = Origin::new("authelia").reply_with(authelia).start();
    let web = Origin::start("web");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("app.yaml"), MANIFESTS).expect("the file can be written");
    let backends = [("authelia:9091", service.address()), ("web:80", web.address())];
    let backends = backends.map(|(name, address)| format!("--backend=sso/{name}={address}"));
    let dev = Dev::start([folder.path().as_os_str()].into_iter().chain(backends.iter().map(AsRef::as_ref)));

    let ask = async |method: &str, host: &str, target: &str, fields: &[(&str, &str)]| {
        let fields = [&[("host", host)], fields].concat();
        Box::pin(async { Client::connect(dev.http).await.request(method, target, &fields, b"").await }).await
    };
    let refused = ask("GET", "app.example", "/orders?id=7", &[]).await;
    assert_eq!(refused.status, 302);
    let portal = refused.headers().get("location").expect("where to sign in").to_owned();
    assert_eq!(portal, "http://sso.example?rm=GET&rd=http://app.example%2Forders%3Fid%3D7");
    assert_eq!(web.requests(), 0, "a stranger reached the backend");

    let signed = ask("GET", "sso.example", "/?rm=GET", &[]).await;
    assert_eq!((signed.status, signed.headers().get("location")), (303, Some("http://app.example/orders?id=7")));
    let cookie =
        signed.headers().get("set-cookie").and_then(|text| text.split(';').next()).expect("a cookie").to_owned();

    let served = ask("GET", "app.example", "/orders?id=7", &[("cookie", &cookie), ("remote-user", "root")]).await;
    assert_eq!(served.status, 200);
    let request = web.next_request().await;
    assert_eq!(request.headers().all("remote-user"), ["john"], "what the client claims is nothing");
    assert_eq!(request.headers().get("remote-groups"), Some("admins,dev"));
    assert_eq!(request.target, "/orders?id=7");
    let denied = ask("DELETE", "app.example", "/orders?id=7", &[("cookie", &cookie)]).await;
    assert_eq!(denied.status, 403, "a policy of the service");
}
