//! Volumes: their files, their paths on the host, and how they follow the objects they show.

mod directory;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, KeyToPath, Pod, SecretVolumeSource, ServiceAccountTokenProjection,
    Volume, VolumeMount, VolumeProjection,
};

use super::environment::{self, Sources};
use super::objects::{Key, Lookup, Objects};
use crate::container::root::Mount;

pub(crate) use directory::{Ownership, empty_directory, remove_all, write};

/// The files of a volume: path below it, content.
pub(crate) type Payload = BTreeMap<String, Entry>;

/// One file of a volume.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    /// Content.
    pub content: Vec<u8>,
    /// Permission bits, before those that `fsGroup` adds.
    pub mode: u32,
    /// The owner, if not root.
    pub owner: Option<u32>,
}

/// Why a volume can't be set up (now).
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum VolumeError {
    /// The API server has not responded yet.
    #[error("{0} is not known yet")]
    Unknown(Key),
    /// Something is missing or can't be read.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {reason}")]
    Failed {
        /// Name of the volume.
        volume: String,
        /// What is missing.
        reason: String,
    },
    /// This kubelet does not support the kind.
    #[error("volume \"{0}\" is of a kind that is not supported here")]
    Unsupported(String),
}

/// The origin of a volume.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum VolumeKind {
    /// Files that follow objects.
    Payload,
    /// A directory of the pod; in memory or not, with a limit in bytes.
    Empty {
        /// A tmpfs.
        memory: bool,
        /// Size limit of a tmpfs.
        limit: Option<String>,
    },
    /// A path of the Node.
    Host {
        /// The path.
        path: PathBuf,
        /// Whether to create it if missing.
        create: bool,
    },
}

/// The sources of a volume's files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Render<'a> {
    /// The pod and where it runs.
    pub sources: Sources<'a>,
    /// Its Secrets and ConfigMaps.
    pub objects: &'a Objects,
    /// The fetched tokens, see [`tokens`].
    pub tokens: &'a BTreeMap<(String, usize), String>,
    /// The user of all containers, if they agree on one: owns the tokens.
    pub user: Option<u32>,
    /// `fsGroup`.
    pub group: Option<i64>,
}

/// The kind of a volume.
///
/// # Errors
/// If it is not supported here.
pub(crate) fn kind(volume: &Volume) -> Result<VolumeKind, VolumeError> {
    if volume.secret.is_some()
        || volume.config_map.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
    {
        return Ok(VolumeKind::Payload);
    }
    if let Some(empty) = &volume.empty_dir {
        let memory = empty.medium.as_deref() == Some("Memory");
        return Ok(VolumeKind::Empty { memory, limit: empty.size_limit.as_ref().map(|limit| limit.0.clone()) });
    }
    if let Some(host) = &volume.host_path {
        let create = host.type_.as_deref() == Some("DirectoryOrCreate");
        return Ok(VolumeKind::Host { path: PathBuf::from(&host.path), create });
    }
    Err(VolumeError::Unsupported(volume.name.clone()))
}

/// The Secrets and ConfigMaps shown by a pod's volumes.
pub(crate) fn references(pod: &Pod) -> Vec<Key> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut keys = Vec::new();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let name = |secret: &SecretVolumeSource| secret.secret_name.clone().unwrap_or_default();
        keys.extend(volume.secret.iter().map(|secret| Key::secret(namespace, &name(secret))));
        keys.extend(volume.config_map.iter().map(|map| Key::config_map(namespace, &map.name)));
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            keys.extend(source.secret.iter().map(|secret| Key::secret(namespace, &secret.name)));
            keys.extend(source.config_map.iter().map(|map| Key::config_map(namespace, &map.name)));
        }
    }
    keys
}

/// The tokens shown by a pod's volumes: volume, index of the source in it, and the request.
pub(crate) fn tokens(pod: &Pod) -> Vec<((String, usize), ServiceAccountTokenProjection)> {
    let mut tokens = Vec::new();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        for (index, source) in sources.enumerate() {
            tokens
                .extend(source.service_account_token.iter().map(|token| ((volume.name.clone(), index), token.clone())));
        }
    }
    tokens
}

/// The files of a volume of [`VolumeKind::Payload`].
///
/// # Errors
/// If an object or key is missing and not optional, or a field does not exist.
pub(crate) fn payload(volume: &Volume, render: &Render<'_>) -> Result<Payload, VolumeError> {
    let failed = |reason: String| VolumeError::Failed { volume: volume.name.clone(), reason };
    let namespace = render.sources.pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut payload = Payload::new();
    let mut object = |key: Key, items: Option<&Vec<KeyToPath>>, mode: Option<i32>, optional: Option<bool>| {
        let optional = optional == Some(true);
        let data = match render.objects.lookup(&key) {
            Lookup::Present(data) => data,
            Lookup::Unknown => return Err(VolumeError::Unknown(key)),
            Lookup::Absent if optional => return Ok(()),
            Lookup::Absent => return Err(failed(format!("{key} not found"))),
        };
        let entry = |content: &Vec<u8>, mode| Entry { content: content.clone(), mode: bits(mode), owner: None };
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            payload.extend(data.iter().map(|(name, content)| (name.clone(), entry(content, mode))));
            return Ok(());
        };
        for item in items {
            match data.get(&item.key) {
                Some(content) => {
                    payload.insert(item.path.clone(), entry(content, item.mode.or(mode)));
                }
                None if optional => {}
                None => return Err(failed(format!("references non-existent key of {key}: {}", item.key))),
            }
        }
        Ok(())
    };
    if let Some(SecretVolumeSource { secret_name, items, default_mode, optional }) = &volume.secret {
        let name = secret_name.as_deref().unwrap_or_default();
        object(Key::secret(namespace, name), items.as_ref(), *default_mode, *optional)?;
    } else if let Some(ConfigMapVolumeSource { name, items, default_mode, optional }) = &volume.config_map {
        object(Key::config_map(namespace, name), items.as_ref(), *default_mode, *optional)?;
    } else if let Some(downward) = &volume.downward_api {
        for item in downward.items.iter().flatten() {
            payload.insert(item.path.clone(), downward_file(item, downward.default_mode, render).map_err(failed)?);
        }
    } else if let Some(projected) = &volume.projected {
        let mode = projected.default_mode;
        for source in projected.sources.iter().flatten() {
            let VolumeProjection { secret, config_map, downward_api, service_account_token, .. } = source;
            if let Some(secret) = secret {
                let key = Key::secret(namespace, &secret.name);
                object(key, secret.items.as_ref(), mode, secret.optional)?;
            } else if let Some(map) = config_map {
                object(Key::config_map(namespace, &map.name), map.items.as_ref(), mode, map.optional)?;
            } else if downward_api.is_none() && service_account_token.is_none() {
                return Err(VolumeError::Unsupported(volume.name.clone()));
            }
        }
        for (index, source) in projected.sources.iter().flatten().enumerate() {
            for item in source.downward_api.iter().flat_map(|downward| downward.items.iter().flatten()) {
                payload.insert(item.path.clone(), downward_file(item, mode, render).map_err(failed)?);
            }
            if let Some(token) = &source.service_account_token {
                let content = render.tokens.get(&(volume.name.clone(), index));
                let content = content.ok_or_else(|| failed("the token was not issued yet".to_owned()))?;
                let guarded = render.user.is_some() || render.group.is_some();
                let mode = if guarded { 0o600 } else { bits(mode) };
                let entry = Entry { content: content.clone().into_bytes(), mode, owner: render.user };
                payload.insert(token.path.clone(), entry);
            }
        }
    }
    if let Some(path) = payload.keys().find(|path| !is_below(path)) {
        return Err(VolumeError::Failed { volume: volume.name.clone(), reason: format!("invalid path {path:?}") });
    }
    Ok(payload)
}

fn downward_file(item: &DownwardAPIVolumeFile, mode: Option<i32>, render: &Render<'_>) -> Result<Entry, String> {
    let text = if let Some(reference) = &item.field_ref {
        environment::field(&render.sources, &reference.field_path)
    } else if let Some(selector) = &item.resource_field_ref {
        environment::resource(&render.sources, "", selector)
    } else {
        Ok(String::new())
    };
    let text = text.map_err(|error| error.to_string())?;
    Ok(Entry { content: text.into_bytes(), mode: bits(item.mode.or(mode)), owner: None })
}

/// Permission bits of a file; 0644 is the API's default for all of these volumes.
fn bits(mode: Option<i32>) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644) & 0o777
}

/// A relative path without `..`.
fn is_below(path: &str) -> bool {
    use std::path::Component;
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// A volume that is ready.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Ready {
    /// Its path on the host.
    pub path: PathBuf,
    /// Whether no container can write to it, whatever its mount says: its files follow objects.
    pub read_only: bool,
}

/// The mounts of a container's volumes; `expand` replaces `$(NAME)`.
///
/// # Errors
/// If a volume is missing, or a path leads out of its volume.
pub(crate) fn mounts(
    mounts: &[VolumeMount],
    volumes: &BTreeMap<String, Ready>,
    expand: &dyn Fn(&str) -> String,
) -> Result<Vec<Mount>, String> {
    let mut result = Vec::new();
    for mount in mounts {
        let volume = volumes.get(&mount.name).ok_or_else(|| format!("no volume named {}", mount.name))?;
        let sub = match (&mount.sub_path, &mount.sub_path_expr) {
            (Some(path), _) if !path.is_empty() => Some(path.clone()),
            (_, Some(expression)) if !expression.is_empty() => Some(expand(expression)),
            _ => None,
        };
        let source = match sub {
            None => volume.path.clone(),
            Some(path) if is_below(&path) => sub_path(&volume.path, &path)?,
            Some(path) => return Err(format!("subPath {path:?} leads out of volume {}", mount.name)),
        };
        let target = PathBuf::from(&mount.mount_path);
        result.push(Mount { source, target, read_only: volume.read_only || mount.read_only == Some(true) });
    }
    Ok(result)
}

fn sub_path(volume: &Path, path: &str) -> Result<PathBuf, String> {
    let error = |error: std::io::Error| format!("subPath {path:?}: {error}");
    let full = volume.join(path);
    if !full.exists() {
        make_like(volume, Path::new(path)).map_err(error)?;
    }
    // Through the links of volumes that follow objects, but not out of the volume.
    let real = full.canonicalize().map_err(error)?;
    if !real.starts_with(volume.canonicalize().map_err(error)?) {
        return Err(format!("subPath {path:?} leads out of its volume"));
    }
    Ok(real)
}

/// Creates missing directories of `path` below `volume`, with the permissions of the volume itself.
fn make_like(volume: &Path, path: &Path) -> std::io::Result<()> {
    let model = std::fs::metadata(volume)?;
    let mut directory = volume.to_owned();
    for part in path.components() {
        directory.push(part);
        if !directory.exists() {
            std::fs::create_dir(&directory)?;
            std::os::unix::fs::chown(&directory, None, Some(model.gid()))?;
            std::fs::set_permissions(&directory, model.permissions())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
