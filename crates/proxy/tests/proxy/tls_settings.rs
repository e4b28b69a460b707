//! The settings of TLS for all hosts: versions, suites, groups, tickets, unknown names. They follow a change at once.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::sync::Arc;

use crate::support;
use crate::support::{HOST, TestProxy, backend, certificate, forward, host_with_certificate, route};
use fairway_model::{
    ForwardPolicy, Host, HostCiphers, HostPattern, KeyGroup, Resource, Settings, TlsCipher, TlsSettings, TlsVersions,
};
use fairway_testkit::{Ca, Origin, TlsClient};
use rustls::{CipherSuite, NamedGroup};

fn start(settings: TlsSettings) -> (Origin, TestProxy) {
    let (ca, origin) = (Ca::new("root"), Origin::start("a"));
    let mut resources = backend("web", &[origin.address()]);
    resources.push(certificate("own", &ca.leaf(&[HOST])));
    resources.push(host_with_certificate(HOST, vec![route("/", forward("web", ForwardPolicy::default()))], "own"));
    resources.push(with(settings));
    (origin, TestProxy::start(resources))
}

fn with(tls: TlsSettings) -> Resource {
    Settings { tls, ..Settings::default() }.into()
}

fn client() -> TlsClient {
    TlsClient::unverified(HOST)
}

#[tokio::test]
async fn the_post_quantum_group_is_preferred_and_others_are_as_set() {
    let (_origin, proxy) = start(TlsSettings::default());
    let modern = client().post_quantum().connect(proxy.https).await;
    assert_eq!(modern.tls().group, Some(NamedGroup::X25519MLKEM768));
    for (group, expected) in [(KeyGroup::P384, NamedGroup::secp384r1), (KeyGroup::X25519, NamedGroup::X25519)] {
        proxy.publish([with(TlsSettings { groups: vec![group], ..TlsSettings::default() })]).await;
        for client in [client().only_tls12(), client().only_tls13()] {
            assert_eq!(client.connect(proxy.https).await.tls().group, Some(expected));
        }
    }
}

#[tokio::test]
async fn versions_are_a_set_and_a_change_touches_no_connection() {
    let (_origin, proxy) = start(TlsSettings::default());
    let mut before = client().only_tls12().connect(proxy.https).await;
    proxy.publish([with(TlsSettings { versions: TlsVersions::Tls13, ..TlsSettings::default() })]).await;
    assert!(client().only_tls12().try_connect(proxy.https).await.is_err());
    assert_eq!(client().only_tls13().connect(proxy.https).await.get(HOST, "/").await.status, 200);
    assert_eq!(before.get(HOST, "/").await.status, 200);
    proxy.publish([with(TlsSettings { versions: TlsVersions::Tls12, ..TlsSettings::default() })]).await;
    assert!(client().only_tls13().try_connect(proxy.https).await.is_err());
    assert_eq!(client().only_tls12().connect(proxy.https).await.get(HOST, "/").await.status, 200);
}

#[tokio::test]
async fn suites_are_chosen_in_the_order_of_the_settings() {
    let ciphers = vec![TlsCipher::RsaAes128, TlsCipher::EcdsaChaCha20, TlsCipher::EcdsaAes128];
    let (_origin, proxy) = start(TlsSettings { ciphers, ..TlsSettings::default() });
    let chosen = client().only_tls12().connect(proxy.https).await.tls().cipher;
    assert_eq!(chosen, CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256);
    assert_eq!(client().only_tls13().connect(proxy.https).await.get(HOST, "/").await.status, 200);
    proxy.publish([with(TlsSettings { ciphers: vec![TlsCipher::RsaAes128], ..TlsSettings::default() })]).await;
    assert!(client().only_tls12().try_connect(proxy.https).await.is_err(), "the certificate is of another kind");
}

#[tokio::test]
async fn aes_with_the_shorter_key_is_preferred_except_by_clients_that_prefer_chacha20() {
    let (_origin, proxy) = start(TlsSettings::default());
    let chosen = async |client: TlsClient| client.connect(proxy.https).await.tls().cipher;
    // The client of the tests offers AES-256 first.
    assert_eq!(chosen(client().only_tls13()).await, CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!(chosen(client().only_tls12()).await, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
    let chacha20 = || client().preferring_chacha20();
    assert_eq!(chosen(chacha20().only_tls13()).await, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
    let suite = CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256;
    assert_eq!(chosen(chacha20().only_tls12()).await, suite);
    // A user's list applies to all clients.
    proxy.publish([with(TlsSettings { ciphers: vec![TlsCipher::EcdsaAes128], ..TlsSettings::default() })]).await;
    assert_eq!(chosen(chacha20().only_tls13()).await, CipherSuite::TLS13_AES_128_GCM_SHA256);
}

#[tokio::test]
async fn tickets_are_taken_by_any_worker() {
    let (_origin, proxy) = start(TlsSettings { tickets: true, ..TlsSettings::default() });
    for client in [client().only_tls12(), client().only_tls13()] {
        let mut resumed = 0;
        for _ in 0..6 {
            let mut connection = client.connect(proxy.https).await;
            connection.get(HOST, "/").await;
            resumed += usize::from(connection.tls().resumed);
        }
        assert!(resumed >= 5, "{resumed}");
    }
}

#[tokio::test]
async fn unknown_names_are_refused_where_that_is_set() {
    let (origin, proxy) = start(TlsSettings { reject_unknown_names: true, ..TlsSettings::default() });
    assert_eq!(client().connect(proxy.https).await.get(HOST, "/").await.status, 200);
    for refused in [TlsClient::unverified("unknown.example"), client().without_sni()] {
        let Err(error) = refused.try_connect(proxy.https).await else { panic!("a handshake for an unknown name") };
        assert!(error.to_string().contains("UnrecognisedName"), "{error}");
    }
    assert_eq!(origin.connections(), 1);
    proxy.publish([with(TlsSettings::default())]).await;
    assert_eq!(TlsClient::unverified("unknown.example").connect(proxy.https).await.get(HOST, "/").await.status, 200);
}

#[tokio::test]
async fn a_host_may_have_suites_and_an_order_of_its_own() {
    const OTHER: &str = "other.example";
    let (ca, origin) = (Ca::new("root"), Origin::start("a"));
    let mut resources = backend("web", &[origin.address()]);
    resources.push(certificate("own", &ca.leaf(&[HOST, OTHER])));
    let to = || vec![route("/", forward("web", ForwardPolicy::default()))];
    resources.push(host_with_certificate(OTHER, to(), "own"));
    let with_ciphers = |ciphers: Vec<TlsCipher>, client_order| {
        let host = Host::new(support::table(), HostPattern::parse(HOST).unwrap(), to());
        let own = HostCiphers { ciphers, client_order };
        Resource::from(host.with_certificate(Some("own".into())).with_ciphers(Some(Arc::new(own))))
    };
    resources.push(with_ciphers(vec![TlsCipher::EcdsaChaCha20], false));
    let ciphers = vec![TlsCipher::EcdsaAes128, TlsCipher::EcdsaChaCha20, TlsCipher::EcdsaAes256];
    resources.push(with(TlsSettings { ciphers, ..TlsSettings::default() }));
    let proxy = TestProxy::start(resources);
    let chosen =
        async |name: &'static str| TlsClient::unverified(name).only_tls12().connect(proxy.https).await.tls().cipher;
    assert_eq!(chosen(HOST).await, CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256);
    assert_eq!(chosen(OTHER).await, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
    assert_eq!(client().only_tls13().connect(proxy.https).await.get(HOST, "/").await.status, 200);
    proxy.publish([with_ciphers(Vec::new(), true)]).await;
    // The client of the tests prefers AES-256.
    assert_eq!(chosen(HOST).await, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384);
    // A handshake that can't succeed on this host fails only there.
    proxy.publish([with_ciphers(vec![TlsCipher::RsaAes128], false)]).await;
    assert!(client().only_tls12().try_connect(proxy.https).await.is_err());
    assert_eq!(chosen(OTHER).await, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
}
