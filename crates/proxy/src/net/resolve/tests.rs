use super::*;
use fairway_testkit::within;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA};
use hickory_resolver::proto::rr::{Name as DnsName, RData, Record, RecordType};
use std::sync::Mutex;
use tokio::net::UdpSocket as Socket;

/// The answers of a name server on loopback: addresses by name, without the root dot. A missing name does not exist.
type Zone = Arc<Mutex<HashMap<String, Vec<IpAddr>>>>;

async fn name_server(zone: Zone, ttl: u32) -> SocketAddr {
    let socket = Socket::bind(("127.0.0.1", 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
            let question = Message::from_vec(&buffer[..length]).unwrap();
            let query = question.queries[0].clone();
            let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
            let mut answer = Message::new(question.metadata.id, MessageType::Response, question.metadata.op_code);
            answer.add_query(query.clone());
            match zone.lock().unwrap().get(&name) {
                None => answer.metadata.response_code = ResponseCode::NXDomain,
                Some(addresses) => {
                    for address in addresses {
                        let data = match (address, query.query_type()) {
                            (IpAddr::V4(v4), RecordType::A) => RData::A(A(*v4)),
                            (IpAddr::V6(v6), RecordType::AAAA) => RData::AAAA(AAAA(*v6)),
                            _ => continue,
                        };
                        answer.add_answer(Record::from_rdata(query.name().clone(), ttl, data));
                    }
                }
            }
            socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
        }
    });
    address
}

async fn resolver(zone: &Zone, ttl: u32) -> (Resolver, mpsc::Receiver<Resolved>) {
    let server = name_server(zone.clone(), ttl).await;
    let mut connection = ConnectionConfig::udp();
    connection.port = server.port();
    let servers = vec![NameServerConfig::new(server.ip(), true, vec![connection])];
    let search = vec![DnsName::from_ascii("svc.cluster.local.").unwrap()];
    let config = ResolverConfig::from_parts(None, search, servers);
    let mut options = ResolverOpts::default();
    options.ndots = 5;
    options.timeout = Duration::from_millis(500);
    options.attempts = 1;
    options.try_tcp_on_error = false;
    Resolver::start_with(config, options, AddressPolicy::default(), Duration::from_millis(20)).unwrap()
}

fn named(backend: &str, host: &str, port: u16) -> Delta {
    let endpoints = Endpoints::Name { host: host.into(), port };
    Delta::upsert([EndpointSet { backend: backend.into(), endpoints }.into()])
}

async fn next(changes: &mut mpsc::Receiver<Resolved>) -> (String, Vec<String>) {
    let change = within("a change of addresses", changes.recv()).await.unwrap();
    let addresses = change.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
    (change.backend.to_string(), addresses)
}

fn zone(entries: &[(&str, &[&str])]) -> Zone {
    let parse = |addresses: &[&str]| addresses.iter().map(|address| address.parse().unwrap()).collect();
    Arc::new(Mutex::new(entries.iter().map(|(name, addresses)| ((*name).to_owned(), parse(addresses))).collect()))
}

#[tokio::test]
async fn names_lead_to_addresses_and_follow_them() {
    let zone = zone(&[("db.example", &["10.0.0.2", "10.0.0.1", "fd00::1"])]);
    let (resolver, mut changes) = resolver(&zone, 0).await;
    resolver.apply(&named("a", "db.example", 5432));
    let first = ("a".to_owned(), vec!["10.0.0.1:5432".to_owned(), "10.0.0.2:5432".to_owned()]);
    assert_eq!(next(&mut changes).await, first, "sorted, and A before AAAA");
    zone.lock().unwrap().insert("db.example".to_owned(), vec!["10.0.0.9".parse().unwrap()]);
    assert_eq!(next(&mut changes).await.1, ["10.0.0.9:5432"]);
    zone.lock().unwrap().insert("db.example".to_owned(), vec!["fd00::2".parse().unwrap()]);
    assert_eq!(next(&mut changes).await.1, ["[fd00::2]:5432"]);
    assert_eq!(resolver.counts().names, 1);
    assert!(resolver.counts().queries >= 3);
}

#[tokio::test]
async fn search_domains_are_tried() {
    let (resolver, mut changes) = resolver(&zone(&[("web.shop.svc.cluster.local", &["10.0.0.5"])]), 60).await;
    resolver.apply(&named("a", "web.shop", 80));
    assert_eq!(next(&mut changes).await.1, ["10.0.0.5:80"]);
}

#[tokio::test]
async fn a_name_that_ends_with_a_dot_is_whole() {
    let zone = zone(&[("web.shop.svc.cluster.local", &["10.0.0.5"])]);
    let (resolver, mut changes) = resolver(&zone, 60).await;
    resolver.apply(&named("a", "web.shop.", 80));
    fairway_testkit::eventually("a failure", async || resolver.counts().failures >= 1).await;
    assert!(changes.try_recv().is_err(), "no search domain is tried");
    zone.lock().unwrap().insert("web.shop".to_owned(), vec!["10.0.0.6".parse().unwrap()]);
    assert_eq!(next(&mut changes).await.1, ["10.0.0.6:80"]);
}

#[tokio::test]
async fn the_last_addresses_stay_while_a_name_is_gone() {
    let zone = zone(&[("x.example", &["10.0.0.1"])]);
    let (resolver, mut changes) = resolver(&zone, 0).await;
    resolver.apply(&named("a", "x.example", 80));
    assert_eq!(next(&mut changes).await.1, ["10.0.0.1:80"]);
    zone.lock().unwrap().clear();
    fairway_testkit::eventually("two failures", async || resolver.counts().failures >= 2).await;
    zone.lock().unwrap().insert("x.example".to_owned(), vec!["10.0.0.3".parse().unwrap()]);
    assert_eq!(next(&mut changes).await.1, ["10.0.0.3:80"], "no change in between");
}

#[tokio::test]
async fn addresses_that_lead_back_are_refused() {
    let (resolver, mut changes) = resolver(
        &zone(&[("evil.example", &["127.0.0.1", "169.254.169.254"]), ("half.example", &["0.0.0.0", "10.0.0.1"])]),
        60,
    )
    .await;
    resolver.apply(&named("a", "evil.example", 80));
    assert_eq!(next(&mut changes).await, ("a".to_owned(), vec![]));
    resolver.apply(&named("b", "half.example", 80));
    assert_eq!(next(&mut changes).await, ("b".to_owned(), vec!["10.0.0.1:80".to_owned()]));
    resolver.apply(&named("c", "127.0.0.1", 80));
    assert_eq!(next(&mut changes).await, ("c".to_owned(), vec![]));
    resolver.apply(&named("d", "10.0.0.7", 80));
    assert_eq!(next(&mut changes).await, ("d".to_owned(), vec!["10.0.0.7:80".to_owned()]));
}

#[tokio::test]
async fn only_configured_names_are_resolved() {
    let zone = zone(&[("x.example", &["10.0.0.1"]), ("y.example", &["10.0.0.2"])]);
    let (resolver, mut changes) = resolver(&zone, 0).await;
    resolver.apply(&named("a", "x.example", 80));
    next(&mut changes).await;
    resolver.apply(&named("a", "y.example", 81));
    assert_eq!(next(&mut changes).await.1, ["10.0.0.2:81"]);
    let gone = Delta { removals: vec![ResourceName::EndpointSet("a".into())], ..Delta::default() };
    resolver.apply(&gone);
    resolver.apply(&named("b", "x.example", 80));
    assert_eq!(next(&mut changes).await.0, "b");
    assert_eq!(resolver.counts().names, 1);
}

#[test]
fn special_addresses_are_recognised_in_every_form() {
    let policy = AddressPolicy::default();
    for refused in [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "169.254.1.1",
        "224.0.0.1",
        "255.255.255.255",
        "100.100.100.200",
        "::1",
        "::",
        "fe80::1",
        "ff02::1",
        "fd00:ec2::254",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "::7f00:1",
    ] {
        let address = SocketAddr::new(refused.parse().unwrap(), 80);
        assert!(!policy.admits(address), "{refused}");
    }
    for taken in ["10.0.0.1", "192.168.1.1", "8.8.8.8", "fd00::1", "2001:db8::1", "64:ff9b::808:808"] {
        assert!(policy.admits(SocketAddr::new(taken.parse().unwrap(), 80)), "{taken}");
    }
    let lenient = AddressPolicy {
        allowed: ["127.0.0.0/8".parse().unwrap()].into_iter().collect(),
        own: vec!["0.0.0.0:10254".parse().unwrap(), "127.0.0.2:9".parse().unwrap()],
        loopback_endpoints: false,
    };
    assert!(lenient.admits("127.0.0.1:80".parse().unwrap()) && !lenient.admits("169.254.0.1:80".parse().unwrap()));
    assert!(!lenient.admits("127.0.0.1:10254".parse().unwrap()) && !lenient.admits("127.0.0.2:9".parse().unwrap()));
}

#[test]
fn certificates_may_not_send_questions_into_private_networks() {
    let policy = AddressPolicy::default();
    let admits = |policy: &AddressPolicy, address: &str| policy.admits_responder(address.parse().unwrap());
    for address in ["8.8.8.8:80", "[2001:db8::1]:80", "100.63.0.1:80", "100.128.0.1:80"] {
        assert!(admits(&policy, address), "{address}");
    }
    let refused = [
        "8.8.8.8:8080",
        "10.0.0.1:80",
        "172.16.0.1:80",
        "192.168.1.1:80",
        "100.64.0.1:80",
        "127.0.0.1:80",
        "169.254.1.1:80",
        "[fd00::1]:80",
        "[::ffff:10.0.0.1]:80",
    ];
    for address in refused {
        assert!(!admits(&policy, address), "{address}");
    }
    let lenient = AddressPolicy { allowed: ["10.0.0.0/8".parse().unwrap()].into_iter().collect(), ..policy };
    assert!(admits(&lenient, "10.0.0.1:8080") && !admits(&lenient, "192.168.1.1:80"));
}

#[test]
fn endpoints_may_be_neither_on_this_machine_nor_at_metadata_services() {
    let policy =
        |loopback_endpoints| AddressPolicy { own: vec![own()], loopback_endpoints, ..AddressPolicy::default() };
    fn own() -> SocketAddr {
        "0.0.0.0:10254".parse().unwrap()
    }
    let (strict, lenient) = (policy(false), policy(true));
    for refused in ["169.254.169.254:80", "[fe80::1]:80", "[fd00:ec2::254]:80", "100.100.100.200:80", "127.0.0.1:10254"]
    {
        let address = refused.parse().unwrap();
        assert!(!strict.admits_endpoint(address) && !lenient.admits_endpoint(address), "{refused}");
    }
    for local in ["127.0.0.1:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
        let address = local.parse().unwrap();
        assert!(!strict.admits_endpoint(address) && lenient.admits_endpoint(address), "{local}");
    }
    // The port is the proxy's own only on this machine.
    assert!(strict.admits_endpoint("192.0.2.1:10254".parse().unwrap()));
    let allowing = AddressPolicy { allowed: ["169.254.0.0/16".parse().unwrap()].into_iter().collect(), ..strict };
    assert!(allowing.admits_endpoint("169.254.169.254:80".parse().unwrap()));
    let list = ["10.0.0.1:80", "169.254.169.254:80", "127.0.0.1:80"];
    let list: Vec<_> = list.iter().map(|address| Endpoint::ready(address.parse().unwrap())).collect();
    assert_eq!(*lenient.endpoints(&list), [list[0].clone(), list[2].clone()]);
    let delta = |list: &[Endpoint]| {
        let endpoints = Endpoints::Addresses(list.to_vec());
        Delta::upsert([EndpointSet { backend: "web".into(), endpoints }.into()])
    };
    let before = Snapshot::default();
    assert_eq!(lenient.report(&delta(&list), &before), 1);
    assert_eq!(lenient.report(&delta(&list[1..]), &before.apply(delta(&list))), 0);
}
