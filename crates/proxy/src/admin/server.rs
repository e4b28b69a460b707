//! A small HTTP/1 server over the codec of the data path: GET and HEAD, no bodies.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Buf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::connections::{AdminPhase, AdminPlace, Connections};
use super::{AdminAnswer, AdminBody, AdminPlaces, AdminSource};
use crate::body::ChunkEncoder;
use crate::http::{FieldName, Framing, HeadLimits, HeadWriter, Method, Parsed, RequestHead, Version};
use crate::limit::{ACCEPT_PAUSE, ADMIN_HEAD, ADMIN_HEAD_TIMEOUT, ADMIN_IDLE, ADMIN_SEND_TIMEOUT};
use crate::net::descriptors;

/// The admin listener, bound but not answering yet.
#[derive(Debug)]
pub struct AdminServer {
    listener: TcpListener,
}

impl AdminServer {
    /// Binds the address.
    ///
    /// # Errors
    /// If it is in use or does not belong to this machine.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await? })
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    /// If the system can't report it.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers requests until it is dropped.
    pub async fn run(self, source: Arc<AdminSource>) {
        let connections = Arc::new(Connections::default());
        let places = Arc::new(AdminPlaces::default());
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "cannot accept an admin connection");
                    if descriptors::is_lack(&error) {
                        connections.make_room();
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (mut place, closed) = connections.enter();
            let (source, places) = (source.clone(), places.clone());
            tokio::spawn(async move {
                tokio::select! {
                    _ = closed => tracing::debug!("an admin connection made room for another one"),
                    served = serve(stream, &mut place, &source, &places) => if let Err(error) = served {
                        tracing::debug!(%error, "an admin connection ended");
                    },
                }
            });
            // A head that has already arrived is read before another connection can take the place.
            tokio::task::yield_now().await;
        }
    }
}

async fn serve(
    mut stream: TcpStream,
    place: &mut AdminPlace,
    source: &AdminSource,
    places: &AdminPlaces,
) -> io::Result<()> {
    // Responses are written in whole pieces; the last must not wait for the acknowledgement of the one before.
    stream.set_nodelay(true)?;
    let limits = HeadLimits::default();
    let mut head = RequestHead::default();
    let mut buffer = Vec::with_capacity(ADMIN_HEAD);
    let mut patience = ADMIN_HEAD_TIMEOUT;
    loop {
        let received = timeout(patience, receive(&mut stream, &mut head, &mut buffer, &limits)).await??;
        place.begin(AdminPhase::Answered);
        let length = match received {
            AdminHead::Head(length) => length,
            AdminHead::End => return Ok(()),
            AdminHead::Refused(status) => {
                let answer = AdminAnswer::text(status, "bad request");
                timeout(ADMIN_SEND_TIMEOUT, send(&mut stream, answer, Sending { last: true, ..Sending::default() }))
                    .await??;
                return Ok(());
            }
        };
        let how = Sending {
            last: !head.connection().keep_alive || head.framing() != Framing::None,
            head_only: head.method() == Method::Head,
            old: head.version() == Version::Http10,
        };
        let answer = match head.method() {
            Method::Get | Method::Head => {
                let accept =
                    head.fields().named(b"accept", &buffer).filter_map(|value| std::str::from_utf8(value).ok());
                let accept = accept.collect::<Vec<_>>().join(",");
                source.answer(head.path().of(&buffer), &accept, places).await
            }
            _ => AdminAnswer::text(405, "only GET and HEAD are answered here"),
        };
        if !timeout(ADMIN_SEND_TIMEOUT, send(&mut stream, answer, how)).await?? {
            return Ok(());
        }
        buffer.drain(..length);
        place.begin(AdminPhase::Waiting);
        patience = ADMIN_IDLE;
    }
}

enum AdminHead {
    /// A request head of this length.
    Head(usize),
    /// The peer closed.
    End,
    /// A request that is refused with this status.
    Refused(u16),
}

async fn receive(
    stream: &mut TcpStream,
    head: &mut RequestHead,
    buffer: &mut Vec<u8>,
    limits: &HeadLimits,
) -> io::Result<AdminHead> {
    loop {
        match head.parse(buffer, limits) {
            Ok(Parsed::Complete { len }) => return Ok(AdminHead::Head(len)),
            Ok(Parsed::Partial { .. }) if buffer.len() >= ADMIN_HEAD => return Ok(AdminHead::Refused(431)),
            Ok(Parsed::Partial { .. }) => {}
            Err(error) => return Ok(AdminHead::Refused(error.status())),
        }
        let room = ADMIN_HEAD - buffer.len();
        if stream.take(room as u64).read_buf(buffer).await? == 0 {
            return Ok(AdminHead::End);
        }
    }
}

/// How an answer is sent.
#[derive(Clone, Copy, Debug, Default)]
struct Sending {
    /// Whether it is the last one on its connection.
    last: bool,
    /// Whether it has no body.
    head_only: bool,
    /// Whether the client may not understand chunks.
    old: bool,
}

/// Sends a response; returns whether the connection can be reused.
async fn send(stream: &mut TcpStream, answer: AdminAnswer, how: Sending) -> io::Result<bool> {
    const CONTENT_TYPE: FieldName<'_> = FieldName::from_static("Content-Type");
    const CONNECTION: FieldName<'_> = FieldName::from_static("Connection");
    let framing = match &answer.body {
        AdminBody::Whole(body) => Framing::Length(body.len() as u64),
        AdminBody::Pages(_) if how.old => Framing::UntilClose,
        AdminBody::Pages(_) => Framing::Chunked,
    };
    let last = how.last || framing == Framing::UntilClose;
    let mut out = Vec::with_capacity(256);
    let mut writer = HeadWriter::new(&mut out);
    let written = writer
        .status_line(answer.status)
        .and_then(|()| writer.field(CONTENT_TYPE, answer.content_type.as_bytes()))
        .and_then(|()| if last { writer.field(CONNECTION, b"close") } else { Ok(()) });
    written.map_err(io::Error::other)?;
    writer.framing(framing);
    writer.finish();
    match answer.body {
        _ if how.head_only => stream.write_all(&out).await?,
        AdminBody::Whole(body) => stream.write_all_buf(&mut Buf::chain(out.as_slice(), body.as_slice())).await?,
        AdminBody::Pages(mut pages) => {
            let chunked = framing == Framing::Chunked;
            while let Some(page) = pages.page() {
                let end: &[u8] = if chunked { ChunkEncoder::CHUNK_END } else { b"" };
                if chunked {
                    ChunkEncoder::begin(page.len(), &mut out);
                }
                stream.write_all_buf(&mut Buf::chain(Buf::chain(out.as_slice(), page), end)).await?;
                out.clear();
                // A reader as fast as this thread would keep it from serving others.
                tokio::task::yield_now().await;
            }
            if chunked {
                stream.write_all(ChunkEncoder::END).await?;
            }
        }
    }
    Ok(!last)
}
