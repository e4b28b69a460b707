//! Objects of the Gateway API and RoutePolicies as their CRDs want them: schemas, defaults and rules, judged here as the API server does,
//! in its words and without it.
//!
//! The table `gateway-api.json` holds the CRDs of Gateway API 1.7.0, both channels, as `cargo xtask conformance gateway --schema` reads
//! them from its Go module (Apache License 2.0); the conformance run of CI fails if it differs. That of RoutePolicy is made from our types.

mod cel;
mod schema;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use fairway_translate::gateway::schema as policy;
use serde_json::{Map, Value, json};

use self::schema::{Compiler, FieldPath, Schema, Unknown};
use super::refusal::{Refusal, Refusals};

const TABLE: &str = include_str!("crd/gateway-api.json");

/// The schemas of a kind in the two channels of the Gateway API. Ours has one.
#[derive(Debug, Default)]
struct Channels {
    standard: Option<Arc<Schema>>,
    experimental: Option<Arc<Schema>>,
}

static KINDS: LazyLock<BTreeMap<String, Channels>> =
    LazyLock::new(|| kinds().expect("the table and the CRD of RoutePolicy are understood in whole, as a test says"));

/// What the API server would say about an object.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    /// Whatever the channel of the CRDs.
    pub(super) refusals: Vec<Refusal>,
    /// Unless the CRDs are those of the experimental channel.
    pub(super) in_standard: Vec<Refusal>,
    /// If the CRDs are those of the experimental channel. Those of the standard channel drop what it is about.
    pub(super) in_experimental: Vec<Refusal>,
    /// Fields that only the CRDs of the experimental channel have. Those of the standard channel drop them.
    pub(super) experimental: Vec<String>,
}

/// Judges an object of a kind. A kind without a CRD here takes everything.
pub(super) fn judge(kind: &str, object: &Value) -> Judgement {
    let Some(Channels { standard, experimental }) = KINDS.get(kind) else { return Judgement::default() };
    let refused = |schema: &Schema| {
        let (mut filled, mut found) = (object.clone(), Refusals::default());
        schema.fill(&mut filled);
        schema.check(&filled, &mut found);
        found.into_all()
    };
    let (standard, experimental) = match (standard, experimental) {
        (Some(standard), Some(experimental)) => (standard, experimental),
        (one, other) => {
            let refusals = one.as_ref().or(other.as_ref()).map(|schema| refused(schema)).unwrap_or_default();
            return Judgement { refusals, ..Judgement::default() };
        }
    };
    let mut judgement = Judgement { refusals: refused(standard), ..Judgement::default() };
    if !judgement.refusals.is_empty() && refused(experimental).is_empty() {
        judgement.in_standard = std::mem::take(&mut judgement.refusals);
    }
    standard.strangers(experimental, object, FieldPath::Root, &mut judgement.experimental);
    if !judgement.experimental.is_empty() && judgement.refusals.is_empty() && judgement.in_standard.is_empty() {
        judgement.in_experimental = refused(experimental);
    }
    judgement
}

fn kinds() -> Result<BTreeMap<String, Channels>, Unknown> {
    let table: Value = serde_json::from_str(TABLE).map_err(|error| Unknown(error.to_string()))?;
    let none = Map::new();
    let mut compiler = Compiler::new(table["definitions"].as_object().unwrap_or(&none));
    let mut kinds = BTreeMap::new();
    for (kind, channels) in table["kinds"].as_object().unwrap_or(&none) {
        let mut schema = |channel| channels.get(channel).map(|from| compiler.schema(from)).transpose();
        let channels = Channels { standard: schema("standard")?, experimental: schema("experimental")? };
        kinds.insert(kind.clone(), channels);
    }
    for (kind, spec) in [("RoutePolicy", policy::spec()), ("GatewayParameters", policy::parameters_spec())] {
        let own = json!({"type": "object", "required": ["spec"], "properties": {"spec": spec}});
        let own = Channels { standard: Some(compiler.schema(&own)?), experimental: None };
        kinds.insert(kind.to_owned(), own);
    }
    Ok(kinds)
}

#[cfg(test)]
mod tests;
