use std::time::Duration;

use fairway_model::NetworkSet;
use proptest::prelude::*;

use super::*;

#[test]
fn bool_takes_what_go_takes() {
    for text in ["1", "t", "T", "TRUE", "true", "True"] {
        assert_eq!(bool::parse(text), Some(true), "{text}");
    }
    for text in ["0", "f", "F", "FALSE", "false", "False"] {
        assert_eq!(bool::parse(text), Some(false), "{text}");
    }
    for text in ["", "yes", "on", "tRUE", " true", "true\n"] {
        assert_eq!(bool::parse(text), None, "{text:?}");
    }
}

#[test]
fn seconds_have_no_unit() {
    assert_eq!(Seconds::parse("60"), Some(Seconds(60)));
    for text in ["5s", "-1", "+1", "1.5", "", " 5", "4294967296", "99999999999999999999"] {
        assert_eq!(Seconds::parse(text), None, "{text:?}");
    }
    assert_eq!(SignedSeconds::parse("-172800"), Some(SignedSeconds(-172_800)));
    assert_eq!(SignedSeconds::parse("0"), Some(SignedSeconds(0)));
    for text in ["-0", "-", "007", "--1", "", "5s"] {
        assert_eq!(SignedSeconds::parse(text), None, "{text:?}");
    }
}

#[test]
fn sizes_have_binary_units() {
    assert_eq!(Size::parse("8m"), Some(Size(8 << 20)));
    assert_eq!(Size::parse("16K"), Some(Size(16 << 10)));
    assert_eq!(Size::parse("1g"), Some(Size(1 << 30)));
    assert_eq!(Size::parse("1000"), Some(Size(1000)));
    assert_eq!(Size::parse("0").and_then(Size::limit), None);
    for text in ["", "m", "8mb", "8b", "-1", "8 m", "8m\n", "9223372036854775808", "9999999999g", "é"] {
        assert_eq!(Size::parse(text), None, "{text:?}");
    }
    assert_eq!(HeaderBuffers::parse("4 8k"), Some(HeaderBuffers { number: 4, size: Size(8 << 10) }));
    for text in ["4", "0 8k", "4 0", "8k 4k", ""] {
        assert_eq!(HeaderBuffers::parse(text), None, "{text:?}");
    }
}

#[test]
fn go_durations() {
    let parse = |text| GoDuration::parse(text).map(|parsed| parsed.0);
    assert_eq!(parse("240s"), Some(Duration::from_secs(240)));
    assert_eq!(parse("1h30m"), Some(Duration::from_secs(5400)));
    assert_eq!(parse("1.5s"), Some(Duration::from_millis(1500)));
    assert_eq!(parse(".5ms"), Some(Duration::from_micros(500)));
    assert_eq!(parse("0"), Some(Duration::ZERO));
    for text in ["", "5", "s", "1d", "-1s", "1 s", ".s", "1h ", "999999999h"] {
        assert_eq!(parse(text), None, "{text:?}");
    }
}

#[test]
fn nginx_times() {
    let parse = |text| NginxTime::parse(text).map(|parsed| parsed.0);
    assert_eq!(parse("240s"), Some(Duration::from_secs(240)));
    assert_eq!(parse("60"), Some(Duration::from_secs(60)));
    assert_eq!(parse("1h 30m"), Some(Duration::from_secs(5400)));
    assert_eq!(parse("1m500ms"), Some(Duration::from_millis(60_500)));
    assert_eq!(parse("1d"), Some(Duration::from_secs(86_400)));
    for text in ["", "s", "1x", "1m 1h", "-1", "1.5s", "99999999999999999999y", "9999999999y"] {
        assert_eq!(parse(text), None, "{text:?}");
    }
}

#[test]
fn networks_tolerate_host_bits_and_nothing_else() {
    let parse =
        |text| NetworkSet::parse(text).map(|set| set.networks().iter().map(ToString::to_string).collect::<Vec<_>>());
    let some = |networks: &[&str]| Some(networks.iter().map(|network| (*network).to_owned()).collect::<Vec<_>>());
    assert_eq!(parse("10.1.2.3/8"), some(&["10.0.0.0/8"]));
    assert_eq!(parse("192.0.2.1,\n 2001:db8::1"), some(&["192.0.2.1/32", "2001:db8::1/128"]));
    assert_eq!(parse("::ffff:10.0.0.0/104, ::ffff:192.0.2.1"), some(&["10.0.0.0/8", "192.0.2.1/32"]));
    assert_eq!(parse("::/0"), some(&["::/0"]));
    for text in
        ["", " ", "10.0.0.0/8,", "10.0.0.0/33", "010.0.0.1", "10.0.0", "localhost", "fe80::1%eth0", "10.0.0.0/8;"]
    {
        assert_eq!(parse(text), None, "{text:?}");
    }
}

#[test]
fn texts_keep_to_their_alphabet() {
    assert!(AppRoot::parse("/app").is_some());
    assert!(AppRoot::parse("https://elsewhere/").is_none());
    assert!(AppRoot::parse("/a b").is_none());
    assert!(matches!(RewriteTarget::parse("/$2"), Some(RewriteTarget::Path(_))));
    assert!(matches!(RewriteTarget::parse("https://new.example/$1"), Some(RewriteTarget::Url(_))));
    assert!(matches!(RewriteTarget::parse("$scheme://new"), Some(RewriteTarget::Url(_))));
    for text in ["/a?b", "/a;", "/a\n", "/{a}", "/\u{e9}", " /a"] {
        assert!(RewriteTarget::parse(text).is_none(), "{text:?}");
    }
    assert!(RedirectUrl::parse("https://a.example/x?y=1&z=a,b").is_some());
    assert!(RedirectUrl::parse("https://a.example/$request_uri").is_none());
    assert!(HashKey::parse("$request_uri").is_some());
    assert!(HashKey::parse("${arg_user}-x").is_some());
    assert!(HashKey::parse("$request_uri;").is_none());
    assert!(Vhost::parse("$service_name.shop.svc.cluster.local").is_some());
    assert!(Vhost::parse("a b").is_none());
    assert!(ServiceName::parse("errors-1").is_some());
    for text in ["1errors", "errors-", "Errors", "a.b", "", " a"] {
        assert!(ServiceName::parse(text).is_none(), "{text:?}");
    }
    assert!(HeaderName::parse("X-Real-IP").is_some());
    assert!(HeaderName::parse("X Real").is_none());
    assert!(ObjectRef::parse("shop/headers").is_some());
    for text in ["headers", "a/b/c", "/b", "a/", "A/b", "../b"] {
        assert!(ObjectRef::parse(text).is_none(), "{text:?}");
    }
}

#[test]
fn host_aliases_follow_nginx() {
    let parse = |text| HostAliases::parse(text).map(|aliases| aliases.0);
    assert_eq!(
        parse("A.example, *.b.example,c.*,~^d\\d+$, .e.example"),
        Some(vec![
            HostAlias::Exact("a.example".into()),
            HostAlias::Below("b.example".into()),
            HostAlias::Before("c".into()),
            HostAlias::Regex("^d\\d+$".into()),
            HostAlias::Exact("e.example".into()),
            HostAlias::Below("e.example".into()),
        ])
    );
    for text in ["", " , ", "a b", "a;b", "w*w.example", "a..b", "a/b", "a\nb", "a\"b"] {
        assert_eq!(parse(text), None, "{text:?}");
    }
}

#[test]
fn next_upstream_replaces_and_off_wins() {
    let parse = |text| NextUpstream::parse(text).map(|set| set.iter().collect::<Vec<_>>());
    assert_eq!(parse("error timeout"), Some(vec![RetryCondition::Error, RetryCondition::Timeout]));
    assert_eq!(parse("http_404 "), Some(vec![RetryCondition::Http404]));
    assert_eq!(parse("error off"), Some(vec![RetryCondition::Off]));
    assert_eq!(parse("error timeout"), Some(NextUpstream::DEFAULT.iter().collect()));
    for text in ["", "errors", "error  timeout", "error\ntimeout", "error;", " error"] {
        assert_eq!(parse(text), None, "{text:?}");
    }
}

#[test]
fn words() {
    assert_eq!(BackendProtocol::parse("https"), Some(BackendProtocol::Https));
    assert_eq!(BackendProtocol::parse("AJP"), None);
    assert_eq!(SameSite::parse("lax"), None);
    assert_eq!(SameSite::parse("Lax"), Some(SameSite::Lax));
    assert_eq!(WorkerProcesses::parse("auto"), Some(WorkerProcesses::Auto));
    assert_eq!(WorkerProcesses::parse("0"), None);
    assert_eq!(FieldCount::parse("1000"), Some(FieldCount(1000)));
    assert_eq!((FieldCount::parse("15"), FieldCount::parse("1001")), (None, None));
    assert!(RiskLevel::Low < RiskLevel::Critical);
    assert_eq!(HttpRedirectCode::parse("308").map(HttpRedirectCode::status), Some(308));
    assert_eq!(HttpRedirectCode::parse("303"), None);
    assert_eq!(
        LogFormat::parse("{\"a\": \"$status\"}\n").as_ref().map(LogFormat::as_str),
        Some("{\"a\": \"$status\"}")
    );
    assert_eq!(LogFormat::parse("a\nb"), None);
}

#[test]
fn codings() {
    let types = |text| MediaTypes::parse(text).map(|types| types.0.join(","));
    assert_eq!(types(" text/CSS\n  image/svg+xml * ").as_deref(), Some("text/css,image/svg+xml,*"));
    assert_eq!((types("text"), types("text/"), types("text/css,text/plain")), (None, None, None));
    assert_eq!(types(&"a/b ".repeat(257)), None);
    assert_eq!(
        (GzipLevel::parse("9"), GzipLevel::parse("0"), GzipLevel::parse("10")),
        (Some(GzipLevel(9)), None, None)
    );
    assert_eq!((BrotliLevel::parse("0"), BrotliLevel::parse("12")), (Some(BrotliLevel(0)), None));
    let msie = UserAgents::parse("msie6").unwrap().0;
    assert!(msie.is_match(b"Mozilla/4.0 (compatible; MSIE 6.0)") && !msie.is_match(b"MSIE 7.0"));
    assert!(UserAgents::parse("curl|wget").unwrap().0.is_match(b"Wget/1.2"));
    assert_eq!((UserAgents::parse("a)|(b"), UserAgents::parse("(?=a)")), (None, None));
}

/// Each type's parser, for arbitrary input.
fn parse_all(text: &str) {
    macro_rules! parse {
        ($($name:ty),+) => { $(let _ = <$name>::parse(text);)+ };
    }
    parse!(
        bool,
        i64,
        u32,
        Seconds,
        SignedSeconds,
        GoDuration,
        NginxTime,
        Size,
        HeaderBuffers,
        NetworkSet,
        AccessList,
        IpList,
        AffinityKind,
        AffinityMode,
        BackendProtocol,
        CanaryBehavior,
        HttpRedirectCode,
        LoadBalance,
        NextUpstream,
        RiskLevel,
        SameSite,
        WorkerProcesses,
        MediaTypes,
        GzipLevel,
        BrotliLevel,
        UserAgents,
        CommaList,
        HeaderNames,
        HostAliases,
        UriPatterns,
        AppRoot,
        CookieDomain,
        CookieName,
        CookiePath,
        ForwardedPrefix,
        HashKey,
        HeaderName,
        ObjectRef,
        RedirectUrl,
        RewriteTarget,
        ServiceName,
        Text,
        Vhost,
        LogFormat
    );
}

proptest! {
    #[test]
    fn nothing_makes_a_parser_panic(text in any::<String>()) {
        parse_all(&text);
    }

    #[test]
    fn nor_does_what_is_nearly_right(text in "[0-9a-fkmgsh.:/ ,~$*\\-\n]{0,24}") {
        parse_all(&text);
    }

    #[test]
    fn networks_survive_being_written(bits in any::<u128>(), prefix in 0_u8..=128, v4 in any::<u32>(), short in 0_u8..=32) {
        let text = format!("{}/{prefix},{}/{short}", std::net::Ipv6Addr::from_bits(bits), std::net::Ipv4Addr::from_bits(v4));
        let parsed = NetworkSet::parse(&text).expect("two networks");
        let written = parsed.networks().iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        prop_assert_eq!(NetworkSet::parse(&written), Some(parsed));
    }

    #[test]
    fn accepted_texts_hold_nothing_that_could_end_a_line_or_a_string(text in any::<String>()) {
        for accepted in [
            RewriteTarget::parse(&text).map(|value| value.as_str().to_owned()),
            RedirectUrl::parse(&text).map(String::from),
            Vhost::parse(&text).map(String::from),
            HashKey::parse(&text).map(String::from),
            CookieName::parse(&text).map(String::from),
        ].into_iter().flatten() {
            prop_assert!(!accepted.contains(['\r', '\n', '\0', ' ', '"', ';', '#']));
        }
    }

    #[test]
    fn go_durations_read_back(seconds in 0_u64..1_000_000_000) {
        prop_assert_eq!(GoDuration::parse(&format!("{seconds}s")), Some(GoDuration(Duration::from_secs(seconds))));
    }
}
