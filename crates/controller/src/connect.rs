//! Connects to the API server.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::client::legacy::Error as ClientError;
use kube::Client;
use kube::client::ClientBuilder;
use kube::config::{Config, InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use tower::util::MapErrLayer;

use crate::config::ApiConfig;

/// Time limit for establishing a connection, before a new attempt: the intervals between retransmissions of lost
/// packets grow, so a returning API server would go unnoticed for half a minute.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Why there is no connection to the API server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file of `--kubeconfig` can't be used.
    #[error("reading the kubeconfig {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<KubeconfigError>,
    },
    /// The user's own kubeconfig can't be used.
    #[error("reading the kubeconfig of KUBECONFIG or ~/.kube/config (--kubeconfig names another file)")]
    OwnKubeconfig(#[source] Box<KubeconfigError>),
    /// There is neither a file nor a pod's service account.
    #[error("finding the API server from within a pod (outside a cluster, --kubeconfig names a file)")]
    InCluster(#[source] Box<InClusterError>),
    /// The value of `--apiserver-host` is not a URL.
    #[error("--apiserver-host {0:?} is not a URL with http or https")]
    Host(String),
    /// The configuration found can't be used to create a client.
    #[error("preparing the connection to the API server")]
    Client(#[source] Box<kube::Error>),
}

/// The API server can't be reached. Names its address and what that was read from.
#[derive(Debug, thiserror::Error)]
#[error("can't reach {server}: {cause}")]
pub(crate) struct ServerUnreachable {
    server: Arc<str>,
    cause: String,
}

type BoxError = Box<dyn Error + Send + Sync>;

impl ServerUnreachable {
    /// An error of the client, if no connection came about; else the error itself.
    fn of(error: BoxError, server: &Arc<str>) -> BoxError {
        let causes = || std::iter::successors(Some(&*error as &(dyn Error + 'static)), |&error| error.source());
        if !causes().filter_map(|cause| cause.downcast_ref::<ClientError>()).any(ClientError::is_connect) {
            return error;
        }
        let cause = causes().last().map(ToString::to_string).unwrap_or_default();
        // The number of the error says no more than its text.
        let cause = cause.split(" (os error").next().unwrap_or_default();
        let mut chars = cause.chars();
        let first = chars.next().map(|first| first.to_lowercase().to_string()).unwrap_or_default();
        Box::new(Self { server: server.clone(), cause: first + chars.as_str() })
    }
}

/// Creates a client of the API server. Sends nothing yet: an unavailable API server is not an error; watches wait for
/// it.
///
/// # Errors
///
/// If the kubeconfig, the service account or a flag can't be used.
///
/// # Panics
/// Outside a tokio runtime.
pub async fn connect(api: &ApiConfig) -> Result<Client, ConnectError> {
    let chosen = KubeConfigOptions { context: api.context.clone(), ..KubeConfigOptions::default() };
    let named = |kubeconfig: &Kubeconfig, file: String| {
        let context = api.context.as_ref().or(kubeconfig.current_context.as_ref());
        context.map_or_else(|| file.clone(), |context| format!("context {context} of {file}"))
    };
    let (mut config, mut whence) = match (&api.kubeconfig, &api.host) {
        (Some(path), _) => {
            let failed = |source| ConnectError::Kubeconfig { path: path.clone(), source: Box::new(source) };
            let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
            let whence = named(&kubeconfig, path.display().to_string());
            (Config::from_custom_kubeconfig(kubeconfig, &chosen).await.map_err(failed)?, whence)
        }
        (None, _) if api.own_kubeconfig => {
            let failed = |source| ConnectError::OwnKubeconfig(Box::new(source));
            let kubeconfig = Kubeconfig::read().map_err(failed)?;
            let file = std::env::var("KUBECONFIG").ok().filter(|files| !files.is_empty());
            let whence = named(&kubeconfig, file.unwrap_or_else(|| "~/.kube/config".to_owned()));
            (Config::from_custom_kubeconfig(kubeconfig, &chosen).await.map_err(failed)?, whence)
        }
        (None, Some(host)) => (Config::new(url(host)?), String::new()),
        (None, None) => {
            let config = Config::incluster().map_err(|error| ConnectError::InCluster(Box::new(error)))?;
            (config, "the service account of the pod".to_owned())
        }
    };
    if let Some(host) = &api.host {
        config.cluster_url = url(host)?;
        "--apiserver-host".clone_into(&mut whence);
        if let Some(path) = &api.certificate_authority {
            config.root_cert_file = Some(path.clone());
        }
    }
    // The system's authorities are for HTTPS without a configured authority: an image with a single binary has none,
    // and needs none.
    let plain = config.cluster_url.scheme_str() == Some("http");
    if config.root_cert.is_none() && (plain || config.accept_invalid_certs || config.root_cert_file.is_some()) {
        config.root_cert = Some(Vec::new());
    }
    config.connect_timeout = Some(CONNECT_LIMIT);
    // Watches, elections and writes have their own retry policies.
    config.default_retry = false;
    let address = config.cluster_url.to_string();
    let server: Arc<str> = format!("{} ({whence})", address.trim_end_matches('/')).into();
    let builder = ClientBuilder::try_from(config).map_err(|error| ConnectError::Client(Box::new(error)))?;
    Ok(builder.with_layer(&MapErrLayer::new(move |error: BoxError| ServerUnreachable::of(error, &server))).build())
}

fn url(host: &str) -> Result<http::Uri, ConnectError> {
    let invalid = || ConnectError::Host(host.to_owned());
    let url: http::Uri = host.parse().map_err(|_| invalid())?;
    let usable = matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some();
    if usable { Ok(url) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn flags_are_checked_before_anything_is_sent() {
        for host in ["", "example.com", "ftp://example.com", "https://"] {
            let api = ApiConfig { host: Some(host.into()), ..ApiConfig::default() };
            assert!(matches!(connect(&api).await, Err(ConnectError::Host(_))), "{host:?}");
        }
        let api = ApiConfig { kubeconfig: Some("/nowhere/config".into()), ..ApiConfig::default() };
        let error = connect(&api).await.err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some("reading the kubeconfig /nowhere/config"));
        let host = Some("https://192.0.2.1:6443".into());
        let missing = Some("/nowhere/ca.crt".into());
        let api = ApiConfig { host: host.clone(), certificate_authority: missing, ..ApiConfig::default() };
        assert!(matches!(connect(&api).await, Err(ConnectError::Client(_))));
        assert!(connect(&ApiConfig { host, ..ApiConfig::default() }).await.is_ok());
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_named_with_context_and_file() {
        // Nothing listens on a port that was free a moment ago.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: prod\n\
             clusters: [{{name: k, cluster: {{server: 'http://{free}'}}}}]\n\
             users: [{{name: u, user: {{token: t}}}}]\n\
             contexts: [{{name: prod, context: {{cluster: k, user: u}}}}]\n"
        );
        std::fs::write(&path, text).unwrap();
        let api = ApiConfig { kubeconfig: Some(path.clone()), ..ApiConfig::default() };
        let server = crate::api::ApiServer::new(connect(&api).await.unwrap());
        let request = crate::api::collection("v1", "services", None).list(&Default::default());
        let error = server.call::<serde_json::Value>(request).await.unwrap_err();
        let expected = format!("can't reach http://{free} (context prod of {}): connection refused", path.display());
        assert_eq!(fairway_model::ErrorChain(&error).to_string(), expected);
    }

    #[tokio::test]
    async fn the_host_replaces_the_one_of_the_kubeconfig() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
            clusters: [{name: k, cluster: {server: 'https://192.0.2.1:6443'}}]\n\
            users: [{name: u, user: {token: t}}]\n\
            contexts: [{name: c, context: {cluster: k, user: u}}]\n";
        std::fs::write(&path, text).unwrap();
        let origin = fairway_testkit::Origin::new("api").start();
        let api = ApiConfig {
            kubeconfig: Some(path),
            host: Some(format!("http://{}", origin.address())),
            ..ApiConfig::default()
        };
        // The response is not a version; what matters is which server received the request, and from which user.
        let _ = connect(&api).await.unwrap().apiserver_version().await;
        let asked = origin.next_request().await;
        assert_eq!(asked.target, "/version");
        assert_eq!(asked.headers().get("authorization"), Some("Bearer t"));
    }
}
