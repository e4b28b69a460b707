//! Reads a cluster once as a controller would, without writing anything.
//!
//! Invariant: the contents of Secrets and ConfigMaps are requested only if something that is served, or a flag, refers
//! to them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::RandomState;

use fairway_translate::diagnostic::{Diagnostic, Reason, Severity};
use fairway_translate::objects::{Change, Kind, ObjectKey, Objects};
use fairway_translate::options::Options;
use fairway_translate::{Translation, Translator};
use kube::api::ListParams;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::api::{ApiServer, CallError, collection};
use crate::config::{ControllerConfig, StatusConfig, StatusWriting};
use crate::event::COMPONENT;
use crate::reference::fetch;
use crate::source::{sources, unreadable};
use crate::watch::{Content, Page, Seen, Source, Wanted, WithoutRight, decode, defines, plural};

/// The number of objects in a page of a list.
const PAGE: u32 = 500;

/// A cluster as a controller would see it.
#[derive(Debug)]
pub struct Cluster {
    /// The objects, including the Secrets and ConfigMaps referred to.
    pub objects: Objects,
    /// Their translation.
    pub translation: Translation,
    /// Objects that can't be decoded.
    pub unreadable: Vec<Diagnostic>,
    /// The addresses in the status of each Ingress that has any.
    pub addresses: BTreeMap<ObjectKey, Vec<String>>,
}

/// An Event written by a controller.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Told {
    /// The time of its last occurrence, as recorded by the API server.
    pub time: String,
    /// `Warning` or `Normal`.
    pub class: String,
    /// The reason, in one word.
    pub reason: String,
    /// The object, as `Ingress shop/web`.
    pub object: String,
    /// The text.
    pub message: String,
}

/// Why the cluster can't be read.
#[derive(Debug, thiserror::Error)]
#[error("reading {what} from the cluster")]
pub struct ReadError {
    what: String,
    #[source]
    source: Box<CallError>,
}

impl ReadError {
    pub(crate) fn new(kind: &str, namespace: Option<&str>, source: CallError) -> Self {
        let namespace = namespace.map(|namespace| format!(" of the namespace {namespace}")).unwrap_or_default();
        Self { what: format!("{kind}{namespace}"), source: Box::new(source) }
    }
}

/// Reads what a controller with these options would read, and translates it. `now` is in seconds since 1970.
///
/// # Errors
///
/// If something necessary can't be read.
pub async fn read(client: kube::Client, options: &Options, now: i64) -> Result<Cluster, ReadError> {
    let (api, hasher) = (ApiServer::new(client), RandomState::new());
    let config = ControllerConfig {
        options: options.clone(),
        status: StatusConfig { writing: StatusWriting::Never, ..StatusConfig::default() },
        gateway_api: true,
        ..ControllerConfig::default()
    };
    let mut options = options.clone();
    let mut found = Found::default();
    for source in sources(&config) {
        let failed = |error| ReadError::new(plural(source.kind), source.namespace.as_deref(), error);
        match list(&api, &source, &hasher).await {
            Ok(listed) => listed.into_iter().for_each(|seen| found.take(seen)),
            Err(error) if source.without_right == WithoutRight::GoOn && error.code() == Some(403) => {
                options.ingress_classes_readable &= source.kind != Kind::IngressClass;
            }
            // Without the CRDs there are no objects.
            Err(error) if source.kind.is_of_gateway_api() && error.code() == Some(404) => {
                options.has_xbackends &= source.kind != Kind::XBackend;
            }
            // A user with the right to Ingresses only gets results about Ingresses only.
            Err(error) if source.without_right == WithoutRight::WaitIfDefined && error.code() == Some(403) => {
                if !matches!(defines(&api, source.kind).await, Ok(false)) {
                    found.unreadable.push(unreadable(&source, "what is said about the Gateway API may be wrong").1);
                }
            }
            Err(error) => return Err(failed(error)),
        }
    }
    let mut translator = Translator::new(options);
    let mut wanted = translator.apply(std::mem::take(&mut found.changes), now).wanted;
    let mut asked = BTreeSet::new();
    loop {
        for key in std::mem::take(&mut wanted) {
            if !found.named.contains(&key) || !asked.insert(key.clone()) {
                continue;
            }
            let failed = |error| ReadError::new(plural(key.kind), Some(&key.namespace), error);
            if let Some(seen) = fetch(&api, &key, &hasher).await.map_err(failed)? {
                found.take(seen);
            }
        }
        if found.changes.is_empty() {
            break;
        }
        wanted = translator.apply(std::mem::take(&mut found.changes), now).wanted;
    }
    let translation = Translation {
        left_out: translator.left_out().collect(),
        diagnostics: translator.diagnostics().values().flatten().cloned().collect(),
        snapshot: translator.snapshot().clone(),
        served: translator.served().clone(),
        statuses: translator.statuses().clone(),
        made: translator.made().clone(),
        policies: translator.policies(),
        claims: translator.claims(),
    };
    let objects = translator.objects().clone();
    Ok(Cluster { objects, translation, unreadable: found.unreadable, addresses: found.addresses })
}

/// The Events written by our controllers, oldest first.
///
/// # Errors
///
/// If they can't be read.
pub async fn events(client: kube::Client, namespace: Option<&str>) -> Result<Vec<Told>, ReadError> {
    let api = ApiServer::new(client);
    let selector = Some(format!("reportingComponent={COMPONENT}"));
    let mut params = ListParams { limit: Some(PAGE), field_selector: selector, ..ListParams::default() };
    let mut all = Vec::new();
    loop {
        let failed = |error| ReadError::new("events", namespace, error);
        let request = collection("v1", "events", namespace).list(&params);
        let text = api.page(request).await.map_err(failed)?;
        let page: Page<'_> = serde_json::from_slice(text.as_ref()).map_err(|error| failed(CallError::Decode(error)))?;
        let events =
            page.items.into_iter().flatten().filter_map(|item| serde_json::from_str::<StoredEvent>(item.get()).ok());
        all.extend(events.filter(|event| event.reporting_component == COMPONENT).map(StoredEvent::told));
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            all.sort_by(|a: &Told, b| (&a.time, &a.object).cmp(&(&b.time, &b.object)));
            return Ok(all);
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredEvent {
    involved_object: Involved,
    last_timestamp: Option<String>,
    r#type: String,
    reason: String,
    message: String,
    reporting_component: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Involved {
    kind: String,
    namespace: String,
    name: String,
}

impl StoredEvent {
    fn told(self) -> Told {
        let Involved { kind, namespace, name } = self.involved_object;
        let slash = if namespace.is_empty() { "" } else { "/" };
        Told {
            time: self.last_timestamp.unwrap_or_default(),
            class: self.r#type,
            reason: self.reason,
            object: format!("{kind} {namespace}{slash}{name}"),
            message: self.message,
        }
    }
}

#[derive(Default)]
struct Found {
    changes: Vec<Change>,
    /// Existing Secrets and ConfigMaps, read or not.
    named: BTreeSet<ObjectKey>,
    unreadable: Vec<Diagnostic>,
    addresses: BTreeMap<ObjectKey, Vec<String>>,
}

impl Found {
    fn take(&mut self, seen: Seen) {
        match seen.content {
            Content::Object { object, shown, .. } => {
                if !shown.is_empty() {
                    self.addresses.insert(seen.key, shown.iter().map(ToString::to_string).collect());
                }
                self.changes.push(Change::Upsert(object));
            }
            Content::Metadata => _ = self.named.insert(seen.key),
            Content::Addresses(_) => {}
            Content::Malformed(why) => {
                let reason = Reason::InvalidManifest;
                self.unreadable.push(Diagnostic::new(Severity::Error, reason, &seen.key.origin(), "", "", why));
            }
        }
    }
}

/// All objects of a source, page by page. If the version expires in between, the list is repeated without pages.
async fn list(api: &ApiServer, source: &Source, hasher: &RandomState) -> Result<Vec<Seen>, CallError> {
    let request = collection(source.kind.api_version(), plural(source.kind), source.namespace.as_deref());
    let mut params = ListParams { limit: Some(PAGE), ..ListParams::default() };
    let mut all: Vec<Seen> = Vec::new();
    loop {
        let text = match source.wanted {
            Wanted::Metadata => api.page(request.list_metadata(&params)).await,
            Wanted::Object | Wanted::Addresses => api.page(request.list(&params)).await,
        };
        let text = match text {
            Err(error) if error.is_gone() && params.continue_token.is_some() => {
                (params.limit, params.continue_token) = (None, None);
                all.clear();
                continue;
            }
            text => text?,
        };
        let page: Page<'_> = serde_json::from_slice(text.as_ref()).map_err(CallError::Decode)?;
        let items: Vec<&RawValue> = page.items.unwrap_or_default();
        // An object without a name can't be reported.
        all.extend(items.into_iter().filter_map(|item| decode(source.kind, item.get(), source.wanted, hasher).ok()));
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Ok(all);
        }
    }
}
