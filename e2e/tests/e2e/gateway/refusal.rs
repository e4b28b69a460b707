//! The API server's refusals, and the output of `fairway check` without a server: they are the same for every rule of the CRDs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, ensure};
use fairway_e2e::scene::{self, Scene, repository};
use kube::Api;
use kube::api::{DynamicObject, PostParams};
use serde_json::Value;

use super::{install, resource};

/// Accepted objects, and refused ones for every rule.
const CASES: &str = "crates/fairway/src/manifest/crd/cases.yaml";

const BINARY: &str = "target/image/rootfs/fairway";

/// No field: the API server adds that it did not evaluate the rules between fields, or which alternatives of a schema don't match either.
const NOWHERE: &str = "<nil>";

/// Faults by field.
type Faults = BTreeMap<String, Vec<String>>;

#[test]
fn check_refuses_what_the_api_server_refuses_in_its_words() -> anyhow::Result<()> {
    scene::run("refusal", async |scene| {
        install(scene).await?;
        let cases = cases()?;
        let folder = tempfile::tempdir()?;
        for (at, (_, object)) in cases.iter().enumerate() {
            fs::write(folder.path().join(format!("{at:03}.json")), object.to_string())?;
        }
        let offline = check(scene, folder.path().to_str().context("a path of text")?).await?;
        let mut differences = Vec::new();
        let mut refused = 0;
        for (at, (taken, object)) in cases.iter().enumerate() {
            let theirs = ask(scene, object).await?;
            let ours = offline.get(&format!("{at:03}.json")).cloned().unwrap_or_default();
            refused += usize::from(!theirs.is_empty());
            if theirs.is_empty() != *taken || !agree(&ours, &theirs) {
                differences.push(format!("{object}\n  the API server: {theirs:?}\n  check: {ours:?}"));
            }
        }
        println!("{} objects, {refused} refused by both", cases.len());
        ensure!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
        Ok(())
    })
}

/// The objects, and whether each is accepted.
fn cases() -> anyhow::Result<Vec<(bool, Value)>> {
    let cases: Value = serde_norway::from_str(&fs::read_to_string(repository().join(CASES))?)?;
    let mut found = Vec::new();
    for (list, taken) in [("valid", true), ("invalid", false)] {
        for case in cases[list].as_array().context(list)? {
            let mut object = cases["bases"][case[0].as_str().context("a kind")?].clone();
            let (parent, name) = case[1].as_str().and_then(|place| place.rsplit_once('/')).context("a place")?;
            let parent = object.pointer_mut(parent).with_context(|| format!("{case}"))?;
            match (parent, &case[2]) {
                (Value::Object(fields), Value::Null) => drop(fields.remove(name)),
                (Value::Object(fields), value) => drop(fields.insert(name.to_owned(), value.clone())),
                (parent, value) => parent[name.parse::<usize>()?] = value.clone(),
            }
            found.push((taken, object));
        }
    }
    Ok(found)
}

/// The API server's verdict on a new object; nothing is stored.
async fn ask(scene: &Scene, object: &Value) -> anyhow::Result<Faults> {
    let object: DynamicObject = serde_json::from_value(object.clone())?;
    let (resource, namespaced) = resource(&object.types.as_ref().context("a kind")?.kind);
    let api: Api<DynamicObject> = match namespaced {
        true => Api::namespaced_with(scene.client(), scene.namespace(), &resource),
        false => Api::all_with(scene.client(), &resource),
    };
    let status = match api.create(&PostParams { dry_run: true, ..PostParams::default() }, &object).await {
        Ok(_) => return Ok(Faults::new()),
        Err(kube::Error::Api(status)) => status,
        Err(error) => return Err(error.into()),
    };
    let causes = status.details.as_ref().map(|details| &*details.causes).unwrap_or_default();
    ensure!(causes.iter().any(|cause| cause.field != NOWHERE), "no causes: {}", status.message);
    let mut faults = Faults::new();
    for cause in causes.iter().filter(|cause| cause.field != NOWHERE) {
        faults.entry(cause.field.clone()).or_default().push(cause.message.clone());
    }
    Ok(faults)
}

/// The errors of `fairway check`, by file.
async fn check(scene: &Scene, folder: &str) -> anyhow::Result<BTreeMap<String, Faults>> {
    let output = scene.output(BINARY, &["check", "--output", "json", folder]).await?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("no report: {}", String::from_utf8_lossy(&output.stderr)))?;
    let mut files: BTreeMap<String, Faults> = BTreeMap::new();
    for found in report["diagnostics"].as_array().into_iter().flatten() {
        let text = |name: &str| found[name].as_str().unwrap_or_default();
        let Some(message) = text("message").strip_suffix("; the API server refuses the object") else { continue };
        let file = text("file").rsplit('/').next().unwrap_or_default();
        let faults = files.entry(file.to_owned()).or_default();
        faults.entry(text("field").to_owned()).or_default().push(message.to_owned());
    }
    Ok(files)
}

/// Whether both name the same fields for the same reasons.
fn agree(ours: &Faults, theirs: &Faults) -> bool {
    let fields = |faults: &Faults| faults.keys().cloned().collect::<BTreeSet<_>>();
    let said = |our: &str, theirs: &[String]| {
        let (kind, detail) = our.split_once(": ").unwrap_or((our, ""));
        // The hints are our own, and so is the list of supported values.
        let detail = detail.split(": write ").next().unwrap_or_default();
        let detail = if kind == "Unsupported value" { "" } else { detail };
        theirs.iter().any(|their| their.starts_with(kind) && their.contains(detail))
    };
    fields(ours) == fields(theirs)
        && ours
            .iter()
            .all(|(field, all)| all.len() == theirs[field].len() && all.iter().all(|our| said(our, &theirs[field])))
}
