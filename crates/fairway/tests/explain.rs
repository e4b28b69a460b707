//! `fairway explain`: which route, what it beat, what happens on the way.

mod support;

use support::{example, run, text};

fn explain(name: &str, words: &[&str]) -> (Option<i32>, String) {
    let folder = example(name).into_os_string().into_string().expect("a path in UTF-8");
    let output = run(["explain", &folder].into_iter().chain(words.iter().copied()));
    (output.status.code(), text(&output))
}

#[track_caller]
fn assert_lines(report: &str, lines: &[&str]) {
    for line in lines {
        assert!(report.lines().any(|found| found.contains(line)), "{line:?} in\n{report}");
    }
}

#[test]
fn the_route_and_what_it_beat_come_with_object_and_file() {
    let (code, report) = explain("shop", &["GET", "http://shop.localhost/order/7"]);
    assert_eq!(code, Some(0));
    assert_lines(
        &report,
        &[
            "Host      shop.localhost, exactly",
            "Route     Prefix /order, of Ingress default/shop#rules[0].paths[1] (",
            "shop/ingress.yaml:23)",
            "chosen since it is the longest prefix",
            "it beat Prefix /, of Ingress default/shop#rules[0].paths[0] (",
            "Forward   GET /order/7 to default/order:http",
            "Backend   Service default/order, port http, ",
            "Endpoints none in the files",
        ],
    );
}

#[test]
fn the_path_is_followed_to_the_backend() {
    let (_, report) = explain("rewrite", &["GET", "https://rewrite.localhost/api/x/../v1?q=1"]);
    assert_lines(
        &report,
        &[
            "/api/v1 is what routes are matched on",
            "The path becomes /$2, here /v1, and X-Forwarded-Prefix is /api",
            "GET /v1?q=1",
        ],
    );
}

#[test]
fn filters_say_what_they_do_with_the_request() {
    let (_, report) = explain("tls", &["GET", "http://bank.localhost/"]);
    assert_lines(
        &report,
        &["Plain HTTP is answered 308 to the same URL with https: this one is", "The request ends there"],
    );
    let (_, report) = explain("tls", &["GET", "https://bank.localhost/"]);
    assert_lines(&report, &["this one is https already", "Strict-Transport-Security: max-age="]);
}

#[test]
fn cookies_are_looked_at() {
    let (_, report) = explain("sticky", &["GET", "http://sticky.localhost/", "-H", "Cookie: a=b; cart=x"]);
    assert_lines(&report, &["endpoint by the cookie cart: this request has it"]);
}

#[test]
fn a_request_that_nothing_takes_ends_with_1() {
    let (code, report) = explain("shop", &["GET", "http://shop.localhost/../x"]);
    assert_eq!(code, Some(1), "{report}");
    assert_lines(&report, &["Answer    400, since the path climbs above the root"]);
    let (code, report) = explain("shop", &["GET", "http://nobody.localhost/"]);
    assert_eq!(code, Some(1), "{report}");
    let output = run(["explain", "GET", "shop.localhost/x"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn flags_may_stand_between_the_words() {
    let (code, report) = explain("shop", &["--client", "192.0.2.1", "GET", "http://shop.localhost/order"]);
    assert_eq!(code, Some(0), "{report}");
    assert_lines(&report, &["Route     Prefix /order"]);
}
