//! The directives that are read, the contexts in which nginx allows them, and those that have no effect here.

/// Where a directive stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Context {
    Main = 1,
    Http = 2,
    Server = 4,
    Location = 8,
    /// `if` of a server.
    ServerIf = 16,
    /// `if` of a location.
    LocationIf = 32,
    LimitExcept = 64,
    /// The location that calls an authentication service.
    Auth = 128,
}

impl Context {
    /// The context of an annotation or key, by its name.
    pub(in crate::ingress::snippet) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "configuration-snippet" | "location-snippet" => Self::Location,
            "server-snippet" => Self::Server,
            "http-snippet" => Self::Http,
            "main-snippet" => Self::Main,
            "auth-snippet" | "global-auth-snippet" => Self::Auth,
            _ => return None,
        })
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Main => "the top level",
            Self::Http => "`http`",
            Self::Server => "`server`",
            Self::Location => "`location`",
            Self::ServerIf => "`if` in `server`",
            Self::LocationIf => "`if` in `location`",
            Self::LimitExcept => "`limit_except`",
            Self::Auth => "the authentication request",
        }
    }
}

const H: u8 = Context::Http as u8;
const S: u8 = Context::Server as u8;
const L: u8 = Context::Location as u8;
const SI: u8 = Context::ServerIf as u8;
const LI: u8 = Context::LocationIf as u8;
const LE: u8 = Context::LimitExcept as u8;
const A: u8 = Context::Auth as u8;

/// Directives that are read: their contexts in nginx, and the fewest and most arguments.
pub(super) const DIRECTIVES: &[(&str, u8, usize, usize)] = &[
    ("access_log", H | S | L | LI, 1, 1),
    ("add_header", H | S | L | LI, 2, 3),
    ("allow", H | S | L | LE, 1, 1),
    ("auth_request_set", H | S | L, 2, 2),
    ("break", S | L | SI | LI, 0, 0),
    ("client_max_body_size", H | S | L, 1, 1),
    ("default_type", H | S | L, 1, 1),
    ("deny", H | S | L | LE, 1, 1),
    ("expires", H | S | L | LI, 1, 1),
    ("geo", H, 1, 2),
    ("gzip", H | S | L | LI, 1, 1),
    ("if", S | L, 1, 16),
    ("limit_except", L, 1, 16),
    ("location", S, 1, 2),
    ("map", H, 2, 2),
    ("more_clear_headers", H | S | L | LI, 1, 64),
    ("more_clear_input_headers", H | S | L | LI, 1, 64),
    ("more_set_headers", H | S | L | LI, 1, 64),
    ("more_set_input_headers", H | S | L | LI, 1, 64),
    ("proxy_connect_timeout", H | S | L, 1, 1),
    ("proxy_cookie_flags", H | S | L, 1, 4),
    ("proxy_hide_header", H | S | L, 1, 1),
    ("proxy_pass_header", H | S | L, 1, 1),
    ("proxy_read_timeout", H | S | L, 1, 1),
    ("proxy_send_timeout", H | S | L, 1, 1),
    ("proxy_set_header", H | S | L | A, 2, 2),
    ("proxy_ssl_name", H | S | L, 1, 1),
    ("proxy_ssl_server_name", H | S | L, 1, 1),
    ("real_ip_header", H | S | L, 1, 1),
    ("return", S | L | SI | LI, 1, 2),
    ("rewrite", S | L | SI | LI, 2, 3),
    ("satisfy", H | S | L, 1, 1),
    ("set", S | L | SI | LI, 2, 2),
    ("sub_filter", H | S | L, 2, 2),
    ("sub_filter_last_modified", H | S | L, 1, 1),
    ("sub_filter_once", H | S | L, 1, 1),
    ("sub_filter_types", H | S | L, 1, 64),
];

/// Directives without an effect here, and why.
pub(super) const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("chunked_transfer_encoding", "the framing of a body is decided by the message and the client's version"),
    ("client_body_buffer_size", "bodies are streamed"),
    ("client_body_in_file_only", "bodies are streamed"),
    ("etag", "it concerns files, and there are none"),
    ("limit_conn_zone", "it does nothing without limit_conn"),
    ("limit_req_zone", "it does nothing without limit_req"),
    ("log_format", "it does nothing without an access_log that names it"),
    ("log_not_found", "it concerns files, and there are none"),
    ("log_subrequest", "there are no subrequests"),
    ("map_hash_bucket_size", "there are no such tables"),
    ("map_hash_max_size", "there are no such tables"),
    ("msie_padding", "no browser needs it"),
    ("pcre_jit", "regexes are compiled anyway"),
    ("port_in_redirect", "redirects name no port, as in ingress-nginx"),
    ("proxy_buffer_size", "use the annotation proxy-buffer-size for larger heads"),
    ("proxy_buffering", "bodies are streamed, and never written to a disk"),
    ("proxy_buffers", "bodies are streamed"),
    ("proxy_busy_buffers_size", "bodies are streamed"),
    ("proxy_cache_path", "it does nothing without proxy_cache"),
    ("proxy_headers_hash_bucket_size", "there are no such tables"),
    ("proxy_headers_hash_max_size", "there are no such tables"),
    ("proxy_ignore_headers", "no field of a backend commands the proxy"),
    ("proxy_max_temp_file_size", "there are no temporary files"),
    ("proxy_request_buffering", "use the annotation proxy-request-buffering"),
    ("proxy_socket_keepalive", "connections to backends are checked when they are used"),
    ("reset_timedout_connection", "connections that time out are closed"),
    ("rewrite_log", "explain tells what happens to a request"),
    ("sendfile", "there are no files"),
    ("server_names_hash_bucket_size", "there are no such tables"),
    ("server_names_hash_max_size", "there are no such tables"),
    ("server_tokens", "no field of the proxy names its version"),
    ("tcp_nodelay", "it is always on"),
    ("tcp_nopush", "it concerns files, and there are none"),
    ("thread_pool", "there are no such threads"),
    ("types_hash_max_size", "there are no such tables"),
    ("uninitialized_variable_warn", "a variable without a value is a finding"),
    ("variables_hash_bucket_size", "there are no such tables"),
    ("variables_hash_max_size", "there are no such tables"),
    ("worker_cpu_affinity", "the scheduler decides"),
    ("worker_priority", "use the resources of the pod"),
    ("worker_rlimit_nofile", "the limit of the container holds"),
];
