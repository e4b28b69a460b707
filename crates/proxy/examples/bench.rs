//! The data path alone, for `bench/run.py`: serves 127.0.0.1:8080 and :8443 for bench.example.com, forwarding to
//! 127.0.0.1:9001. `bench DIR [WORKERS]`; the certificate is `DIR/tls/ec.crt`.

use std::error::Error;
use std::num::NonZeroUsize;
use std::sync::Arc;

use fairway_model::{
    Action, Backend, Balance, Certificate, CertificateName, Delta, Endpoint, EndpointSet, Endpoints, Filter, Forward,
    ForwardPolicy, Host, HostPattern, Listener, Origin, PathMatch, PrivateKey, Protocol, Resource, Route, Scheme,
    Settings, Snapshot, TableName,
};
use fairway_proxy::resolve::AddressPolicy;
use fairway_proxy::{Proxy, ProxyConfig};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("usage: bench DIR [WORKERS]")?;
    let workers = arguments.next().map(|count| count.parse::<NonZeroUsize>()).transpose()?;
    let snapshot = Snapshot::default().apply(Delta::upsert(resources(&directory)?));
    let addresses = AddressPolicy { loopback_endpoints: true, ..AddressPolicy::default() };
    let proxy = Proxy::start(snapshot, ProxyConfig { workers, addresses, ..ProxyConfig::default() })?;
    println!("{} workers on {:?}", proxy.workers(), proxy.local_addresses());
    loop {
        std::thread::park();
    }
}

fn resources(directory: &str) -> Result<Vec<Resource>, Box<dyn Error>> {
    let table = TableName::from("ingress");
    let listener = |name: &str, address: &str, scheme| -> Result<Resource, Box<dyn Error>> {
        let table = table.clone();
        Ok(Resource::from(Listener::new(name, address.parse()?, scheme, table)))
    };
    let pem = |name: &str| std::fs::read(format!("{directory}/tls/{name}"));
    let name = CertificateName::from("default/bench");
    let certificate = Certificate {
        name: name.clone(),
        origin: Origin::new("Secret", "default", "bench"),
        fingerprint: "".into(),
        not_after: i64::MAX,
        chain: CertificateDer::pem_slice_iter(&pem("ec.crt")?)
            .map(|der| der.map(|der| Arc::from(der.as_ref())))
            .collect::<Result<_, _>>()?,
        key: PrivateKey::new(PrivateKeyDer::from_pem_slice(&pem("ec.key")?)?.secret_der().to_vec()),
    };
    let forward = Forward {
        backends: "default/b:80".into(),
        fallback: None,
        session_cookie_path: None,
        policy: Arc::new(ForwardPolicy::default()),
    };
    let mut route =
        Route::new(Origin::new("Ingress", "default", "bench"), PathMatch::prefix("/")?, Action::Forward(forward));
    route.filters = vec![Filter::StrictTransportSecurity, Filter::RequireEndpoints];
    let host =
        Host::new(table.clone(), HostPattern::parse("bench.example.com")?, vec![route]).with_certificate(Some(name));
    let backend = Backend {
        name: "default/b:80".into(),
        origin: Origin::new("Service", "default", "b"),
        port: "80".into(),
        upstream_name: "default-b-80".into(),
        protocol: Protocol::Http1,
        balance: Balance::RoundRobin,
        affinity: None,
        health_check: None,
        retry: None,
        request_fields: Vec::new(),
    };
    let endpoints = EndpointSet {
        backend: "default/b:80".into(),
        endpoints: Endpoints::Addresses(vec![Endpoint::ready("127.0.0.1:9001".parse()?)]),
    };
    // As for nginx in the bench: without a limit on the requests of a connection.
    let mut settings = Settings { keep_alive_requests: u64::MAX, ..Settings::default() };
    settings.upstream_keepalive.requests = u64::MAX;
    Ok(vec![
        listener("http", "127.0.0.1:8080", Scheme::Http)?,
        listener("https", "127.0.0.1:8443", Scheme::Https)?,
        Resource::from(certificate),
        Resource::from(host),
        Resource::from(backend),
        Resource::from(endpoints),
        Resource::from(settings),
    ])
}
