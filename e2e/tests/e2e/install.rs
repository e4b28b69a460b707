//! Installing and removing, and the specifics of kind and bare metal. `docs.rs` runs the pages in `docs/install`; these tests cover
//! what users don't see there but would miss.

use std::net::Ipv4Addr;

use fairway_e2e::cluster::Options;
use serde_json::Value;

use crate::ground::Ground;

const NODES: [&str; 2] = ["198.19.0.11", "198.19.0.12"];

/// Waits until the `jsonpath` of the Ingress shop exists, or has the value that follows `=`.
const WAIT_FOR_SHOP: &str = "kubectl wait ingress/shop --timeout=1m --for=jsonpath=";

/// Requests the shop until it responds at all; prints the request as the echo received it.
const ASK: &str = "curl --fail --silent --show-error --max-time 10 --retry 10 --retry-all-errors --retry-delay 1 \
     --header 'Host: shop.example.com'";

fn ground(name: &str, options: &Options) -> Ground {
    let ground = Ground::new(name, options);
    ground.read(
        "kubectl create deployment shop --port=3000 \
             --image=gcr.io/k8s-staging-gateway-api/echo-basic:v20240412-v1.0.0-394-g40c666fd
         kubectl expose deployment shop --port=80 --target-port=3000
         kubectl rollout status deployment/shop --timeout=2m",
    );
    ground
}

fn create_shop(ground: &Ground) {
    ground.read("kubectl create ingress shop --class=nginx --rule='shop.example.com/*=shop:80'");
}

fn install(ground: &Ground, arguments: &str) {
    ground.read(&format!(
        "helm upgrade --install ingress-nginx deploy/helm/fairway --namespace ingress-nginx --create-namespace \
         --wait --timeout 3m {arguments}"
    ));
}

fn json(ground: &Ground, line: &str) -> Value {
    serde_json::from_str(&ground.read(line)).expect("JSON")
}

/// The addresses in the status of the Ingress shop.
fn shown(ground: &Ground) -> Vec<String> {
    let list = ground.read("kubectl get ingress shop -o jsonpath='{.status.loadBalancer.ingress[*].ip}'");
    list.split_whitespace().map(str::to_owned).collect()
}

/// The client's address as reported to the echo server.
fn client_address(ground: &Ground, url: &str) -> Ipv4Addr {
    let answer: Value = serde_json::from_str(&ground.read(&format!("{ASK} {url}"))).expect("the echo answers in JSON");
    let headers = answer["headers"].as_object().expect("headers");
    let values = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-real-ip")).map(|(_, values)| values);
    values.and_then(|values| values[0].as_str()).and_then(|text| text.parse().ok()).expect("an address")
}

/// The names of all objects of these kinds that aren't in any namespace.
fn cluster_wide(ground: &Ground) -> Vec<String> {
    let kinds = "ingressclasses,clusterroles,clusterrolebindings,customresourcedefinitions,priorityclasses,\
                 validatingwebhookconfigurations,mutatingwebhookconfigurations,validatingadmissionpolicies,apiservices";
    ground.read(&format!("kubectl get {kinds} --output name")).lines().map(str::to_owned).collect()
}

#[test]
fn ingresses_can_be_written_while_no_pod_can_run() {
    let ground = ground("install-no-pod", &Options::default());
    ground.read(
        "helm install ingress-nginx deploy/helm/fairway --namespace ingress-nginx --create-namespace \
         --set image.repository=no/such-image",
    );
    // kubectl does not wait for a pod that doesn't exist yet.
    ground.read(
        "until kubectl get pods --namespace ingress-nginx --output name | grep -q .; do sleep 0.1; done
         kubectl wait pod --namespace ingress-nginx --all --timeout=1m \
             --for=jsonpath='{.status.containerStatuses[0].state.waiting.reason}'",
    );

    create_shop(&ground);
    ground.read("kubectl annotate ingress shop nginx.ingress.kubernetes.io/proxy-body-size=8m");
    // Mistakes too: nothing rejects them, and they are reported later.
    ground.read("kubectl annotate ingress shop nginx.ingress.kubernetes.io/proxy-read-timeout=soon");
    let pods = json(&ground, "kubectl get pods --namespace ingress-nginx --output json");
    let state = &pods["items"][0]["status"]["containerStatuses"][0]["state"];
    assert!(state["waiting"]["reason"].is_string(), "no container may run here: {state}");

    // Objects written meanwhile are served once the pods run.
    install(&ground, "--set image.repository=fairway/fairway");
    ground.read(&format!("{WAIT_FOR_SHOP}'{{.status.loadBalancer.ingress[0].ip}}'"));
    let address = shown(&ground).remove(0);
    ground.read(&format!("{ASK} http://{address}/"));
    ground.read("kubectl delete ingress shop");
}

#[test]
fn nothing_is_left_after_removal() {
    let ground = ground("install-removal", &Options::default());
    let before = cluster_wide(&ground);
    install(&ground, "");
    create_shop(&ground);
    ground.read(&format!("{WAIT_FOR_SHOP}'{{.status.loadBalancer.ingress[0].ip}}'"));
    let shop = json(&ground, "kubectl get ingress shop --output json");
    assert_eq!(shop["metadata"]["finalizers"], Value::Null, "nothing of ours holds an Ingress");
    assert_ne!(cluster_wide(&ground), before);

    // In the order of the page: the pods first, so that the last one can remove its address.
    ground.read("kubectl delete deployment ingress-nginx-controller --namespace ingress-nginx --cascade=foreground --timeout=2m");
    assert_eq!(shown(&ground), Vec::<String>::new());
    ground.read("helm uninstall ingress-nginx --namespace ingress-nginx --wait --timeout 2m");
    assert_eq!(cluster_wide(&ground), before);
    // Objects that the chart didn't create: the Lease, and those that Kubernetes puts into every namespace.
    let left = "kubectl get leases,configmaps,secrets,services,serviceaccounts,roles,rolebindings,deployments,daemonsets,pods,\
                poddisruptionbudgets --namespace ingress-nginx --output name";
    let left = ground.read(left);
    let left: Vec<&str> = left.lines().collect();
    assert_eq!(
        left,
        ["lease.coordination.k8s.io/ingress-nginx-leader", "configmap/kube-root-ca.crt", "serviceaccount/default"]
    );
    ground.read("kubectl delete namespace ingress-nginx --timeout=1m");

    ingresses_are_free(&ground);
}

/// A user who doesn't read the page removes everything at once.
#[test]
fn removal_at_once_blocks_nothing() {
    let ground = ground("install-at-once", &Options::default());
    let before = cluster_wide(&ground);
    install(&ground, "--set controller.replicaCount=2");
    create_shop(&ground);
    ground.read(&format!("{WAIT_FOR_SHOP}'{{.status.loadBalancer.ingress[0].ip}}'"));
    ground.read("helm uninstall ingress-nginx --namespace ingress-nginx");
    assert_eq!(cluster_wide(&ground), before);
    ingresses_are_free(&ground);
    ground.read("kubectl delete namespace ingress-nginx --timeout=2m");
}

/// An Ingress that Fairway served can be changed and deleted, and new ones can be created.
fn ingresses_are_free(ground: &Ground) {
    ground.read(
        "kubectl annotate ingress shop nginx.ingress.kubernetes.io/proxy-body-size=1m
         kubectl create ingress other --class=nginx --rule='other.example.com/*=shop:80'
         kubectl delete ingress shop other --timeout=30s",
    );
}

/// The label, the taint and the two ports of kind's own guide; once by the manifest and once by the chart.
#[test]
fn kind_serves_on_the_ports_of_the_labelled_node() {
    let ground = ground("install-kind", &Options { control_plane_taint: true, ..Options::default() });
    create_shop(&ground);
    let labelled = ground.read("kubectl get nodes --selector ingress-ready=true --output name");
    let taints =
        ground.read("kubectl get nodes --selector ingress-ready=true -o jsonpath='{.items[0].spec.taints[*].key}'");
    assert_eq!((labelled.as_str(), taints.as_str()), ("node/node-a", "node-role.kubernetes.io/control-plane"));

    let check = || {
        let nodes = "kubectl get pods --namespace ingress-nginx -o jsonpath='{.items[*].spec.nodeName}'";
        assert_eq!(ground.read(nodes), "node-a");
        for url in [format!("http://{}/order", NODES[0]), format!("--insecure https://{}/order", NODES[0])] {
            assert!(ground.read(&format!("{ASK} {url}")).contains("/order"), "{url}");
        }
        ground.read(&format!("{WAIT_FOR_SHOP}'{{.status.loadBalancer.ingress[0].hostname}}'=localhost"));
        let other = ground.bash(&format!("curl --silent --max-time 2 http://{}/", NODES[1]));
        assert_eq!(other.status.code(), Some(7), "nothing listens on the other node");
    };
    ground.read(
        "kubectl apply --filename deploy/manifests/kind.yaml
                 kubectl rollout status deployment/ingress-nginx-controller --namespace ingress-nginx --timeout=3m",
    );
    check();
    ground.read("kubectl delete --filename deploy/manifests/kind.yaml --timeout=2m");
    install(&ground, "--values deploy/manifests/values/kind.yaml");
    check();
}

#[test]
fn bare_metal_by_ports_of_the_nodes() {
    let ground = ground("install-node-port", &Options::default());
    create_shop(&ground);
    ground.read(
        "kubectl apply --filename deploy/manifests/baremetal.yaml
                 kubectl rollout status deployment/ingress-nginx-controller --namespace ingress-nginx --timeout=3m",
    );
    let ports = "kubectl get service ingress-nginx-controller --namespace ingress-nginx -o jsonpath='{.spec.ports[*].nodePort}'";
    let ports = ground.read(ports);
    let (http, https) = ports.split_once(' ').expect("two ports");
    for node in NODES {
        ground.read(&format!("{ASK} http://{node}:{http}/"));
        ground.read(&format!("{ASK} --insecure https://{node}:{https}/"));
    }
    let home = ground.read("kubectl get pods --namespace ingress-nginx -o jsonpath='{.items[*].status.hostIP}'");
    ground.read(&format!("{WAIT_FOR_SHOP}'{{.status.loadBalancer.ingress[0].ip}}'={home}"));
    assert_eq!(shown(&ground), [home]);
}

#[test]
fn bare_metal_on_the_network_of_the_nodes() {
    let ground = ground("install-host-net", &Options::default());
    create_shop(&ground);
    install(
        &ground,
        "--set controller.kind=DaemonSet --set controller.hostNetwork=true \
         --set controller.dnsPolicy=ClusterFirstWithHostNet --set controller.service.enabled=false \
         --set controller.publishService.enabled=false --set controller.reportNodeInternalIp=true",
    );
    let arguments = "kubectl get daemonset ingress-nginx-controller --namespace ingress-nginx \
                     -o jsonpath='{.spec.template.spec.containers[0].args}'";
    assert!(ground.read(arguments).contains("--report-node-internal-ip-address=true"));
    ground.read(&format!("{WAIT_FOR_SHOP}'{{.status.loadBalancer.ingress[1].ip}}'={}", NODES[1]));
    assert_eq!(shown(&ground), NODES);
    for node in NODES {
        // No detour and no translation: the address of the client, which is that of the bridge.
        assert_eq!(client_address(&ground, &format!("http://{node}/")), Ipv4Addr::new(198, 19, 0, 1));
        ground.read(&format!("{ASK} --insecure https://{node}/"));
    }
}

#[test]
fn bare_metal_with_an_address_of_metallb() {
    let ground = ground("install-metallb", &Options::default());
    create_shop(&ground);
    install(&ground, "--set controller.service.externalTrafficPolicy=Local");
    ground.read(&format!("{WAIT_FOR_SHOP}'{{.status.loadBalancer.ingress[0].ip}}'"));
    let shown = shown(&ground);
    let service = "kubectl get service ingress-nginx-controller --namespace ingress-nginx \
                   -o jsonpath='{.status.loadBalancer.ingress[*].ip}'";
    assert_eq!(shown, [ground.read(service)]);
    let address: Ipv4Addr = shown[0].parse().expect("an address");
    assert!((200..=250).contains(&address.octets()[3]) && address.octets()[..3] == [198, 19, 0], "{address}");
    assert_eq!(client_address(&ground, &format!("http://{address}/")), Ipv4Addr::new(198, 19, 0, 1));
    ground.read(&format!("{ASK} --insecure https://{address}/"));
}
