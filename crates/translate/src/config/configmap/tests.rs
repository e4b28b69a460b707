use std::net::IpAddr;

use super::*;
use crate::value::UriPattern;

fn origin() -> Origin {
    Origin::new("ConfigMap", "ingress-nginx", "controller")
}

fn read(data: &[(&str, &str)]) -> (GlobalConfig, Vec<Diagnostic>) {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let mut diagnostics = Vec::new();
    (GlobalConfig::read(&origin(), &data, &mut diagnostics), diagnostics)
}

#[test]
fn empty_config_map_is_the_default() {
    let (config, diagnostics) = read(&[]);
    assert_eq!(config, GlobalConfig::default());
    assert!(diagnostics.is_empty());
    assert_eq!(config.strict_transport_security().as_deref(), Some("max-age=31536000; includeSubDomains"));
    assert_eq!(config.annotation_rules(false), Rules::default());
}

#[test]
fn each_default_written_out_is_the_default() {
    for spec in specs().filter(|spec| !spec.default.is_empty()) {
        let (config, diagnostics) = read(&[(spec.name, spec.default)]);
        assert_eq!(config, GlobalConfig::default(), "{}", spec.name);
        let silent = diagnostics.iter().all(|found| found.severity == Severity::Info);
        assert!(silent, "{diagnostics:?}");
    }
}

/// As mapstructure reads it into Go's types with `WeaklyTypedInput`.
#[test]
fn an_empty_switch_is_off_and_an_empty_number_is_0() {
    let (config, diagnostics) = read(&[("ssl-redirect", ""), ("hsts", ""), ("keep-alive-requests", "")]);
    let (written, _) = read(&[("ssl-redirect", "false"), ("hsts", "false"), ("keep-alive-requests", "0")]);
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    assert_eq!(config, written);
    assert_ne!(config, GlobalConfig::default());
    // A value that is neither a switch nor a number has no zero.
    let (config, diagnostics) = read(&[("http-redirect-code", "")]);
    assert_eq!((config, diagnostics.len()), (GlobalConfig::default(), 1));
}

#[test]
fn values_reach_their_fields() {
    let (config, diagnostics) = read(&[
        ("hsts", "false"),
        ("proxy-body-size", "8m"),
        ("hide-headers", "X-Powered-By, Server"),
        ("add-headers", "ingress-nginx/headers"),
        ("whitelist-source-range", "10.0.0.0/8 , 192.0.2.1"),
        ("skip-access-log-urls", "/healthz,~^/static/"),
        ("worker-shutdown-timeout", "1h"),
        ("no-tls-redirect-locations", ""),
        ("large-client-header-buffers", "8 16k"),
    ]);
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    assert_eq!(config.strict_transport_security(), None);
    assert_eq!(config.proxy_body_size, Size(8 << 20));
    assert_eq!(config.hide_headers.names.len(), 2);
    assert_eq!(config.add_headers.map(|name| name.to_string()).as_deref(), Some("ingress-nginx/headers"));
    assert!(matches!(config.allow, AccessList::Networks(set) if set.networks().len() == 2));
    assert_eq!(
        config.skip_access_log_urls.0,
        [UriPattern::Exact("/healthz".into()), UriPattern::Regex { pattern: "^/static/".into(), ignore_case: false }]
    );
    assert_eq!(config.worker_shutdown_timeout.0.as_secs(), 3600);
    assert!(config.no_tls_redirect_locations.0.is_empty());
    assert_eq!(config.large_client_header_buffers, HeaderBuffers { number: 8, size: Size(16 << 10) });
}

#[test]
fn bad_value_keeps_the_default_of_its_key_only() {
    let (config, diagnostics) = read(&[("proxy-read-timeout", "5s"), ("proxy-send-timeout", "5"), ("hsts", "yes")]);
    assert_eq!(config.proxy_read_timeout, Seconds(60));
    assert_eq!(config.proxy_send_timeout, Seconds(5));
    assert!(config.hsts);
    let messages: Vec<_> = diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(
        messages,
        [
            "ConfigMap ingress-nginx/controller: data[\"hsts\"]: value \"yes\": expected `true` or `false` (also 1 t T TRUE True, \
             0 f F FALSE False); the default \"true\" holds",
            "ConfigMap ingress-nginx/controller: data[\"proxy-read-timeout\"]: value \"5s\": expected whole seconds without a unit, \
             such as `60`; the default \"60\" holds",
        ]
    );
}

#[test]
fn one_bad_entry_of_a_list_does_not_undo_the_others() {
    let (config, diagnostics) =
        read(&[("hide-headers", "X-Powered-By, X Bad, Server"), ("bind-address", "10.0.0.1,10.0.0.2.3,[::1]")]);
    let names: Vec<_> = config.hide_headers.names.iter().map(|name| name.as_str()).collect();
    assert_eq!(names, ["X-Powered-By", "Server"]);
    assert_eq!(config.bind_address.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
    let bad: Vec<_> = diagnostics.iter().map(|found| (found.field.as_str(), found.value.as_str())).collect();
    assert_eq!(bad, [("data[\"bind-address\"]", "10.0.0.2.3"), ("data[\"hide-headers\"]", "X Bad")]);
    let (config, diagnostics) = read(&[("bind-address", "localhost")]);
    assert!(config.bind_address.addresses.is_empty());
    assert!(diagnostics[0].message.ends_with("the default \"\" holds"));
}

#[test]
fn what_restricts_fails_closed() {
    let (config, diagnostics) = read(&[
        ("whitelist-source-range", "10.0.0.0/33"),
        ("denylist-source-range", "all"),
        ("block-cidrs", ","),
        ("proxy-real-ip-cidr", "10.0.0.0/8;"),
        ("annotations-risk-level", "medium"),
    ]);
    assert_eq!(diagnostics.len(), 5);
    assert_eq!(config.allow, AccessList::Unreadable);
    assert_eq!(config.deny, AccessList::Unreadable);
    assert_eq!(config.block, AccessList::Unreadable);
    assert!(config.proxy_real_ip_cidr.is_empty());
    assert_eq!(config.annotations_risk_level, RiskLevel::Low);
}

#[test]
fn unknown_keys_are_reported_with_the_nearest_one_and_not_without_end() {
    let (config, diagnostics) = read(&[("proxy-body-sise", "8m")]);
    assert_eq!(config, GlobalConfig::default());
    assert_eq!(diagnostics[0].message, "no key of this name exists; did you mean proxy-body-size?");
    let many: Vec<String> = (0..1000).map(|n| format!("key-{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|key| (key.as_str(), "x")).collect();
    assert_eq!(read(&many).1.len(), limit::UNKNOWN_NAMES + 1);
}

#[test]
fn verdicts_become_diagnostics() {
    let reasons =
        |data: &[(&str, &str)]| read(data).1.iter().map(|found| (found.severity, found.reason)).collect::<Vec<_>>();
    assert_eq!(reasons(&[("main-snippet", "x")]), [(Severity::Error, Reason::RefusedConfiguration)]);
    assert_eq!(reasons(&[("enable-syslog", "true")]), []);
    assert_eq!(reasons(&[("reuse-port", "true")]), [(Severity::Info, Reason::IneffectiveConfiguration)]);
}

#[test]
fn verdicts_follow_the_values() {
    for (key, value, label) in [
        ("ssl-protocols", "TLSv1.3 TLSv1.2", "same"),
        ("ssl-protocols", "TLSv1.3", "same"),
        ("ssl-protocols", "TLSv1 TLSv1.2", "differs"),
        ("ssl-ecdh-curve", "auto", "same"),
        ("proxy-buffer-size", "16k", "same"),
        ("proxy-buffer-size", "1m", "same"),
        ("proxy-buffer-size", "2m", "differs"),
        ("proxy-request-buffering", "off", "same"),
        ("global-auth-method", "POST", "same"),
        ("global-auth-method", "TRACE", "differs"),
        ("global-auth-request-redirect", "/in", "same"),
        ("global-auth-request-redirect", "$request_uri", "differs"),
        ("max-worker-connections", "16384", "same"),
        ("max-worker-connections", "1024", "differs"),
        ("enable-syslog", "false", "same"),
        ("enable-auth-access-log", "false", "same"),
        ("enable-auth-access-log", "true", "differs"),
        ("custom-http-errors", "", "same"),
        ("custom-http-errors", "404", "differs"),
    ] {
        assert_eq!(spec(key).unwrap().verdict_of(value).label(), label, "{key}: {value}");
    }
}
