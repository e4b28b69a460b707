//! Identifies the owner of a token by asking the API server.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::PostParams;

use crate::api::{ApiServer, CallError, collection};

/// The key under which the API server names the pod that a token is bound to.
const POD: &str = "authentication.kubernetes.io/pod-name";

/// Recognises the pods of one ServiceAccount.
#[derive(Clone)]
pub struct TokenReviewer {
    api: ApiServer,
    audience: String,
    user: String,
}

/// Why the owner of a token is not recognised.
#[derive(Debug, thiserror::Error)]
pub enum Unrecognised {
    /// The token is not valid.
    #[error("{0}")]
    Token(String),
    /// The API server doesn't identify it.
    #[error("asking the API server whose token it is")]
    Review(#[from] ReviewError),
}

/// The API server doesn't identify the owner of a token.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ReviewError(CallError);

impl TokenReviewer {
    /// Recognises the pods of `account` in `namespace` by tokens for `audience`.
    pub fn new(client: kube::Client, audience: &str, namespace: &str, account: &str) -> Self {
        let user = format!("system:serviceaccount:{namespace}:{account}");
        Self { api: ApiServer::new(client), audience: audience.to_owned(), user }
    }

    /// The name of the pod that owns this token.
    ///
    /// # Errors
    /// If the token isn't a pod's, or the API server doesn't identify it.
    pub async fn review(&self, token: &str) -> Result<String, Unrecognised> {
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![self.audience.clone()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let body = serde_json::to_vec(&review).map_err(|error| ReviewError(CallError::Decode(error)))?;
        let request = collection("authentication.k8s.io/v1", "tokenreviews", None);
        let review: TokenReview =
            self.api.call(request.create(&PostParams::default(), body)).await.map_err(ReviewError)?;
        self.judge(review)
    }

    fn judge(&self, review: TokenReview) -> Result<String, Unrecognised> {
        let status = review.status.unwrap_or_default();
        if status.authenticated != Some(true) {
            let why = status.error.unwrap_or_else(|| "the API server does not know it".to_owned());
            return Err(Unrecognised::Token(why.chars().filter(|char| !char.is_control()).take(200).collect()));
        }
        // An API server that doesn't support audiences names none.
        if !status.audiences.unwrap_or_default().contains(&self.audience) {
            return Err(Unrecognised::Token(format!("it is not for {}", self.audience)));
        }
        let user = status.user.unwrap_or_default();
        if user.username.as_deref() != Some(&self.user) {
            let other = user.username.unwrap_or_default();
            return Err(Unrecognised::Token(format!("it is that of {other:?}, not of {}", self.user)));
        }
        let pod = user.extra.and_then(|mut extra| extra.remove(POD)?.pop());
        Ok(pod.unwrap_or_else(|| "a pod without a name".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use fairway_testkit::{Origin, Reply};
    use serde_json::{Value, json};

    use super::*;

    /// The outcome of an answer of the API server, and the question that it got.
    async fn reviewed(status: Value) -> (Result<String, String>, Value) {
        let answer = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {}, "status": status});
        let api = Origin::new("api").reply(Reply::ok().body(answer.to_string())).start();
        let config = kube::Config::new(format!("http://{}", api.address()).parse().unwrap());
        let client = kube::Client::try_from(config).unwrap();
        let found = TokenReviewer::new(client, "control", "edge", "proxy").review("secret").await;
        let asked = api.next_request().await;
        assert_eq!((asked.method.as_str(), &*asked.target), ("POST", "/apis/authentication.k8s.io/v1/tokenreviews?"));
        (found.map_err(|error| error.to_string()), serde_json::from_slice(&asked.body).unwrap())
    }

    #[tokio::test]
    async fn only_the_pods_of_one_account_are_recognised_by_tokens_for_the_channel() {
        let user = |name: &str| json!({"username": name, "extra": {POD: ["proxy-7"]}});
        let account = "system:serviceaccount:edge:proxy";
        let good = json!({"authenticated": true, "audiences": ["control"], "user": user(account)});
        let (found, asked) = reviewed(good).await;
        assert_eq!(found.unwrap(), "proxy-7");
        assert_eq!(asked["spec"], json!({"audiences": ["control"], "token": "secret"}));
        for (status, reason) in [
            (json!({"authenticated": false, "error": "token has expired"}), "token has expired"),
            (json!({}), "the API server does not know it"),
            (json!({"authenticated": true, "user": user(account)}), "it is not for control"),
            (json!({"authenticated": true, "audiences": ["other"], "user": user(account)}), "it is not for control"),
            (
                json!({"authenticated": true, "audiences": ["control"], "user": user("system:serviceaccount:shop:proxy")}),
                "it is that of \"system:serviceaccount:shop:proxy\", not of system:serviceaccount:edge:proxy",
            ),
            (
                json!({"authenticated": true, "audiences": ["control"], "user": {}}),
                "it is that of \"\", not of system:serviceaccount:edge:proxy",
            ),
        ] {
            assert_eq!(reviewed(status.clone()).await.0.unwrap_err(), reason, "{status}");
        }
    }
}
