//! One request from the API server: an AdmissionReview in, an AdmissionReview out. Statuses and texts are those of ingress-nginx.

use bytes::Bytes;
use fairway_controller::Reviewer;
use fairway_translate::limit::{REVIEW_BODY, REVIEW_NAME, REVIEW_REFUSAL, REVIEW_TIME};
use fairway_translate::review::Review;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use k8s_openapi::api::networking::v1::Ingress;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::info;

/// The relevant parts of what the API server sends.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AdmissionRequest<'a> {
    api_version: String,
    kind: String,
    #[serde(borrow)]
    request: Option<AdmissionQuestion<'a>>,
}

#[derive(Deserialize)]
struct AdmissionQuestion<'a> {
    uid: String,
    kind: Gvk,
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    /// Absent if an object is deleted.
    #[serde(borrow)]
    object: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Gvk {
    group: String,
    version: String,
    kind: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AdmissionReview<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: AdmissionAnswer<'a>,
}

#[derive(Serialize)]
struct AdmissionAnswer<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<ReviewFailure<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    warnings: &'a [String],
}

#[derive(Serialize)]
struct ReviewFailure<'a> {
    status: &'static str,
    message: &'a str,
    reason: &'static str,
    code: u16,
}

/// Why the answer contains no review.
type NoReview = (StatusCode, &'static str);

/// The status and body of the response to a request.
pub(super) async fn answer(
    request: Request<Incoming>,
    reviewer: &Reviewer,
    turns: &Semaphore,
) -> (StatusCode, Vec<u8>) {
    let answered = timeout(REVIEW_TIME, async {
        // The semaphore is never closed.
        let _turn = turns.acquire().await;
        let body = body(request.into_body()).await?;
        // Decoding megabytes here would keep the thread from the controller's loop.
        let decoded = tokio::task::spawn_blocking(move || decode(&body)).await;
        let question = decoded.map_err(|_| (StatusCode::INTERNAL_SERVER_ERROR, "decoding failed"))??;
        review(question, reviewer).await
    });
    match answered.await {
        Ok(Ok(body)) => (StatusCode::OK, body),
        Ok(Err((status, why))) => (status, why.into()),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "no answer in time".into()),
    }
}

async fn body(body: Incoming) -> Result<Bytes, NoReview> {
    match Limited::new(body, REVIEW_BODY).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err((StatusCode::PAYLOAD_TOO_LARGE, "the body is too large")),
        Err(_) => Err((StatusCode::BAD_REQUEST, "the body can't be read")),
    }
}

/// An Ingress to review, or what was wrong with the object.
struct Decoded {
    uid: String,
    name: String,
    object: Option<Result<Box<Ingress>, String>>,
}

fn decode(body: &[u8]) -> Result<Decoded, NoReview> {
    let bad = (StatusCode::BAD_REQUEST, "expected an AdmissionReview as JSON");
    let asked: AdmissionRequest<'_> = serde_json::from_slice(body).map_err(|_| bad)?;
    if asked.kind != "AdmissionReview" {
        return Err(bad);
    }
    if asked.api_version != "admission.k8s.io/v1" {
        return Err((StatusCode::INTERNAL_SERVER_ERROR, "expected an AdmissionReview of admission.k8s.io/v1"));
    }
    let Some(AdmissionQuestion { uid, kind, name, namespace, object }) = asked.request else { return Err(bad) };
    if uid.len() > REVIEW_NAME {
        return Err(bad);
    }
    if (&*kind.group, &*kind.version, &*kind.kind) != ("networking.k8s.io", "v1", "Ingress") {
        return Err((StatusCode::INTERNAL_SERVER_ERROR, "expected an Ingress of networking.k8s.io/v1"));
    }
    let object = object.filter(|object| object.get() != "null").map(|object| {
        let mut ingress: Ingress = serde_json::from_str(object.get()).map_err(|error| error.to_string())?;
        ingress.metadata.namespace.get_or_insert_with(|| namespace.clone());
        ingress.metadata.name.get_or_insert_with(|| name.clone());
        Ok(Box::new(ingress))
    });
    Ok(Decoded { uid, name: cut(format!("{namespace}/{name}"), REVIEW_NAME), object })
}

/// Cuts a text to at most `most` bytes, and marks that there was more.
fn cut(mut text: String, most: usize) -> String {
    const MORE: &str = " ...";
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most - MORE.len()));
        text.push_str(MORE);
    }
    text
}

async fn review(question: Decoded, reviewer: &Reviewer) -> Result<Vec<u8>, NoReview> {
    let Decoded { uid, name, object } = question;
    let Review { refusal, warnings } = match object {
        None => Review::default(),
        Some(Err(why)) => Review { refusal: Some(why), warnings: Vec::new() },
        Some(Ok(ingress)) => {
            let ended = (StatusCode::INTERNAL_SERVER_ERROR, "the controller has ended");
            reviewer.review(*ingress).await.ok_or(ended)?
        }
    };
    // The refusal quotes users' text.
    let refusal = refusal.map(|why| cut(why, REVIEW_REFUSAL));
    if let Some(why) = &refusal {
        let ingress = &*name;
        info!(ingress, why, "an Ingress was refused");
    }
    let status = refusal.as_deref().map(|message| ReviewFailure {
        status: "Failure",
        message,
        reason: "BadRequest",
        code: StatusCode::BAD_REQUEST.as_u16(),
    });
    let response = AdmissionAnswer { uid: &uid, allowed: status.is_none(), status, warnings: &warnings };
    let answered = AdmissionReview { api_version: "admission.k8s.io/v1", kind: "AdmissionReview", response };
    serde_json::to_vec(&answered).map_err(|_| (StatusCode::INTERNAL_SERVER_ERROR, "the answer can't be written"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("short".to_owned(), 10), "short");
        assert_eq!(cut("x".repeat(10), 10), "x".repeat(10));
        assert_eq!(cut("x".repeat(11), 10), format!("{} ...", "x".repeat(6)));
        assert_eq!(cut("\u{e9}".repeat(6), 11), format!("{} ...", "\u{e9}".repeat(3)));
    }

    #[test]
    fn names_of_any_length_are_bounded() {
        let review = |uid: &str, name: &str| {
            let text = format!(
                r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"{uid}","name":"{name}",
                "kind":{{"group":"networking.k8s.io","version":"v1","kind":"Ingress"}}}}}}"#
            );
            decode(text.as_bytes()).map(|decoded| decoded.name.len())
        };
        assert_eq!(review("u", &"n".repeat(1 << 20)).ok(), Some(REVIEW_NAME));
        assert_eq!(
            review(&"u".repeat(REVIEW_NAME + 1), "n").err().map(|(status, _)| status),
            Some(StatusCode::BAD_REQUEST)
        );
    }
}
