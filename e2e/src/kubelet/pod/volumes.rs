//! The volumes of a pod: created before its containers, and updated with the objects they show.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Weak;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, Volume};
use kube::Api;
use kube::api::PostParams;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::{PodWorker, Update, containers};
use crate::kubelet::objects::Objects;
use crate::kubelet::volume::{self, Ownership, Render, VolumeError, VolumeKind};

/// Updates the files of volumes with their objects until the pod is gone.
pub(super) async fn refresh(
    pod: Weak<PodWorker>,
    mut tokens: Tokens,
    mut shown: BTreeMap<String, volume::Payload>,
    objects: Objects,
    mut updates: watch::Receiver<Update>,
) {
    let mut changes = objects.changes();
    loop {
        let renewal = tokens.renewal();
        let wait = async {
            match renewal {
                Some(renewal) => sleep_until(renewal).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changes.next() => {}
            changed = updates.changed() => if changed.is_err() { return },
            () = wait => {}
        }
        let Some(pod) = pod.upgrade() else { return };
        if tokens.fetch(&pod).await.is_err() {
            // The old token is still valid for a while; the next attempt is soon.
            sleep(Duration::from_secs(1)).await;
        }
        if pod.state.borrow().ended {
            return;
        }
        for volume in pod.volume_specs() {
            if !matches!(volume::kind(&volume), Ok(VolumeKind::Payload)) {
                continue;
            }
            // Files of a deleted object stay, as with the kubelet.
            let Ok(payload) = pod.payload(&volume, &tokens) else { continue };
            if shown.get(&volume.name) != Some(&payload) {
                let path = pod.volume_path(&volume.name);
                match volume::write(&path, &payload, pod.ownership()) {
                    Ok(()) => {
                        shown.insert(volume.name.clone(), payload);
                    }
                    Err(error) => {
                        pod.event("Warning", "FailedMount", format!("updating volume {}: {error}", volume.name));
                    }
                }
            }
        }
    }
}

/// The tokens of a pod's volumes.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    text: BTreeMap<(String, usize), String>,
    due: BTreeMap<(String, usize), Instant>,
}

impl Tokens {
    /// The time at which the next token must be renewed.
    fn renewal(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    /// Requests missing and expiring tokens.
    pub(super) async fn fetch(&mut self, pod: &PodWorker) -> Result<(), String> {
        let object = pod.object();
        for (key, wanted) in volume::tokens(&object) {
            if self.due.get(&key).is_some_and(|due| *due > Instant::now()) {
                continue;
            }
            let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
            let account =
                object.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
            let request = TokenRequest {
                spec: Some(TokenRequestSpec {
                    audiences: wanted
                        .audience
                        .clone()
                        .filter(|audience| !audience.is_empty())
                        .map(|audience| vec![audience]),
                    expiration_seconds: wanted.expiration_seconds,
                    bound_object_ref: Some(BoundObjectReference {
                        api_version: Some("v1".to_owned()),
                        kind: Some("Pod".to_owned()),
                        name: object.metadata.name.clone(),
                        uid: object.metadata.uid.clone(),
                    }),
                }),
                ..TokenRequest::default()
            };
            let accounts = Api::<ServiceAccount>::namespaced(pod.kubelet.client.clone(), namespace);
            let issued = accounts.create_token_request(account, &PostParams::default(), &request).await;
            let issued = issued.map_err(|error| {
                format!("MountVolume.SetUp failed for volume \"{}\" : failed to fetch token: {error}", key.0)
            })?;
            let issued = issued.status.and_then(|status| Some((status.token?, status.expiration_timestamp?)));
            let (token, expiry) = issued.ok_or("the API server answered without a token")?;
            let life = expiry.0.duration_since(Timestamp::now()).unsigned_abs();
            // As the kubelet: renewed when a fifth of its life is left, or after a day.
            let due = (life * 4 / 5).min(Duration::from_secs(24 * 3600)).max(Duration::from_secs(1));
            self.text.insert(key.clone(), token);
            self.due.insert(key, Instant::now() + due);
        }
        Ok(())
    }
}

impl PodWorker {
    /// Creates all volumes, with the files of those that follow objects.
    pub(super) fn set_up_volumes(&self, tokens: &Tokens) -> Result<BTreeMap<String, volume::Payload>, String> {
        let mut paths = BTreeMap::new();
        let mut shown = BTreeMap::new();
        for volume in self.volume_specs() {
            let failed =
                |error: std::io::Error| format!("MountVolume.SetUp failed for volume \"{}\" : {error}", volume.name);
            let path = self.volume_path(&volume.name);
            let kind = volume::kind(&volume).map_err(|error| error.to_string())?;
            let read_only = kind == VolumeKind::Payload;
            let path = match kind {
                VolumeKind::Payload => {
                    let payload = self.payload(&volume, tokens).map_err(|error| error.to_string())?;
                    volume::write(&path, &payload, self.ownership()).map_err(failed)?;
                    shown.insert(volume.name.clone(), payload);
                    path
                }
                VolumeKind::Empty { memory, limit } => {
                    volume::empty_directory(&path, memory, limit.as_deref(), self.ownership()).map_err(failed)?;
                    path
                }
                VolumeKind::Host { path, create } => {
                    if create {
                        std::fs::create_dir_all(&path).map_err(failed)?;
                    }
                    path
                }
            };
            paths.insert(volume.name.clone(), volume::Ready { path, read_only });
        }
        let _ = self.volumes.set(paths);
        Ok(shown)
    }

    fn payload(&self, volume: &Volume, tokens: &Tokens) -> Result<volume::Payload, VolumeError> {
        let object = self.object();
        let render = Render {
            sources: self.sources(&object),
            objects: &self.objects,
            tokens: &tokens.text,
            user: common_user(&object),
            group: self.fs_group(),
        };
        volume::payload(volume, &render)
    }

    fn volume_specs(&self) -> Vec<Volume> {
        self.object().spec.as_ref().and_then(|spec| spec.volumes.clone()).unwrap_or_default()
    }

    fn volume_path(&self, name: &str) -> PathBuf {
        self.directory().join("volumes").join(name)
    }

    fn ownership(&self) -> Ownership {
        Ownership { group: self.fs_group().and_then(|group| u32::try_from(group).ok()) }
    }

    fn fs_group(&self) -> Option<i64> {
        self.object().spec.as_ref().and_then(|spec| spec.security_context.as_ref()).and_then(|context| context.fs_group)
    }
}

/// The user that all containers request, if any.
fn common_user(pod: &Pod) -> Option<u32> {
    let shared =
        pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()).and_then(|context| context.run_as_user);
    let users = containers(pod)
        .map(|container| container.security_context.as_ref().and_then(|context| context.run_as_user).or(shared));
    let mut users: Vec<_> = users.collect();
    users.dedup();
    match users[..] {
        [Some(user)] => u32::try_from(user).ok(),
        _ => None,
    }
}
