//! A gRPC call that the proxy itself makes: one message each way, on a stream of a connection that clients' requests also use.
//!
//! Dropping the call before its end resets the stream.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use fairway_model::decision::Forwarding;
use fairway_model::{FieldLine, Fields, KnownField};

use super::super::Exchange;
use super::super::authenticate::in_time;
use super::super::grpc;
use super::super::transfer::Gaps;
use super::super::tries::Attempt;
use super::Connected;
use crate::body::{BodySource, Event};
use crate::error::Failure;
use crate::http::{BodyForm, FieldsView, Method, ResponsePart};
use crate::http2::{Http2Endpoint, StreamPlace};
use crate::limit::AUTH_MESSAGE;
use crate::upstream::{Service, Target, Way};
use crate::work::{Http2Memory, RESPONSE};

/// The call to make.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Question<'q> {
    /// The value of `:authority`.
    pub(in super::super) authority: &'q str,
    /// Service and method.
    pub(in super::super) path: &'static str,
    /// The message in its frame.
    pub(in super::super) body: &'q [u8],
}

/// The answer, as far as it has arrived.
#[derive(Debug, Default)]
pub(in super::super) struct Reply {
    /// Whether the head is that of a gRPC answer.
    is_answer: bool,
    has_head: bool,
    body: Vec<u8>,
    /// Whether the call succeeded, if the trailers say so.
    succeeded: Option<bool>,
}

impl Reply {
    /// The message of a call that succeeded.
    pub(in super::super) fn message(&self) -> Option<&[u8]> {
        let whole = self.is_answer && self.succeeded == Some(true);
        grpc::unframed(&self.body).filter(|_| whole)
    }

    fn take_head(&mut self, endpoint: &Http2Endpoint<'_>) {
        let head = endpoint.response();
        let fields = FieldsView { fields: head.parsed.fields(), bytes: head.bytes };
        let typed = fields.get(KnownField::ContentType).is_some_and(grpc::is_type);
        // The call does not offer any encoding.
        let is_encoding = |line: FieldLine<'_>| line.is(b"grpc-encoding") && line.value != b"identity";
        self.is_answer = endpoint.status() == 200 && typed && !fields.lines().any(is_encoding);
        self.has_head = true;
    }

    /// Takes what has arrived of the body; `true` at its end. A body that is too long for an answer ends at the limit.
    fn take_body(&mut self, source: &mut BodySource<'_>) -> Result<bool, Failure> {
        while !source.body.has_ended() {
            let piece = source.body.decode(source.buffer.filled()).map_err(Failure::ResponseBody)?;
            let filled = source.buffer.filled();
            match piece.event {
                Event::Data(range) => {
                    self.body.extend_from_slice(&filled[range]);
                    if self.body.len() > AUTH_MESSAGE {
                        self.is_answer = false;
                        return Ok(true);
                    }
                }
                Event::Trailer { name, value } if filled[name.clone()].eq_ignore_ascii_case(b"grpc-status") => {
                    self.succeeded = Some(self.succeeded.unwrap_or(true) && filled[value].trim_ascii() == b"0");
                }
                Event::NeedMore if piece.consumed == 0 => return Ok(false),
                Event::Trailer { .. } | Event::NeedMore | Event::End => {}
            }
            source.buffer.consume(piece.consumed);
        }
        Ok(true)
    }
}

impl Exchange<'_> {
    /// One try of a call, up to the end of its answer. The time for reading bounds all of it.
    ///
    /// # Errors
    /// If no complete answer arrived, or the client has gone meanwhile.
    pub(in super::super) async fn call(
        &mut self,
        forwarding: &Forwarding<'_>,
        service: &Service,
        way: &Way,
        attempt: &mut Attempt,
        question: Question<'_>,
        fresh: bool,
    ) -> Result<Reply, Failure> {
        let target = Target { address: attempt.pick.endpoint, way: way.number() };
        if way.is_exclusive() {
            return Err(Failure::NotHttp2);
        }
        let (timers, left) = (self.facts.shard.timers.clone(), self.time_left());
        let reached = in_time(&timers, left, self.reach(forwarding, service, way, attempt, target, fresh));
        let Connected::Http2(place) = reached.await? else {
            return Err(Failure::NotHttp2);
        };
        let mut memory = self.endpoint.lend_memory();
        let reply = self.converse(&mut memory, place, attempt, question).await;
        self.endpoint.return_memory(memory);
        reply
    }

    async fn converse(
        &mut self,
        memory: &mut Http2Memory,
        place: StreamPlace,
        attempt: &mut Attempt,
        question: Question<'_>,
    ) -> Result<Reply, Failure> {
        let facts = self.facts;
        let mut endpoint = Http2Endpoint::new(memory, &facts.shard.store);
        endpoint.begin();
        endpoint.connect(place);
        endpoint.begin_call(question.authority, question.path, question.body)?;
        // The wait also ends with the request's time here, so that a connection on which nothing arrives becomes suspect.
        let wait = self.allowance.read.min(self.time_left().unwrap_or(Duration::MAX));
        self.limits = Gaps { read: self.after_gap(wait), ..Gaps::NONE };
        let mut reply = Reply::default();
        let answered = poll_fn(|cx| self.poll_call(cx, &mut endpoint, &mut reply)).await;
        self.limits = Gaps::NONE;
        if reply.has_head {
            attempt.note_answered();
        }
        if answered.is_err_and(Failure::is_timeout) {
            endpoint.suspect();
        }
        answered.map(|()| reply)
    }

    fn poll_call(
        &mut self,
        cx: &mut Context<'_>,
        endpoint: &mut Http2Endpoint<'_>,
        reply: &mut Reply,
    ) -> Poll<Result<(), Failure>> {
        let store = &self.facts.shard.store;
        // A write error is ignored: the answer, or the reason for its absence, explains it.
        let _ = endpoint.has_unsent() && endpoint.poll_write(cx).is_ready();
        while !reply.has_head {
            match endpoint.poll_head(cx, store, &self.live.prepared.response) {
                Poll::Ready(Ok(ResponsePart::Head)) => {
                    reply.take_head(endpoint);
                    endpoint.begin_body(Method::Post, BodyForm::Frames);
                }
                Poll::Ready(Ok(_)) => endpoint.drop_interim(),
                Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                Poll::Pending => return self.poll_waiting(cx).map(Err),
            }
        }
        while !reply.take_body(endpoint.source())? {
            match endpoint.poll_receive(cx, store, RESPONSE) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return Poll::Ready(Err(Failure::UpstreamClosed)),
                Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                Poll::Pending => return self.poll_waiting(cx).map(Err),
            }
        }
        Poll::Ready(Ok(()))
    }
}
