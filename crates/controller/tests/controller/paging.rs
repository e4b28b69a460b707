//! Lists that are longer than a page.

use crate::rig::{Rig, cluster, config};

#[tokio::test(start_paused = true)]
async fn a_list_that_expires_between_two_pages_is_read_at_once() {
    let names: Vec<String> = (0..501).map(|number| format!("a{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let api = cluster(&names);
    api.fail("GET", "continue=", 410, usize::MAX);
    let mut rig = Rig::start(&api, config("one"));
    let hosts: Vec<String> = names.iter().map(|name| format!("{name}.example.com")).collect();
    rig.serves(&hosts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(api.asked("GET", "continue=").len(), 1);
}
