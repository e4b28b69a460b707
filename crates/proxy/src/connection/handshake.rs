//! The start of TLS on a client's connection: the ClientHello is read and checked before anything is sent.
//!
//! The ClientHello decides the reply. An invalid server name is refused with the alert for it (RFC 6066 3). A client that offers only
//! unknown application protocols is served without one, as in nginx, not refused as RFC 7301 3.2 requires. If the ClientHello names a host
//! whose TLS passes through, an endpoint replies to it.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use fairway_model::{Passthrough, canonical_host};
use rustls::server::{Accepted, Acceptor};
use rustls::{Error, InvalidMessage, PeerMisbehaved};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::net::client_certificate::Asked;
use crate::net::client_hello;
use crate::net::tls::{ServerConfigs, canonical};
use crate::stream::{Downstream, ReadInto, ServerTls};

/// A fatal `unrecognized_name` in a record of its own (RFC 8446 5.1 and 6).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A fatal `decode_error`.
const DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];

/// Bytes read at a time: most ClientHellos arrive in one piece.
// No limit: a batch. rustls refuses a ClientHello that is larger than 64 KiB.
const PIECE: usize = 2048;

/// Why TLS could not be established on the connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    /// The client's messages are invalid, or nothing that it offers is acceptable.
    #[error(transparent)]
    Tls(#[from] Error),
    /// The connection failed, or the client refused the proxy's messages.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server name is not a host name: an IP address, for example.
    #[error("the server name that the client asks for is no host name")]
    ServerName,
    /// No host has the name, and such handshakes are refused (`ssl-reject-handshake`).
    #[error("no host has the name that the client asks for")]
    UnknownName,
}

/// What happens to a connection after its ClientHello.
pub(super) enum Greeted {
    /// TLS ends here. With the client's certificate, if the named host asks for one, and with the listener that the server name chose.
    Accepted(Box<ServerTls>, Option<Box<Asked>>, Option<Arc<str>>),
    /// It goes to a backend, and no request is read.
    Passing(Leaving),
}

/// A connection that goes to a backend.
pub(super) struct Leaving {
    /// The connection. If TLS passes through, this is the plain connection, and nothing has been sent on it.
    pub(super) client: Downstream,
    /// Everything that was received on it, unless TLS ends here.
    pub(super) received: Vec<u8>,
    /// The host that the client names, in canonical form.
    pub(super) server_name: Box<str>,
    /// Where the connection goes.
    pub(super) passthrough: Arc<Passthrough>,
}

/// A ClientHello that is not acceptable.
struct Refused {
    error: HandshakeError,
    /// The records to send.
    alert: Vec<u8>,
}

/// Accepts TLS on a connection, unless TLS passes through for the host that the client names. `http2` says whether HTTP/2 is offered.
///
/// # Errors
/// See [`HandshakeError`]; the client has already received the alert.
pub(super) async fn accept(
    mut stream: TcpStream,
    configs: &ServerConfigs,
    http2: bool,
) -> Result<Greeted, HandshakeError> {
    let mut received = Vec::new();
    let hello = match read_hello(&mut stream, &mut received).await? {
        Ok(hello) => hello,
        Err(Refused { error, alert }) => {
            // Another server may accept what rustls doesn't, such as an older version of TLS.
            if matches!(error, HandshakeError::Tls(_))
                && let Some(name) = client_hello::server_name(&received)
                && let Some(name) = canonical_host(&name, &mut Vec::new())
                && let Some(passthrough) = configs.passthrough(name)
                && !passthrough.terminate
            {
                let server_name = String::from_utf8_lossy(name).into();
                let client = Downstream::Plain(stream);
                return Ok(Greeted::Passing(Leaving { client, received, server_name, passthrough }));
            }
            stream.write_all(&alert).await?;
            return Err(error);
        }
    };
    let server_name = hello.client_hello().server_name().map(canonical).unwrap_or_default();
    let passthrough = configs.passthrough(server_name.as_bytes());
    if let Some(passthrough) = passthrough.clone().filter(|passthrough| !passthrough.terminate) {
        let (server_name, client) = (server_name.into(), Downstream::Plain(stream));
        return Ok(Greeted::Passing(Leaving { client, received, server_name, passthrough }));
    }
    if configs.rejects(server_name.as_bytes()) {
        stream.write_all(&UNRECOGNIZED_NAME).await?;
        return Err(HandshakeError::UnknownName);
    }
    let of_host = configs.of_host(server_name.as_bytes());
    let chosen = if server_name.is_empty() { None } else { configs.listener(server_name.as_bytes()) };
    let configs = of_host.as_ref().map_or(configs, |own| &own.configs);
    if let Some(passthrough) = passthrough {
        // Client certificates are enforced on each request, and the proxy sees no requests here.
        if of_host.as_ref().is_some_and(|own| own.policy.is_some()) {
            stream.write_all(&UNRECOGNIZED_NAME).await?;
            return Err(HandshakeError::UnknownName);
        }
        let server_name = server_name.into();
        // The backend's protocol is unknown, so none is negotiated.
        let config = configs.without_protocol(&hello.client_hello()).clone();
        let tls = Box::new(ServerTls::accept(stream, config, hello.client_hello().server_name(), received).await?);
        let client = Downstream::Tls(tls);
        return Ok(Greeted::Passing(Leaving { client, received: Vec::new(), server_name, passthrough }));
    }
    let config = configs.choose(&hello.client_hello(), http2).clone();
    let stream = Box::new(ServerTls::accept(stream, config, hello.client_hello().server_name(), received).await?);
    let asked = of_host.and_then(|own| own.policy.clone()).map(|policy| {
        let chain = stream.session().peer_certificates().unwrap_or_default();
        Box::new(Asked::new(policy, server_name.as_bytes(), chain))
    });
    Ok(Greeted::Accepted(stream, asked, chosen))
}

/// Reads the ClientHello; everything read is appended to `received`.
///
/// # Errors
/// The connection failed.
async fn read_hello(stream: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<Result<Accepted, Refused>> {
    let mut acceptor = Acceptor::default();
    let mut piece = [0; PIECE];
    let no_host = || Refused { error: HandshakeError::ServerName, alert: UNRECOGNIZED_NAME.to_vec() };
    loop {
        let count = poll_fn(|cx| stream.poll_read_into(cx, &mut piece)).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received.extend_from_slice(&piece[..count]);
        // All of a piece is fed in, so that nothing after the ClientHello is lost: rustls takes 4 KiB at a time.
        let mut unread = &piece[..count];
        while !unread.is_empty() {
            acceptor.read_tls(&mut unread)?;
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(hello)) => {
                    let hidden = hello.client_hello().server_name().is_none() && client_hello::names_server(received);
                    return Ok(if hidden { Err(no_host()) } else { Ok(hello) });
                }
                Err((
                    Error::InvalidMessage(InvalidMessage::InvalidServerName)
                    | Error::PeerMisbehaved(PeerMisbehaved::ServerNameMustContainOneHostName),
                    _,
                )) => return Ok(Err(no_host())),
                Err((error, mut records)) => {
                    let mut alert = Vec::new();
                    records.write_all(&mut alert)?;
                    if alert.is_empty() {
                        // rustls has no alert for a ClientHello that is too large.
                        alert.extend(DECODE_ERROR);
                    }
                    return Ok(Err(Refused { error: error.into(), alert }));
                }
            }
        }
    }
}
