//! A Node's services for its pods: its ports lead to them, draining removes them, and they outlive its kubelet.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, ensure};
use fairway_e2e::cluster::{Action, Options};
use fairway_e2e::scene;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde_json::json;

use super::{begin, get, phase, text, value};

const NODES: [(&str, Ipv4Addr); 2] =
    [("node-a", Ipv4Addr::new(198, 19, 0, 11)), ("node-b", Ipv4Addr::new(198, 19, 0, 12))];

#[test]
fn ports_of_the_node_lead_to_its_pod_and_are_freed() -> anyhow::Result<()> {
    scene::run("kubelet-network", async |scene| {
        begin(scene, include_str!("network.yaml")).await?;
        scene.ready("everywhere", NODES.len()).await?;
        scene
            .until("the pod in the Node's network is ready", async || {
                Ok(scene::is_ready(&get(scene, "in-node").await?))
            })
            .await?;
        let answers = async |address: SocketAddr| anyhow::Ok(scene.get(address, "any", "/who").await?.text());
        for (node, address) in NODES {
            let answer = answers(SocketAddr::from((address, 18080))).await?;
            assert!(answer.contains(&format!("\"pod\": \"{node}\"")), "{answer}");
        }
        for pod in scene.pods("everywhere").await? {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let log = scene.kubectl(&["logs", name]).await?;
            assert!(log.contains("/who to client (198.19.0.1:"), "the client's address is kept: {log}");
            // Its own Service and its own Node, from inside.
            let (_, node) =
                NODES.into_iter().find(|(node, _)| text(&pod, "/spec/nodeName") == *node).context("a Node")?;
            let own = text(&pod, "/status/podIP");
            assert_eq!(text(&pod, "/status/hostIP"), node.to_string());
            assert_ne!(own, node.to_string());
        }
        let pod = get(scene, "in-node").await?;
        let (_, node) = NODES[1];
        assert_eq!(text(&pod, "/status/podIP"), node.to_string());
        let answer = answers(SocketAddr::from((node, 18081))).await?;
        assert!(answer.contains(&format!("\"pod\": \"{node}\"")), "{answer}");
        let service = scene.kubectl(&["get", "service", "everywhere", "-o", "jsonpath={.spec.clusterIP}"]).await?;
        let service = SocketAddr::new(service.parse()?, 80);
        scene.until("the Service leads to one", async || Ok(answers(service).await?.contains("node-"))).await?;

        scene
            .kubectl(&["delete", "daemonset/everywhere", "pod/in-node", "--cascade=foreground", "--timeout=120s"])
            .await?;
        for port in [18080, 18081] {
            let free = SocketAddr::from((node, port));
            scene.until("the port is free", async || Ok(tokio::net::TcpStream::connect(free).await.is_err())).await?;
        }
        Ok(())
    })
}

#[test]
fn nodes_are_drained_and_pods_come_back_with_their_kubelet() -> anyhow::Result<()> {
    scene::run_alone("kubelet-alone", &Options::default(), async |scene| {
        begin(scene, include_str!("restart.yaml")).await?;
        scene.echo("web", 4).await?;
        let nodes = async || {
            let pods = scene.pods("web").await?;
            anyhow::Ok(pods.iter().map(|pod| text(pod, "/spec/nodeName")).collect::<Vec<_>>())
        };
        assert!(nodes().await?.contains(&"node-a".to_owned()), "spread over both Nodes");
        scene.kubectl(&["drain", "node-a", "--ignore-daemonsets", "--timeout=120s"]).await?;
        scene.ready("web", 4).await?;
        assert!(nodes().await?.iter().all(|node| node == "node-b"), "{:?}", nodes().await?);
        scene.kubectl(&["uncordon", "node-a"]).await?;
        phase(scene, "finished", "Succeeded").await?;

        let before = get(scene, "stays").await?;
        for (action, restarts) in [(Action::Stop, 1), (Action::Kill, 2)] {
            scene.cluster().component("kubelet-node-b", action).await?;
            let address = SocketAddr::new(text(&get(scene, "stays").await?, "/status/podIP").parse()?, 3000);
            scene
                .until("its containers end with it", async || Ok(scene.get(address, "any", "/").await.is_err()))
                .await?;
            scene.cluster().component("kubelet-node-b", Action::Start).await?;
            scene
                .until("the pod runs again, once more often", async || {
                    let pod = get(scene, "stays").await?;
                    Ok(scene::is_ready(&pod) && value(&pod, "/status/containerStatuses/0/restartCount") == restarts)
                })
                .await?;
            scene.ready("web", 4).await?;
        }
        let after = get(scene, "stays").await?;
        assert_eq!(after.metadata.uid, before.metadata.uid);
        let address = SocketAddr::new(text(&after, "/status/podIP").parse()?, 3000);
        ensure!(scene.get(address, "any", "/").await?.status == 200, "it answers at its new address");
        let pod = get(scene, "finished").await?;
        assert_eq!(text(&pod, "/status/phase"), "Succeeded", "a pod that has ended stays ended");
        assert_eq!(value(&pod, "/status/containerStatuses/0/restartCount"), 0);

        let nodes: Api<Node> = Api::all(scene.client());
        for (name, address) in NODES {
            let node = nodes.get(name).await?;
            let status = serde_json::to_value(&node.status)?;
            assert_eq!(status["daemonEndpoints"]["kubeletEndpoint"]["Port"], 10250);
            assert_eq!(status["addresses"][0], json!({ "type": "InternalIP", "address": address }));
        }
        Ok(())
    })
}
