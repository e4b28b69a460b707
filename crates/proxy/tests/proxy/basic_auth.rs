//! Basic and Digest authentication over real sockets.

use std::num::NonZeroU32;

use crate::support::{HOST, TestProxy, backend, filtered, forward, host, route};
use fairway_model::{AccessList, BasicAuth, Filter, ForwardPolicy, NetworkSet, Resource, Settings};
use fairway_testkit::{Origin, Response};

const USERS: [(&str, &str); 2] =
    [("alice", "$2b$04$abcdefghijklmnopqrstuuP6/q0obcGuk6SuzN66aTZwHeRCLMzKO"), ("bob", "{PLAIN}b:c")];

/// `alice:secret word`, `alice:secret`, `bob:b:c`, `mallory:secret word`, `alice`, and something that is not Base64.
const ALICE: &str = "Basic YWxpY2U6c2VjcmV0IHdvcmQ=";
const WRONG: [&str; 7] = [
    "Basic YWxpY2U6c2VjcmV0",
    "Basic bWFsbG9yeTpzZWNyZXQgd29yZA==",
    "Basic YWxpY2U=",
    "Basic ???",
    "Basic",
    "Bearer YWxpY2U6c2VjcmV0IHdvcmQ=",
    "",
];

struct Guarded {
    web: Origin,
    proxy: TestProxy,
}

impl Guarded {
    fn start() -> Self {
        let web = Origin::start("web");
        let auth = |users: &[(&str, &str)]| {
            Filter::BasicAuth(Box::new(BasicAuth {
                realm: "who".into(),
                users: users.iter().copied().collect(),
                digest: false,
                or_service: false,
            }))
        };
        let allow = NetworkSet::from_iter(["127.0.0.0/8".parse().expect("a network")]);
        let local = Filter::AccessListOrAuth(AccessList { deny: NetworkSet::default(), allow: Some(allow) });
        let remote = NetworkSet::from_iter(["192.0.2.0/24".parse().expect("a network")]);
        let denies = Filter::AccessListOrAuth(AccessList { deny: remote, allow: None });
        let to = || forward("web", ForwardPolicy::default());
        let mut resources = backend("web", &[web.address()]);
        resources.push(host(
            HOST,
            vec![
                filtered(route("/", to()), vec![auth(&USERS)]),
                filtered(route("/nobody", to()), vec![auth(&[])]),
                filtered(route("/local", to()), vec![local, auth(&USERS)]),
                filtered(route("/denies", to()), vec![denies, auth(&USERS)]),
            ],
        ));
        Self { proxy: TestProxy::start(resources), web }
    }

    async fn get(&self, path: &str, authorization: &[&str]) -> Response {
        let mut fields = vec![("host", HOST)];
        fields.extend(authorization.iter().map(|value| ("authorization", *value)));
        self.proxy.connect().await.request("GET", path, &fields, b"").await
    }
}

#[tokio::test]
async fn users_with_their_passwords_are_admitted_and_the_backend_does_not_see_them() {
    let guarded = Guarded::start();
    // The second time it is known.
    for _ in 0..2 {
        let response = guarded.get("/", &[ALICE]).await;
        assert_eq!((response.status, response.echo().header("authorization")), (200, None));
    }
    assert_eq!(guarded.get("/", &["basic Ym9iOmI6Yw=="]).await.status, 200, "a password may have colons");
}

#[tokio::test]
async fn all_others_are_asked_for_a_password() {
    let guarded = Guarded::start();
    for wrong in WRONG {
        let response = guarded.get("/", &[wrong]).await;
        assert_eq!(
            (response.status, response.header("www-authenticate")),
            (401, Some("Basic realm=\"who\"")),
            "{wrong}"
        );
    }
    assert_eq!(guarded.get("/", &[]).await.status, 401);
    assert_eq!(guarded.get("/", &[ALICE, ALICE]).await.status, 401, "two passwords are none");
    assert_eq!(guarded.get("/nobody", &[ALICE]).await.status, 401);
    assert_eq!(guarded.get("/denies", &[]).await.status, 401, "a list that only refuses exempts no client");
    assert_eq!(guarded.web.requests(), 0);
    assert_eq!(guarded.get("/denies", &[ALICE]).await.status, 200);
}

#[tokio::test]
async fn a_client_with_too_many_wrong_passwords_has_no_further_try_for_a_while() {
    let guarded = Guarded::start();
    let settings = |most| Resource::from(Settings { wrong_passwords: NonZeroU32::new(most), ..Settings::default() });
    guarded.proxy.publish([settings(3)]).await;
    let mut client = guarded.proxy.connect().await;
    let mut get = async |authorization: &str| {
        client.request("GET", "/", &[("host", HOST), ("authorization", authorization)], b"").await.status
    };
    assert_eq!(get(ALICE).await, 200);
    for _ in 0..3 {
        assert_eq!(get(WRONG[0]).await, 401);
    }
    assert_eq!(get(WRONG[0]).await, 429);
    assert_eq!(get("Basic Ym9iOmI6Yw==").await, 429, "whether it is right is not told");
    assert_eq!(get(ALICE).await, 200, "the worker knows it to be right");
    assert_eq!(guarded.get("/", &[]).await.status, 401, "a request without a password is asked for one");
    guarded.proxy.publish([settings(0)]).await;
    assert_eq!(get("Basic Ym9iOmI6Yw==").await, 200);
}

#[tokio::test]
async fn admitted_addresses_need_no_password_and_still_keep_theirs_from_the_backend() {
    let guarded = Guarded::start();
    let response = guarded.get("/local", &[WRONG[0]]).await;
    assert_eq!((response.status, response.echo().header("authorization")), (200, None));
}

/// The MD5 of `alice:who:secret`, and the digest of a request for it with a nonce.
fn digest(nonce: &str, uri: &str, method: &str) -> String {
    use md5::{Digest, Md5};
    let hex = |text: String| Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let response = hex(format!("{ALICE_HA1}:{nonce}:00000001:abc:auth:{}", hex(format!("{method}:{uri}"))));
    format!(
        "Digest username=\"alice\", realm=\"who\", nonce=\"{nonce}\", uri=\"{uri}\", nc=00000001, cnonce=\"abc\", qop=auth, \
         response=\"{response}\""
    )
}

const ALICE_HA1: &str = "76ef9370073d56b65d9966078f9b6bc0";

#[tokio::test]
async fn a_digest_proves_a_password_for_one_request_target() {
    let web = Origin::start("web");
    let auth = BasicAuth {
        realm: "who".into(),
        users: [("alice", ALICE_HA1)].into_iter().collect(),
        digest: true,
        or_service: false,
    };
    let mut resources = backend("web", &[web.address()]);
    let to = forward("web", ForwardPolicy::default());
    resources.push(host(HOST, vec![filtered(route("/", to), vec![Filter::BasicAuth(Box::new(auth))])]));
    let guarded = Guarded { proxy: TestProxy::start(resources), web };
    let asked = guarded.get("/a?b", &[]).await;
    let challenge = asked.header("www-authenticate").expect("a challenge").to_owned();
    assert!(
        asked.status == 401 && challenge.starts_with("Digest realm=\"who\", qop=\"auth\", algorithm=MD5, nonce="),
        "{challenge}"
    );
    let nonce = challenge.split("nonce=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a nonce");
    let response = guarded.get("/a?b", &[&digest(nonce, "/a?b", "GET")]).await;
    assert_eq!((response.status, response.echo().header("authorization")), (200, None));
    for wrong in [
        digest(nonce, "/a", "GET"),
        digest(nonce, "/a?b", "PUT"),
        digest(nonce, "/a?b", "GET").replace("username=\"alice\"", "username=\"bob\""),
        digest(nonce, "/a?b", "GET").replace("realm=\"who\"", "realm=\"other\""),
        ALICE.to_owned(),
    ] {
        let response = guarded.get("/a?b", &[&wrong]).await;
        assert!(
            response.status == 401 && !response.header("www-authenticate").expect("a challenge").contains("stale"),
            "{wrong}"
        );
    }
    let again = guarded.get("/a?b", &[&digest(nonce, "/a?b", "GET")]).await;
    let challenge = again.header("www-authenticate").expect("a challenge");
    assert!(
        again.status == 401 && challenge.ends_with("stale=true") && !challenge.contains(nonce),
        "a captured request"
    );
    let response = guarded.get("/a?b", &[&digest("00000000000003e8", "/a?b", "GET")]).await;
    assert!(
        response.status == 401 && response.header("www-authenticate").expect("a challenge").ends_with("stale=true")
    );
    assert_eq!(guarded.web.requests(), 1);
}
