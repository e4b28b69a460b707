//! Rules about dependencies (which crates and which modules of the proxy may depend on which, which crates are banned, which licences are
//! accepted) and about names: a type name means one thing in its crate, and an exchange names no version of HTTP.

use crate::graph::Graph;
use crate::outcome::Outcome;
use crate::workspace::Workspace;

mod ban;
mod direction;
mod licences;
mod module_order;
mod module_path;
mod type_name;
mod version_name;

pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let graph = Graph::load(workspace)?;
    let mut complaints = direction::check(&graph);
    complaints.extend(ban::check(&graph));
    complaints.extend(licences::check(&graph));
    complaints.extend(module_order::check(&workspace.root)?);
    complaints.extend(type_name::check(&workspace.root)?);
    complaints.extend(version_name::check(&workspace.root)?);
    Ok(Outcome::from_complaints(format!("{} packages", graph.packages().len()), &complaints))
}
