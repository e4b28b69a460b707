use super::*;
use crate::{Client, Framing, Gate, ReadError, TlsClient};

#[tokio::test]
async fn a_plain_origin_reports_what_it_received() {
    let origin = Origin::start("a");
    let mut client = Client::connect(origin.address()).await;
    client.send("POST /a%2Fb?c HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nx-a: 2\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send("3\r\nabc\r\n0\r\nt: 1\r\n\r\n").await;
    let echo = client.read_response().await.echo();
    assert_eq!((echo.origin.as_str(), echo.method.as_str(), echo.target.as_str()), ("a", "POST", "/a%2Fb?c"));
    assert_eq!(echo.headers.names(), ["Host", "X-A", "x-a", "Transfer-Encoding"]);
    assert_eq!((echo.body.as_str(), echo.body_length, echo.trailers.get("T")), ("abc", 3, Some("1")));
    assert_eq!(client.get("x", "/").await.echo().request, 2);
    assert_eq!((origin.connections(), origin.requests()), (1, 2));
    assert!(origin.received()[0].starts_with(b"POST /a%2Fb?c HTTP/1.1\r\n"));
}

#[tokio::test]
async fn faults_before_the_first_request() {
    let origin = Origin::new("refuses").fault(Fault::Refuse).start();
    let error = Client::try_connect(origin.address()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);

    let origin = Origin::new("resets").fault(Fault::ResetOnAccept).start();
    let mut client = Client::connect(origin.address()).await;
    assert_eq!(client.ended().await, Ended::Reset);

    let origin = Origin::new("closes").fault(Fault::CloseOnAccept).start();
    let mut client = Client::connect(origin.address()).await;
    assert_eq!(client.ended().await, Ended::Closed);

    let origin = Origin::new("silent").fault(Fault::Silent).start();
    let mut client = Client::connect(origin.address()).await;
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    origin.has_received(1, "\r\n\r\n").await;
    assert!(!client.is_closed().await);
    drop(client);
    assert_eq!(origin.ended(1).await, Ended::Closed);
}

#[tokio::test]
async fn an_unreachable_origin_answers_no_syn() {
    let origin = Origin::new("unreachable").fault(Fault::Unreachable).start();
    let attempt = tokio::net::TcpStream::connect(origin.address());
    assert!(tokio::time::timeout(std::time::Duration::from_millis(300), attempt).await.is_err());
}

#[tokio::test]
async fn replies_can_be_truncated() {
    let cut = Reply::ok().body("0123456789").cut_body_after(4);
    let replies = [Reply::nothing().then_reset(), cut.clone().then_reset(), cut.then_close(), Reply::garbage()];
    let origin = Origin::new("bad").replies(replies).start();
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        let mut client = Client::connect(origin.address()).await;
        client.send("GET / HTTP/1.1\r\n\r\n").await;
        outcomes.push(client.try_read_response().await.unwrap_err());
    }
    assert!(matches!(&outcomes[0], ReadError::Ended(Ended::Reset)), "{outcomes:?}");
    assert!(
        matches!(&outcomes[1], ReadError::Truncated(Some(half), Ended::Reset) if half.body == b"0123"),
        "{outcomes:?}"
    );
    assert!(
        matches!(&outcomes[2], ReadError::Truncated(Some(half), Ended::Closed) if half.body == b"0123"),
        "{outcomes:?}"
    );
    assert!(matches!(&outcomes[3], ReadError::Malformed(_)), "{outcomes:?}");
}

#[tokio::test]
async fn a_gate_holds_the_answer_and_the_client_may_leave() {
    let gate = Gate::new();
    let origin = Origin::new("slow").reply(Reply::ok().body("late").held_by(&gate)).start();
    let mut first = Client::connect(origin.address()).await;
    first.send("GET /1 HTTP/1.1\r\n\r\n").await;
    gate.reached(1).await;
    first.reset();
    assert_eq!(origin.ended(1).await, Ended::Reset);

    let mut second = Client::connect(origin.address()).await;
    second.send("GET /2 HTTP/1.1\r\n\r\n").await;
    gate.reached(2).await;
    gate.release();
    assert_eq!(second.read_response().await.text(), "late");
    assert_eq!(origin.next_request().await.target, "/1");
    assert_eq!(origin.next_request().await.target, "/2");
}

#[tokio::test]
async fn chunks_come_one_by_one_through_a_gate() {
    let gate = Gate::new();
    let origin = Origin::new("a").reply(Reply::ok().chunked(["one", "two"]).body_held_by(&gate)).start();
    let mut client = Client::connect(origin.address()).await;
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    client.read_head().await;
    gate.release_one();
    assert_eq!(client.read_until("one\r\n").await, b"3\r\none\r\n");
    assert!(client.unread().is_empty() && !client.is_closed().await);
    gate.release();
    assert_eq!(client.read_until("0\r\n\r\n").await, b"3\r\ntwo\r\n0\r\n\r\n");
}

#[tokio::test]
async fn interim_responses_and_expectations() {
    let reply = Reply::ok().interim(103, &[("link", "</a>")]).body("x");
    let origin = Origin::new("a").reply(reply).start();
    let mut client = Client::connect(origin.address()).await;
    client.send("POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n").await;
    assert_eq!(origin.next_head().await.method, "POST");
    assert_eq!(client.read_head().await.start, "HTTP/1.1 100 Continue");
    client.send("y").await;
    let response = client.read_response().await;
    assert_eq!((response.interim.len(), response.status), (1, 200));
    assert_eq!(origin.next_request().await.body, b"y");
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel() {
    let origin = Origin::new("a").reply(Reply::upgrade("websocket")).start();
    let mut client = Client::connect(origin.address()).await;
    client.send("GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    assert_eq!(client.read_response().await.status, 101);
    client.send("ping").await;
    assert_eq!(client.read_exact(4).await, b"ping");
    client.half_close().await;
    assert_eq!(client.ended().await, Ended::Closed);
}

#[tokio::test]
async fn other_framings_can_be_read() {
    let replies = [Reply::ok().body("abc"), Reply::ok().close_delimited("to the end")];
    let origin = Origin::new("a").replies(replies).start();
    let mut client = Client::connect(origin.address()).await;
    let head = client.request("HEAD", "/", &[], b"").await;
    assert_eq!((head.framing, head.header("content-length")), (Framing::None, Some("3")));
    let last = client.get("a", "/").await;
    assert_eq!((last.framing, last.text().as_str()), (Framing::Close, "to the end"));
}

#[tokio::test]
async fn a_trickle_arrives_whole() {
    let reply = Reply::ok().body("drop by drop").trickle(1, std::time::Duration::ZERO);
    let origin = Origin::new("a").reply(reply).start();
    let mut client = Client::connect(origin.address()).await;
    assert_eq!(client.get("a", "/").await.text(), "drop by drop");
}

#[tokio::test]
async fn connections_end_on_order() {
    let origin = Origin::start("a");
    let mut client = Client::connect(origin.address()).await;
    client.get("a", "/").await;
    origin.close_connections();
    assert_eq!(client.ended().await, Ended::Closed);
    origin.idle().await;

    let mut client = Client::connect(origin.address()).await;
    client.get("a", "/").await;
    origin.reset_connections();
    assert_eq!(client.ended().await, Ended::Reset);

    origin.stop_listening();
    crate::eventually("the port to be closed", || async { Client::try_connect(origin.address()).await.is_err() }).await;
}

#[tokio::test]
async fn tls_reports_names_versions_and_resumption() {
    let ca = Ca::new("root");
    let origin = Origin::new("a").tls(&ca.leaf(&["a.example"])).start();
    let tls = TlsClient::new(&ca, "a.example").alpn(&["http/1.1"]);
    let mut client = tls.connect(origin.address()).await;
    assert_eq!(client.get("a.example", "/").await.echo().sni.as_deref(), Some("a.example"));
    assert_eq!((client.tls().alpn.as_deref(), client.tls().resumed), (Some("http/1.1"), false));
    assert!(tls.connect(origin.address()).await.tls().resumed);

    let old = TlsClient::new(&ca, "a.example").only_tls12().connect(origin.address()).await;
    assert_eq!(old.tls().version, rustls::ProtocolVersion::TLSv1_2);
    assert!(TlsClient::new(&ca, "b.example").try_connect(origin.address()).await.is_err());
    let any = TlsClient::unverified("b.example").connect(origin.address()).await;
    assert_eq!(any.tls().chain.len(), 1);
}

#[tokio::test]
async fn mutual_tls_demands_a_certificate() {
    let (ca, other) = (Ca::new("root"), Ca::new("other"));
    let origin = Origin::new("a").mutual_tls(&ca.leaf(&["a.example"]), &ca).start();
    let known = TlsClient::new(&ca, "a.example").certificate(&ca.leaf(&["client"]));
    assert_eq!(known.connect(origin.address()).await.get("a", "/").await.status, 200);
    let unknown = TlsClient::new(&ca, "a.example").certificate(&other.leaf(&["client"])).only_tls12();
    assert!(unknown.try_connect(origin.address()).await.is_err());
}
