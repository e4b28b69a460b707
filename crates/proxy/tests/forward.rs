//! Requests that go through to a backend, and what the backend and the client see.

mod support;

use fairway_testkit::{Origin, Reply};
use support::{HOST, TestProxy};

#[tokio::test]
async fn a_request_goes_through_and_the_connections_are_kept() {
    let origin = Origin::new("a").reply(Reply::ok().body("hello")).start();
    let proxy = TestProxy::to(&[&origin]);
    let mut client = proxy.connect().await;
    for at in 0..3 {
        let response = client.get(HOST, &format!("/x?{at}")).await;
        assert_eq!((response.status, response.text()), (200, "hello".to_owned()));
        let request = origin.next_request().await;
        assert_eq!(request.target, format!("/x?{at}"));
    }
    assert_eq!(origin.connections(), 1);
}
