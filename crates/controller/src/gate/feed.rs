//! Follows pods with the gate, and the Leases of controllers: list, then watch, for ever. After any failure the list is repeated, so the
//! receiver misses nothing.

use std::time::Duration;

use fairway_model::ErrorChain;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta};
use kube::api::{ListParams, WatchParams};
use kube::core::{Request, Status};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, warn};

use super::pod::GatedPod;
use super::{LABEL, record};
use crate::api::{ApiServer, CallError, collection};
use crate::backoff::Backoff;
use crate::watch::Page;

/// The number of objects in a page of a list.
const PAGE: u32 = 500;

/// How long the API server keeps one watch open, in seconds.
const WATCH_SECONDS: u32 = 120;

/// How much longer to wait for the end of a watch.
const WATCH_GRACE: Duration = Duration::from_secs(5);

/// News about objects of a kind.
#[derive(Debug)]
pub(crate) enum FeedNews<T> {
    /// These are all objects.
    Listed(Vec<T>),
    /// An object exists, new or changed.
    Seen(Box<T>),
    /// An object is gone.
    Gone(Box<T>),
}

/// A message.
#[derive(Debug)]
pub(crate) enum Fed {
    Pods(FeedNews<GatedPod>),
    Leases(FeedNews<Lease>),
}

/// Follows the pods with the gate, in one namespace or in all.
pub(crate) async fn pods(api: ApiServer, namespace: Option<String>, out: mpsc::Sender<Fed>) {
    let request = collection("v1", "pods", namespace.as_deref());
    Feed { api, request, what: "pods", selector: LABEL.to_owned(), wrap: Fed::Pods, out }.run().await;
}

/// Follows the Leases of the controllers in a namespace.
pub(crate) async fn leases(api: ApiServer, namespace: String, out: mpsc::Sender<Fed>) {
    let request = collection("coordination.k8s.io/v1", "leases", Some(&namespace));
    let (label, value) = record::LABEL;
    Feed { api, request, what: "leases", selector: format!("{label}={value}"), wrap: Fed::Leases, out }.run().await;
}

struct Feed<T> {
    api: ApiServer,
    request: Request,
    what: &'static str,
    selector: String,
    wrap: fn(FeedNews<T>) -> Fed,
    out: mpsc::Sender<Fed>,
}

/// An event of a watch.
#[derive(Deserialize)]
struct Event<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// The common fields of all objects.
#[derive(Deserialize)]
struct Versioned {
    metadata: ObjectMeta,
}

impl<T: DeserializeOwned> Feed<T> {
    /// Follows until the receiver is gone.
    async fn run(self) {
        let mut backoff = Backoff::default();
        while !self.out.is_closed() {
            let Err(error) = self.follow(&mut backoff).await else { continue };
            if backoff.failures() == 0 && !error.is_gone() {
                let error = ErrorChain(&error);
                warn!(what = self.what, %error, "cannot follow what the readiness gate needs: pods with it wait; trying again");
            }
            sleep(backoff.after(Some(&error))).await;
        }
    }

    /// Lists, and follows until something fails.
    async fn follow(&self, backoff: &mut Backoff) -> Result<(), CallError> {
        let mut version = self.list().await?;
        backoff.reset();
        loop {
            let begin = Instant::now();
            let params = WatchParams {
                bookmarks: true,
                timeout: Some(WATCH_SECONDS),
                label_selector: Some(self.selector.clone()),
                ..WatchParams::default()
            };
            let mut lines = self.api.lines(self.request.watch(&params, &version)).await?;
            let limit = Duration::from_secs(WATCH_SECONDS.into()) + WATCH_GRACE;
            while let Some(line) = timeout(limit, lines.next()).await.unwrap_or(Err(CallError::TimedOut(limit)))? {
                let event: Event<'_> = serde_json::from_slice(&line).map_err(CallError::Decode)?;
                let text = event.object.get();
                let news = match event.r#type {
                    "ADDED" | "MODIFIED" => self.decode(text).map(|object| FeedNews::Seen(Box::new(object))),
                    "DELETED" => self.decode(text).map(|object| FeedNews::Gone(Box::new(object))),
                    "BOOKMARK" => None,
                    _ => {
                        let status: Status = serde_json::from_str(text).map_err(CallError::Decode)?;
                        return Err(CallError::from_status(status, None));
                    }
                };
                if let Ok(Versioned { metadata: ObjectMeta { resource_version: Some(seen), .. } }) =
                    serde_json::from_str(text)
                {
                    version = seen;
                }
                if let Some(news) = news {
                    // If the receiver is gone, this task is about to end.
                    let _ = self.out.send((self.wrap)(news)).await;
                }
            }
            if self.out.is_closed() {
                return Ok(());
            }
            if begin.elapsed() < Duration::from_secs(1) {
                // A middlebox between us and the API server cuts watches short.
                sleep(backoff.after(None)).await;
            }
        }
    }

    /// All objects. Returns the version to follow from.
    async fn list(&self) -> Result<String, CallError> {
        let mut params = ListParams { limit: Some(PAGE), ..ListParams::default() }.labels(&self.selector);
        let mut all = Vec::new();
        loop {
            let text = self.api.page(self.request.list(&params)).await?;
            let page: Page<'_> = serde_json::from_slice(text.as_ref()).map_err(CallError::Decode)?;
            all.extend(page.items.into_iter().flatten().filter_map(|item| self.decode(item.get())));
            let ListMeta { continue_: token, resource_version, .. } = page.metadata;
            params.continue_token = token.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                let _ = self.out.send((self.wrap)(FeedNews::Listed(all))).await;
                return Ok(resource_version.unwrap_or_default());
            }
        }
    }

    /// An object; `None` if it can't be decoded.
    fn decode(&self, text: &str) -> Option<T> {
        let decoded = serde_json::from_str(text);
        decoded
            .inspect_err(
                |error| error!(what = self.what, %error, "the API server sent an object that can't be decoded"),
            )
            .ok()
    }
}
