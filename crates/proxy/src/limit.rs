//! All limits and timeouts of the proxy in one table, which depends on no other module. `docs/limits.md` is
//! generated from it, and a test fails for a constant elsewhere that looks like a limit.
//!
//! A constant that is not a limit (a batch, a sentinel, a part of an algorithm) stays where it is used, below a line `// No limit: ` with the
//! reason.

use std::time::Duration;

use fairway_model::PathRegex;

fairway_model::limits! {
    "Connections of clients" {
        settings {
            "keep-alive": "How long a connection may be idle between two requests; 0 turns keep-alive off.",
                "The connection is closed.", "";
            "keep-alive-requests": "Requests on one connection.", "The response has `Connection: close`.", "";
            "max-worker-connections": "Connections of clients in each worker; 0 for no other limit than the open files.", "Connections \
                without a complete request are closed to make room, then idle ones; after that, new ones wait in the kernel's queue.", "`fairway_connections_shed_without_request_total`, \
                `fairway_connections_shed_idle_total`";
            "max-connections-per-client": "Connections of one client address, or IPv6 network of 64 bits, in the whole process; 0 for no \
                limit.", "Further ones are closed at once.", "`fairway_connections_refused_total`";
        }
        found {
            "5/16 of the open files (`ulimit -n`)": "Connections of clients, in all workers together. Each may need another file for its \
                endpoint.", "Connections without a complete request are closed to make room, then idle ones; after that, \
                new ones wait in the kernel's queue.", "`fairway_connections_shed_without_request_total`, \
                `fairway_connections_shed_idle_total`";
        }
        fixed {
            /// UDP sessions per worker, as far as the open files allow.
            WORKER_SESSIONS: usize = 16_384, Count, "The session that was silent longest ends.", "";
            /// How long a new connection may be silent before it has to make room. A client sends its first bytes with the packet that
            /// completes the connection, so this only covers moments when the proxy is busy.
            SILENCE_GRACE: Duration = Duration::from_millis(50), Time, "The connection may be closed to make room.",
                "`fairway_connections_shed_without_request_total`";
            /// Connections that wait in the kernel to be accepted; Linux caps it at `net.core.somaxconn`.
            BACKLOG: i32 = 4096, Count, "The kernel drops the handshake, and the client retries.", "";
            /// Pause after a failed accept, for example when no file descriptor is left.
            ACCEPT_PAUSE: Duration = Duration::from_millis(100), Time, "Accepting is tried again.", "";
            /// Pauses that a closing listener makes to accept the connections in its queue.
            CLOSING_PAUSES: u32 = 10, Count, "The listener closes.", "";
            /// Sockets that a process takes over from the one before it.
            HANDOVER_SOCKETS: usize = 16_384, Count, "It takes none, and waits until the ports are free.", "";
            /// Sockets of one address for each worker, as far as they are made so that each worker has the same number.
            INHERITED_PER_WORKER: usize = 4, Count, "Some workers have one more than others.", "";
            /// Time for an answer of the other process when sockets are handed over.
            HANDOVER_PATIENCE: Duration = Duration::from_secs(5), Time, "They are not; the process before goes on.", "";
            /// Shortest time between two warnings that connections can't be accepted.
            ACCEPT_WARNING_INTERVAL: Duration = Duration::from_secs(60), Time, "The warning is not logged.", "";
            /// TLS sessions kept for resumption.
            TLS_SESSIONS: usize = 20_480, Count, "An older session is forgotten; its client makes a full handshake.", "";
            /// How long a session ticket with a key of `ssl-session-ticket-key` is accepted.
            TICKET_LIFETIME: Duration = Duration::from_secs(12 * 3600), Time, "The client makes a full handshake.", "";
            /// Time to fetch an OCSP response (`enable-ocsp`).
            OCSP_TIMEOUT: Duration = Duration::from_secs(10), Time, "It is fetched again later.", "`fairway_ocsp_failures_total`";
            /// OCSP responses that are fetched at a time.
            OCSP_AT_ONCE: usize = 4, Count, "Further certificates wait.", "";
            /// Size of an answer with an OCSP response.
            OCSP_RESPONSE: usize = 64 << 10, Bytes, "It is not stapled.", "`fairway_ocsp_failures_total`";
            /// Certificates in such a response that may have signed it.
            OCSP_CERTIFICATES: usize = 4, Count, "Further ones are ignored.", "`fairway_ocsp_failures_total`";
            /// How far the clock of a responder may be ahead (as in nginx).
            OCSP_SKEW: Duration = Duration::from_secs(300), Time, "The response is not stapled.", "`fairway_ocsp_failures_total`";
            /// Shortest time between two fetches for a certificate; each failure doubles it.
            OCSP_SHORTEST_PAUSE: Duration = Duration::from_secs(30), Time, "", "";
            /// Longest time between two fetches. A response is fetched again in the middle of the time that it is valid.
            OCSP_LONGEST_PAUSE: Duration = Duration::from_secs(3600), Time, "It is fetched again.", "`fairway_ocsp_fetches_total`";
            /// How long a response is stapled that does not say how long it is valid.
            OCSP_UNDATED: Duration = Duration::from_secs(3600), Time, "It is fetched again.", "";
            /// Certificates for which responses are fetched.
            OCSP_KNOWN: usize = 16_384, Count, "Nothing is stapled to further ones.", "`fairway_ocsp_stapled`";
            /// After a refused request or an early response, the longest gap between two reads of discarded bytes (nginx
            /// `lingering_timeout`).
            LINGER_GAP: Duration = Duration::from_secs(5), Time, "The connection is closed.", "";
            /// The same, in total (nginx `lingering_time`).
            LINGER_TIME: Duration = Duration::from_secs(30), Time, "The connection is closed.", "";
            /// The same, in bytes: more than most refused bodies.
            LINGER_BYTES: u64 = 16 << 20, Bytes, "The connection is closed.", "";
            /// Precision of all times: each may be late by up to twice this, and is never early.
            TICK: Duration = Duration::from_millis(50), Time, "", "";
        }
    }
    "HTTP/2 from clients" {
        settings {
            "http2-max-concurrent-streams": "Streams of one connection at a time.", "`REFUSED_STREAM`.", "";
        }
        found {
            "Twice what `large-client-header-buffers` and `max-request-headers` allow": "Fields of a request without compression, and 32 \
                bytes for each. What is above the limits of request heads and within this one is logged as well.", "431; above four \
                times as much, the connection is closed with `ENHANCE_YOUR_CALM`.", "";
        }
        fixed {
            /// The same, at least.
            HTTP2_LEAST_LIST: usize = 64 << 10, Bytes, "As above.", "";
            /// The same, at most.
            HTTP2_LARGEST_LIST: usize = 512 << 10, Bytes, "As above.", "";
            /// Window of a stream: what a client may send of a body before the endpoint has taken any of it (nginx
            /// `http2_body_preread_size`).
            HTTP2_STREAM_WINDOW: u32 = 64 << 10, Bytes, "The client has to wait.", "";
            /// Window of a connection, for all of its streams.
            HTTP2_CONNECTION_WINDOW: u32 = 1 << 20, Bytes, "The client has to wait.", "";
            /// Largest frame that is accepted, the least that the protocol allows.
            HTTP2_FRAME: u32 = 16 << 10, Bytes, "`FRAME_SIZE_ERROR`; the connection is closed.", "";
            /// Memory for compression of fields that a client sends.
            HTTP2_HEADER_TABLE: u32 = 4 << 10, Bytes, "`COMPRESSION_ERROR`; the connection is closed.", "";
            /// Data of one stream that waits for the connection to take it.
            HTTP2_SEND_BUFFER: usize = 32 << 10, Bytes, "The endpoint has to wait.", "";
            /// Data that is handed over at a time.
            HTTP2_BLOCK: usize = 16 << 10, Bytes, "The rest follows.", "";
            /// Blocks of memory for such data that a worker keeps.
            HTTP2_KEPT_BLOCKS: usize = 64, Count, "Further ones are freed.", "";
            /// Streams that were reset by their client before they were looked at (rapid reset, CVE-2023-44487).
            HTTP2_PENDING_RESETS: usize = 100, Count, "The connection is closed with `ENHANCE_YOUR_CALM`.", "";
            /// Streams of a connection that were reset for errors of the client (MadeYouReset, CVE-2025-8671).
            HTTP2_ERROR_RESETS: usize = 200, Count, "The connection is closed with `ENHANCE_YOUR_CALM`.", "";
            /// Frames of a connection that lead to nothing: PING, PRIORITY, WINDOW_UPDATE, empty DATA, RST_STREAM and unknown ones
            /// count once (and once more for each KiB), SETTINGS ten times, a stream that is reset before it has its response five
            /// times. What is sent to the client makes some good: 2 for each frame, and 1 for every 2 KiB.
            HTTP2_DEBT: u32 = 1000, Count, "The connection is closed with `ENHANCE_YOUR_CALM`.", "";
            /// So many of them are forgiven each second.
            HTTP2_DEBT_PER_SECOND: u32 = 100, Count, "", "";
            /// A client that sends nothing while it waits for a response is asked whether it is still there.
            HTTP2_PING_AFTER: Duration = Duration::from_secs(20), Time, "It gets a PING.", "";
            /// Time for its answer.
            HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(20), Time, "The connection is closed.", "`client_gone`";
            /// Time for which the announcement that a connection takes no more streams waits for a moment without any, if others begin
            /// meanwhile; a quarter of `worker-shutdown-timeout` if that is less, and half of it if none begins. Some clients take it for
            /// the failure of those that they have.
            HTTP2_ANNOUNCE_AFTER: Duration = Duration::from_secs(10), Time, "It is sent.", "";
            /// Time for a client to end a connection without streams, after the GOAWAY that refuses new ones.
            HTTP2_LEAVE_TIMEOUT: Duration = Duration::from_secs(5), Time, "The connection is closed.", "";
        }
    }
    "Request heads" {
        settings {
            "client-header-timeout": "Time for the whole head of a request, and before it for the TLS handshake.",
                "408; a connection that sent nothing is closed.", "`head_timeout`";
            "proxy-protocol-header-timeout": "Time for the PROXY header at the start of a connection, where one is expected.",
                "The connection is closed.", "`fairway_proxy_headers_failed_total`";
            "large-client-header-buffers": "Number and size of nginx's buffers: a request line or a field is at most one size long, a head \
                number times size; neither above 1 MiB.", "414 for the request line, else 431.", "`head_too_large`";
            "max-request-headers": "Fields of a request.", "431.", "`head_too_large`";
        }
        found {}
        fixed {
            /// Largest head, whatever the settings say.
            LARGEST_HEAD: usize = 16 << 20, Bytes, "431.", "`head_too_large`";
            /// Options in all Connection fields of a head.
            CONNECTION_OPTIONS: usize = 32, Count, "400.", "`bad_request`";
            /// Empty lines before a request line.
            LEADING_EMPTY_LINES: u8 = 4, Count, "400.", "`bad_request`";
            /// Length of a method.
            LONGEST_METHOD: usize = 32, Bytes, "400.", "`bad_request`";
        }
    }
    "Bodies" {
        settings {
            "proxy-body-size": "Largest request body (annotation of the same name).", "413.", "`body_too_large`";
            "client-body-timeout": "Longest gap between two reads of a request body.", "408.", "`body_timeout`";
            "client-body-min-rate": "Bytes of a request body that extend the wait for the rest by one second; 0 for no limit.", "408.",
                "`body_timeout`";
        }
        found {
            "`--request-body-space`, with `--request-body-directory`": "Bodies of requests in files, of all requests together.", "The rest \
                of a body is streamed, without a Content-Length if the client gave none.", "";
        }
        fixed {
            /// Total time to wait for a client in the middle of its body; longer than any stall of a mobile network. Each
            /// `client-body-min-rate` bytes add a second.
            BODY_PATIENCE: Duration = Duration::from_secs(60), Time, "408.", "`body_timeout`";
            /// What memory holds of a request body that is read before an endpoint is chosen (`proxy-request-buffering`); 256 KiB if files
            /// take the rest.
            BODY_AHEAD: usize = 8 << 20, Bytes, "The body is streamed, without a Content-Length if the client gave none.", "";
            /// The same, for all requests of a worker.
            BODIES_AHEAD: usize = 16 << 20, Bytes, "As above.", "";
            /// Threads that write such bodies to files, and read them.
            SPOOL_THREADS: usize = 2, Count, "Others wait.", "";
            /// Shortest time between two warnings that they can't be written.
            SPOOL_WARNING_INTERVAL: Duration = Duration::from_secs(60), Time, "The warning is not logged.", "";
            /// What is held of a response that is read ahead of its client (`proxy-buffering`), whatever `proxy-buffers-number` and
            /// `proxy-buffer-size` say.
            RESPONSE_BUFFERED: usize = 4 << 20, Bytes, "The rest is read at the speed of the client.", "";
            /// Memory for such responses, in a worker.
            RESPONSES_BUFFERED: usize = 16 << 20, Bytes, "As above.", "";
            /// The line with the size of a chunk, including extensions.
            CHUNK_LINE: usize = 256, Bytes, "400 from a client, 502 from an endpoint.", "`bad_body`, `bad_response_body`";
            /// All chunk extensions of a message.
            CHUNK_EXTENSIONS: usize = 4 << 10, Bytes, "400 from a client, 502 from an endpoint.", "`bad_body`, `bad_response_body`";
            /// The trailer section of a chunked body.
            TRAILERS: usize = 8 << 10, Bytes, "400 from a client, 502 from an endpoint.", "`bad_body`, `bad_response_body`";
        }
    }
    "Endpoints" {
        settings {
            "proxy-connect-timeout": "Time to connect to an endpoint (annotation of the same name).",
                "Another endpoint is tried if `proxy-next-upstream` allows, else 504.", "`connect_timeout`";
            "proxy-send-timeout": "Longest gap between two writes to an endpoint (annotation of the same name).",
                "Another endpoint is tried if `proxy-next-upstream` allows, else 504.", "`send_timeout`";
            "proxy-read-timeout": "Longest gap between two reads from an endpoint (annotation of the same name).",
                "Another endpoint is tried if `proxy-next-upstream` allows, else 504; a response that has begun is cut.", "`read_timeout`";
            "proxy-next-upstream-tries": "Tries of a request; 0 for no limit but the fixed one below (annotation of the same name).",
                "The client gets the status of the last failure.", "`fairway_upstream_failures_total`";
            "proxy-next-upstream-timeout": "Seconds in which another try may begin; 0 for no limit (annotation of the same name).",
                "The client gets the status of the last failure.", "`fairway_upstream_failures_total`";
            "retry-budget": "Retries of requests that a backend may have received, in percent of its requests; 0 for no limit. A try that could \
                not connect is free.", "The client gets the status of the last failure.", "`fairway_upstream_retries_denied_total`";
            "auth-failures-per-minute": "Wrong passwords of one client, or IPv6 network of 64 bits, for the users of one Secret in a minute (`auth-type`); 0 for no limit.",
                "429, unless the password is known to be right.", "`rate_limit`";
            "upstream-keepalive-connections": "Idle connections to endpoints that each worker keeps over HTTP/1, and as many over HTTP/2.",
                "The connection that was idle longest is closed.", "`fairway_upstream_connections_idle`";
            "upstream-keepalive-requests": "Requests on one connection to an endpoint.", "The connection is closed.", "";
            "upstream-keepalive-timeout": "How long a connection to an endpoint may be idle.", "The connection is closed.", "";
            "upstream-keepalive-time": "Age of a connection to an endpoint.", "The connection is closed after its request.", "";
        }
        found {}
        fixed {
            /// Tries of a request without a limit in the settings: enough to get past any rollout, but finite if no endpoint works.
            TRIES: u32 = 32, Count, "The client gets the status of the last failure.", "`fairway_upstream_failures_total`";
            /// Clients whose use of `limit-rps` and its kind is remembered, for all Ingresses together.
            CLIENT_ACCOUNTS: usize = 64 * 1792, Count, "Those who are least above their limits are forgotten.", "";
            /// Those of them that are close to a limit, so that their demand is reported to the controller, which deals shares of the limit.
            WATCHED_CLIENTS: usize = 64 * 128, Count, "Further ones have the even share of this proxy.", "";
            /// Limits of clients of which the controller has dealt shares.
            DEALT_SHARES: usize = 8192, Count, "The deal does not count, and no other proxy gets more for it.", "";
            /// Limits in one report to the controller: those with most in progress and the highest demand.
            REPORTED_DEMANDS: usize = 1024, Count, "Further ones keep their share.", "";
            /// The pause between two reports, while a client is close to a limit.
            REPORT_PAUSE: Duration = Duration::from_millis(200), Time, "What changed is in the next report.", "";
            /// Longest password of basic authentication: the time for some hashes grows with its square.
            PASSWORD: usize = 1024, Bytes, "401.", "`unauthenticated`";
            /// Passwords that wait to be checked.
            PASSWORD_QUEUE: usize = 64, Count, "500.", "`authentication`";
            /// Those of one client, or IPv6 network of 64 bits, that wait or are being checked: one that guesses doesn't keep the others out.
            PASSWORD_SHARE: usize = 16, Count, "500.", "`authentication`";
            /// Threads that check passwords.
            PASSWORD_THREADS: usize = 2, Count, "Others wait.", "";
            /// Passwords that a worker remembers as right.
            PASSWORDS_KNOWN: usize = 4096, Count, "All are forgotten, and checked again.", "";
            /// How long a nonce of digest authentication is valid.
            DIGEST_NONCE: Duration = Duration::from_secs(60), Time, "401 with `stale=true`; the client repeats the request by itself.", "`unauthenticated`";
            /// Proofs of digest authentication for the users of one Secret that are remembered, so that none is good twice.
            DIGEST_PROOFS_EACH: usize = 16_384, Count, "All nonces for these users become stale; clients repeat their requests by themselves.", "`unauthenticated`";
            /// The same for all users together.
            DIGEST_PROOFS: usize = 65_536, Count, "The same for the users of the Secret with most of them.", "`unauthenticated`";
            /// Answers of authentication services that a worker keeps (`auth-cache-key`).
            AUTH_ANSWERS: usize = 16_384, Count, "Those that are out of date are forgotten, then all, and the services are asked again.", "";
            /// Memory for these.
            AUTH_ANSWERS_BYTES: usize = 8 << 20, Bytes, "The same.", "";
            /// Endpoints of an authentication service that are tried for one request, each only if connecting to the one before failed.
            AUTH_TRIES: u32 = 3, Count, "500.", "`authentication`";
            /// Bytes of the message with which an authentication service answers that speaks gRPC.
            AUTH_MESSAGE: usize = 64 << 10, Bytes, "500.", "`authentication`";
            /// Copies of requests that a worker has under way (`mirror-target`).
            MIRRORS: usize = 128, Count, "A request is not copied.", "`fairway_mirror_dropped_total`";
            /// Bytes of the bodies of these.
            MIRRORED_BYTES: usize = 16 << 20, Bytes, "A request is not copied.", "`fairway_mirror_dropped_total`";
            /// Copies that a worker has under way to one Service.
            MIRRORS_EACH: usize = 32, Count, "A request is not copied.", "`fairway_mirror_dropped_total`";
            /// Bytes of the bodies of these.
            MIRRORED_BYTES_EACH: usize = 8 << 20, Bytes, "A request is not copied.", "`fairway_mirror_dropped_total`";
            /// Time for a copy and its answer.
            MIRROR_TIME: Duration = Duration::from_secs(30), Time, "The connection is closed.", "`fairway_mirror_failures_total`";
            /// Largest body of a response that is dropped: the answer of an authentication service or to a copy, an error that is replaced. Also the largest of a denial by `ExternalAuth`; a longer one is left out.
            DISCARDED_BODY: u64 = 64 << 10, Bytes, "The connection to the endpoint is closed.", "";
            /// Time for the rest of that body.
            DISCARDED_BODY_WAIT: Duration = Duration::from_millis(100), Time, "The connection to the endpoint is closed.", "";
            /// Largest head of a response, and largest line in it. ingress-nginx refuses a response whose head exceeds
            /// `proxy-buffer-size`; a larger limit does no harm.
            RESPONSE_HEAD: usize = 128 << 10, Bytes, "502.", "`bad_response`";
            /// Fields of a response.
            RESPONSE_FIELDS: usize = 1024, Count, "502.", "`bad_response`";
            /// Interim responses forwarded for one request. More than a few are a flood, not hints.
            INTERIM_RESPONSES: u32 = 32, Count, "502.", "`bad_response`";
            /// Streams of one HTTP/2 connection to an endpoint, if the endpoint admits as many. Further requests get another
            /// connection.
            HTTP2_ENDPOINT_STREAMS: u32 = 100, Count, "Another connection is made.", "";
            /// Window of a stream from an endpoint over HTTP/2: what is held of a response whose client does not read.
            HTTP2_ENDPOINT_STREAM_WINDOW: u32 = 64 << 10, Bytes, "The endpoint has to wait.", "";
            /// Window of a connection to an endpoint over HTTP/2: enough for all of its streams, so that none waits for another.
            HTTP2_ENDPOINT_CONNECTION_WINDOW: u32 = 100 * (64 << 10), Bytes, "The endpoint has to wait.", "";
            /// Fields of a response over HTTP/2 without compression, and 32 bytes for each, whatever `proxy-buffer-size` allows.
            HTTP2_ENDPOINT_HEAD: u32 = 512 << 10, Bytes, "502.", "`bad_response`";
            /// An endpoint that sends nothing over HTTP/2 while requests wait is asked again whether it is still there. Servers of
            /// gRPC take more frequent PINGs for an attack.
            HTTP2_PING_AGAIN: Duration = Duration::from_secs(320), Time, "It gets a PING.", "";
            /// How often a request that waits for a connection checks that the endpoint still exists.
            CONNECT_LOOK: Duration = Duration::from_millis(200), Time, "Another endpoint is tried.", "`endpoint_gone`";
            /// Failures in a row, over all routes and workers, after which an endpoint is passed over while the Service has another.
            /// Fewer would also catch endpoints that fail now and then.
            EJECTION_FAILURES: u32 = 3, Count, "Other endpoints get its new requests.", "`fairway_upstream_ejections_total`";
            /// How long it is passed over at first: the time in which a container restarts. Then one request tries it, and each failure
            /// of such a try doubles the time.
            EJECTION_FIRST: Duration = Duration::from_secs(1), Time, "One request of each worker tries it.", "";
            /// The longest time that it is passed over.
            EJECTION_LONGEST: Duration = Duration::from_secs(30), Time, "One request of each worker tries it.", "";
            /// Health checks under way at a time (`fairway.dev/health-check`).
            HEALTH_CHECKS: usize = 64, Count, "Further ones wait.", "`fairway_health_checks_total`";
            /// Health checks of the endpoints of one namespace under way at a time: others are checked whatever those do.
            HEALTH_CHECKS_OF_ONE: usize = 16, Count, "Further ones wait.", "`fairway_health_checks_total`";
            /// Time for the answer to a health check, whatever `fairway.dev/health-check-timeout` says.
            HEALTH_TIMEOUT: Duration = Duration::from_secs(60), Time, "The check has failed.", "`fairway_health_check_failures_total`";
            /// Endpoints whose health is checked.
            HEALTH_CHECKED: usize = 16_384, Count, "Further ones count as healthy.", "`fairway_health_checked_endpoints`";
            /// The longest that the first check of a new endpoint waits: a rollout is not a burst of checks.
            HEALTH_FIRST: Duration = Duration::from_secs(1), Time, "It is checked.", "";
            /// Largest head of an answer to a health check.
            HEALTH_HEAD: usize = 16 << 10, Bytes, "The answer is bad.", "`fairway_health_check_failures_total`";
            /// Time over which requests and retries are compared for `retry-budget`: such a period and the one before it.
            RETRY_PERIOD: Duration = Duration::from_secs(10), Time, "They no longer count.", "";
            /// Retries to a backend within that time that each worker allows for any number of requests, so that backends with few
            /// requests have retries as well.
            RETRY_RESERVE: u64 = 20, Count, "See `retry-budget`.", "";
            /// Points per endpoint on the ring of consistent hashing: weights are shares, which need no finer resolution.
            RING_POINTS: u32 = 16_000, Count, "Larger weights count as this much.", "";
            /// Keys tried for a new session until one maps to a usable endpoint.
            SESSION_KEYS: u32 = 64, Count, "The session starts without affinity.", "";
        }
    }
    "Responses to clients" {
        settings {}
        found {}
        fixed {
            /// Longest gap between two writes to a client (nginx `send_timeout`, for which ingress-nginx has no key).
            CLIENT_SEND_TIMEOUT: Duration = Duration::from_secs(60), Time, "The connection is closed.", "`client_stalled`";
            /// A client that reads nothing for so long keeps only what waits for it: buffers shrink to their content.
            CLIENT_SLOW: Duration = Duration::from_secs(1), Time, "", "";
            /// How often a waiting client is checked when reads can't show that it is gone.
            CLIENT_LOOK: Duration = Duration::from_secs(1), Time, "A client that is gone ends its request.", "`client_gone`";
            /// How often a silent client is probed. A kernel forgets a connection a minute after its program has closed it (Linux,
            /// `tcp_fin_timeout`), and answers probes with a reset from then on.
            CLIENT_PROBE: Duration = Duration::from_secs(10), Time, "A client that is gone ends its request.", "`client_gone`";
        }
    }
    "Memory of a worker" {
        settings {}
        found {}
        fixed {
            /// Initial size of each receive buffer: one read takes a head and 16 KiB of body.
            BUFFER: usize = 32 << 10, Bytes, "The buffer grows for a large head, or is replaced by a large one.", "";
            /// Size of the buffers for large bodies of requests, which are kept while they may have to be sent again, and of responses to
            /// clients that keep up: large enough for few system calls, small enough for a second-level cache.
            LARGE_BUFFER: usize = 256 << 10, Bytes, "The sender has to wait.", "";
            /// Size of the buffers for large bodies of responses to other clients: what one that reads nothing holds.
            RESPONSE_BUFFER: usize = 64 << 10, Bytes, "The endpoint has to wait.", "";
            /// What a client has to take without being waited for until it gets the larger ones: more than the kernel takes for one that
            /// does not read (`net.ipv4.tcp_wmem`).
            CLIENT_TRUSTED: u32 = 4 << 20, Bytes, "", "";
            /// Sets of buffers kept for later requests.
            KEPT_SETS: usize = 1024, Count, "Further ones are freed.", "";
            /// Large buffers of each size kept for later use.
            KEPT_LARGE: usize = 32, Count, "Further ones are freed.", "";
            /// Memory for records of TLS, lent to a connection as long as a part of a record has come, or one waits to be sent.
            TLS_RECORDS: usize = 20 << 10, Bytes, "The rest is read, or sent, afterwards.", "";
            /// The same for several records at a time of a large body.
            TLS_LARGE_RECORDS: usize = 66 << 10, Bytes, "The rest is sent afterwards.", "";
            /// The same for handshake messages that have not come whole, such as long chains of client certificates.
            TLS_HANDSHAKE: usize = 64 << 10, Bytes, "The connection is closed.", "";
            /// Responses that are compressed at a time. Each costs 0.3 MiB with gzip and some 2 MiB with Brotli.
            COMPRESSED: usize = 64, Count, "Further ones are sent as they are.", "";
            /// Encoders for gzip that are kept for later.
            KEPT_ENCODERS: usize = 8, Count, "Further ones are freed.", "";
            /// Size of an output buffer that is kept for later use.
            KEPT_OUTPUT: usize = 64 << 10, Bytes, "A larger one is freed.", "";
        }
    }
    "TCP and UDP services" {
        settings {
            "proxy-stream-timeout": "Longest silence of both sides.", "The connection or session ends.", "";
            "proxy-stream-next-upstream-tries": "Endpoints tried for a connection; 0 for all.",
                "The connection is closed.", "`fairway_stream_failures_total`";
            "proxy-stream-next-upstream-timeout": "Time in which another endpoint may be tried.",
                "The connection is closed.", "`fairway_stream_failures_total`";
            "proxy-stream-responses": "Datagrams expected in response to one from a client.", "The session ends.", "";
        }
        found {
            "4/16 of the open files (`ulimit -n`)": "Sessions of UDP services, in all workers together; also at most as many as client \
                connections.", "The session that was silent longest ends.", "`fairway_stream_sessions_active`";
        }
        fixed {
            /// Time for the PROXY header (nginx `proxy_protocol_timeout`).
            PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(30), Time, "The connection is closed.", "`fairway_stream_failures_total`";
            /// Longest PROXY header. The addresses need 108 bytes; the rest is for the extensions of version 2, which are skipped.
            PROXY_HEADER: usize = 4096, Bytes, "The connection is closed.",
                "`fairway_stream_failures_total`; for HTTP `fairway_proxy_headers_failed_total`";
            /// Longest PROXY header of version 1 (section 2.1 of its specification).
            PROXY_HEADER_V1: usize = 107, Bytes, "The connection is closed.",
                "`fairway_stream_failures_total`; for HTTP `fairway_proxy_headers_failed_total`";
            /// Longest silence of a UDP endpoint while the process drains. Resolvers wait as long for a response (`timeout`
            /// in resolv.conf(5)).
            SILENCE_WHILE_DRAINING: Duration = Duration::from_secs(5), Time, "The session ends.", "";
        }
    }
    "DNS names of backends" {
        settings {}
        found {}
        fixed {
            /// Shortest time between two queries for a name, whatever its TTL (ingress-nginx queries once a second).
            RESOLVE_SHORTEST: Duration = Duration::from_secs(1), Time, "", "`fairway_resolver_queries_total`";
            /// Longest time between two queries, so that a mistaken TTL of a week does not outlive its correction.
            RESOLVE_LONGEST: Duration = Duration::from_secs(600), Time, "The name is queried again.", "`fairway_resolver_queries_total`";
            /// Longest pause after failures, each of which doubles it.
            RESOLVE_LONGEST_PAUSE: Duration = Duration::from_secs(30), Time, "The name is queried again.",
                "`fairway_resolver_failures_total`";
            /// Concurrent queries.
            RESOLVE_AT_ONCE: usize = 32, Count, "Further names wait.", "";
            /// Addresses used per name.
            RESOLVE_ADDRESSES: usize = 256, Count, "The rest are ignored.", "";
        }
    }
    "Geographic databases" {
        settings {}
        found {}
        fixed {
            /// Size of the file of a geographic database, which is kept in memory.
            GEO_FILE: u64 = 512 << 20, Bytes, "Its variables are empty.", "";
            /// Pause between two looks at the settings of a proxy without such databases.
            GEO_SETTINGS: Duration = Duration::from_secs(10), Time, "Files are followed from then on.", "";
            /// Shortest pause between two looks for new files.
            GEO_PAUSE: Duration = Duration::from_millis(20), Time, "The files are looked for later.", "";
        }
    }
    "Access log and spans" {
        settings {
            "otel-max-queuesize": "Spans that wait to be sent, of all workers together.", "Spans are dropped.", "`fairway_spans_dropped_total`";
        }
        found {}
        fixed {
            /// Size of a worker's lines at which it hands them over.
            LOG_FULL: usize = 32 << 10, Bytes, "The lines are written.", "";
            /// Age of a worker's oldest line at which it hands its lines over.
            LOG_OLD: Duration = Duration::from_millis(100), Time, "The lines are written.", "";
            /// Buffers of one worker waiting to be written.
            LOG_BUFFERS: usize = 4, Count, "The worker's own buffer grows.", "";
            /// Largest buffer of a worker while all its others wait.
            LOG_LARGEST: usize = 256 << 10, Bytes, "Lines are dropped.", "`fairway_access_log_dropped_lines_total`";
            /// Buffers of all workers waiting to be written.
            LOG_QUEUE: usize = 1024, Count, "The workers' own buffers grow.", "";
            /// Spans that wait to be sent, whatever `otel-max-queuesize` says.
            SPAN_QUEUE: usize = 65_536, Count, "Spans are dropped.", "`fairway_spans_dropped_total`";
            /// Spans that wait to be sent, of all workers together.
            SPAN_BYTES: usize = 16 << 20, Bytes, "Spans are dropped.", "`fairway_spans_dropped_total`";
            /// Receivers of spans with something to send at a time, of policies and of the settings.
            SPAN_RECEIVERS: usize = 64, Count, "Spans are dropped.", "`fairway_spans_dropped_total`";
            /// Longest name of a span.
            SPAN_NAME: usize = 256, Bytes, "The name is cut.", "";
            /// Spans in one message, whatever `otel-max-export-batch-size` says.
            SPAN_BATCH: usize = 8_192, Count, "There are more messages.", "";
            /// Spans in one message: collectors take 4 MiB.
            SPAN_MESSAGE: usize = 3 << 20, Bytes, "There are more messages.", "";
            /// Fields of a head that a collector sends over HTTP/2.
            SPAN_HEAD: u32 = 16 << 10, Bytes, "The spans count as dropped.", "`fairway_spans_dropped_total`";
            /// The file with the authorities of a collector.
            SPAN_AUTHORITIES: u64 = 4 << 20, Bytes, "The spans are dropped.", "`fairway_spans_dropped_total`";
            /// Time to send a message of spans and to get its answer.
            SPAN_TIME: Duration = Duration::from_secs(10), Time, "The spans are dropped.", "`fairway_spans_dropped_total`";
            /// Bytes that are read of the answer to a message of spans.
            SPAN_ANSWER: u64 = 64 << 10, Bytes, "The spans count as dropped.", "`fairway_spans_dropped_total`";
            /// Longest datagram to a syslog server: what fits into one of UDP over IPv4.
            SYSLOG_DATAGRAM: usize = 65_507, Bytes, "The line is cut.", "";
            /// Time for a datagram to a syslog server to leave.
            SYSLOG_WAIT: Duration = Duration::from_millis(100), Time, "The line is dropped.",
                "`fairway_access_log_dropped_lines_total`";
            /// How long the address of a syslog server is used before its name is looked up again.
            SYSLOG_RESOLVE: Duration = Duration::from_secs(60), Time, "The name is looked up.", "";
            /// Pause after a failed lookup of a syslog server.
            SYSLOG_RETRY: Duration = Duration::from_secs(5), Time, "The name is looked up again.", "";
        }
    }
    "Metrics and administration" {
        settings {
            "--health-check-timeout": "Time for all workers to answer a probe or a scrape; 0 means 10 s.", "500 for `/healthz`, else 503.", "";
        }
        found {}
        fixed {
            /// Routes with metrics of their own in one worker, a hundred times as many as large installations have.
            METRIC_ROUTES: u32 = 200_000, Count, "Requests of further routes count under empty labels.", "";
            /// Pairs of method and status per route.
            METRIC_PAIRS: usize = 64, Count, "Further ones count by status class and as method `OTHER`.", "";
            /// Hosts that the configuration does not name, with `--metrics-per-undefined-host`; worker threads share them evenly.
            UNDEFINED_HOSTS: usize = 10_000, Count, "The least recently seen hosts count as the host `_`.", "";
            /// Upper bounds of a histogram (`--time-buckets`, `--length-buckets`, `--size-buckets`).
            METRIC_BUCKETS: usize = 100, Count, "The flag is refused at start.", "";
            /// Native buckets of a histogram, whatever `--max-buckets` sets.
            NATIVE_BUCKETS: usize = 500, Count, "The flag counts as this much.", "";
            /// Time for all workers to answer, unless the flag sets another.
            ADMIN_PATIENCE: Duration = Duration::from_secs(10), Time, "500 for `/healthz`, else 503.", "";
            /// Connections to the admin port.
            ADMIN_CONNECTIONS: usize = 64, Count, "The connection that was idle longest is closed.", "";
            /// Concurrent scrapes: a pair of Prometheus servers, and two more. Each keeps a copy of all numbers.
            SCRAPES: usize = 4, Count, "Further ones wait as long as probes may take, then get 503.", "";
            /// Size of a request head.
            ADMIN_HEAD: usize = 8 << 10, Bytes, "431.", "";
            /// Time for the head of the first request.
            ADMIN_HEAD_TIMEOUT: Duration = Duration::from_secs(5), Time, "The connection is closed.", "";
            /// Time for another request: scrapers keep their connections for the next scrape.
            ADMIN_IDLE: Duration = Duration::from_secs(60), Time, "The connection is closed.", "";
            /// Time for the client to read a response, however slowly.
            ADMIN_SEND_TIMEOUT: Duration = Duration::from_secs(30), Time, "The connection is closed.", "";
        }
    }
    "Shutdown" {
        settings {
            "worker-shutdown-timeout": "Time for requests and connections to end once no new ones are accepted.",
                "The rest are cut.", "`shutdown`";
            "--shutdown-grace-period": "Seconds after SIGTERM during which new connections are accepted.",
                "Listeners close.", "";
        }
        found {}
        fixed {
            /// How long a connection that has sent nothing may wait while the process drains: its first request may be on the way.
            FIRST_REQUEST_WHILE_DRAINING: Duration = Duration::from_secs(1), Time, "The connection is closed.", "";
            /// Time to log the requests that are cut. Each needs one turn of the event loop.
            LAST_LINES: Duration = Duration::from_millis(500), Time, "The process ends.", "";
            /// Time to write the last lines.
            LAST_WRITE: Duration = Duration::from_secs(1), Time, "The process ends.", "";
        }
    }
    "Patterns of paths" {
        settings {}
        found {}
        fixed {
            /// Longest pattern of a path with `use-regex`; Kubernetes itself has no limit.
            PATH_PATTERN: usize = PathRegex::LENGTH_LIMIT, Bytes, "The path answers 503, and a finding says so.", "";
            /// Compiled size of such a pattern. Realistic patterns need a hundredth of it.
            PATH_PATTERN_COMPILED: usize = PathRegex::SIZE_LIMIT, Bytes, "The path answers 503, and a finding says so.", "";
        }
    }
}

#[cfg(test)]
mod tests;
