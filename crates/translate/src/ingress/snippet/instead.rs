//! What to use instead of directives that are not read.

/// Directives by name or by the start of their names, and what to use instead.
const INSTEAD: &[(&str, &str)] = &[
    ("proxy_pass", "a path of an Ingress with a Service, or a Service of type ExternalName"),
    ("proxy_redirect", "the annotations proxy-redirect-from and proxy-redirect-to"),
    ("proxy_cookie_path", "the annotation proxy-cookie-path"),
    ("proxy_cookie_domain", "the annotation proxy-cookie-domain"),
    ("proxy_intercept_errors", "the annotation custom-http-errors"),
    ("proxy_next_upstream", "the annotation proxy-next-upstream"),
    ("proxy_http_version", "nothing: HTTP/1.1 is spoken to backends"),
    ("proxy_cache", "a cache behind the proxy, such as Varnish"),
    ("proxy_ssl_", "the annotations proxy-ssl-*"),
    ("error_page", "the annotation custom-http-errors"),
    ("auth_basic", "the annotations auth-type and auth-secret"),
    ("auth_request", "the annotation auth-url"),
    ("auth_jwt", "the annotation auth-url with a service that checks tokens"),
    ("limit_req", "the annotations limit-rps and limit-rpm"),
    ("limit_conn", "the annotation limit-connections"),
    ("limit_rate", "the annotation limit-rate"),
    ("mirror", "the annotation mirror-target"),
    ("try_files", "a Service that serves the files"),
    ("root", "a Service that serves the files"),
    ("alias", "a Service that serves the files"),
    ("index", "a Service that serves the files"),
    ("autoindex", "a Service that serves the files"),
    ("include", "the text of the file itself"),
    ("upstream", "a Service with its endpoints"),
    ("server", "a rule of an Ingress with this host"),
    ("server_name", "the annotation server-alias"),
    ("listen", "the flags --http-port and --https-port"),
    ("ssl_", "spec.tls of the Ingress, and the keys ssl-* of the ConfigMap"),
    ("real_ip_recursive", "the keys use-forwarded-headers and proxy-real-ip-cidr of the ConfigMap"),
    ("set_real_ip_from", "the key proxy-real-ip-cidr of the ConfigMap"),
    ("log_format", "the key log-format-upstream of the ConfigMap"),
    ("error_log", "the log of the proxy, which goes to its standard error"),
    ("access_by_lua", "the annotation auth-url with a service that decides"),
    ("lua_", "a service of your own: no program runs in the proxy"),
    ("content_by_lua", "a Service that answers"),
    ("modsecurity", "a web application firewall in front of, or behind, this proxy"),
    ("gzip_", "the keys gzip-* of the ConfigMap"),
    ("brotli", "the keys enable-brotli and brotli-* of the ConfigMap"),
    ("split_clients", "the annotations canary and canary-weight"),
    ("stub_status", "/metrics of the admin port"),
    ("fastcgi_", "a web server in front of the backend"),
    ("uwsgi_", "a web server in front of the backend"),
    ("grpc_", "the annotation backend-protocol with GRPC"),
    ("client_body_buffer_size", "nothing: bodies are streamed"),
    ("keepalive_timeout", "the key keep-alive of the ConfigMap"),
    ("large_client_header_buffers", "the key large-client-header-buffers of the ConfigMap"),
];

/// Why a directive is not read, and what to use instead.
pub(super) fn instead(name: &str) -> Option<String> {
    without_lua(name).or_else(|| {
        let instead = found(name)?;
        Some(match instead.strip_prefix("nothing: ") {
            Some(why) => format!("it is not read and not needed ({why}); remove it"),
            None => format!("it is not read; use {instead}"),
        })
    })
}

/// The same for a directive of nginx's Lua module.
pub(super) fn without_lua(name: &str) -> Option<String> {
    let is_lua = name.starts_with("lua_") || name.contains("_by_lua");
    let instead = || found(name).unwrap_or("a service of your own: no program runs in the proxy");
    is_lua.then(|| format!("Lua is not supported; use {}", instead()))
}

fn found(name: &str) -> Option<&'static str> {
    let exact = INSTEAD.iter().find(|(own, _)| *own == name);
    let start = || INSTEAD.iter().filter(|(own, _)| name.starts_with(own)).max_by_key(|(own, _)| own.len());
    let found = exact.or_else(|| start().filter(|(own, _)| own.ends_with('_') || own.len() > 6));
    found.map(|(_, instead)| *instead)
}
