use super::*;
use crate::balance::backend_key;
use crate::http::{HeadLimits, RequestHead};

fn value(head: &str, name: &str) -> Option<String> {
    let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{head}\r\n");
    let mut parsed = RequestHead::default();
    parsed.parse(bytes.as_bytes(), &HeadLimits::default()).unwrap();
    find(parsed.fields(), bytes.as_bytes(), name.as_bytes()).map(|value| String::from_utf8(value.to_vec()).unwrap())
}

#[test]
fn a_cookie_is_found_by_its_whole_name() {
    assert_eq!(value("Cookie: a=1; ab=2; b=3\r\n", "ab").as_deref(), Some("2"));
    assert_eq!(value("Cookie: a=1;b=x=y|z\r\n", "b").as_deref(), Some("x=y|z"));
    assert_eq!(value("Cookie: a=1\r\nCookie: a=2; c=3\r\n", "a").as_deref(), Some("2"), "the last one counts");
    assert_eq!(value("Cookie: a=\r\n", "a").as_deref(), Some(""));
    assert_eq!(value("Cookie: xa=1; a; A=2\r\n", "a"), None);
    assert_eq!(value("", "a"), None);
    let of_java = "Cookie: $Version=\"1\"; route=\"1.2|ab\";$Path=\"/\"\r\n";
    assert_eq!(value(of_java, "route").as_deref(), Some("1.2|ab"));
    assert_eq!(value("Cookie: a=\"; b=\"x\r\n", "a").as_deref(), Some("\""), "a lone quote is a value");
}

fn written(change: impl FnOnce(&mut SessionCookie), at: Circumstances<'_>) -> String {
    let mut cookie = SessionCookie {
        name: "route".into(),
        expires: None,
        max_age: None,
        domain: None,
        secure: false,
        same_site: None,
        conditional_same_site_none: false,
    };
    change(&mut cookie);
    let key = crate::balance::session::tests_key(b"k");
    let mut out = Vec::new();
    write(&mut out, &cookie, &key, &backend_key("default-web-80"), &at);
    let text = String::from_utf8(out).unwrap();
    text.strip_prefix("route=k|6cde5721ec2c7e2bce07cff7d0e4ac37").unwrap().to_owned()
}

const AT: Circumstances<'_> = Circumstances { path: "/", tls: false, user_agent: b"", now: 1_893_455_999, ends: None };

#[test]
fn attributes_come_in_the_order_of_ingress_nginx() {
    assert_eq!(written(|_| {}, AT), "; Path=/; HttpOnly");
    let all = |cookie: &mut SessionCookie| {
        cookie.expires = Some(1);
        cookie.max_age = Some(-5);
        cookie.domain = Some("example.com".into());
        cookie.secure = true;
        cookie.same_site = Some(SameSite::Lax);
    };
    assert_eq!(
        written(all, AT),
        "; Expires=Tue, 01-Jan-30 00:00:00 GMT; Max-Age=-5; Domain=example.com; Path=/; Secure; HttpOnly; SameSite=Lax"
    );
    assert_eq!(written(|_| {}, Circumstances { tls: true, path: "/a", ..AT }), "; Path=/a; Secure; HttpOnly");
}

#[test]
fn years_from_2038_on_have_four_digits() {
    let in_years = |years: i64| move |cookie: &mut SessionCookie| cookie.expires = Some(years * 31_557_600);
    assert!(written(in_years(7), AT).contains("-36 "), "{}", written(in_years(7), AT));
    assert!(written(in_years(9), AT).contains("-2039 "), "{}", written(in_years(9), AT));
    assert!(
        written(|cookie| cookie.expires = Some(-1_893_455_999), AT).contains("Expires=Thu, 01-Jan-70 00:00:00 GMT")
    );
    assert_eq!(written(|cookie| cookie.expires = Some(i64::MAX), AT), "; Path=/; HttpOnly");
}

#[test]
fn a_path_never_adds_attributes() {
    assert_eq!(written(|_| {}, Circumstances { path: "/;Domain=evil", ..AT }), "; HttpOnly");
    assert_eq!(written(|_| {}, Circumstances { path: "/\r\nX: y", ..AT }), "; HttpOnly");
}

#[test]
fn same_site_none_is_kept_from_browsers_that_mishandle_it() {
    let old =
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/60.0.3112.113 Safari/537.36";
    let ios = "Mozilla/5.0 (iPhone; CPU iPhone OS 12_0 like Mac OS X) AppleWebKit/604.1.34 Safari/604.1";
    let mojave = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_6) AppleWebKit/605.1.15 Version/12.0 Safari/605.1.15";
    let mojave_chrome = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_6) AppleWebKit/537.36 Chrome/90.0 Safari/537.36";
    let text = |user_agent: &str, conditional, same_site| {
        let at = Circumstances { user_agent: user_agent.as_bytes(), ..AT };
        let change = |cookie: &mut SessionCookie| {
            cookie.same_site = Some(same_site);
            cookie.conditional_same_site_none = conditional;
        };
        written(change, at)
    };
    for mishandles in [old, ios, mojave] {
        assert!(!text(mishandles, true, SameSite::None).contains("SameSite"));
        assert!(text(mishandles, false, SameSite::None).ends_with("; SameSite=None"));
        assert!(text(mishandles, true, SameSite::Strict).ends_with("; SameSite=Strict"));
    }
    for knows in [mojave_chrome, "", "curl/8"] {
        assert!(text(knows, true, SameSite::None).ends_with("; SameSite=None"));
    }
}
