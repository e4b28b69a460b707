//! The real kube-proxy in front of Fairway and behind it, while pods come, move and go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use fairway_e2e::cluster::network::{NODES, OUTSIDE};
use fairway_e2e::load::Load;
use fairway_e2e::scene::{self, Release, Scene, Session};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

const HOST: &str = "web.example";
/// Connections of Fairway to a ClusterIP stay with a pod: with this setting each request has its own connection.
const FRESH: &str = "controller.config.upstream-keepalive-connections=0";
/// The endpoints that were tried, and for which target.
const UPSTREAM_LOG: &str = "controller.config.log-format-upstream=upstream=$upstream_addr target=$request_uri";
/// Number of requests that distinguishes one pod from several: two pods with equal shares look like one in one run of 2^23.
const ENOUGH: usize = 24;
/// Time limit for an exchange of bytes.
const LIMIT: Duration = Duration::from_secs(8);

#[test]
fn behind_a_cluster_address_kube_proxy_alone_chooses_the_pod() -> anyhow::Result<()> {
    scene::run("cluster-address", async |scene| {
        let (fairway, ()) = tokio::try_join!(scene.fairway(&[FRESH, UPSTREAM_LOG]), scene.echo("web", 2))?;
        fairway.ingress("web", HOST, "web").await?;
        let address = fairway.address().await?;
        scene.served(address, HOST).await?;
        let pods = ask(address, "/direct").await?;
        ensure!(pods.len() == 2, "not all pods answer: {pods:?}");
        let (direct, expected) = (upstreams(scene, &fairway, "/direct", ENOUGH).await?, pod_addresses(scene).await?);
        ensure!(direct == expected, "the pods are {expected:?}, requests went to {direct:?}");

        scene.kubectl(&["annotate", "ingress/web", "nginx.ingress.kubernetes.io/service-upstream=true"]).await?;
        let cluster_address = service(scene, "web").await?.cluster_ip.context("a Service without an address")?;
        let only = BTreeSet::from([format!("{cluster_address}:80")]);
        scene
            .until("requests go to the cluster address", async || {
                scene.get(address, HOST, "/change").await?;
                Ok(upstreams(scene, &fairway, "/change", 1).await?.is_superset(&only))
            })
            .await?;
        let pods = ask(address, "/through").await?;
        ensure!(pods.len() == 2, "not all pods answer through the cluster address: {pods:?}");

        // One pod leaves: clients notice nothing.
        let load = Load::to(address).host(HOST).target("/through").connections(2).rate(50).start();
        scene.kubectl(&["scale", "deployment/web", "--replicas=1"]).await?;
        scene.ready("web", 1).await?;
        scene.until("one pod answers all requests", async || Ok(ask(address, "/through").await?.len() == 1)).await?;
        let account = load.stop().await;
        ensure!(account.failed == 0 && account.pods.len() == 2, "while a pod left: {account}");
        let count = ENOUGH + usize::try_from(account.requests)?;
        let through = upstreams(scene, &fairway, "/through", count).await?;
        ensure!(through == only, "requests went to {through:?}");

        // All leave: Fairway still has an endpoint, but nothing listens there.
        scene.kubectl(&["scale", "deployment/web", "--replicas=0"]).await?;
        let refused = async || Ok(scene.get(address, HOST, "/refused").await?.status == 502);
        scene.until("the cluster address refuses connections", refused).await?;
        scene.kubectl(&["scale", "deployment/web", "--replicas=1"]).await?;
        scene.served(address, HOST).await
    })
}

#[test]
fn clients_have_the_address_that_the_traffic_policy_says_and_the_way_in_follows_the_pod() -> anyhow::Result<()> {
    scene::run("traffic-policy", async |scene| {
        let [first, second] = NODES;
        let [on_first, on_second] =
            [first, second].map(|node| format!("controller.nodeSelector.kubernetes\\.io/hostname={}", node.name));
        let values = [on_first.as_str()];
        let (fairway, ()) = tokio::try_join!(scene.fairway(&values), scene.echo("web", 1))?;
        fairway.ingress("web", HOST, "web").await?;
        let address = fairway.address().await?;
        scene.served(address, HOST).await?;

        // The default policy: each Node lets clients in, and replaces their address with its own.
        let spec = service(scene, &fairway.controller()).await?;
        let port = node_port(&spec, "http")?;
        let far = SocketAddr::from((second.address, port));
        scene.served(far, HOST).await?;
        let seen = client(scene, far).await?;
        ensure!(seen == second.address, "through the Node without a pod the client is {seen}");
        let seen = client(scene, address).await?;
        let of_nodes = NODES.map(|node| [node.address, node.gateway]).concat();
        ensure!(of_nodes.contains(&seen), "with the default policy the client is {seen}");

        // The pod itself doesn't change.
        let local = "controller.service.externalTrafficPolicy=Local";
        fairway.upgrade(&[&on_first, local]).await?;
        follows(scene, &fairway, address, first.address, second.address).await?;
        let seen = client(scene, SocketAddr::from((first.address, port))).await?;
        ensure!(seen == OUTSIDE, "through the Node with the pod the client is {seen}");

        // The pod moves to the other Node under load.
        let kept = Load::to(address).host(HOST).connections(4).rate(60).start();
        let fresh = Load::to(address).host(HOST).connections(2).rate(40).new_connections().start();
        fairway.upgrade(&[&on_second, local]).await?;
        let followed = follows(scene, &fairway, address, second.address, first.address).await;
        let (kept, fresh) = tokio::join!(kept.stop(), fresh.stop());
        followed?;
        println!("while the pod moved: connections that are kept: {kept}\n  a connection for each request: {fresh}");
        ensure!(kept.failed + fresh.failed == 0, "requests failed while the pod moved");
        Ok(())
    })
}

#[test]
fn tcp_and_udp_services_of_the_chart_pass_bytes_and_datagrams_in_both_directions() -> anyhow::Result<()> {
    scene::run("tcp-and-udp", async |scene| {
        let namespace = scene.namespace();
        let values = [
            format!("tcp.9000={namespace}/raw:7"),
            format!("tcp.9001={namespace}/raw:bytes"),
            format!("udp.9053={namespace}/raw:datagrams"),
            // The same number for both kinds.
            format!("udp.9000={namespace}/raw:7"),
            "portNamePrefix=raw".to_owned(),
        ];
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let raw = scene.apply(include_str!("kube_proxy/raw.yaml"));
        let (fairway, ()) = tokio::try_join!(scene.fairway(&values), raw)?;
        scene.ready("raw", 2).await?;
        let spec = service(scene, &fairway.controller()).await?;
        let ports = spec.ports.iter().flatten();
        let ports: BTreeMap<_, _> = ports.map(|port| (port.name.as_deref().unwrap_or_default(), port.port)).collect();
        let expected = [
            ("http", 80),
            ("https", 443),
            ("raw-9000-tcp", 9000),
            ("raw-9000-udp", 9000),
            ("raw-9001-tcp", 9001),
            ("raw-9053-udp", 9053),
        ];
        ensure!(ports == BTreeMap::from(expected), "the ports of the Service are {ports:?}");

        let address = fairway.address().await?.ip();
        for port in [9000, 9001] {
            let address = SocketAddr::new(address, port);
            scene.until(&format!("bytes pass port {port}"), async || pass_bytes(address, 1000).await).await?;
            // More than all buffers on the way hold: both directions run at the same time.
            ensure!(pass_bytes(address, 16 << 20).await?, "other bytes came back from port {port}");
        }
        for port in [9053, 9000] {
            let address = SocketAddr::new(address, port);
            scene.until(&format!("datagrams pass port {port}"), async || pass_datagrams(address).await).await?;
        }
        // What isn't in the values is not open.
        let other = timeout(Duration::from_secs(2), TcpStream::connect(SocketAddr::new(address, 9053))).await;
        ensure!(!matches!(other, Ok(Ok(_))), "TCP port 9053 is open");
        Ok(())
    })
}

/// The pods that answer [`ENOUGH`] requests, each over a new connection; all must be answered.
async fn ask(address: SocketAddr, target: &str) -> anyhow::Result<BTreeSet<String>> {
    let requests = (0..ENOUGH).map(async |_| {
        let response = Session::connect(address).await?.get(HOST, target).await?;
        ensure!(response.status == 200, "{response:?}");
        response.json()["pod"].as_str().map(str::to_owned).context("an answer without a pod")
    });
    Ok(try_join_all(requests).await?.into_iter().collect())
}

/// The endpoints of requests for `target`, once the access log has at least this many of them.
async fn upstreams(
    scene: &Scene,
    fairway: &Release<'_>,
    target: &str,
    count: usize,
) -> anyhow::Result<BTreeSet<String>> {
    let deployment = format!("deployment/{}", fairway.controller());
    let tail = format!(" target={target}");
    scene
        .find(&format!("{count} lines of the access log for {target}"), async || {
            let logs = scene.kubectl(&["logs", &deployment]).await?;
            let lines = logs.lines().filter_map(|line| line.trim_end().strip_suffix(&tail)?.strip_prefix("upstream="));
            let lines: Vec<String> = lines.map(str::to_owned).collect();
            Ok((lines.len() >= count).then(|| lines.into_iter().collect()))
        })
        .await
}

async fn service(scene: &Scene, name: &str) -> anyhow::Result<ServiceSpec> {
    scene.api::<Service>().get(name).await?.spec.context("a Service without a spec")
}

/// Addresses and port of the backend's pods.
async fn pod_addresses(scene: &Scene) -> anyhow::Result<BTreeSet<String>> {
    let addresses = scene.pods("web").await?.into_iter().filter_map(|pod| pod.status?.pod_ip);
    Ok(addresses.map(|address| format!("{address}:3000")).collect())
}

fn node_port(spec: &ServiceSpec, name: &str) -> anyhow::Result<u16> {
    let mut ports = spec.ports.iter().flatten();
    let port = ports.find(|port| port.name.as_deref() == Some(name)).and_then(|port| port.node_port);
    Ok(u16::try_from(port.with_context(|| format!("port {name} has no node port"))?)?)
}

/// The client of a request, as reported to the backend.
async fn client(scene: &Scene, address: SocketAddr) -> anyhow::Result<Ipv4Addr> {
    let json = scene.get(address, HOST, "/").await?.json();
    let headers = &json["headers"];
    ensure!(headers["X-Real-Ip"] == headers["X-Forwarded-For"], "{headers}");
    let address: IpAddr = headers["X-Real-Ip"][0].as_str().with_context(|| format!("no X-Real-IP: {json}"))?.parse()?;
    match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => anyhow::bail!("the client is {address}"),
    }
}

/// Waits until the health check of the Service leads only to `near`; from then on the client's address arrives.
async fn follows(
    scene: &Scene,
    fairway: &Release<'_>,
    address: SocketAddr,
    near: Ipv4Addr,
    far: Ipv4Addr,
) -> anyhow::Result<()> {
    let port = service(scene, &fairway.controller()).await?.health_check_node_port;
    let port = u16::try_from(port.context("the Service has no health check")?)?;
    for (node, status) in [(near, 200), (far, 503)] {
        let check = SocketAddr::from((node, port));
        let what = format!("the health check of {node} answers {status}");
        scene.until(&what, async || Ok(scene.get(check, "health", "/healthz").await?.status == status)).await?;
    }
    let arrives = async || Ok(client(scene, address).await? == OUTSIDE);
    scene.until("the client's address arrives", arrives).await?;
    // And never another one.
    for _ in 0..ENOUGH {
        let seen = client(scene, address).await?;
        ensure!(seen == OUTSIDE, "the client is {seen}");
    }
    Ok(())
}

/// Whether `count` bytes come back unchanged, followed by the end.
async fn pass_bytes(address: SocketAddr, count: usize) -> anyhow::Result<bool> {
    let sent: Vec<u8> = (0..count).map(|index| (index % 251) as u8).collect();
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let (mut reader, mut writer) = stream.split();
        let send = async {
            writer.write_all(&sent).await?;
            writer.shutdown().await
        };
        let mut received = Vec::with_capacity(count);
        tokio::try_join!(send, reader.read_to_end(&mut received))?;
        anyhow::Ok(received == sent)
    };
    timeout(LIMIT, exchange).await.context("bytes take too long")?
}

/// Whether datagrams of one client come back to it, each unchanged.
async fn pass_datagrams(address: SocketAddr) -> anyhow::Result<bool> {
    // A new client each time: the kernel remembers where datagrams of the last one went.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(address).await?;
    for length in [1, 512, 1400] {
        let sent: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
        socket.send(&sent).await?;
        let mut buffer = [0; 2000];
        let received =
            timeout(Duration::from_secs(1), socket.recv(&mut buffer)).await.context("a datagram is lost")??;
        ensure!(buffer[..received] == *sent, "a datagram of {length} bytes came back with {received}");
    }
    Ok(true)
}
