//! XBackends (experimental channel): a host outside of the cluster, or pods by their labels, with the protocol and TLS for them.
//!
//! An XBackend that can't be carried out in full is not accepted, and the backends that refer to it are invalid: their share of the
//! requests gets an error, and nothing goes there without the TLS that it demands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fairway_model::{Session, UpstreamTls};

use super::api::{ObjectReference, XBackend, XBackendSpec, XBackendTls};
use super::backend_tls::{built, remove, trusted};
use super::grant;
use super::selection::{Selection, service_key};
use super::session::session;
use super::status::{FieldFault, Shortcoming};
use crate::diagnostic::Reason;
use crate::engine::dirty::{Dirty, Output};
use crate::engine::shared::Shared;
use crate::objects::{Kind, ObjectKey, Objects};
use crate::options::Options;
use crate::resource::backend::outside;
use crate::resource::certificate::certificate_name;
use crate::resource::{ConfigMaps, Owner, Secrets};

/// All XBackends.
#[derive(Debug, Default)]
pub(super) struct XBackends {
    parts: BTreeMap<ObjectKey, XBackendPart>,
    /// The XBackends that depend on a ConfigMap.
    config_maps: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// The Services that are or would be created for them.
    services: BTreeSet<ObjectKey>,
    values: Shared<UpstreamTls>,
}

/// One XBackend.
#[derive(Debug)]
pub(super) struct XBackendPart {
    owner: Arc<Owner>,
    config_maps: BTreeSet<ObjectKey>,
    /// The Secret with the certificate to present.
    pub(super) secret: Option<ObjectKey>,
    pub(super) port: i32,
    pub(super) protocol: Option<Spoken>,
    pub(super) tls: Option<Arc<UpstreamTls>>,
    pub(super) session: Option<Arc<Session>>,
    /// The pods, if it selects any.
    pub(super) selection: Option<Selection>,
    /// The Service that is created for the pods.
    service: ObjectKey,
    /// Why it is not accepted.
    pub(super) fault: Option<XBackendFault>,
    /// The first reference to an authority that can't be followed, if others can.
    pub(super) left_out: Option<FieldFault>,
}

/// Why an XBackend is not accepted.
#[derive(Clone, Debug)]
pub(super) struct XBackendFault {
    pub(super) field: String,
    pub(super) value: String,
    /// The reason of the finding.
    pub(super) reason: Reason,
    /// The reason of the condition.
    pub(super) because: &'static str,
    pub(super) message: String,
}

/// The protocol of an XBackend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Spoken {
    /// HTTP in the version that suits the route.
    Http,
    Http1,
    Http2,
    /// Bytes.
    Tcp,
}

impl XBackendFault {
    fn new(field: &str, value: &str, message: impl Into<String>) -> Self {
        Self {
            field: field.to_owned(),
            value: value.to_owned(),
            reason: Reason::UnsupportedValue,
            because: "UnsupportedValue",
            message: message.into(),
        }
    }

    /// The fault as a condition has it.
    pub(super) fn shortcoming(&self) -> Shortcoming {
        Shortcoming::new(self.because, format!("{}: {}", self.field, self.message))
    }
}

impl XBackendPart {
    /// The key of the Service that is created for the pods.
    pub(super) fn service(&self) -> &ObjectKey {
        &self.service
    }
}

impl XBackends {
    pub(super) fn get(&self, key: &ObjectKey) -> Option<&XBackendPart> {
        self.parts.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &XBackendPart)> {
        self.parts.iter()
    }

    /// Marks the XBackends that depend on a ConfigMap.
    pub(super) fn touch_config_map(&self, key: &ObjectKey, dirty: &mut Dirty) {
        dirty.xbackends.extend(self.config_maps.get(key).into_iter().flatten().cloned());
    }

    /// Whether a Service has the name of one that is created for pods.
    pub(super) fn has_service(&self, service: &ObjectKey) -> bool {
        self.services.contains(service)
    }

    /// Reads an XBackend again.
    pub(super) fn read(
        &mut self,
        key: &ObjectKey,
        found: Option<(Arc<Owner>, &XBackend)>,
        (objects, options): (&Objects, &Options),
        (secrets, config_maps): (&mut Secrets, &mut ConfigMaps),
        dirty: &mut Dirty,
        out: &mut Output,
    ) {
        if let Some(before) = self.parts.remove(key) {
            self.services.remove(&before.service);
            for map in &before.config_maps {
                config_maps.detach(map, &before.owner.age, dirty, out);
                remove(&mut self.config_maps, map, key);
            }
            if let Some(secret) = &before.secret {
                secrets.detach(secret, &before.owner.age, dirty, out);
            }
        }
        let Some((owner, xbackend)) = found else { return };
        let part = self.part(key, owner, xbackend, objects, options);
        self.services.insert(part.service.clone());
        for map in &part.config_maps {
            config_maps.attach(map, &part.owner, dirty, out);
            self.config_maps.entry(map.clone()).or_default().insert(key.clone());
        }
        if let Some(secret) = &part.secret {
            secrets.attach(secret, &part.owner, dirty, out);
        }
        self.parts.insert(key.clone(), part);
    }

    fn part(
        &mut self,
        key: &ObjectKey,
        owner: Arc<Owner>,
        xbackend: &XBackend,
        objects: &Objects,
        options: &Options,
    ) -> XBackendPart {
        let spec = &xbackend.spec;
        let uid = xbackend.metadata.uid.as_deref().unwrap_or_default();
        let mut part = XBackendPart {
            owner,
            config_maps: BTreeSet::new(),
            secret: None,
            port: spec.port.number.unwrap_or_default(),
            protocol: None,
            tls: None,
            session: None,
            selection: None,
            service: service_key(key, uid),
            fault: None,
            left_out: None,
        };
        let read = leads(spec, (key, uid), part.port, options).and_then(|selection| {
            part.selection = selection;
            if !(1..=65535).contains(&part.port) {
                return Err(XBackendFault::new(
                    "spec.port.number",
                    &part.port.to_string(),
                    "expected a port from 1 to 65535",
                ));
            }
            part.tls = self.tls(key, spec.tls.as_ref(), objects, &mut part)?;
            part.protocol = spoken(spec.protocol.as_deref(), part.tls.is_some())?;
            part.session = sessions(key, spec)?;
            Ok(())
        });
        part.fault = read.err();
        part
    }

    /// TLS to it. The ConfigMaps and the Secret that it names are recorded.
    fn tls(
        &mut self,
        key: &ObjectKey,
        tls: Option<&XBackendTls>,
        objects: &Objects,
        part: &mut XBackendPart,
    ) -> Result<Option<Arc<UpstreamTls>>, XBackendFault> {
        let Some(tls) = tls else { return Ok(None) };
        let shows = match &*tls.mode {
            "None" if tls.validation.is_none() && tls.client_certificate_ref.is_none() => return Ok(None),
            "None" => {
                let message =
                    "without TLS there is nothing to verify or to show: expected ServerOnly or ClientAndServer";
                return Err(XBackendFault::new("spec.tls.mode", &tls.mode, message));
            }
            "ServerOnly" if tls.client_certificate_ref.is_none() => None,
            "ServerOnly" => {
                let message = "a certificate is shown with ClientAndServer only";
                return Err(XBackendFault::new("spec.tls.clientCertificateRef", "", message));
            }
            "ClientAndServer" => Some(tls.client_certificate_ref.as_ref().ok_or_else(|| {
                XBackendFault::new(
                    "spec.tls.clientCertificateRef",
                    "",
                    "with ClientAndServer, expected the Secret to show",
                )
            })?),
            other => {
                return Err(XBackendFault::new("spec.tls.mode", other, "expected None, ServerOnly or ClientAndServer"));
            }
        };
        let Some(validation) = &tls.validation else {
            return Err(XBackendFault::new(
                "spec.tls.validation",
                "",
                "with TLS, expected how the certificate is verified",
            ));
        };
        let (authorities, unresolved) = trusted(key, validation, "spec.tls.validation", objects, &mut part.config_maps);
        let built = built(validation, "spec.tls.validation", authorities, unresolved.as_ref());
        let mut value = built.map_err(|FieldFault { field, why }| XBackendFault {
            because: why.reason,
            ..XBackendFault::new(&field, "", why.message)
        })?;
        part.left_out = unresolved;
        if let Some(reference) = shows {
            let secret = shown(key, reference, objects)?;
            value.client_certificate = Some(certificate_name(&secret));
            part.secret = Some(secret);
        }
        Ok(Some(self.values.of(value)))
    }
}

/// The pods that it leads to, or `None` for a host that backends may have.
fn leads(
    spec: &XBackendSpec,
    own: (&ObjectKey, &str),
    port: i32,
    options: &Options,
) -> Result<Option<Selection>, XBackendFault> {
    match (&*spec.r#type, &spec.external_hostname, &spec.endpoint_selector) {
        ("ExternalHostname", Some(host), None) => match outside(&host.hostname, 1, options) {
            Ok(_) => Ok(None),
            Err(problem) => Err(XBackendFault {
                reason: problem.reason(),
                ..XBackendFault::new("spec.externalHostname.hostname", &host.hostname, problem.message())
            }),
        },
        ("EndpointSelector", None, Some(selector)) => Selection::of(selector, own, port, options)
            .map(Some)
            .map_err(|(field, message)| XBackendFault::new(&format!("spec.endpointSelector{field}"), "", message)),
        ("ExternalHostname", ..) => Err(XBackendFault::new(
            "spec.externalHostname",
            "",
            "with the type ExternalHostname, expected this and no endpointSelector",
        )),
        ("EndpointSelector", ..) => Err(XBackendFault::new(
            "spec.endpointSelector",
            "",
            "with the type EndpointSelector, expected this and no externalHostname",
        )),
        (other, ..) => Err(XBackendFault::new("spec.type", other, "expected ExternalHostname or EndpointSelector")),
    }
}

fn spoken(protocol: Option<&str>, secure: bool) -> Result<Option<Spoken>, XBackendFault> {
    let refused = |message: &str| {
        let fault = XBackendFault::new("spec.protocol", protocol.unwrap_or_default(), message);
        Err(XBackendFault { because: "UnsupportedProtocol", ..fault })
    };
    Ok(Some(match protocol {
        None => return Ok(None),
        Some("HTTP") => Spoken::Http,
        Some("HTTP11") => Spoken::Http1,
        Some("GRPC") => Spoken::Http2,
        Some("HTTP2") if secure => Spoken::Http2,
        Some("HTTP2") => return refused("HTTP2 is spoken over TLS: expected H2C, or a tls.mode other than None"),
        Some("H2C") if !secure => Spoken::Http2,
        Some("H2C") => return refused("H2C is spoken without TLS: expected HTTP2, or the tls.mode None"),
        // WebSocket begins with an upgrade from HTTP/1.1.
        Some("WSS") if secure => Spoken::Http1,
        Some("WSS") => return refused("WSS is spoken over TLS: expected a tls.mode other than None"),
        Some("TCP") => Spoken::Tcp,
        Some(_) => return refused("expected HTTP, HTTP11, HTTP2, H2C, GRPC, WSS or TCP"),
    }))
}

/// The sessions with its endpoints, which all routes that refer to it share.
fn sessions(key: &ObjectKey, spec: &XBackendSpec) -> Result<Option<Arc<Session>>, XBackendFault> {
    let Some(asked) = &spec.session_persistence else { return Ok(None) };
    if spec.endpoint_selector.is_none() {
        let message = "sessions are kept with pods only: expected none with the type ExternalHostname";
        return Err(XBackendFault::new("spec.sessionPersistence", "", message));
    }
    let read = session(asked, &key.to_string());
    read.map(|session| Some(session.into()))
        .map_err(|(part, why)| XBackendFault::new(&format!("spec.sessionPersistence.{part}"), "", why))
}

/// The Secret with the certificate to present.
fn shown(key: &ObjectKey, reference: &ObjectReference, objects: &Objects) -> Result<ObjectKey, XBackendFault> {
    let field = "spec.tls.clientCertificateRef";
    let kind = reference.kind.as_deref().unwrap_or("Secret");
    let group = reference.group.as_deref().unwrap_or_default();
    if !group.is_empty() || kind != Kind::Secret.as_str() {
        let message = format!("expected a Secret, found {kind} {}", reference.name);
        return Err(XBackendFault { because: "InvalidKind", ..XBackendFault::new(field, &reference.name, message) });
    }
    let namespace = reference.namespace.as_deref().unwrap_or(&key.namespace);
    let secret = ObjectKey::new(Kind::Secret, namespace, &*reference.name);
    if !grant::permits(objects, (key.kind, &key.namespace), &secret) {
        let message = format!(
            "no ReferenceGrant in namespace {namespace} lets XBackends of {} refer to Secret {}",
            key.namespace, reference.name
        );
        let reason = Reason::ForbiddenReference;
        return Err(XBackendFault {
            because: "RefNotPermitted",
            reason,
            ..XBackendFault::new(field, &reference.name, message)
        });
    }
    Ok(secret)
}
