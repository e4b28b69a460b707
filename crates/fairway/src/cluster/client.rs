//! Reads a cluster as `fairway run` would, through the controller's client. It writes nothing.

use std::cmp::Reverse;

use clap::ArgMatches;
use fairway_controller::{ApiConfig, Cluster};

pub(crate) use fairway_controller::FINDINGS;

use super::{EventRow, ProcessAnswer};
use crate::flags::Flags;
use crate::manifest::Finding;
use crate::reading::{Reading, Source, missing_objects, raise};

/// Reads from a cluster the objects that `fairway run` would read with these flags, and translates them.
pub(crate) fn read(matches: &ArgMatches, flags: &Flags) -> anyhow::Result<Reading> {
    let options = flags.options()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cluster = runtime.block_on(async {
        let client = fairway_controller::connect(&api(matches, flags)).await?;
        anyhow::Ok(fairway_controller::read(client, &options, jiff::Timestamp::now().as_second()).await?)
    })?;
    let Cluster { objects, translation, unreadable, addresses } = cluster;
    let mut reading = Reading::of(objects, translation, options)?;
    let unreadable = unreadable.into_iter().map(|diagnostic| Finding { place: None, diagnostic });
    reading.findings.splice(0..0, unreadable);
    reading.findings.extend(missing_objects(&reading.objects, &reading.options, Source::Cluster));
    reading.findings.iter_mut().for_each(|finding| raise(&mut finding.diagnostic));
    // Objects of a cluster have no file locations to sort by.
    reading.findings.sort_by(|a, b| {
        let key = |finding: &Finding| (finding.diagnostic.origin.clone(), Reverse(finding.diagnostic.severity));
        key(a).cmp(&key(b))
    });
    Ok(Reading { addresses, ..reading })
}

/// The Events that Fairway has written, oldest first.
pub(crate) fn events(matches: &ArgMatches, flags: &Flags, namespace: Option<&str>) -> anyhow::Result<Vec<EventRow>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let told = runtime.block_on(async {
        let client = fairway_controller::connect(&api(matches, flags)).await?;
        anyhow::Ok(fairway_controller::events(client, namespace).await?)
    })?;
    Ok(told.into_iter().map(|event| [event.time, event.class, event.reason, event.object, event.message]).collect())
}

/// Requests these paths from all Fairway processes in the cluster.
pub(crate) fn ask_all(matches: &ArgMatches, flags: &Flags, paths: &[&str]) -> anyhow::Result<Vec<ProcessAnswer>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = fairway_controller::connect(&api(matches, flags)).await?;
        let namespace = matches.get_one::<String>("namespace").map(String::as_str);
        let mut all = Vec::new();
        for process in fairway_controller::processes(client.clone(), namespace).await? {
            let answers = async {
                if let Some(phase) = &process.absent {
                    return Err(format!("the pod is {phase}"));
                }
                let mut answers = Vec::with_capacity(paths.len());
                for path in paths {
                    let answer = fairway_controller::ask(client.clone(), &process, path).await;
                    answers.push(answer.map_err(|error| fairway_model::ErrorChain(&error).to_string())?);
                }
                Ok(answers)
            };
            let answers = answers.await;
            all.push((format!("{}/{}/{}", process.namespace, process.pod, process.container), answers));
        }
        Ok(all)
    })
}

/// The cluster named on the command line, or that of the user's kubeconfig.
fn api(matches: &ArgMatches, flags: &Flags) -> ApiConfig {
    let host = flags.text("apiserver-host");
    ApiConfig {
        kubeconfig: flags.text("kubeconfig").map(Into::into),
        own_kubeconfig: host.is_none(),
        context: matches.get_one::<String>("context").cloned(),
        certificate_authority: flags.text("certificate-authority").map(Into::into),
        host,
    }
}
