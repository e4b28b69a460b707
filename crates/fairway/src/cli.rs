//! The command line as written, and its help. The module of each command interprets it.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::Shell;
use fairway_translate::gateway::CONTROLLER;

use crate::compare::Address;
use crate::flags;

const ABOUT: &str = "Kubernetes ingress controller and proxy for users of ingress-nginx";

const EXAMPLES: &str = "\
Examples:
  fairway dev examples/shop              serve a folder of manifests on this machine, every edit live on save
  fairway check manifests/               report problems, and how each annotation is supported
  fairway explain manifests/ GET http://shop.localhost/order/7
                                         show which route a request takes, and why
  fairway compare 192.0.2.1 192.0.2.2 manifests/
                                         send the same requests to ingress-nginx and Fairway, and show what differs
  fairway convert manifests/             write Ingresses as Gateway API resources, and say what changes
  fairway run --configmap=ingress-nginx/ingress-nginx-controller
                                         control a cluster's Ingresses and serve them";

const DEV_EXAMPLES: &str = "\
Examples:
  fairway dev ingress.yaml
  fairway dev manifests/ --http 127.0.0.1:9080
  fairway dev manifests/ --backend shop/cart:80=127.0.0.1:3000
                                         send the Service cart to the process that you work on
  fairway dev manifests/ --configmap ingress-nginx/ingress-nginx-controller
                                         apply the global settings of the cluster, kept in the same files
  fairway dev manifests/ --access-log '$status $request_uri $request_time'

A built-in echo answers for Services without endpoints in the files. An Ingress is served if it names no class, the
class of --ingress-class, or one whose IngressClass in the files has --controller-class as controller.";

const CHECK_EXAMPLES: &str = "\
Examples:
  fairway check manifests/
  fairway check --fail-on warning manifests/
  fairway check --output json manifests/ | jq '.diagnostics[] | select(.severity == \"Error\")'
  fairway check --output github manifests/
                                         show findings beside the lines of a pull request on GitHub
  fairway check --output sarif manifests/ >fairway.sarif
  fairway check --context prod --configmap ingress-nginx/ingress-nginx-controller
                                         check a whole cluster, as fairway run would read it; write nothing

Exit status: 0 without errors (--fail-on: without findings of that severity or worse), 1 with errors, 2 for a wrong command line.
Everything that would make a route answer 503 is an error. docs/schema/check.json is the schema of --output json.";

const CONVERT_EXAMPLES: &str = "\
Examples:
  fairway convert manifests/ >gateway.yaml
  fairway convert manifests/ --gateway edge/public --gateway-class fairway
  fairway convert manifests/ --configmap ingress-nginx/ingress-nginx-controller
                                         apply the global settings of the cluster, kept in the same files
  fairway convert manifests/ --output json | jq '.differences'

Writes a Gateway, HTTPRoutes, ReferenceGrants and RoutePolicies to standard output, and what is lost or changes to standard error. An Ingress
that has no counterpart in whole is left out and named: nothing that restricts requests is dropped. Then the requests that the Ingresses suggest
are decided by both sides, and each that gets another answer is listed.

Exit status: 0 if all is read and converted, nothing is lost and all answers are the same, 1 if not, 2 for a wrong command line.";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  fairway explain manifests/ http://shop.localhost/order/7
  fairway explain manifests/ POST https://shop.localhost/cart -H 'Cookie: route=a'
  fairway explain manifests/ GET http://shop.localhost/ --client 192.0.2.7 --output json | jq .answer

Without PATH, reads the manifests of the current folder; without METHOD, the request is a GET. Exit status: 0 if the request is forwarded,
redirected or answered with a status below 400, 1 if Fairway answers with an error, 2 for a wrong command line. docs/schema/explain.json is
the schema of --output json.";

const COMPARE_EXAMPLES: &str = "\
Examples:
  fairway compare 192.0.2.1 192.0.2.2 manifests/
                                         request each path of the Ingresses from both addresses
  fairway compare 192.0.2.1 192.0.2.2 --context prod
                                         the same for the Ingresses of a cluster
  fairway compare 192.0.2.1 192.0.2.2 manifests/ --log access.log
                                         replay the requests of an access log; the Ingresses supply the hosts
  fairway compare old.example.com new.example.com --requests urls.txt --rate 5
  fairway compare 192.0.2.1 127.0.0.1:8080,8443 manifests/ --output json | jq '.differences[].changes'

OLD and NEW are an address or a name, with other ports than 80 and 443 as ADDRESS:PORT,TLS-PORT; with one port only, http is compared.
Requests go to these two addresses only, in HTTP/1.1 and without a body. Redirects are not followed. Over TLS the server name is the host
of the request, and certificates are not verified. FILE of --requests has one request a line, [METHOD] URL.

The comparison covers status, Location, the other fields and a hash of the body. It leaves out Date, Server, request ids and everything else
that always differs (docs/compare.md has the list), and values that vary between answers of the old address.

Exit status: 0 if all answers are the same, 1 if one differs or an address does not answer, 2 for a wrong command line.
docs/schema/compare.json is the schema of --output json.";

const RUN_EXAMPLES: &str = "\
Examples:
  fairway run                            run in a pod, with the rights of its service account
  fairway run --kubeconfig ~/.kube/config --http-port 8080 --https-port 8443 --disable-leader-election
  fairway run --kubeconfig ~/.kube/config --http-port 8080 --https-port 8443 --read-only
                                         serve the Ingresses of a cluster here, and write nothing there
  fairway run --controller-class=k8s.io/ingress-nginx --configmap=$(POD_NAMESPACE)/ingress-nginx-controller

Accepts all flags of ingress-nginx, including those not shown here; docs/flags.md says how each is supported.
The environment variables POD_NAME and POD_NAMESPACE name the pod, as they do for ingress-nginx.";

const CONTROLLER_EXAMPLES: &str = "\
Examples:
  fairway controller                     run in a pod, beside a container with fairway proxy and a volume that both mount at /run/fairway
  fairway controller --kubeconfig ~/.kube/config --control-socket /tmp/fairway.sock --http-port 8080 --https-port 8443 --read-only
                                         for fairway proxy --control-socket /tmp/fairway.sock on the same machine; write nothing
  fairway controller --control-listen :10256 --control-account fairway-proxy
                                         run in a pod, for proxies in other pods

Watches the API server, writes status and Events, and tells each fairway proxy at the socket or the address what to serve. It accepts no connection of
clients. Takes the flags of fairway run; those that only a proxy needs have no effect. Health and metrics are on port 10255.";

const PROXY_EXAMPLES: &str = "\
Examples:
  fairway proxy                          run in a pod, beside a container with fairway controller and a volume that both mount at /run/fairway
  fairway proxy --control-socket /tmp/fairway.sock --healthz-port 10354
  fairway proxy --control-server fairway-control:10256
                                         run in a pod, and follow the controllers of other pods

Serves what a fairway controller says, and goes on serving that while there is none. It has no access to the API server, and
needs none. Takes all flags of fairway run; those that are not shown here have no effect, since the controller's decide, --http-port and
--https-port among them.";

const STATUS_EXAMPLES: &str = "\
Examples:
  fairway status                         ask the processes on this machine; in a pod: kubectl exec POD -c proxy -- /fairway status
  fairway status --admin 10.1.2.3:10254 --resources
  fairway status --context prod          ask all pods of a cluster through its API server, and list its Ingresses
  fairway status --output json | jq '.processes[] | select(.current | not)'

Pods are those with the labels of the chart whose containers run fairway. To ask them, one needs the right to get pods/proxy.

Exit status: 0 if all processes have the newest configuration as a whole, 1 if not or if one does not answer, 2 for a wrong command
line. docs/schema/status.json is the schema of --output json.";

const PLUGIN_EXAMPLES: &str = "\
Examples:
  kubectl fairway status
  kubectl fairway explain GET https://shop.example/order/7
  kubectl fairway check --configmap ingress-nginx/ingress-nginx-controller

To install it, put the binary into a folder of PATH under the name kubectl-fairway: ln -s $(command -v fairway) \
/usr/local/bin/kubectl-fairway";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  fairway completions bash >/etc/bash_completion.d/fairway
  fairway completions zsh >\"${fpath[1]}/_fairway\"
  fairway completions fish >~/.config/fish/completions/fairway.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  fairway man | man -l -
  fairway man /usr/local/share/man/man1";

/// The whole command line.
pub(crate) fn command() -> Command {
    Command::new("fairway")
        .about(ABOUT)
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .max_term_width(120)
        .subcommand(dev())
        .subcommand(check())
        .subcommand(explain())
        .subcommand(compare())
        .subcommand(convert())
        .subcommand(run())
        .subcommand(controller())
        .subcommand(proxy())
        .subcommand(status())
        .subcommand(completions())
        .subcommand(man())
        .subcommand(Command::new("version").about("Print the version"))
}

fn dev() -> Command {
    let command =
        Command::new("dev")
            .about("Serve manifests from files on this machine, without a cluster")
            .after_help(DEV_EXAMPLES)
            .arg(paths().required(true))
            .arg(address("http").help("Serve plain HTTP here; port 0 takes any free port [default: 127.0.0.1:8080]"))
            .arg(address("https").help("Serve TLS here [default: 127.0.0.1:8443]"))
            .arg(address("admin").help("Serve /healthz, /readyz, /metrics, /debug/findings and /debug/snapshot here"))
            .arg(access_log().help(
                "Show requests as JSON or by a template with nginx variables, or not at all [default: log-format-upstream of --configmap, else a short line]",
            ))
            .arg(
                Arg::new("backend")
                    .long("backend")
                    .value_name("NAMESPACE/SERVICE:PORT=HOST:PORT")
                    .action(ArgAction::Append)
                    .help("Send a port of a Service or an XBackend to a local process"),
            )
            .arg(
                Arg::new("no-echo")
                    .long("no-echo")
                    .action(ArgAction::SetTrue)
                    .help("Answer 503 for Services without endpoints, as a cluster would"),
            )
            .arg(workers())
            .arg(metrics_detail())
            .args(of_install())
            .arg(allow_address());
    flags::add(command, false)
}

fn check() -> Command {
    let command = Command::new("check")
        .about("Report problems in manifests and how each annotation is supported")
        .after_help(CHECK_EXAMPLES)
        .arg(paths().num_args(0..).conflicts_with_all(["kubeconfig", "context", "apiserver-host"]));
    of_cluster(report(command))
}

fn convert() -> Command {
    let command = Command::new("convert")
        .about("Write Ingresses as Gateway API resources, and show what changes")
        .after_help(CONVERT_EXAMPLES)
        .arg(paths().required(true))
        .arg(
            Arg::new("gateway")
                .long("gateway")
                .value_name("NAMESPACE/NAME")
                .help("The Gateway to make [default: fairway in the first namespace, by name, with an Ingress]"),
        )
        .arg(
            Arg::new("gateway-class")
                .long("gateway-class")
                .value_name("NAME")
                .help("Its GatewayClass [default: fairway]"),
        )
        .arg(
            Arg::new("output")
                .long("output")
                .short('o')
                .value_name("FORMAT")
                .value_parser(["yaml", "json"])
                .default_value("yaml")
                .help("Write YAML, or objects, notes and differences as JSON"),
        );
    flags::add(command, false)
}

/// The format of a report, and when it counts as a failure.
fn report(command: Command) -> Command {
    command
        .arg(
            Arg::new("output")
                .long("output")
                .short('o')
                .value_name("FORMAT")
                .value_parser(["text", "json", "sarif", "github"])
                .default_value("text")
                .help("Write the report in this format"),
        )
        .arg(
            Arg::new("fail-on")
                .long("fail-on")
                .value_name("SEVERITY")
                .value_parser(["error", "warning", "info"])
                .default_value("error")
                .help("Exit with status 1 for findings of this severity or worse"),
        )
        .args(of_install())
        .arg(allow_address())
}

/// Adds the options that select a cluster, and the flags.
fn of_cluster(command: Command) -> Command {
    let command = command.arg(
        Arg::new("context")
            .long("context")
            .value_name("NAME")
            .help("Read the cluster of this context of the kubeconfig; write nothing"),
    );
    flags::add(command, false)
        .mut_arg("kubeconfig", |arg| arg.hide(false).help("Read the cluster of this kubeconfig; write nothing"))
}

fn explain() -> Command {
    let command = Command::new("explain")
        .about("Show the answer to a request, which route it takes, and why")
        .override_usage("fairway explain [OPTIONS] [PATH]... [METHOD] URL")
        .after_help(EXPLAIN_EXAMPLES)
        .arg(
            Arg::new("words")
                .value_name("[PATH]... [METHOD] URL")
                .num_args(1..)
                .action(ArgAction::Append)
                .required(true)
                .help("Read these files and folders of manifests, and route the request with this method and URL"),
        );
    let command = request(command);
    flags::add(command, false)
}

fn compare() -> Command {
    let address = |name: &'static str| Arg::new(name).required(true).value_parser(value_parser!(Address));
    let file = |name: &'static str| Arg::new(name).long(name).value_name("FILE").value_parser(value_parser!(PathBuf));
    let seconds = |text: &str| match text.parse::<f64>() {
        Ok(number) if (0.001..=86_400.0).contains(&number) => Ok(number),
        _ => Err("expected a number from 0.001 to 86400"),
    };
    let command = Command::new("compare")
        .about("Send the same requests to two addresses, such as ingress-nginx and Fairway, and show what differs")
        .after_help(COMPARE_EXAMPLES)
        .arg(address("old").value_name("OLD").help("The address whose answers are right: that of ingress-nginx"))
        .arg(address("new").value_name("NEW").help("The address that should answer the same: that of Fairway"))
        .arg(
            paths()
                .num_args(0..)
                .help("Derive requests from the Ingresses in these files and folders, and group differences by them")
                .conflicts_with_all(["kubeconfig", "context", "apiserver-host"]),
        )
        .arg(file("requests").conflicts_with("log").help("Send the requests in this file (- for standard input)"))
        .arg(file("log").help(
            "Send the requests of this access log, in JSON as of fairway run, upstreaminfo or combined; never its credentials",
        ))
        .arg(Arg::new("host").long("host").value_name("NAME").help("The host of log lines that name none"))
        .arg(
            Arg::new("scheme")
                .long("scheme")
                .value_name("http|https")
                .value_parser(["http", "https"])
                .help("The scheme of all requests from a log [default: that of the line, or what the Ingresses suggest]"),
        )
        .arg(
            Arg::new("methods")
                .long("methods")
                .value_name("LIST")
                .value_delimiter(',')
                .action(ArgAction::Append)
                .help("Send requests with these methods only [default: GET,HEAD,OPTIONS]"),
        )
        .arg(
            Arg::new("header")
                .short('H')
                .long("header")
                .value_name("NAME:VALUE")
                .action(ArgAction::Append)
                .help("Send this field with all requests"),
        )
        .arg(
            Arg::new("field")
                .long("field")
                .value_name("NAME")
                .action(ArgAction::Append)
                .help("Compare this response field, and no others but those named by further --field"),
        )
        .arg(
            Arg::new("ignore")
                .long("ignore")
                .value_name("NAME")
                .action(ArgAction::Append)
                .help("Do not compare this response field, or the body"),
        )
        .arg(
            Arg::new("strict")
                .long("strict")
                .action(ArgAction::SetTrue)
                .help("Also compare what is ignored by default, and count documented differences"),
        )
        .arg(
            Arg::new("rate")
                .long("rate")
                .value_name("NUMBER")
                .value_parser(seconds)
                .help("Send at most this many requests a second to each address [default: 20]"),
        )
        .arg(
            Arg::new("timeout")
                .long("timeout")
                .value_name("SECONDS")
                .value_parser(seconds)
                .help("Wait this long for each answer [default: 10]"),
        )
        .arg(
            Arg::new("max-requests")
                .long("max-requests")
                .value_name("NUMBER")
                .value_parser(above_zero)
                .help("Send at most this many requests; of a log, the most frequent ones [default: 10000]"),
        )
        .arg(
            Arg::new("max-body")
                .long("max-body")
                .value_name("BYTES")
                .value_parser(value_parser!(u64))
                .help("Read and compare this much of each body [default: 1048576]"),
        )
        .arg(
            Arg::new("output")
                .long("output")
                .short('o')
                .value_name("FORMAT")
                .value_parser(["text", "json"])
                .default_value("text")
                .help("Write the report in this format"),
        );
    of_cluster(command)
}

/// The parts of a request besides method and URL.
fn request(command: Command) -> Command {
    command
        .arg(
            Arg::new("header")
                .short('H')
                .long("header")
                .value_name("NAME:VALUE")
                .action(ArgAction::Append)
                .help("Send this field with the request"),
        )
        .arg(
            Arg::new("client")
                .long("client")
                .value_name("ADDRESS")
                .value_parser(ip_address)
                .help("Send the request from this address, for access lists and trusted proxies [default: 127.0.0.1]"),
        )
        .arg(
            Arg::new("output")
                .long("output")
                .short('o')
                .value_name("FORMAT")
                .value_parser(["text", "json"])
                .default_value("text")
                .help("Write the explanation in this format"),
        )
        .args(of_install())
        .arg(allow_address())
}

/// The command line of `kubectl fairway`.
pub(crate) fn plugin() -> Command {
    let namespace = Arg::new("namespace").short('n').long("namespace").value_name("NAME");
    let words = Arg::new("words").value_name("[METHOD] URL").num_args(1..=2).required(true);
    Command::new("kubectl-fairway")
        .bin_name("kubectl fairway")
        .about("Show the Ingresses of a cluster as Fairway sees them; write nothing")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(PLUGIN_EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .max_term_width(120)
        .subcommand(of_cluster(standing(
            Command::new("status")
                .about("Show the state of Fairway's processes, and the Ingresses that are served")
                .after_help("Examples:\n  kubectl fairway status\n  kubectl fairway status --context prod --resources"),
        )))
        .subcommand(of_cluster(request(
            Command::new("explain")
                .about("Show the answer to a request, which route it takes, and why")
                .after_help("Examples:\n  kubectl fairway explain GET https://shop.example/order/7 -H 'Cookie: a=b'")
                .arg(words.help("Route the request with this method and URL")),
        )))
        .subcommand(of_cluster(report(
            Command::new("check")
                .about("Report problems of the cluster's Ingresses and how each annotation is supported")
                .after_help("Examples:\n  kubectl fairway check\n  kubectl fairway check --output json"),
        )))
        .subcommand(of_cluster(
            Command::new("events")
                .about("List the Events that Fairway has written, oldest first")
                .after_help("Examples:\n  kubectl fairway events\n  kubectl fairway events -n shop")
                .arg(namespace.help("List only the Events of this namespace [default: all]")),
        ))
}

fn run() -> Command {
    let command = Command::new("run")
        .about("Control the Ingresses of a cluster and serve them, in one process")
        .after_help(RUN_EXAMPLES)
        .disable_version_flag(true)
        .arg(
            access_log()
                .help("Log requests as JSON or by a template with nginx variables, or not at all [default: log-format-upstream of the ConfigMap]"),
        )
        .arg(
            Arg::new("log-format")
                .long("log-format")
                .value_name("FORMAT")
                .value_parser(["text", "json"])
                .default_value("text")
                .help("Write the log on standard error in this format"),
        )
        .arg(
            Arg::new("read-only")
                .long("read-only")
                .action(ArgAction::SetTrue)
                .help("Write nothing to the cluster: no status, no Events, no Lease"),
        )
        .arg(
            Arg::new("gateway-api")
                .long("gateway-api")
                .action(ArgAction::SetTrue)
                .help("Also serve the Gateway API, as soon as the cluster has its CRDs; see docs/gateway-api.md"),
        )
        .arg(
            Arg::new("readiness-gate")
                .long("readiness-gate")
                .action(ArgAction::SetTrue)
                .help("Set the readiness gate fairway.dev/routed of pods once all proxies know them; see docs/run.md"),
        )
        .arg(
            Arg::new("observed")
                .long("observed")
                .action(ArgAction::SetTrue)
                .help("Record on Ingresses and routes with the annotation fairway.dev/observe when a change is in force at all proxies; see docs/run.md"),
        )
        .arg(gateway_address())
        .arg(gateway_controller_name())
        .arg(
            Arg::new("gateway-ports")
                .long("gateway-ports")
                .value_name("FIRST-LAST")
                .value_parser(port_range)
                .default_value("20000-20499")
                .help("Ports of the process for Gateways with a Service of their own, one for each of their ports"),
        )
        .arg(
            Arg::new("validating-webhook-client-authority")
                .long("validating-webhook-client-authority")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Answer the admission webhook only to clients with a certificate of an authority in this file: the API server has one if its AdmissionConfiguration says so"),
        )
        .arg(
            Arg::new("request-body-directory")
                .long("request-body-directory")
                .value_name("DIRECTORY")
                .value_parser(value_parser!(PathBuf))
                .help("Keep bodies of requests here that are read before an endpoint is chosen (proxy-request-buffering), beyond 256 KiB of each [default: in memory, up to 8 MiB]"),
        )
        .arg(
            Arg::new("request-body-space")
                .long("request-body-space")
                .value_name("MEBIBYTES")
                .value_parser(value_parser!(u64).range(1..=1 << 30))
                .default_value("1024")
                .help("Limit the total size of the bodies in that directory"),
        )
        .arg(
            Arg::new("handover-socket")
                .long("handover-socket")
                .value_name("PATH|@NAME")
                .value_parser(value_parser!(PathBuf))
                .help("Take the listening sockets over from the process that serves here, and hand them on to the next one; see docs/run.md"),
        )
        .arg(workers())
        .arg(metrics_detail())
        .arg(allow_address());
    flags::add(command, true)
}

/// Both roles take all flags of `run`, so that one list of arguments serves every Deployment.
fn controller() -> Command {
    let hidden =
        ["access-log", "workers", "metrics-detail", "request-body-directory", "request-body-space", "handover-socket"];
    let command = run()
        .name("controller")
        .about("Control the Ingresses of a cluster, and tell proxies in other processes what to serve")
        .after_help(CONTROLLER_EXAMPLES)
        .arg(control_socket().help("Tell proxies at this Unix socket what to serve"))
        .arg(text("control-listen", "ADDRESS:PORT").help("Tell proxies of other pods what to serve, over TLS, instead; see docs/security.md"))
        .arg(
            text("control-secret", "NAME")
                .default_value("fairway-control")
                .help("Keep the CA of these TLS connections in this Secret, and its certificate in a ConfigMap of the same name, both in the controller's namespace"),
        )
        .arg(
            text("control-account", "NAME")
                .default_value("fairway-proxy")
                .help("Accept pods with this ServiceAccount of the controller's namespace as proxies"),
        )
        .arg(
            text("control-pods", "SELECTOR")
                .help("Where node addresses are written to status, write those of the nodes with these pods of the controller's namespace"),
        )
        .arg(
            Arg::new("restart-on-failure")
                .long("restart-on-failure")
                .action(ArgAction::SetTrue)
                .help("Run the controller as a child process and restart it if it fails or hangs, so that its container, and with it a proxy's pod, stays ready"),
        );
    let command =
        command.mut_arg("healthz-port", |arg| arg.help("Serve health and metrics on this port [default: 10255]"));
    hidden.into_iter().fold(command, |command, name| command.mut_arg(name, |arg| arg.hide(true)))
}

fn proxy() -> Command {
    let hidden = [
        "read-only",
        "gateway-api",
        "readiness-gate",
        "observed",
        "gateway-address",
        "gateway-controller-name",
        "gateway-ports",
        "validating-webhook-client-authority",
    ];
    let command = run()
        .name("proxy")
        .about("Serve what a controller in another process says, without any access to the cluster")
        .after_help(PROXY_EXAMPLES)
        .arg(control_socket().help("Follow the controller at this Unix socket"))
        .arg(
            text("control-server", "HOST:PORT")
                .help("Follow the controller there, over TLS, instead; see docs/security.md"),
        )
        .arg(
            file("control-authority")
                .default_value("/etc/fairway/control/ca.crt")
                .help("Take only a controller with a certificate of an authority in this file"),
        )
        .arg(
            file("control-token")
                .default_value("/var/run/secrets/fairway.dev/control/token")
                .help("Authenticate as a proxy once, with the token in this file, which is read only at startup"),
        )
        .arg(
            file("snapshot-file")
                .requires("snapshot-key-file")
                .help("Keep the configuration here, encrypted, and start from it while there is no controller"),
        )
        .arg(
            file("snapshot-key-file")
                .requires("snapshot-file")
                .help("Encrypt that file with the key in this one, 32 random bytes or more; read at the start only"),
        );
    let hidden = hidden.into_iter().chain(flags::only_of_controller());
    hidden.fold(command, |command, name| command.mut_arg(name, |arg| arg.hide(true)))
}

fn status() -> Command {
    let command = Command::new("status")
        .about(
            "Show the state of controllers and proxies: age of the configuration, refused resources, resource versions",
        )
        .after_help(STATUS_EXAMPLES)
        .arg(
            address("admin")
                .action(ArgAction::Append)
                .conflicts_with_all(["kubeconfig", "context", "apiserver-host"])
                .help("Ask the process with its port of health and metrics here [default: 127.0.0.1:10254 and :10255]"),
        );
    of_cluster(standing(command))
}

/// Options that select what is shown about processes.
fn standing(command: Command) -> Command {
    command
        .arg(
            Arg::new("namespace")
                .short('n')
                .long("namespace")
                .value_name("NAME")
                .help("Ask only the pods of this namespace [default: all]"),
        )
        .arg(
            Arg::new("resources")
                .long("resources")
                .action(ArgAction::SetTrue)
                .help("Show the version of each resource, and which process has another one"),
        )
        .arg(
            Arg::new("output")
                .long("output")
                .short('o')
                .value_name("FORMAT")
                .value_parser(["text", "json"])
                .default_value("text")
                .help("Write the status in this format"),
        )
}

fn text(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value)
}

fn file(name: &'static str) -> Arg {
    text(name, "FILE").value_parser(value_parser!(PathBuf))
}

fn control_socket() -> Arg {
    Arg::new("control-socket")
        .long("control-socket")
        .value_name("PATH")
        .value_parser(value_parser!(PathBuf))
        .default_value("/run/fairway/control.sock")
}

/// Parses `FIRST-LAST`.
fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let expected = || "expected FIRST-LAST, two ports from 1 to 65535 in order".to_owned();
    let (first, last) = text.split_once('-').ok_or_else(expected)?;
    let (first, last): (u16, u16) = first
        .parse()
        .ok()
        .zip(last.parse().ok())
        .filter(|(first, last)| (1..=*last).contains(first))
        .ok_or_else(expected)?;
    Ok(first..=last)
}

fn metrics_detail() -> Arg {
    Arg::new("metrics-detail")
        .long("metrics-detail")
        .value_name("standard|full")
        .value_parser(["standard", "full"])
        .help(
            "Show the request metrics that most dashboards use, or all histograms of ingress-nginx [default: standard]",
        )
}

fn completions() -> Command {
    Command::new("completions").about("Print completions for a shell").after_help(COMPLETIONS_EXAMPLES).arg(
        Arg::new("shell")
            .value_name("SHELL")
            .required(true)
            .value_parser(value_parser!(Shell))
            .help("Print the completions for this shell"),
    )
}

fn man() -> Command {
    Command::new("man").about("Print the manual page, or write one for each command").after_help(MAN_EXAMPLES).arg(
        Arg::new("folder")
            .value_name("FOLDER")
            .value_parser(value_parser!(PathBuf))
            .help("Write fairway.1 and a page for each command into this folder"),
    )
}

fn paths() -> Arg {
    Arg::new("paths")
        .value_name("PATH")
        .num_args(1..)
        .value_parser(value_parser!(PathBuf))
        .help("Read these files and folders of manifests (.yaml, .yml, .json)")
}

fn address(name: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("ADDRESS:PORT").value_parser(socket_address)
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected ADDRESS:PORT, such as 127.0.0.1:9080".to_owned())
}

fn ip_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "expected an IPv4 or IPv6 address, such as 192.0.2.7".to_owned())
}

fn access_log() -> Arg {
    Arg::new("access-log").long("access-log").value_name("off|json|TEMPLATE")
}

fn above_zero(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "expected a whole number above 0".to_owned())
}

fn workers() -> Arg {
    Arg::new("workers")
        .long("workers")
        .value_name("NUMBER")
        .value_parser(above_zero)
        .help("Run this many worker threads [default: one for each core that the process may use]")
}

fn gateway_address() -> Arg {
    Arg::new("gateway-address")
        .long("gateway-address")
        .value_name("shared|asked|own")
        .value_parser(["shared", "asked", "own"])
        .default_value("shared")
        .help("Serve Gateways on the address of Ingresses, or give a Service of its own to those that ask or to each; see docs/gateway-api.md")
}

fn gateway_controller_name() -> Arg {
    Arg::new("gateway-controller-name")
        .long("gateway-controller-name")
        .value_name("DOMAIN/PATH")
        .value_parser(controller_name)
        .default_value(CONTROLLER)
        .help("Serve Gateways whose GatewayClass has this controllerName; see docs/gateway-api.md")
}

/// A `controllerName`, as the CRD of GatewayClasses has it.
fn controller_name(text: &str) -> Result<String, String> {
    let is_path = |path: &str| {
        let others = "/-._~%!$&'()*+,;=:";
        !path.is_empty() && path.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
    };
    let is_name =
        text.len() <= 253 && text.split_once('/').is_some_and(|(domain, path)| is_subdomain(domain) && is_path(path));
    is_name.then(|| text.to_owned()).ok_or_else(|| format!("expected DOMAIN/PATH, for example {CONTROLLER}"))
}

/// Whether a text is a DNS subdomain, as Kubernetes demands of most names (RFC 1123).
pub(crate) fn is_subdomain(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// The same for commands that read objects as an installation with these flags would.
fn of_install() -> [Arg; 2] {
    [
        gateway_address()
            .help("Read Gateways and XBackends as a controller with this flag does; see docs/gateway-api.md"),
        gateway_controller_name(),
    ]
}

fn allow_address() -> Arg {
    Arg::new("allow-backend-address")
        .long("allow-backend-address")
        .value_name("ADDRESS")
        .action(ArgAction::Append)
        .value_parser(ip_address)
        .help("Let ExternalName Services and XBackends lead to this loopback, link-local or metadata address")
}

/// The values of a repeatable option.
pub(crate) fn all<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> Vec<T> {
    matches.get_many::<T>(name).into_iter().flatten().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
        plugin().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        for command in command().get_subcommands().filter(|command| command.get_name() != "version") {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Examples:\n  fairway "), "{}", command.get_name());
        }
        for command in plugin().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Examples:\n  kubectl fairway "), "{}", command.get_name());
        }
    }
}
