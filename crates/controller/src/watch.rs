//! One watch: list, then follow, for ever.
//!
//! Invariants: objects arrive in the order in which the API server sent them; a list is enclosed by [`Message::Relist`]
//! and [`Message::Listed`], so that the receiver can find objects that vanished between watches; no failure ends the
//! watch.

use std::hash::RandomState;
use std::time::Duration;

use fairway_model::ErrorChain;
use fairway_translate::objects::{Kind, ObjectKey};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::api::{ListParams, WatchParams};
use kube::core::{Request, Status};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use crate::api::{ApiServer, CallError, collection};
use crate::backoff::Backoff;

mod decode;

pub(crate) use decode::{Content, Identity, Seen, SeenStatus, Wanted, decode};

/// The number of objects in a page of a list, the same as in kubectl and client-go.
const PAGE: u32 = 500;

/// How long the API server keeps one watch open, in seconds. A silently dead connection (a node without power, a
/// firewall that lost its state) is noticed this late, so it is shorter than the five to ten minutes of client-go;
/// resuming is cheap.
const WATCH_SECONDS: u32 = 120;

/// How long to wait for the API server to announce the end of a watch.
const WATCH_GRACE: Duration = Duration::from_secs(5);

/// The number of refusals that say that a right is missing. A freshly started API server refuses everything until it knows its
/// roles, which takes less than the three seconds of these attempts.
const FORBIDDEN_TRIES: u32 = 6;

/// How often to check whether the CRD of a kind has appeared.
const ABSENT_RETRY: Duration = Duration::from_secs(5);

/// How often to retry an optional kind that we have never been allowed to read.
const FORBIDDEN_RETRY: Duration = Duration::from_secs(60);

/// What one watch covers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Source {
    pub(crate) kind: Kind,
    /// Only this namespace.
    pub(crate) namespace: Option<String>,
    /// Only the object of this name.
    pub(crate) name: Option<String>,
    pub(crate) wanted: Wanted,
    pub(crate) without_right: WithoutRight,
}

/// What happens if we aren't allowed to read a source from the start. If a right is lost later, we always wait for it, with the last state
/// in effect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum WithoutRight {
    /// Wait for the right.
    Wait,
    /// Go on without it.
    GoOn,
    /// Wait for the right if the API server has the kind. Without its CRD there are no objects, but an API server that refuses a request
    /// doesn't reveal that.
    WaitIfDefined,
}

impl Source {
    pub(crate) fn new(kind: Kind, namespace: Option<&str>, wanted: Wanted) -> Self {
        Self { kind, namespace: namespace.map(str::to_owned), name: None, wanted, without_right: WithoutRight::Wait }
    }
}

/// A message of a watch.
#[derive(Debug)]
pub(crate) enum Message {
    /// A list starts, perhaps after part of another one.
    Relist,
    /// An object exists, new or changed.
    Seen(Box<Seen>),
    /// The list is complete.
    Listed,
    /// An object is gone.
    Gone(ObjectKey),
    /// We may not read this, and go on without it.
    Forbidden,
    /// We may not read this, and wait.
    Refused,
    /// The API server doesn't know the kind, because its CRD doesn't exist.
    Absent,
}

/// The name of a kind's collection in a path.
pub(crate) fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::Ingress => "ingresses",
        Kind::IngressClass => "ingressclasses",
        Kind::Service => "services",
        Kind::EndpointSlice => "endpointslices",
        Kind::Secret => "secrets",
        Kind::ConfigMap => "configmaps",
        Kind::Namespace => "namespaces",
        Kind::GatewayClass => "gatewayclasses",
        Kind::Gateway => "gateways",
        Kind::BackendTLSPolicy => "backendtlspolicies",
        Kind::RoutePolicy => "routepolicies",
        Kind::GatewayParameters => "gatewayparameters",
        Kind::XBackend => "xbackends",
        Kind::XBackendTrafficPolicy => "xbackendtrafficpolicies",
        Kind::XTelemetryPolicy => "xtelemetrypolicies",
        Kind::ListenerSet => "listenersets",
        Kind::HTTPRoute => "httproutes",
        Kind::GRPCRoute => "grpcroutes",
        Kind::TLSRoute => "tlsroutes",
        Kind::TCPRoute => "tcproutes",
        Kind::UDPRoute => "udproutes",
        Kind::ReferenceGrant => "referencegrants",
    }
}

/// Whether the API server has a kind. Every account may ask this.
///
/// # Errors
/// If the answer doesn't tell.
pub(crate) async fn defines(api: &ApiServer, kind: Kind) -> Result<bool, CallError> {
    #[derive(Deserialize)]
    struct Resources {
        resources: Vec<Resource>,
    }
    #[derive(Deserialize)]
    struct Resource {
        name: String,
    }
    let request = http::Request::get(format!("/apis/{}", kind.api_version())).body(Vec::new());
    let found = api.call::<Resources>(request.map_err(kube::core::request::Error::BuildRequest)).await;
    match found {
        Ok(Resources { resources }) => Ok(resources.iter().any(|resource| resource.name == plural(kind))),
        Err(error) if error.code() == Some(404) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sends the changes of the objects of `source` until the receiver is gone.
pub(crate) async fn watch(
    api: ApiServer,
    source: Source,
    index: usize,
    hasher: RandomState,
    out: mpsc::Sender<(usize, Message)>,
) {
    let mut watch = Watch {
        request: collection(source.kind.api_version(), plural(source.kind), source.namespace.as_deref()),
        api,
        source,
        index,
        hasher,
        out,
        backoff: Backoff::default(),
        refusals: 0,
        listed: false,
    };
    // Ends when the receiver is gone.
    let Err(Closed) = watch.run().await;
}

/// The receiver is gone.
struct Closed;

/// Why a list or a watch ended.
enum Ended {
    Closed,
    Failed(CallError),
}

impl From<CallError> for Ended {
    fn from(error: CallError) -> Self {
        Self::Failed(error)
    }
}

impl From<Closed> for Ended {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

struct Watch {
    api: ApiServer,
    source: Source,
    request: Request,
    index: usize,
    hasher: RandomState,
    out: mpsc::Sender<(usize, Message)>,
    backoff: Backoff,
    /// How many times in a row we were refused the kind.
    refusals: u32,
    /// Whether we have been allowed at least once. In that case we retry soon: an API server may be slow to learn its
    /// roles.
    listed: bool,
}

/// One page of a list.
#[derive(Deserialize)]
pub(crate) struct Page<'a> {
    #[serde(default)]
    pub(crate) metadata: ListMeta,
    #[serde(borrow, default)]
    pub(crate) items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct WatchEvent<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

impl Watch {
    async fn run(&mut self) -> Result<std::convert::Infallible, Closed> {
        let mut version = None;
        loop {
            let listing = version.is_none();
            let result = match version.clone() {
                None => self.list().await.map(|listed| version = Some(listed)),
                Some(mut at) => {
                    let result = self.follow(&mut at).await;
                    version = Some(at);
                    result
                }
            };
            match result {
                Ok(()) => (),
                Err(Ended::Closed) => return Err(Closed),
                Err(Ended::Failed(error)) => {
                    // With the right to list but not to watch, we list now and then.
                    if error.is_gone() || matches!(error.code(), Some(403 | 404)) {
                        version = None;
                    }
                    if error.is_gone() {
                        // The API server is back, however long it was away.
                        self.backoff.reset();
                    }
                    self.wait(&error, listing).await?;
                }
            }
        }
    }

    /// All objects, page by page, or all at once if the API server drops the version of the first page before the last: that would recur.
    /// Returns the version to follow from.
    async fn list(&mut self) -> Result<String, Ended> {
        let mut params =
            ListParams { limit: Some(PAGE), field_selector: self.field_selector(), ..ListParams::default() };
        self.tell(Message::Relist).await?;
        loop {
            let request = match self.source.wanted {
                Wanted::Metadata => self.request.list_metadata(&params),
                Wanted::Object | Wanted::Addresses => self.request.list(&params),
            };
            let text = match self.api.page(request).await {
                Err(error) if error.is_gone() && params.continue_token.is_some() => {
                    (params.limit, params.continue_token) = (None, None);
                    self.tell(Message::Relist).await?;
                    continue;
                }
                result => result?,
            };
            let page: Page<'_> = serde_json::from_slice(text.as_ref()).map_err(CallError::Decode)?;
            for item in page.items.into_iter().flatten() {
                self.see(item.get()).await?;
            }
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                self.listed = true;
                self.recovered();
                self.tell(Message::Listed).await?;
                return Ok(page.metadata.resource_version.unwrap_or_default());
            }
        }
    }

    /// Follows the changes after `version`, which advances as the API server reports.
    async fn follow(&mut self, version: &mut String) -> Result<(), Ended> {
        let params = WatchParams {
            bookmarks: true,
            timeout: Some(WATCH_SECONDS),
            field_selector: self.field_selector(),
            ..WatchParams::default()
        };
        let request = match self.source.wanted {
            Wanted::Metadata => self.request.watch_metadata(&params, version),
            Wanted::Object | Wanted::Addresses => self.request.watch(&params, version),
        };
        let begin = Instant::now();
        let mut lines = self.api.lines(request).await?;
        let limit = Duration::from_secs(WATCH_SECONDS.into()) + WATCH_GRACE;
        let mut quiet = true;
        loop {
            let next = timeout(limit, lines.next()).await.map_err(|_| CallError::TimedOut(limit))?;
            let Some(line) = next? else { break };
            quiet = false;
            let event: WatchEvent<'_> = serde_json::from_slice(&line).map_err(CallError::Decode)?;
            let object = event.object.get();
            match event.r#type {
                "ADDED" | "MODIFIED" => note(version, self.see(object).await?),
                "DELETED" => match self.decode(object) {
                    Some(seen) => {
                        note(version, Some(seen.identity.version));
                        self.tell(Message::Gone(seen.key)).await?;
                    }
                    None => continue,
                },
                "BOOKMARK" => note(version, bookmark(object)),
                _ => {
                    let status: Status = serde_json::from_str(object).map_err(CallError::Decode)?;
                    return Err(CallError::from_status(status, None).into());
                }
            }
            self.recovered();
        }
        if quiet && begin.elapsed() < Duration::from_secs(1) {
            // A middlebox between us and the API server cuts watches short. Don't spin.
            sleep(self.backoff.after(None)).await;
        } else {
            self.recovered();
        }
        Ok(())
    }

    fn field_selector(&self) -> Option<String> {
        self.source.name.as_ref().map(|name| format!("metadata.name={name}"))
    }

    /// Passes an object on. Returns its version.
    async fn see(&self, text: &str) -> Result<Option<Box<str>>, Closed> {
        let Some(seen) = self.decode(text) else { return Ok(None) };
        let version = seen.identity.version.clone();
        self.tell(Message::Seen(Box::new(seen))).await?;
        Ok(Some(version))
    }

    fn decode(&self, text: &str) -> Option<Seen> {
        let wanted = self.source.wanted;
        decode(self.source.kind, text, wanted, &self.hasher)
            .inspect_err(|error| {
                error!(kind = %self.source.kind, column = error.column(), "the API server sent an object without a name");
            })
            .ok()
    }

    async fn tell(&self, message: Message) -> Result<(), Closed> {
        self.out.send((self.index, message)).await.map_err(|_| Closed)
    }

    fn recovered(&mut self) {
        self.refusals = 0;
        if self.backoff.failures() > 0 {
            info!(kind = %self.source.kind, namespace = self.source.namespace, "watch resumed");
            self.backoff.reset();
        }
    }

    async fn wait(&mut self, error: &CallError, listing: bool) -> Result<(), Closed> {
        if error.code() == Some(404) && self.source.kind.is_of_gateway_api() {
            return self.absent().await;
        }
        let waits_if_defined = self.source.without_right == WithoutRight::WaitIfDefined;
        if error.code() == Some(403) && waits_if_defined {
            if !self.listed && self.is_undefined().await {
                return self.absent().await;
            }
            self.refusals = self.refusals.saturating_add(1);
            if self.refusals == FORBIDDEN_TRIES {
                self.tell(Message::Refused).await?;
            }
        }
        if error.code() == Some(403) && self.source.without_right == WithoutRight::GoOn && !self.listed {
            if self.refusals == 0 {
                // However long the outage, now there is a response.
                self.backoff.reset();
            }
            self.refusals = self.refusals.saturating_add(1);
            if self.refusals == FORBIDDEN_TRIES {
                self.complain(error);
            }
            if self.refusals >= FORBIDDEN_TRIES {
                if listing {
                    self.tell(Message::Forbidden).await?;
                }
                sleep(FORBIDDEN_RETRY).await;
                return Ok(());
            }
        } else if self.backoff.failures() == 0 {
            self.complain(error);
        }
        sleep(self.backoff.after(Some(error))).await;
        Ok(())
    }

    /// However the watch ended, there is nothing to follow until the CRD is back.
    async fn absent(&mut self) -> Result<(), Closed> {
        self.backoff.reset();
        self.refusals = 0;
        self.listed = false;
        self.tell(Message::Absent).await?;
        sleep(ABSENT_RETRY).await;
        Ok(())
    }

    /// Whether the API server answers that it lacks the kind. Without an answer it may have it.
    async fn is_undefined(&self) -> bool {
        matches!(defines(&self.api, self.source.kind).await, Ok(false))
    }

    fn complain(&self, error: &CallError) {
        let (kind, namespace) = (self.source.kind, &self.source.namespace);
        let (code, gone) = (error.code(), error.is_gone());
        let error = ErrorChain(error);
        match code {
            Some(403) if self.source.without_right == WithoutRight::GoOn => {
                warn!(%kind, namespace, %error, "no right to read this kind, continuing without it");
            }
            Some(401 | 403) => error!(
                %kind, namespace, %error,
                "no right to read what is needed: a pod that starts is not ready, a running one keeps the last state"
            ),
            _ if gone => (),
            _ if !self.listed => {
                warn!(%kind, namespace, %error, "can't watch this kind yet; the first configuration waits for it");
            }
            _ => warn!(%kind, namespace, %error, "watch interrupted, the last configuration stays in effect"),
        }
    }
}

fn note(version: &mut String, seen: Option<Box<str>>) {
    if let Some(seen) = seen.filter(|seen| !seen.is_empty()) {
        *version = seen.into();
    }
}

fn bookmark(text: &str) -> Option<Box<str>> {
    #[derive(Deserialize)]
    struct Bookmark {
        metadata: ListMeta,
    }
    let bookmark: Bookmark = serde_json::from_str(text).ok()?;
    bookmark.metadata.resource_version.map(Into::into)
}
