//! Filters of the type ExternalAuth: a service decides about each request.

use std::num::NonZeroU32;

use fairway_model::{
    AuthProtocol, ByteLimit, ConfiguredName, ExternalAuth, Forward, ForwardPolicy, GrpcAuth, HttpAuth, UpstreamProtocol,
};

use super::{BuiltRule, Effects, RuleReader, ValidBackend};
use crate::diagnostic::{Reason, Severity};
use crate::gateway::api::{ExternalAuthFilter, HttpAuthorization};
use crate::gateway::status::Shortcoming;
use crate::limit;
use crate::resource::backend::{BackendKey, Layer};

impl RuleReader<'_> {
    /// A service that can't be called as written refuses all requests.
    pub(super) fn external_auth(
        &mut self,
        auth: &ExternalAuthFilter,
        field: &str,
        effects: &mut Effects,
        built: &mut BuiltRule,
    ) {
        let refuse = |part: &str, reason, message: String, built: &mut BuiltRule| {
            self.refuse(&format!("{field}.{part}"), Shortcoming::new(reason, message), built);
        };
        let calls = match &*auth.protocol {
            "HTTP" => false,
            "GRPC" => true,
            other => {
                return refuse("protocol", "UnsupportedValue", format!("expected HTTP or GRPC, found {other}"), built);
            }
        };
        let most = auth.forward_body.as_ref().and_then(|body| body.max_size).unwrap_or_default();
        let most = u32::try_from(most).ok().filter(|most| *most <= limit::AUTH_BODY);
        let Some(most) = most else {
            let message = format!("expected at most {} bytes", limit::AUTH_BODY);
            return refuse("forwardBody.maxSize", "UnsupportedValue", message, built);
        };
        let body = NonZeroU32::new(most);
        if effects.auth.is_some() || effects.cannot_ask {
            return refuse("protocol", "UnsupportedValue", "expected one filter ExternalAuth".to_owned(), built);
        }
        let found = match self.backend(&auth.backend_ref, built) {
            Ok(ValidBackend { key: BackendKey { layer: Layer::XBackendHttp, .. }, .. }) => {
                Err(Shortcoming::new("InvalidKind", "expected a Service, found an XBackend"))
            }
            Ok(ValidBackend { http2: true, .. }) if !calls => Err(Shortcoming::new(
                "UnsupportedProtocol",
                "with protocol HTTP the service is asked over HTTP/1.1 only",
            )),
            Ok(ValidBackend { tls: Err(why), .. }) => Err(Shortcoming::new("UnsupportedValue", why)),
            // A substitute for a backend must not become the service.
            Ok(ValidBackend { key, tls: Ok(tls), .. }) => Ok((BackendKey { layer: Layer::Auth, ..key }, tls)),
            Err((_, fault)) => Err(fault),
        };
        let (key, tls) = match found {
            Ok(found) => found,
            Err(fault) => {
                let field = format!("{field}.backendRef");
                let message = format!("{}; requests to the rule answer {}", fault.message, self.failure());
                let found =
                    self.finding(Severity::Error, Reason::InvalidBackend, &field, &auth.backend_ref.name, message);
                built.findings.push(found.unserved());
                let fault = Shortcoming::new(fault.reason, format!("{field}: {}", fault.message));
                built.unresolved.get_or_insert(fault);
                effects.cannot_ask = true;
                return;
            }
        };
        let names = |list: &str, names: &[String], built: &mut BuiltRule| -> Option<Vec<ConfiguredName>> {
            let mut all = Vec::new();
            for (at, name) in names.iter().enumerate() {
                let Ok(name) = name.as_str().try_into() else {
                    let message = format!("{name:?} is no name of a field");
                    refuse(&format!("{list}[{at}]"), "UnsupportedValue", message, built);
                    return None;
                };
                all.push(name);
            }
            Some(all)
        };
        let protocol = if calls {
            let listed = auth.grpc.as_ref().map_or(&[][..], |grpc| &grpc.allowed_headers);
            let Some(listed) = names("grpc.allowedHeaders", listed, built) else { return };
            let authority = format!("{}.{}.svc:{}", key.target, key.namespace, key.port).into();
            AuthProtocol::Grpc(GrpcAuth { authority, allowed: (!listed.is_empty()).then_some(listed), body })
        } else {
            let listed = |list: fn(&HttpAuthorization) -> &[String]| auth.http.as_ref().map_or(&[][..], list);
            let allowed = names("http.allowedHeaders", listed(|http| &http.allowed_headers), built);
            let copied = names("http.allowedResponseHeaders", listed(|http| &http.allowed_response_headers), built);
            let (Some(allowed), Some(copied)) = (allowed, copied) else { return };
            let path = auth.http.as_ref().and_then(|http| http.path.as_deref()).unwrap_or_default();
            let path = path.trim_end_matches('/');
            let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
            AuthProtocol::Http(HttpAuth { path: format!("{slash}{path}").into(), allowed, copied, body })
        };
        let version = if calls { UpstreamProtocol::Http2 } else { UpstreamProtocol::Http1 };
        let policy = ForwardPolicy { max_body: ByteLimit::NONE, tls, protocol: version, ..ForwardPolicy::default() };
        let forward = Forward::to(key.name(), self.policies.of(policy));
        built.backends.push((key, format!("{field}.backendRef")));
        effects.auth = Some(Box::new(ExternalAuth { forward, protocol }));
    }
}
