//! Limits of one object, in one table; `docs/limits.md` is generated from it.

use std::time::Duration;

fairway_model::limits! {
    "Objects and settings" {
        settings {}
        found {}
        fixed {
            /// Names in the annotation `server-alias` of one Ingress.
            ALIASES: usize = 64, Count, "The others are ignored, and a finding says so.", "";
            /// Certificates in the chain of a TLS Secret. Real ones have two or three links.
            CHAIN: usize = 16, Count, "The Secret is not used, and a finding says so.", "";
            /// A value that `add-headers` or `proxy-set-headers` sets.
            FIELD_VALUE: usize = 8 << 10, Bytes, "The field is not set, and a finding says so.", "";
            /// A request line, a field and a head, whatever `large-client-header-buffers` sets: with more, a few clients could fill the memory.
            HEAD: u64 = 1 << 20, Bytes, "The key counts as this much.", "";
            /// The head of a response, whatever `proxy-buffer-size` sets.
            RESPONSE_HEAD: u64 = 1 << 20, Bytes, "The annotation or key counts as this much.", "";
            /// Certificates in `ca.crt`, and lists in `ca.crl`, of a Secret for TLS to backends or for client certificates.
            AUTHORITIES: usize = 64, Count, "The Secret is not used, and a finding says so.", "";
            /// Ports that Gateways have opened on the shared address. Each takes two sockets of every worker.
            GATEWAY_PORTS: usize = 256, Count, "Further listeners are closed, and their status says so (`PortUnavailable`).", "";
            /// Ports that the Gateways and ListenerSets of one namespace have opened first, of the shared address and of their own.
            NAMESPACE_PORTS: usize = 64, Count, "Its further listeners on other ports are closed, and their status says so (`PortUnavailable`).", "";
            /// Listeners that the Gateways and ListenerSets of one namespace have first.
            NAMESPACE_LISTENERS: usize = 512, Count, "Its further listeners are closed, and their status says so (`TooManyListeners`).", "";
            /// `RequestMirror` filters of one rule of a route, with those of its only backend.
            RULE_MIRRORS: usize = 16, Count, "The rule answers 500, and the status of its route says so.", "";
            /// `forwardBody.maxSize` of a filter `ExternalAuth`. The body is held in memory until its service has answered.
            AUTH_BODY: u32 = 4 << 20, Bytes, "The rule answers 500, and the status of its route says so.", "";
            /// Attributes of spans that an XTelemetryPolicy asks for.
            TELEMETRY_ATTRIBUTES: usize = 32, Count, "The policy is not applied, and its status says so (`UnsupportedValue`).", "";
            /// Fields of the requests to the receiver of an XTelemetryPolicy.
            TELEMETRY_FIELDS: usize = 16, Count, "The policy is not applied, and its status says so (`UnsupportedValue`).", "";
            /// The text of a snippet. The longest in public have some 3 KiB.
            SNIPPET: usize = 64 << 10, Bytes, "The snippet is refused as a whole, and a finding says so.", "";
            /// Directives of a snippet.
            SNIPPET_DIRECTIVES: usize = 1000, Count, "The snippet is refused as a whole, and a finding says so.", "";
            /// Unknown annotations of an Ingress, and unknown keys of the ConfigMap, reported one by one.
            UNKNOWN_NAMES: usize = 16, Count, "The rest are counted in one finding.", "";
            /// Findings of one object.
            FINDINGS: usize = 100, Count, "The rest are counted in one finding.", "";
            /// Findings, and faulty paths, that the admission webhook names in its answer about one Ingress.
            REVIEW_WARNINGS: usize = 16, Count, "The rest is left out; `kubectl describe` shows them once the Ingress is stored.", "";
            /// One finding in such an answer; the API server cuts longer ones.
            REVIEW_WARNING: usize = 255, Bytes, "The rest is left out.", "";
            /// Part of a user's value that a finding quotes.
            QUOTED: usize = 200, Bytes, "The rest is left out.", "";
        }
    }
    "Admission webhook" {
        settings {}
        found {}
        fixed {
            /// The answer to a review, from the first byte of the request. The API server waits as long as the webhook's `timeoutSeconds`.
            REVIEW_TIME: Duration = Duration::from_millis(900), Time, "500; the `failurePolicy` of the webhook decides.", "";
            /// The body of a review. The API server takes objects of up to 3 MiB.
            REVIEW_BODY: usize = 9 << 20, Bytes, "413.", "";
            /// Reviews at a time; others wait for their turn, within the time above.
            REVIEWS: usize = 4, Count, "500.", "";
            /// Connections. The API server has a few.
            REVIEW_CONNECTIONS: usize = 64, Count, "The oldest one of the address that has most is closed; a new one of that address is refused.", "";
            /// The reason of a refusal, in the answer and in the log.
            REVIEW_REFUSAL: usize = 4 << 10, Bytes, "The rest is left out.", "";
            /// The names of an object and of a review.
            REVIEW_NAME: usize = 512, Bytes, "The rest is left out in the log; 400 for the name of a review.", "";
            /// A TLS handshake, and the time that a connection may be idle.
            REVIEW_IDLE: Duration = Duration::from_secs(60), Time, "The connection is closed.", "";
        }
    }
}
