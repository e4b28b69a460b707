//! The references in `docs/` that are generated from the tables of the proxy; `UPDATE_DOCS=1` rewrites them.

use std::path::PathBuf;

use fairway_proxy::reason::Reason;

/// Fails if a page differs from its table.
fn assert_page(file: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(file);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, text).expect("docs can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "docs/{file} is out of date: run UPDATE_DOCS=1 cargo test -p fairway-proxy --test docs");
}

#[test]
fn the_list_of_reasons_is_what_the_table_says() {
    assert_page("failure-reasons.md", &failure_reasons());
}

fn failure_reasons() -> String {
    let mut out = "# Why a request failed\n\nGenerated from the table in `crates/proxy/src/reason.rs`; `UPDATE_DOCS=1 cargo test -p \
         fairway-proxy --test docs` writes it.\n\n\
         Each request that fails has one reason, and the side at fault: `downstream` is the client, `upstream` the endpoint, \
         `internal` the proxy or its configuration. You find them in three places:\n\n\
         - The access log with `--access-log json` has `failure_reason`, `failure_side`, `failure_detail` (for example `Connection \
         refused`) and `upstream_reason`, the reason of each try. The first three are \
         empty for a request that did not fail; `upstream_reason` has `-` for a try that did not fail, and is empty without a try.\n\
         - The same are variables of `log-format-upstream` and of `--access-log TEMPLATE`: `$failure_reason`, `$failure_side`, \
         `$failure_detail`, `$upstream_reason`. The default format is that of ingress-nginx, which has none of them.\n\
         - The metrics `fairway_request_failures_total` and, for each try, `fairway_upstream_failures_total` count by Ingress, Service, \
         reason and side.\n\n\
         A failure after the response began keeps the status that was sent; the connection is cut so that the client notices.\n\n\
         | reason | side | status | meaning |\n| --- | --- | --- | --- |\n"
        .to_owned();
    for reason in Reason::ALL {
        let (name, side, statuses, text) = (reason.as_str(), reason.side().as_str(), reason.statuses(), reason.text());
        out.push_str(&format!("| `{name}` | {side} | {statuses} | {text} |\n"));
    }
    out
}
