//! A controller of a newer release and a proxy of this one: the code of both, with the resources rewritten in between.

use fairway_model::{
    Backend, Certificate, Delta, EndpointSet, Endpoints, Listener, Origin, Resource, Settings, StreamListener,
    Telemetry,
};
use fairway_testkit::within;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{current, encoded};
use crate::hub::{Hub, Report};
use crate::message::{FromController, FromProxy, Hello, Said};
use crate::replica::tests::Proxy;
use crate::resource::{Encoded, name_of, read};
use crate::round::Gather;
use crate::session::serve;

/// Both ends.
struct Apart {
    hub: Hub,
    reports: mpsc::Receiver<Report>,
    proxy: Proxy,
    to: mpsc::Sender<Result<FromProxy, Status>>,
    from: mpsc::Receiver<Result<FromController, Status>>,
}

impl Apart {
    async fn new() -> Self {
        let (hub, reports) = Hub::new();
        let (to, said) = mpsc::channel(8);
        let (told, from) = mpsc::channel(1);
        tokio::spawn(serve(hub.clone(), ReceiverStream::new(said), told));
        let apart = Self { hub, reports, proxy: Proxy::default(), to, from };
        apart
            .say(Said::Hello(Hello {
                fairway: "0.1.0".to_owned(),
                name: "proxy-1".to_owned(),
                patches: false,
                shares: false,
            }))
            .await;
        for list in apart.proxy.replica.inventory() {
            apart.say(Said::Held(list)).await;
        }
        apart
    }

    /// The resources that the controller knows to be refused.
    fn refused(&self) -> Vec<String> {
        self.hub.proxies()[0].refused.keys().map(ToString::to_string).collect()
    }

    async fn say(&self, said: Said) {
        self.to.send(Ok(said.into())).await.expect("the controller listens");
    }

    /// Publishes resources, which arrive in the form that `write` gives their bodies.
    async fn publish(&mut self, resources: Vec<Resource>, write: impl Fn(&str, Value) -> Value) {
        let (hub, delta) = (self.hub.clone(), Delta::upsert(resources));
        let ((), ()) = tokio::join!(hub.publish(delta), self.round(write));
    }

    /// Takes one round, and acknowledges it.
    async fn round(&mut self, write: impl Fn(&str, Value) -> Value) {
        let (mut gather, mut resources) = (Gather::default(), Vec::new());
        let nonce = loop {
            let FromController { nonce, pieces, removals, last, deal } =
                within("a message", self.from.recv()).await.expect("the controller speaks").expect("a message");
            assert!(removals.is_empty());
            assert_eq!(deal, None, "the proxy takes no shares");
            for piece in pieces {
                let Some(whole) = gather.take(piece).expect("a piece") else { continue };
                let name = whole.name.clone();
                let body = serde_json::from_slice(&whole.body().expect("a body")).expect("JSON");
                resources.push(encoded(&name, &write(&name, body)));
            }
            if last {
                break nonce;
            }
        };
        let ack = self.proxy.round(nonce, resources, &[]);
        self.say(Said::Ack(ack)).await;
    }
}

/// With a restriction that this release doesn't know.
fn restricted(mut body: Value) -> Value {
    let (_, resource) = body.as_object_mut().and_then(|body| body.iter_mut().next()).expect("a kind");
    resource["only_on_mondays"] = json!(true);
    body
}

/// Another form of the same resource.
fn edited(resource: &Resource) -> Resource {
    match resource.clone() {
        Resource::Listener(it) => Listener { accept_proxy: !it.accept_proxy, ..(*it).clone() }.into(),
        Resource::StreamListener(it) => {
            StreamListener { origin: Origin::new("ConfigMap", "edge", "others"), ..(*it).clone() }.into()
        }
        Resource::Host(it) => (*it).clone().with_certificate(Some("shop/other".into())).into(),
        Resource::Backend(it) => Backend { port: "81".into(), ..(*it).clone() }.into(),
        Resource::EndpointSet(it) => EndpointSet { endpoints: Endpoints::Addresses(vec![]), ..(*it).clone() }.into(),
        Resource::Certificate(it) => Certificate { fingerprint: "01".into(), ..(*it).clone() }.into(),
        Resource::Telemetry(it) => Telemetry { span: Some("other".into()), ..(*it).clone() }.into(),
        Resource::Settings(it) => Settings { server_tokens: !it.server_tokens, ..(*it).clone() }.into(),
    }
}

#[tokio::test]
async fn a_form_that_a_proxy_does_not_understand_is_reported_and_the_last_good_one_stays() {
    let understood = |(name, body): (&String, &Value)| {
        let Encoded { name, version, body, .. } = encoded(name, body);
        read(&name, version, &body).expect("what this release sends")
    };
    let all: Vec<Resource> = current().iter().map(understood).collect();
    let mut apart = Apart::new().await;
    apart.publish(all.clone(), |_, body| body).await;
    assert!(apart.refused().is_empty());
    let mut settings = Resource::Settings(apart.proxy.snapshot.settings().clone());
    for resource in &all {
        let Some(name) = resource.name() else { continue };
        let text = name_of(resource);
        settings = edited(&settings);
        let newer = |at: &str, body: Value| if at == text { restricted(body) } else { body };
        apart.publish(vec![edited(resource), settings.clone()], newer).await;
        assert_eq!(apart.refused(), [&*text]);
        assert_eq!(apart.proxy.snapshot.resource(&name).as_ref(), Some(resource));
        // The rest of the round is in effect.
        assert_eq!(Resource::Settings(apart.proxy.snapshot.settings().clone()), settings);
        let report = within("a report", apart.reports.recv()).await.expect("the hub reports");
        let Report::Refused { name, origins, reason, .. } = report else { panic!("{report:?}") };
        assert_eq!(name, text);
        assert!(reason.ends_with(".only_on_mondays is not known here"), "{reason}");
        // Listeners and endpoints come from no object of a user.
        let has_none = matches!(resource, Resource::Listener(_) | Resource::EndpointSet(_));
        assert_eq!(origins.is_empty(), has_none, "{name}: {origins:?}");
        // A form that is understood ends it.
        apart.publish(vec![resource.clone()], |_, body| body).await;
        assert!(apart.refused().is_empty(), "{name}");
    }
}
