//! Calls to the API server: paths, deadlines, and errors that determine the next step.
//!
//! Responses are decoded here rather than by kube's typed calls, which log the whole text of a response that they can't
//! decode; such a text may contain a Secret.

use std::time::Duration;

use http_body_util::BodyExt;
use kube::client::Body;
use kube::core::Request;
use kube::core::request::Error as RequestError;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::connect::ServerUnreachable;

/// Time limit of one call. Less than half of any sensible Lease, so that a write begun as leader ends as leader.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(10);

/// Time limit of one page of a list: 500 large objects over a slow link.
const LIST_LIMIT: Duration = Duration::from_secs(60);

/// Longest event of a watch. etcd rejects objects above 1.5 MiB, and JSON can be several times as long as the stored
/// form.
const LINE_LIMIT: usize = 16 << 20;

/// The API server.
#[derive(Clone)]
pub(crate) struct ApiServer {
    client: kube::Client,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The API server refused.
    #[error("the API server answered {code} {reason}: {message}")]
    Refused { code: u16, reason: String, message: String, retry_after: Option<Duration> },
    /// It did not respond in time.
    #[error("no answer from the API server within {0:?}")]
    TimedOut(Duration),
    /// It can't be reached.
    #[error(transparent)]
    ServerUnreachable(Box<ServerUnreachable>),
    /// The connection broke.
    #[error("calling the API server")]
    Transport(#[source] kube::Error),
    /// The response has an unexpected form.
    #[error("decoding the answer of the API server")]
    Decode(#[source] serde_json::Error),
    /// An event of a watch has no end.
    #[error("the API server sent more than {LINE_LIMIT} bytes as one event")]
    Endless,
    /// A name is not allowed in a path.
    #[error("building the request")]
    Request(#[source] RequestError),
}

impl CallError {
    /// The status code, if the API server responded.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the version to resume from is too old, so that a new list is needed.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Refused { code: 410, .. })
            || matches!(self, Self::Refused { reason, .. } if reason == "Expired" || reason == "Gone")
    }

    /// The waiting time that the API server requests.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Converts the `Status` object of an error response.
    pub(crate) fn from_status(status: kube::core::Status, header: Option<Duration>) -> Self {
        let details = status.details.map_or(0, |details| details.retry_after_seconds);
        let body = (details > 0).then(|| Duration::from_secs(details.into()));
        Self::Refused {
            code: status.code,
            reason: status.reason,
            message: status.message.chars().take(500).collect(),
            retry_after: header.or(body),
        }
    }
}

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Service(error) => match error.downcast::<ServerUnreachable>() {
                Ok(unreachable) => Self::ServerUnreachable(unreachable),
                Err(error) => Self::Transport(kube::Error::Service(error)),
            },
            error => Self::Transport(error),
        }
    }
}

type HttpRequest = Result<http::Request<Vec<u8>>, RequestError>;

impl ApiServer {
    pub(crate) fn new(client: kube::Client) -> Self {
        Self { client }
    }

    /// Sends a request and decodes the response.
    pub(crate) async fn call<T: DeserializeOwned>(&self, request: HttpRequest) -> Result<T, CallError> {
        let text = within(CALL_LIMIT, self.bytes(request)).await?;
        serde_json::from_slice(&text).map_err(CallError::Decode)
    }

    /// Requests one page of a list and returns its bytes.
    pub(crate) async fn page(&self, request: HttpRequest) -> Result<impl AsRef<[u8]> + use<>, CallError> {
        within(LIST_LIMIT, self.bytes(request)).await
    }

    /// Sends a request and returns the response line by line, as a watch needs it.
    pub(crate) async fn lines(&self, request: HttpRequest) -> Result<Lines, CallError> {
        let body = within(CALL_LIMIT, self.send(request)).await?;
        Ok(Lines { body, buffer: Vec::new(), searched: 0 })
    }

    async fn bytes(&self, request: HttpRequest) -> Result<bytes::Bytes, CallError> {
        Ok(self.send(request).await?.collect_bytes().await?)
    }

    async fn send(&self, request: HttpRequest) -> Result<Body, CallError> {
        let request = request.map_err(CallError::Request)?.map(Body::from);
        let response = self.client.send(request).await?;
        let code = response.status();
        if code.is_success() {
            return Ok(response.into_body());
        }
        // API Priority and Fairness states the waiting time only in this field; the body is plain text.
        let retry_after = response.headers().get(http::header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        let body = response.into_body().collect_bytes().await?;
        let mut status = serde_json::from_slice(&body).unwrap_or_else(|_| {
            kube::core::Status::failure(&String::from_utf8_lossy(&body), code.canonical_reason().unwrap_or_default())
        });
        status.code = code.as_u16();
        Err(CallError::from_status(status, retry_after))
    }
}

async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    timeout(limit, call).await.unwrap_or(Err(CallError::TimedOut(limit)))
}

/// Lines of a response that continues.
pub(crate) struct Lines {
    body: Body,
    buffer: Vec<u8>,
    searched: usize,
}

impl Lines {
    /// The next line; `None` at the end. An incomplete last line is dropped.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, CallError> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(self.searched + at + 1);
                self.searched = 0;
                return Ok(Some(std::mem::replace(&mut self.buffer, rest)));
            }
            self.searched = self.buffer.len();
            if self.searched > LINE_LIMIT {
                return Err(CallError::Endless);
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(frame)) => self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            }
        }
    }
}

/// The collection of a resource in one namespace or in the whole cluster.
pub(crate) fn collection(api_version: &str, plural: &str, namespace: Option<&str>) -> Request {
    let root = if api_version == "v1" { "/api" } else { "/apis" };
    Request::new(match namespace {
        Some(namespace) => format!("{root}/{api_version}/namespaces/{namespace}/{plural}"),
        None => format!("{root}/{api_version}/{plural}"),
    })
}
