//! The Helm chart: the files generated for it, and the checks that need no cluster.
//!
//! One table, `chart/verdicts.tsv`, records how each value of the ingress-nginx chart is handled. The documentation,
//! the schema of the values and the text that lists unsupported values are generated from it, and [`check::run`]
//! verifies the chart against it.

use std::path::PathBuf;

use anyhow::Context;

use crate::workspace::Workspace;

mod alerts;
pub(crate) mod check;
mod document;
mod helm;
mod manifest;
mod names;
mod passed;
mod pod;
mod rights;
mod schema;
mod settings;
mod table;

pub(crate) use helm::Helm;

/// The chart, from the root of the repository.
pub(crate) const FOLDER: &str = "deploy/helm/fairway";

/// Every file generated for the chart: path and content.
pub(crate) fn files(workspace: &Workspace) -> anyhow::Result<Vec<(PathBuf, Vec<u8>)>> {
    let values = table::read()?;
    let (flags, keys) = (names::flags(workspace)?, names::keys(workspace)?);
    let text = |value: serde_json::Value| {
        serde_json::to_vec_pretty(&value).map(|mut text| {
            text.push(b'\n');
            text
        })
    };
    let folder = PathBuf::from(FOLDER);
    let mut files = vec![
        (PathBuf::from("docs/chart-values.md"), document::page(&values).into_bytes()),
        (folder.join("values.schema.json"), text(schema::schema(&values, &flags)).context("the schema")?),
        (
            folder.join("files/not-honoured.json"),
            text(document::not_honoured(&values, &flags, &keys)).context("the list of values without effect")?,
        ),
    ];
    files.push((folder.join("files/names.json"), text(document::names(&values, &keys)).context("the names")?));
    files.extend(manifest::files(workspace)?);
    Ok(files)
}
