//! Limits of one object, in one table; `docs/limits.md` is generated from it.

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
            /// The text of a snippet. The longest in public have some 3 KiB.
            SNIPPET: usize = 64 << 10, Bytes, "The snippet is refused as a whole, and a finding says so.", "";
            /// Directives of a snippet.
            SNIPPET_DIRECTIVES: usize = 1000, Count, "The snippet is refused as a whole, and a finding says so.", "";
            /// Unknown annotations of an Ingress, and unknown keys of the ConfigMap, reported one by one.
            UNKNOWN_NAMES: usize = 16, Count, "The rest are counted in one finding.", "";
            /// Findings of one object.
            FINDINGS: usize = 100, Count, "The rest are counted in one finding.", "";
            /// Part of a user's value that a finding quotes.
            QUOTED: usize = 200, Bytes, "The rest is left out.", "";
        }
    }
}
