//! Runs the commands in the pages for users: in the order of the page, in a cluster of its own, with a user's bash, kubectl, helm,
//! curl and openssl. `docs/page.rs` explains the fences of a page.

mod page;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use fairway_e2e::cluster::Options;
use fairway_e2e::cluster::layout;
use fairway_e2e::scene::repository;
use tokio::net::{TcpListener, TcpStream};

use self::page::Page;
use crate::ground::{Background, Ground};

/// The pages that a test below runs.
const PAGES: [&str; 8] = [
    "docs/how-it-works.md",
    "docs/install/bare-metal.md",
    "docs/install/behind-a-load-balancer.md",
    "docs/install/cloud.md",
    "docs/install/helm.md",
    "docs/install/kind.md",
    "docs/migrate-from-ingress-nginx.md",
    "docs/migrate-one-by-one.md",
];

/// The commands that no test runs, with the reasons. The paths in them exist, and `only_these_commands_are_not_run` keeps the list
/// complete.
const NOT_RUN: [(&str, &str); 6] = [
    (
        "docker build --file deploy/Containerfile",
        "no container runtime here; `cargo xtask image` builds the same without one",
    ),
    ("docker push", "there is no registry"),
    (
        "kind create cluster",
        "kind needs a container runtime; the cluster of the test has the same label, taint and ports",
    ),
    ("kind load docker-image", "the same"),
    ("kind delete cluster", "the same"),
    ("cargo install --path crates/fairway", "a release build of minutes; the test has the command from the image"),
];

/// The address of kind's node, to which it maps the machine's ports.
const KIND_NODE: &str = "198.19.0.11";

const INSTALL: &str = "helm install ingress-nginx deploy/helm/fairway --namespace ingress-nginx --create-namespace \
     --wait --timeout 3m\n";

/// An application, served by class nginx.
const SHOP: &str = "kubectl create deployment shop --port=3000 \
     --image=gcr.io/k8s-staging-gateway-api/echo-basic:v20240412-v1.0.0-394-g40c666fd\n\
     kubectl expose deployment shop --port=80 --target-port=3000\n\
     kubectl create ingress shop --class=nginx --rule='shop.example.com/*=shop:80'\n\
     kubectl rollout status deployment/shop --timeout=2m\n\
     kubectl wait ingress/shop --for=jsonpath='{.status.loadBalancer.ingress[0]}' --timeout=1m\n";

/// The objects that the chart of ingress-nginx has besides the controller.
const WEBHOOK: &str = include_str!("docs/webhook.yaml");

/// The certificate of the server behind that webhook.
const CERTIFICATE: &str = "openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=webhook \
     -addext subjectAltName=DNS:ingress-nginx-controller-admission.ingress-nginx.svc \
     -keyout \"$OLD_CHART/files/webhook.key\" -out \"$OLD_CHART/files/webhook.crt\"\n";

/// Fails unless external-dns sees exactly one Ingress, under both prefixes of its annotations, and that has this address.
/// `e2e/tools/external-dns/run.sh` asks external-dns itself.
const EXTERNAL_DNS: &str = r#"#!/bin/bash
for prefix in 'external-dns\.kubernetes\.io' 'external-dns\.alpha\.kubernetes\.io'; do
  left=$(kubectl get ingress --output "jsonpath={range .items[*]}{.metadata.annotations.$prefix/controller} \
{.status.loadBalancer.ingress[0].ip}{'\n'}{end}" | awk 'NF && $1 != "none" { print $1 }')
  [ "$left" = "$1" ] || { echo "$prefix, expected $1: $left"; exit 1; }
done
"#;

#[test]
fn page_helm() {
    Walk::new("docs-helm", &Options::default()).page("docs/install/helm.md");
}

#[test]
fn page_cloud() {
    Walk::new("docs-cloud", &Options::default()).page("docs/install/cloud.md");
}

#[test]
fn page_bare_metal() {
    Walk::new("docs-bare-metal", &Options::default()).page("docs/install/bare-metal.md");
}

#[test]
fn page_behind_a_load_balancer() {
    Walk::new("docs-behind", &Options::default()).page("docs/install/behind-a-load-balancer.md");
}

#[test]
fn page_how_it_works() {
    let walk = Walk::new("docs-how", &Options::default());
    walk.prepare(INSTALL);
    walk.page("docs/how-it-works.md");
}

/// The port mappings of kind, which Docker makes, are forwarded connections here too.
#[test]
fn page_kind() {
    let walk = Walk::new("docs-kind", &Options { control_plane_taint: true, ..Options::default() });
    let cluster = walk.ground.cluster();
    let runtime = cluster.within(|| cluster.runtime()).expect("a runtime in the cluster's network");
    for port in [80, 443] {
        // Its threads are in that network, and this one is not.
        let listener = runtime.block_on(runtime.spawn(TcpListener::bind(("127.0.0.1", port))));
        let listener = listener.expect("no panic").expect("the port is free");
        runtime.spawn(forward(listener, (KIND_NODE, port)));
    }
    walk.page("docs/install/kind.md");
}

/// Fairway's own chart plays the part of ingress-nginx under the old names, with a webhook and a job like those of ingress-nginx,
/// and is installed as helm 3 did it, with client-side patches. Images of ingress-nginx can't be run here, and the page is about
/// names, addresses and classes over time. The values have one that Fairway doesn't honour, and a DNS name that only one Service
/// may have.
#[test]
fn page_migrate_from_ingress_nginx() {
    let walk = Walk::new("docs-migrate", &Options::default());
    walk.old_chart();
    walk.prepare(CERTIFICATE);
    walk.prepare(
        "helm install ingress-nginx \"$OLD_CHART\" --namespace ingress-nginx --create-namespace --server-side=false \
         --set controller.config.proxy-body-size=8m --set controller.replicaCount=2 \
         --set controller.enableAnnotationValidations=false \
         --set 'controller.service.annotations.external-dns\\.alpha\\.kubernetes\\.io/hostname=shop.example.com' \
         --set 'controller.service.annotations.external-dns\\.kubernetes\\.io/hostname=shop.example.com' \
         --wait --timeout 3m",
    );
    walk.prepare(SHOP);
    walk.prepare("kubectl get validatingwebhookconfiguration ingress-nginx-admission");

    // What external-dns would see at any time: one address, never another one and never none.
    let seen = walk.folder.join("seen.txt");
    let mut watch = walk.ground.cluster().command("kubectl");
    let path = "--output=jsonpath={.status.loadBalancer.ingress[*].ip}{\"\\n\"}";
    watch.args(["get", "ingress", "shop", "--watch", path]).stdout(fs::File::create(&seen).expect("a file"));
    let mut watch = Background::start(&mut watch);
    walk.page("docs/migrate-from-ingress-nginx.md");
    let still_there = watch.try_wait().expect("its state").is_none();
    drop(watch);
    let seen = fs::read_to_string(seen).expect("the record of requests");
    let addresses: BTreeSet<&str> = seen.lines().collect();
    assert!(still_there, "the watch broke off");
    assert_eq!(addresses.len(), 1, "{seen}");
    assert_ne!(addresses.first(), Some(&""), "{seen}");
}

/// The stand-in for ingress-nginx: see [`page_migrate_from_ingress_nginx`].
#[test]
fn page_migrate_one_by_one() {
    let walk = Walk::new("docs-one-by-one", &Options::default());
    walk.prepare(INSTALL);
    walk.prepare(SHOP);
    walk.program("external-dns-leads-to", EXTERNAL_DNS);
    walk.page("docs/migrate-one-by-one.md");
}

#[test]
fn every_page_with_commands_is_run() {
    let mut found = Vec::new();
    markdown(repository(), "docs", &mut found);
    for page in &found {
        // A fence of another name, or an indented one, would never be run.
        for line in read(page).lines().filter(|line| line.trim_start().starts_with("```")) {
            assert!(["```", "```sh", "```console", "```text"].contains(&line), "{page}: `{line}` is no fence of ours");
        }
    }
    found.retain(|page| read(page).contains("\n```sh\n"));
    found.sort();
    assert_eq!(found, PAGES);
}

#[test]
fn only_these_commands_are_not_run() {
    let mut met = BTreeSet::new();
    for name in PAGES {
        for block in parse(name).blocks.iter().filter(|block| block.not_run.is_some()) {
            // Text between `<<'CONFIG'` and its end is input of the command before it.
            let commands = block
                .text
                .split("<<'CONFIG'")
                .flat_map(|part| part.split_once("\nCONFIG\n").map_or(part, |(_, rest)| rest).lines());
            for command in commands.filter(|line| !line.trim().is_empty()) {
                let known = NOT_RUN.iter().position(|(start, _)| command.starts_with(start));
                let known = known.unwrap_or_else(|| panic!("{name}:{}: `{command}` is run by no test", block.line));
                met.insert(known);
                for word in command.split_whitespace().filter(|word| word.contains('/') && !word.contains(':')) {
                    assert!(repository().join(word).exists(), "{name}:{}: there is no {word}", block.line);
                }
            }
        }
    }
    assert_eq!(met.len(), NOT_RUN.len(), "a command of NOT_RUN is on no page");
}

/// The configuration for `kind create cluster` describes a cluster like that of the test.
#[test]
fn the_configuration_for_kind_has_what_the_manifest_needs() {
    let text = read("docs/install/kind.md");
    let (_, config) = text.split_once("<<'CONFIG'\n").expect("a configuration");
    let (config, _) = config.split_once("\nCONFIG\n").expect("its end");
    let config: serde_json::Value = serde_norway::from_str(config).expect("YAML");
    let node = &config["nodes"][0];
    assert_eq!(node["labels"]["ingress-ready"], "true");
    for (index, port) in [80, 443].into_iter().enumerate() {
        let mapping = &node["extraPortMappings"][index];
        assert_eq!((&mapping["containerPort"], &mapping["hostPort"]), (&port.into(), &port.into()));
    }
}

/// A page on its way through a cluster.
struct Walk {
    ground: Ground,
    /// The folder in which the commands run: it looks like the top folder of the repository, and their files stay in it.
    folder: PathBuf,
}

impl Walk {
    fn new(name: &str, options: &Options) -> Self {
        let ground = Ground::new(name, options);
        let folder = ground.cluster().directory().join("walk");
        fs::create_dir(&folder).expect("a folder");
        for entry in ["crates", "deploy"] {
            symlink(repository().join(entry), folder.join(entry)).expect("a link");
        }
        Self { ground, folder }
    }

    /// Everything that must exist before the page begins.
    fn prepare(&self, script: &str) {
        let (succeeded, output) = self.run("before the page", &format!("set -euo pipefail; exec 2>&1\n{script}\n"));
        assert!(succeeded, "before the page:\n{output}\n{}", self.ground.place());
    }

    fn page(&self, name: &str) {
        let page = parse(name);
        let (succeeded, output) = self.run(name, &page.script());
        assert!(succeeded, "{name} doesn't run:\n{output}\n{}", self.ground.place());
        let complaints = page.complaints(&output);
        assert!(complaints.is_empty(), "{name}\n{complaints}{}", self.ground.place());
    }

    /// Adds a program to those of a user.
    fn program(&self, name: &str, text: &str) {
        let folder = self.folder.join("bin");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(name), text).expect("a file");
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).expect("its mode");
    }

    /// Our chart with a webhook and its job, standing in for that of ingress-nginx.
    fn old_chart(&self) {
        let chart = self.folder.join("old-chart");
        copy(&repository().join("deploy/helm/fairway"), &chart);
        fs::write(chart.join("templates/webhook.yaml"), WEBHOOK).expect("a file");
    }

    /// Runs a script under the name of the page, so that bash's messages say `PAGE: line N`.
    fn run(&self, name: &str, script: &str) -> (bool, String) {
        let file = self.folder.join(name.replace('/', "-"));
        fs::write(&file, script).expect("the script is written");
        let mut command = self.ground.cluster().command("timeout");
        // All processes of a script that hangs end with it.
        command.args(["--kill-after=10", "600", "bash"]).arg(&file).current_dir(&self.folder);
        let path = command.get_envs().find(|(variable, _)| *variable == "PATH").and_then(|(_, value)| value);
        let mut path = path.expect("a search path").to_owned();
        path.push(":");
        path.push(layout::image());
        path.push(":");
        path.push(self.folder.join("bin"));
        command.env("PATH", path).env("OLD_CHART", self.folder.join("old-chart"));
        let output = command.output().expect("bash starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        // Kept beside the logs of the components.
        let log = self.ground.cluster().layout().log("walk");
        fs::write(log, &text).expect("the output is kept");
        (output.status.success(), text)
    }
}

fn parse(name: &str) -> Page {
    Page::parse(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn read(name: &str) -> String {
    fs::read_to_string(repository().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Adds the pages below `folder`, with their paths in the repository.
fn markdown(root: &Path, folder: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(folder)).expect("a folder") {
        let entry = entry.expect("an entry");
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            markdown(root, &path, found);
        } else if path.ends_with(".md") {
            found.push(path);
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("a copy");
        }
    }
}

/// Forwards connections, as Docker does for a mapped port.
async fn forward(listener: TcpListener, to: (&'static str, u16)) {
    while let Ok((mut client, _)) = listener.accept().await {
        tokio::spawn(async move {
            // Nothing listens there: the client sees its connection closed, as with Docker.
            if let Ok(mut node) = TcpStream::connect(to).await {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut node).await;
            }
        });
    }
}
