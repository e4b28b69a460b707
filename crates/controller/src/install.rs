//! The processes of an install, found by the containers of its pods and called through the API server.

use kube::api::ListParams;
use serde::Deserialize;

use crate::api::{ApiServer, CallError, collection};
use crate::read::ReadError;
use crate::watch::Page;

/// The pods of the chart, whatever their other labels are.
const PODS: &str = "app.kubernetes.io/component in (controller, proxy)";

/// Number of pods in a page of a list.
const PAGE: u32 = 500;

/// A process in a container.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Process {
    /// The namespace of its pod.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container.
    pub container: String,
    /// The port of health and metrics.
    pub port: u16,
    /// Why it can't be called now, if it can't: the phase of the pod.
    pub absent: Option<String>,
}

/// The processes of all installs in the cluster, or in a namespace.
///
/// # Errors
/// If the pods can't be listed.
pub async fn processes(client: kube::Client, namespace: Option<&str>) -> Result<Vec<Process>, ReadError> {
    let api = ApiServer::new(client);
    let mut params = ListParams { limit: Some(PAGE), label_selector: Some(PODS.to_owned()), ..ListParams::default() };
    let mut all = Vec::new();
    loop {
        let failed = |error| ReadError::new("pods", namespace, error);
        let text = api.page(collection("v1", "pods", namespace).list(&params)).await.map_err(failed)?;
        let page: Page<'_> = serde_json::from_slice(text.as_ref()).map_err(|error| failed(CallError::Decode(error)))?;
        let pods =
            page.items.into_iter().flatten().filter_map(|item| serde_json::from_str::<ListedPod>(item.get()).ok());
        all.extend(pods.flat_map(ListedPod::processes));
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Ok(all);
        }
    }
}

/// The response of a process to a GET of a path.
///
/// # Errors
/// If the API server can't reach the process, or forbids the call.
pub async fn ask(client: kube::Client, process: &Process, path: &str) -> Result<Vec<u8>, ReadError> {
    let Process { namespace, pod, port, .. } = process;
    let uri = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}");
    let failed = |error| ReadError::new(&format!("{path} of the pod {pod}"), Some(namespace), error);
    let request = http::Request::get(uri).body(Vec::new()).map_err(kube::core::request::Error::BuildRequest);
    let body = ApiServer::new(client).page(request).await.map_err(failed)?;
    Ok(body.as_ref().to_vec())
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ListedPod {
    metadata: PodMetadata,
    spec: PodSpec,
    status: PodStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodMetadata {
    name: String,
    namespace: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodSpec {
    containers: Vec<Container>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    phase: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Container {
    name: String,
    command: Vec<String>,
    args: Vec<String>,
}

impl ListedPod {
    fn processes(self) -> Vec<Process> {
        let Self { metadata, spec, status } = self;
        let absent = (status.phase != "Running").then_some(status.phase);
        let process = |container: &Container| {
            let port = container.port()?;
            let PodMetadata { name, namespace } = &metadata;
            let (namespace, pod, absent) = (namespace.clone(), name.clone(), absent.clone());
            Some(Process { namespace, pod, container: container.name.clone(), port, absent })
        };
        spec.containers.iter().filter_map(process).collect()
    }
}

impl Container {
    /// The port of health and metrics, if this is one of our processes.
    fn port(&self) -> Option<u16> {
        let words: Vec<&str> = self.command.iter().chain(&self.args).map(String::as_str).collect();
        // An image may have the program as its entry point.
        let rest = match words.first()?.rsplit('/').next() {
            Some("fairway") => words.get(1..)?,
            _ if self.command.is_empty() => &words[..],
            _ => return None,
        };
        let default = match *rest.first()? {
            "controller" => 10255,
            "proxy" | "run" => 10254,
            _ => return None,
        };
        let mut words = rest.iter();
        let mut port = None;
        while let Some(word) = words.next() {
            match word.trim_start_matches('-').split_once('=') {
                Some(("healthz-port", value)) => port = value.parse().ok(),
                None if *word == "--healthz-port" => port = words.next().and_then(|value| value.parse().ok()),
                _ => {}
            }
        }
        Some(port.unwrap_or(default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(command: &[&str], args: &[&str]) -> Option<u16> {
        let owned = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        Container { name: String::new(), command: owned(command), args: owned(args) }.port()
    }

    #[test]
    fn processes_are_known_by_what_they_run() {
        assert_eq!(port(&["/fairway"], &["controller", "--election-id=x"]), Some(10_255));
        assert_eq!(port(&["/fairway"], &["proxy", "--healthz-port=10300"]), Some(10_300));
        assert_eq!(port(&[], &["run", "--healthz-port", "1"]), Some(1));
        assert_eq!(port(&["/usr/bin/fairway", "run"], &[]), Some(10_254));
        assert_eq!(port(&["/fairway"], &["dev", "x"]), None);
        assert_eq!(port(&["/nginx-ingress-controller"], &["run"]), None);
        assert_eq!(port(&[], &[]), None);
    }
}
