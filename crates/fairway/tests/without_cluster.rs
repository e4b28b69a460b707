//! The build from the README's first command, without Kubernetes client or channel. `cargo xtask quick-start` runs this file and the
//! examples.

#![cfg(not(feature = "cluster"))]

mod support;

use support::{example, run, text};

#[test]
fn files_are_checked_and_explained() {
    let shop = example("shop");
    let shop = shop.to_str().expect("the path is text");
    assert!(run(["check", shop]).status.success());
    let explained = run(["explain", shop, "GET", "http://shop.localhost/order/7"]);
    assert!(explained.status.success() && text(&explained).contains("order"), "{}", text(&explained));
}

#[test]
fn what_needs_a_cluster_says_how_to_build_it() {
    for args in [
        &["run"][..],
        &["run", "--kubeconfig=config"],
        &["controller"],
        &["proxy"],
        &["check", "--context", "prod"],
        &["compare", "192.0.2.1", "192.0.2.2", "--kubeconfig=config"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let told = String::from_utf8(output.stderr).expect("messages are text");
        assert!(told.contains("no Kubernetes client") && told.contains("cargo build --release"), "{args:?}: {told}");
    }
}
