//! The start of TLS on a client's connection: the client hello is read and checked before anything is sent.
//!
//! The hello decides the reply: an invalid server name is refused with the alert for it (RFC 6066 3), and a client that offers
//! only unknown application protocols is served without one, as in nginx, rather than refused (as RFC 7301 3.2 requires).

use std::future::poll_fn;
use std::io;

use rustls::server::{Accepted, Acceptor};
use rustls::{Error, InvalidMessage, PeerMisbehaved};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::server::{StartHandshake, TlsStream};

use crate::net::client_certificate::Asked;
use crate::net::tls::{ServerConfigs, canonical};
use crate::stream::ReadInto;

/// A fatal `unrecognized_name` in a record of its own (RFC 8446 5.1 and 6).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Bytes read at a time: most hellos come in one piece.
// No limit: a batch. rustls refuses a hello that is larger than 64 KiB.
const PIECE: usize = 2048;

/// Why TLS could not be established on the connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    /// The client's part is invalid, or nothing that it offers is acceptable.
    #[error(transparent)]
    Tls(#[from] Error),
    /// The connection failed, or the client refused our part.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server name is not a host name: an IP address, for example.
    #[error("the server name that the client asks for is no host name")]
    ServerName,
    /// No host has the name, and such handshakes are refused (`ssl-reject-handshake`).
    #[error("no host has the name that the client asks for")]
    UnknownName,
}

/// Accepts TLS on a connection; `http2` says whether HTTP/2 is offered. If the host that the client names asks for client
/// certificates, what the client has shown comes along.
///
/// # Errors
/// See [`HandshakeError`]; the client has already received the alert.
pub(super) async fn accept(
    mut stream: TcpStream,
    configs: &ServerConfigs,
    http2: bool,
) -> Result<(TlsStream<TcpStream>, Option<Box<Asked>>), HandshakeError> {
    let hello = read_hello(&mut stream).await?;
    let server_name = hello.client_hello().server_name().map(canonical).unwrap_or_default();
    if configs.rejects(server_name.as_bytes()) {
        stream.write_all(&UNRECOGNIZED_NAME).await?;
        return Err(HandshakeError::UnknownName);
    }
    let asking = configs.asking(server_name.as_bytes());
    let configs = asking.as_ref().map_or(configs, |asking| &asking.configs);
    let config = configs.choose(hello.client_hello().alpn(), http2).clone();
    let stream = StartHandshake::from_parts(hello, stream).into_stream(config).await?;
    let asked = asking.map(|asking| {
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        Box::new(Asked::new(asking.policy.clone(), server_name.as_bytes(), chain))
    });
    Ok((stream, asked))
}

async fn read_hello(stream: &mut TcpStream) -> Result<Accepted, HandshakeError> {
    let mut acceptor = Acceptor::default();
    let (mut received, mut piece) = (Vec::new(), [0; PIECE]);
    loop {
        let count = poll_fn(|cx| stream.poll_read_into(cx, &mut piece)).await?;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        received.extend_from_slice(&piece[..count]);
        // A piece is read whole, so that nothing after the hello is lost: rustls takes 4 KiB at a time.
        let mut unread = &piece[..count];
        while !unread.is_empty() {
            acceptor.read_tls(&mut unread)?;
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(hello)) if hello.client_hello().server_name().is_none() && names_server(&received) => {
                    stream.write_all(&UNRECOGNIZED_NAME).await?;
                    return Err(HandshakeError::ServerName);
                }
                Ok(Some(hello)) => return Ok(hello),
                Err((
                    Error::InvalidMessage(InvalidMessage::InvalidServerName)
                    | Error::PeerMisbehaved(PeerMisbehaved::ServerNameMustContainOneHostName),
                    _,
                )) => {
                    stream.write_all(&UNRECOGNIZED_NAME).await?;
                    return Err(HandshakeError::ServerName);
                }
                Err((error, mut alert)) => {
                    let mut bytes = Vec::new();
                    alert.write_all(&mut bytes)?;
                    stream.write_all(&bytes).await?;
                    return Err(error.into());
                }
            }
        }
    }
}

/// Whether a hello, found complete by rustls, has the extension with the server name (RFC 8446 4.1.2, RFC 6066 3).
fn names_server(records: &[u8]) -> bool {
    find_server_name(records).is_some()
}

fn find_server_name(mut records: &[u8]) -> Option<()> {
    let mut message = Vec::with_capacity(records.len());
    while let Some((header, rest)) = records.split_first_chunk::<5>() {
        let len = usize::from(u16::from_be_bytes([header[3], header[4]])).min(rest.len());
        message.extend_from_slice(&rest[..len]);
        records = &rest[len..];
    }
    // Type and length of the message, version, random.
    let rest = &mut message.get(4 + 2 + 32..)?;
    // Session id, cipher suites, compression methods.
    skip::<1>(rest)?;
    skip::<2>(rest)?;
    skip::<1>(rest)?;
    // The length of all extensions.
    *rest = rest.get(2..)?;
    loop {
        let (kind, after) = rest.split_first_chunk::<2>()?;
        *rest = after;
        skip::<2>(rest)?;
        if *kind == [0, 0] {
            return Some(());
        }
    }
}

/// Skips a field that begins with its length in `N` bytes.
fn skip<const N: usize>(rest: &mut &[u8]) -> Option<()> {
    let (length, after) = rest.split_first_chunk::<N>()?;
    let length = length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
    *rest = after.get(length..)?;
    Some(())
}
