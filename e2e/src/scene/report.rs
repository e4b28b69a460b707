//! Saves the state of a failed scene.

use std::fs;
use std::path::PathBuf;

use crate::cluster::layout;

use super::Scene;

/// File names, and what kubectl is asked for each.
const ASKED: &[(&str, &[&str])] = &[
    ("objects.yaml", &["get", "all,ingress,configmap,endpointslice,lease,networkpolicy", "-o", "yaml"]),
    ("pods.txt", &["get", "pods", "-o", "wide"]),
    ("events.txt", &["get", "events", "--sort-by=.lastTimestamp"]),
];

impl Scene {
    /// Saves the state and returns where.
    pub(super) async fn keep(&self) -> String {
        let folder = layout::target().join("e2e").join(&self.name);
        let logs = self.cluster.layout().logs();
        match self.write(&folder).await {
            Ok(()) => format!(
                "objects, events and logs of the namespace {} are in {}, logs of all components in {}",
                self.namespace,
                folder.display(),
                logs.display()
            ),
            Err(error) => {
                format!("keeping the objects of {} failed: {error:#}; logs: {}", self.namespace, logs.display())
            }
        }
    }

    async fn write(&self, folder: &PathBuf) -> anyhow::Result<()> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        for (name, arguments) in ASKED {
            // Read errors are part of the picture, too.
            let text = self.kubectl(arguments).await.unwrap_or_else(|error| format!("{error:#}\n"));
            fs::write(folder.join(name), text)?;
        }
        let pods = self.kubectl(&["get", "pods", "-o", "name"]).await.unwrap_or_default();
        for pod in pods.lines() {
            let logs = ["logs", pod, "--all-containers", "--prefix"];
            let text = self.kubectl(&logs).await.unwrap_or_else(|error| format!("{error:#}\n"));
            let before = self.kubectl(&[&logs[..], &["--previous"]].concat()).await.unwrap_or_default();
            fs::write(folder.join(format!("{}.log", pod.trim_start_matches("pod/"))), before + &text)?;
        }
        Ok(())
    }
}
