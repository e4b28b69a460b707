//! The minimum of an API server that a controller needs to start: it lists objects, and its watches stay silent.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::Context;

use super::config::host_of;

/// A running API server. Its threads end with the process.
pub(super) struct Api {
    address: SocketAddr,
}

struct Objects {
    ingresses: String,
    endpoint: SocketAddr,
}

impl Api {
    /// Starts it with Ingresses of one host each, all for one Service with this endpoint.
    pub(super) fn start(endpoint: SocketAddr, ingresses: usize) -> anyhow::Result<Self> {
        let mut items = String::new();
        for number in 0..ingresses {
            let comma = if number == 0 { "" } else { "," };
            write!(
                items,
                r#"{comma}{{"metadata":{{"namespace":"bench","name":"route-{number}","uid":"{number}","resourceVersion":"1"}},
                   "spec":{{"ingressClassName":"nginx","rules":[{{"host":"{}","http":{{"paths":[{{"path":"/","pathType":"Prefix",
                   "backend":{{"service":{{"name":"app","port":{{"number":80}}}}}}}}]}}}}]}}}}"#,
                host_of(number)
            )?;
        }
        let objects = Arc::new(Objects { ingresses: items, endpoint });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a free port")?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let objects = objects.clone();
                // If a connection fails, the controller opens another one.
                thread::spawn(move || objects.serve(stream));
            }
        });
        Ok(Self { address })
    }

    /// A kubeconfig for this API server.
    pub(super) fn kubeconfig(&self) -> String {
        let address = self.address;
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: k, cluster: {{server: 'http://{address}'}}}}]\n\
             users: [{{name: u, user: {{token: t}}}}]\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n"
        )
    }
}

impl Objects {
    /// Answers the requests of one connection.
    fn serve(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        while let Some(first) = lines.next().transpose()? {
            // The lines of a body are read as requests of their own, and answered too: the controller doesn't care.
            while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
            let mut words = first.split(' ');
            let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            if target.contains("watch=true") {
                stream.write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
                )?;
                continue;
            }
            let (status, body) = match method {
                "GET" => (200, self.list(target)),
                _ => (201, "{}".to_owned()),
            };
            let head = format!(
                "HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(&[head, body].concat().into_bytes())?;
        }
        Ok(())
    }

    /// The objects of a kind, by its plural.
    fn list(&self, target: &str) -> String {
        let path = target.split('?').next().unwrap_or_default();
        let named = |rest: String| {
            format!(
                r#"{{"metadata":{{"namespace":"bench","name":"app","uid":"a","resourceVersion":"1",
                   "labels":{{"kubernetes.io/service-name":"app"}}}},{rest}}}"#
            )
        };
        let items = match path.rsplit('/').next().unwrap_or_default() {
            "ingresses" => self.ingresses.clone(),
            "ingressclasses" => r#"{"metadata":{"name":"nginx","uid":"c","resourceVersion":"1"},
                "spec":{"controller":"k8s.io/ingress-nginx"}}"#
                .to_owned(),
            "services" => named(r#""spec":{"clusterIP":"None","ports":[{"port":80}]}"#.to_owned()),
            "endpointslices" => named(format!(
                r#""addressType":"IPv4","ports":[{{"port":{}}}],"endpoints":[{{"addresses":["{}"]}}]"#,
                self.endpoint.port(),
                self.endpoint.ip()
            )),
            _ => String::new(),
        };
        format!(r#"{{"kind":"List","metadata":{{"resourceVersion":"1"}},"items":[{items}]}}"#)
    }
}
