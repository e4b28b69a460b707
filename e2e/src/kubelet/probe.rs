//! Actions of probes and lifecycle hooks.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use fairway_testkit::TlsClient;
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, ExecAction, HTTPGetAction, LifecycleHandler, Probe, SleepAction, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// The action of a probe or hook.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ProbeAction {
    /// Requests a path; a status below 400 is a success.
    Http {
        /// Whether to use TLS, without verifying the certificate.
        tls: bool,
        /// The host, if not the pod's address.
        host: Option<String>,
        /// Port.
        port: u16,
        /// Path and query.
        path: String,
        /// Header lines in addition to those of every probe.
        headers: Vec<(String, String)>,
    },
    /// Connects.
    Tcp {
        /// The host, if not the pod's address.
        host: Option<String>,
        /// Port.
        port: u16,
    },
    /// Runs a command in the container; exit code 0 is a success.
    Exec(Vec<String>),
    /// Waits.
    Sleep(Duration),
}

impl ProbeAction {
    /// The action of a probe.
    ///
    /// # Errors
    /// If a named port doesn't exist, or the kind is not supported here.
    pub(crate) fn of_probe(probe: &Probe, container: &Container) -> Result<Self, String> {
        if probe.grpc.is_some() {
            return Err("gRPC probes are not supported by this kubelet".to_owned());
        }
        Self::new(probe.http_get.as_ref(), probe.tcp_socket.as_ref(), probe.exec.as_ref(), None, container)
    }

    /// The action of a hook.
    ///
    /// # Errors
    /// If a named port doesn't exist, or the hook is empty.
    pub(crate) fn of_hook(hook: &LifecycleHandler, container: &Container) -> Result<Self, String> {
        let LifecycleHandler { http_get, tcp_socket, exec, sleep } = hook;
        Self::new(http_get.as_ref(), tcp_socket.as_ref(), exec.as_ref(), sleep.as_ref(), container)
    }

    fn new(
        http: Option<&HTTPGetAction>,
        tcp: Option<&TCPSocketAction>,
        exec: Option<&ExecAction>,
        sleep: Option<&SleepAction>,
        container: &Container,
    ) -> Result<Self, String> {
        let ports = container.ports.as_deref().unwrap_or_default();
        let host = |host: Option<&String>| host.filter(|host| !host.is_empty()).cloned();
        if let Some(http) = http {
            let path = http.path.as_deref().unwrap_or("/");
            let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
            let headers = http.http_headers.iter().flatten();
            return Ok(Self::Http {
                tls: http.scheme.as_deref() == Some("HTTPS"),
                host: host(http.host.as_ref()),
                port: port(&http.port, ports)?,
                path,
                headers: headers.map(|header| (header.name.clone(), header.value.clone())).collect(),
            });
        }
        if let Some(tcp) = tcp {
            return Ok(Self::Tcp { host: host(tcp.host.as_ref()), port: port(&tcp.port, ports)? });
        }
        if let Some(exec) = exec {
            return Ok(Self::Exec(exec.command.clone().unwrap_or_default()));
        }
        if let Some(sleep) = sleep {
            return Ok(Self::Sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))));
        }
        Err("nothing to do".to_owned())
    }
}

fn port(port: &IntOrString, ports: &[ContainerPort]) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => match name.parse() {
            Ok(number) => Some(number),
            Err(_) => ports.iter().find(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port),
        },
    };
    let number = number.ok_or_else(|| format!("couldn't find port: {port:?}"))?;
    u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

/// Whether a probe's result counts: only several equal ones in a row change the verdict about the container.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ProbeCounter {
    /// The current verdict.
    pub good: bool,
    success: u32,
    failure: u32,
    last: Option<bool>,
    run: u32,
}

impl ProbeCounter {
    /// Starts with `good`.
    pub(crate) fn new(probe: &Probe, good: bool) -> Self {
        let threshold = |value: Option<i32>, default: u32| {
            value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default)
        };
        let (success, failure) = (threshold(probe.success_threshold, 1), threshold(probe.failure_threshold, 3));
        Self { good, success, failure, last: None, run: 0 }
    }

    /// Records a result. Returns true if enough in a row make it count.
    pub(crate) fn record(&mut self, good: bool) -> bool {
        if self.last == Some(good) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(good);
            self.run = 1;
        }
        let counts = self.run >= if good { self.success } else { self.failure };
        if counts {
            self.good = good;
        }
        counts
    }
}

/// Destination and source of a probe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// The pod's address.
    pub address: IpAddr,
    /// The address that probes come from: the Node's.
    pub source: IpAddr,
}

/// Sends a request over HTTP/1.1 and checks the status of the response. Redirects are not followed.
///
/// # Errors
/// Why the response is a failure, worded for an Event.
pub(crate) async fn http(action: &ProbeAction, target: Target) -> Result<(), String> {
    let ProbeAction::Http { tls, host, port, path, headers } = action else { return Err("not HTTP".to_owned()) };
    let authority = host.clone().unwrap_or_else(|| target.address.to_string());
    let authority = format!("{authority}:{port}");
    let url = format!("{}://{authority}{path}", if *tls { "https" } else { "http" });
    let failed = |error: String| format!("Get \"{url}\": {error}");
    let stream = connect(host.as_deref(), *port, target).await.map_err(failed)?;

    let own = |name: &str| headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", own("host").unwrap_or(&authority));
    for (name, value) in [("User-Agent", "kube-probe/1.36"), ("Accept", "*/*")] {
        if own(name).is_none() {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    for (name, value) in headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("Connection: close\r\n\r\n");

    let status = if *tls {
        let name = ServerName::IpAddress(target.address.into());
        let stream = TlsConnector::from(unverified()).connect(name, stream).await;
        exchange(stream.map_err(|error| failed(error.to_string()))?, &request).await
    } else {
        exchange(stream, &request).await
    };
    match status.map_err(failed)? {
        200..400 => Ok(()),
        status => Err(format!("HTTP probe failed with statuscode: {status}")),
    }
}

/// Connects and hangs up.
///
/// # Errors
/// Why the connection failed.
pub(crate) async fn tcp(host: Option<&str>, port: u16, target: Target) -> Result<(), String> {
    connect(host, port, target).await.map(drop)
}

async fn connect(host: Option<&str>, port: u16, target: Target) -> Result<TcpStream, String> {
    let text = |error: std::io::Error| error.to_string();
    let address = match host {
        None => SocketAddr::new(target.address, port),
        Some(host) => {
            let mut found = tokio::net::lookup_host((host, port)).await.map_err(text)?;
            found.next().ok_or_else(|| format!("lookup {host}: no such host"))?
        }
    };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(text)?;
    if address.is_ipv4() == target.source.is_ipv4() && !address.ip().is_loopback() {
        socket.bind(SocketAddr::new(target.source, 0)).map_err(text)?;
    }
    socket.connect(address).await.map_err(|error| format!("dial tcp {address}: {error}"))
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Result<u16, String> {
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut head = Vec::with_capacity(512);
    while !head.contains(&b'\n') && head.len() < 4096 {
        match stream.read_buf(&mut head).await {
            Ok(0) => return Err("EOF".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    let line = String::from_utf8_lossy(&head);
    let status = line.strip_prefix("HTTP/1.").and_then(|line| line.get(2..5)).and_then(|status| status.parse().ok());
    let status =
        status.ok_or_else(|| format!("malformed HTTP response {:?}", line.lines().next().unwrap_or_default()))?;
    // The response body is read and discarded, so that the server sees no reset; how it ends does not matter.
    let drain = async {
        let mut rest = 0;
        let mut buffer = [0; 4096];
        while rest < 10 << 10 {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(read) => rest += read,
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(100), drain).await;
    Ok(status)
}

/// TLS for probes: accepts any certificate.
fn unverified() -> Arc<ClientConfig> {
    static CONFIG: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| TlsClient::unverified("pod").config());
    CONFIG.clone()
}

#[cfg(test)]
mod tests;
