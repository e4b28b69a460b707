//! Questions of the admission webhook: whether an Ingress may be stored. The main loop answers them from its translation.

use fairway_translate::review::Review;
use k8s_openapi::api::networking::v1::Ingress;
use tokio::sync::{mpsc, oneshot, watch};

/// Maximum number of questions that wait for the main loop.
const WAITING: usize = 16;

/// A question, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) ingress: Box<Ingress>,
    pub(crate) answer: oneshot::Sender<Review>,
}

/// Asks whether Ingresses may be stored. Clones ask the same controller.
#[derive(Clone, Debug)]
pub struct Reviewer {
    questions: mpsc::Sender<Question>,
    ready: watch::Receiver<bool>,
}

impl Reviewer {
    /// A reviewer, and where its questions arrive.
    pub(crate) fn new(ready: watch::Receiver<bool>) -> (Self, mpsc::Receiver<Question>) {
        let (questions, asked) = mpsc::channel(WAITING);
        (Self { questions, ready }, asked)
    }

    /// The answer about an Ingress; `None` if the controller has ended. Waits until the first complete state is live, because until then
    /// the other Ingresses are unknown.
    pub async fn review(&self, ingress: Ingress) -> Option<Review> {
        self.ready.clone().wait_for(|ready| *ready).await.ok()?;
        let (answer, answered) = oneshot::channel();
        self.questions.send(Question { ingress: Box::new(ingress), answer }).await.ok()?;
        answered.await.ok()
    }
}
