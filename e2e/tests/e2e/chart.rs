//! Values files of ingress-nginx chart users, installed; and Fairway as a replacement for ingress-nginx.
//!
//! `cargo xtask chart` compares the rendered chart; these tests show what only a cluster can show: the API server accepts it, pods
//! start with it and serve, and its rights suffice.

use std::fs;
use std::path::PathBuf;

use fairway_e2e::cluster::Options;
use fairway_e2e::cluster::audit::Log;
use fairway_e2e::scene::repository;
use serde_json::Value;

use crate::ground::Ground;

/// Kinds installed by the operators of Prometheus and KEDA, which define their contents.
const CUSTOM_KINDS: [(&str, &str, &str); 3] = [
    ("monitoring.coreos.com", "v1", "ServiceMonitor"),
    ("monitoring.coreos.com", "v1", "PrometheusRule"),
    ("keda.sh", "v1alpha1", "ScaledObject"),
];

const INSTALL: &str = "helm upgrade --install ingress-nginx deploy/helm/fairway --namespace ingress-nginx --create-namespace --timeout 2m";

/// Changes needed only on the test machine: it has other images, and little CPU.
fn stand_ins(name: &str) -> &'static str {
    match name {
        "azure-internal" => {
            "--set defaultBackend.image.repository=gcr.io/k8s-staging-gateway-api/echo-basic --set defaultBackend.port=3000"
        }
        "gke" => "--set controller.resources.requests.cpu=10m",
        _ => "",
    }
}

fn values_files() -> Vec<PathBuf> {
    let folder = repository().join("e2e/tests/values");
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("values files").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files
}

/// Applies a manifest.
fn apply(ground: &Ground, manifest: &str) {
    ground.read(&format!("kubectl apply --filename - <<'END'\n{manifest}\nEND"));
}

fn custom_kind(group: &str, version: &str, kind: &str) -> String {
    let singular = kind.to_lowercase();
    format!(
        "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: {singular}s.{group}}}
spec:
  group: {group}
  scope: Namespaced
  names: {{kind: {kind}, singular: {singular}, plural: {singular}s}}
  versions:
    - name: {version}
      served: true
      storage: true
      schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}"
    )
}

/// An Ingress that Fairway answers itself.
fn create_ingress(ground: &Ground, class: &str) {
    apply(
        ground,
        &format!(
            "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: hello
  namespace: ingress-nginx
  annotations: {{nginx.ingress.kubernetes.io/permanent-redirect: 'https://example.com/hello'}}
spec:
  ingressClassName: {class}
  rules:
    - host: hello.example
      http:
        paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: hello, port: {{number: 80}}}}}}}}]"
        ),
    );
}

/// The addresses of all pods of the controller.
fn pods(ground: &Ground) -> Vec<String> {
    let pods = ground.read(
        "kubectl get pods --namespace ingress-nginx --selector app.kubernetes.io/component=controller \
         --output jsonpath='{.items[*].status.podIP}'",
    );
    assert!(!pods.is_empty(), "no pods");
    pods.split(' ').map(str::to_owned).collect()
}

/// Each pod of the controller has to answer for the Ingress, to a connection with a PROXY header if it expects one.
fn served_by_each_pod(ground: &Ground, proxy_header: bool) {
    let proxy_header = if proxy_header { "--haproxy-protocol" } else { "" };
    for pod in pods(ground) {
        let answer = ground.read(&format!(
            "curl --fail --silent --show-error --output /dev/null --write-out '%{{http_code}} %{{redirect_url}}' --max-time 10 \
             --retry 20 --retry-all-errors --retry-delay 1 {proxy_header} --header 'Host: hello.example' http://{pod}/ "
        ));
        assert_eq!(answer, "301 https://example.com/hello");
    }
}

/// Metrics are served by the Service that a ServiceMonitor selects, and on the port of each pod that the Service's
/// annotation names.
fn metrics_are_served(ground: &Ground) {
    let service = "kubectl get service ingress-nginx-controller-metrics --namespace ingress-nginx --output";
    let service: Value = serde_json::from_str(&ground.read(&format!("{service} json"))).expect("JSON");
    let text = |pointer: &str| service.pointer(pointer).and_then(Value::as_str).expect("a text").to_owned();
    let by_service = format!("{}:{}", text("/spec/clusterIP"), service["spec"]["ports"][0]["port"]);
    let annotated = text("/metadata/annotations/prometheus.io~1port");
    let by_pod = pods(ground).into_iter().map(|pod| format!("{pod}:{annotated}"));
    for address in std::iter::once(by_service).chain(by_pod) {
        let metrics = ground.read(&format!(
            "curl --fail --silent --show-error --max-time 10 --retry 20 --retry-all-errors --retry-delay 1 http://{address}/metrics"
        ));
        assert!(metrics.contains("nginx_ingress_controller_"), "{address}: {metrics}");
    }
}

/// Requests of our accounts that the API server denied for lack of a right.
fn refused(ground: &Ground) -> Vec<String> {
    let mut refused = Vec::new();
    let by_ours = |line: &str| line.contains("system:serviceaccount:ingress-nginx:");
    let read = Log::new(ground.cluster().layout()).read(by_ours, |event| {
        if event.is_denied() && event.account().is_some_and(|(namespace, _)| namespace == "ingress-nginx") {
            refused.push(format!("{} {}", event.verb, event.request_uri));
        }
    });
    read.expect("the audit log");
    refused
}

#[test]
fn values_files_of_users_install_and_serve() {
    let ground = Ground::new("chart-values", &Options::default());
    for (group, version, kind) in CUSTOM_KINDS {
        apply(&ground, &custom_kind(group, version, kind));
    }
    ground.read("kubectl label node node-a ingress-ready=true");
    let files = values_files();
    assert!(files.len() >= 12, "{files:?}");
    for path in files {
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
        let text = fs::read_to_string(&path).expect("a file");
        println!("{name}");
        // No client sends anything to terminating pods.
        let quick = "--set controller.extraArgs.shutdown-grace-period=0";
        ground.read(&format!("{INSTALL} --wait --values {} {quick} {}", path.display(), stand_ins(name)));
        let class = if text.contains("name: team-a") { "team-a" } else { "nginx" };
        create_ingress(&ground, class);
        served_by_each_pod(&ground, text.contains("use-proxy-protocol: \"true\""));
        if name == "prometheus-operator" {
            metrics_are_served(&ground);
        }
        ground.read("kubectl delete ingress hello --namespace ingress-nginx");
        // The pods first: the last one needs its rights to remove its address and release its Lease.
        ground.read(
            "kubectl delete deployments,daemonsets --namespace ingress-nginx --selector app.kubernetes.io/component=controller \
             --cascade=foreground --timeout=2m",
        );
        ground.read("helm uninstall ingress-nginx --namespace ingress-nginx --wait --timeout 2m");
        assert_eq!(refused(&ground), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn the_manifests_are_taken_as_they_are() {
    for name in ["baremetal", "cloud", "kind"] {
        let ground = Ground::new(&format!("chart-manifest-{name}"), &Options::default());
        ground.read("kubectl label node node-a ingress-ready=true");
        ground.read(&format!("kubectl apply --filename deploy/manifests/{name}.yaml"));
        ground
            .read("kubectl rollout status deployment/ingress-nginx-controller --namespace ingress-nginx --timeout=2m");
        // Applied again, nothing changes. kubectl always reports a change of a budget, because it replaces such selectors as a
        // whole.
        let again = ground.read(&format!("kubectl apply --filename deploy/manifests/{name}.yaml"));
        let changed = again.lines().filter(|line| !line.ends_with(" unchanged"));
        let changed: Vec<&str> = changed.filter(|line| !line.starts_with("poddisruptionbudget")).collect();
        assert_eq!(changed, Vec::<&str>::new(), "{name}");
        create_ingress(&ground, "nginx");
        served_by_each_pod(&ground, false);
    }
}

#[test]
fn replicas_run_on_both_nodes() {
    let ground = Ground::new("chart-spread", &Options::default());
    let nodes = || {
        let pods = "kubectl get pods --namespace ingress-nginx --selector app.kubernetes.io/component=controller --output json";
        let pods: Value = serde_json::from_str(&ground.read(pods)).expect("JSON");
        let pods = pods["items"].as_array().expect("pods").iter();
        let stay = pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let mut nodes: Vec<String> =
            stay.filter_map(|pod| Some(pod["spec"]["nodeName"].as_str()?.to_owned())).collect();
        nodes.sort();
        nodes
    };
    let values = "--set controller.replicaCount=2";
    ground.read(&format!("{INSTALL} --wait {values}"));
    assert_eq!(nodes(), ["node-a", "node-b"]);
    // A rollout spreads the pods again; pods of the previous version don't count.
    ground.read(&format!("{INSTALL} --wait {values} --set controller.podAnnotations.a=b"));
    assert_eq!(nodes(), ["node-a", "node-b"]);
}

/// The part of the ingress-nginx chart's objects that can't be changed, or whose change would be noticed.
const BEFORE: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: ingress-nginx}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: ingress-nginx-controller}
data: {}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: ingress-nginx}
rules: [{apiGroups: [''], resources: [secrets], verbs: [list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: ingress-nginx}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: ingress-nginx}
subjects: [{kind: ServiceAccount, name: ingress-nginx, namespace: ingress-nginx}]
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: nginx}
spec: {controller: k8s.io/ingress-nginx}
---
apiVersion: v1
kind: Service
metadata: {name: ingress-nginx-controller}
spec:
  type: LoadBalancer
  ipFamilyPolicy: SingleStack
  ipFamilies: [IPv4]
  ports:
    - {name: http, port: 80, targetPort: http, protocol: TCP, appProtocol: http}
    - {name: https, port: 443, targetPort: https, protocol: TCP, appProtocol: https}
  selector: &labels
    app.kubernetes.io/name: ingress-nginx
    app.kubernetes.io/instance: ingress-nginx
    app.kubernetes.io/component: controller
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ingress-nginx-controller}
spec:
  replicas: 1
  selector:
    matchLabels: &labels
      app.kubernetes.io/name: ingress-nginx
      app.kubernetes.io/instance: ingress-nginx
      app.kubernetes.io/component: controller
  template:
    metadata: {labels: *labels}
    spec:
      serviceAccountName: ingress-nginx
      containers:
        - name: controller
          image: busybox
          args: [-c, 'sleep 1000000']
          command: [sh]
          ports: [{name: http, containerPort: 80}, {name: https, containerPort: 443}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: ingress-nginx-admission}
webhooks:
  - name: validate.nginx.ingress.kubernetes.io
    admissionReviewVersions: [v1]
    sideEffects: None
    failurePolicy: Fail
    rules: [{apiGroups: [networking.k8s.io], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [ingresses]}]
    clientConfig: {service: {name: ingress-nginx-controller-admission, namespace: ingress-nginx, path: /networking/v1/ingresses}}
";

#[test]
fn an_upgrade_of_a_release_of_ingress_nginx_keeps_its_objects() {
    let ground = Ground::new("chart-upgrade", &Options::default());
    let chart = ground.cluster().directory().join("ingress-nginx");
    fs::create_dir_all(chart.join("templates")).expect("a folder");
    fs::write(chart.join("Chart.yaml"), "apiVersion: v2\nname: ingress-nginx\nversion: 4.15.1\n").expect("a file");
    fs::write(chart.join("templates/all.yaml"), BEFORE).expect("a file");
    ground.read(&format!(
        "helm install ingress-nginx {} --namespace ingress-nginx --create-namespace --wait --timeout 2m",
        chart.display()
    ));
    let kept = || {
        let objects = "kubectl get --namespace ingress-nginx deployment/ingress-nginx-controller \
                       service/ingress-nginx-controller configmap/ingress-nginx-controller serviceaccount/ingress-nginx \
                       --output jsonpath='{range .items[*]}{.kind} {.metadata.uid} {.spec.clusterIP} {.spec.ports[*].nodePort}{\"\\n\"}{end}'";
        ground.read(objects)
    };
    ground.read(
        "kubectl wait service/ingress-nginx-controller --namespace ingress-nginx --timeout=1m \
         --for=jsonpath='{.status.loadBalancer.ingress[0].ip}'",
    );
    let address = "kubectl get service ingress-nginx-controller --namespace ingress-nginx \
                   --output jsonpath='{.status.loadBalancer.ingress[0].ip}'";
    let before = (kept(), ground.read(address));

    ground.read(&format!("{INSTALL} --wait"));
    assert_eq!((kept(), ground.read(address)), before);
    assert_eq!(ground.read("kubectl get validatingwebhookconfigurations --output name"), "");
    create_ingress(&ground, "nginx");
    let answer = ground.read(&format!(
        "curl --fail --silent --show-error --output /dev/null --write-out '%{{http_code}}' --max-time 10 --retry 20 \
         --retry-all-errors --retry-delay 1 --header 'Host: hello.example' http://{}/",
        before.1
    ));
    assert_eq!(answer, "301");
}
