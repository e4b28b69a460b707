//! Validates Gateway API objects and RoutePolicies against their CRDs (schemas, defaults and rules) as the API server does, with its
//! messages but without a server.
//!
//! The table `gateway-api.json` holds the CRDs of Gateway API 1.7.0, both channels, as `cargo xtask conformance gateway --schema` reads
//! them from its Go module (Apache License 2.0); CI's conformance run fails on a difference. RoutePolicy's is generated from our types.

mod cel;
mod schema;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use fairway_translate::gateway::schema as policy;
use serde_json::{Map, Value, json};

use self::schema::{Compiler, FieldPath, Schema, Unknown};
use super::refusal::{Refusal, Refusals};

const TABLE: &str = include_str!("crd/gateway-api.json");

/// The schemas of a kind in the two channels of the Gateway API. Our own kinds have one.
#[derive(Debug, Default)]
struct Channels {
    standard: Option<Arc<Schema>>,
    experimental: Option<Arc<Schema>>,
}

static KINDS: LazyLock<BTreeMap<String, Channels>> =
    LazyLock::new(|| kinds().expect("the table and the CRD of RoutePolicy are understood in whole, as a test says"));

/// The API server's verdict on an object.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    /// Refused by the CRDs of either channel.
    pub(super) refusals: Vec<Refusal>,
    /// Refused unless the CRDs are those of the experimental channel.
    pub(super) in_standard: Vec<Refusal>,
    /// Refused by the experimental channel's CRDs only. The standard channel's CRDs drop the field concerned.
    pub(super) in_experimental: Vec<Refusal>,
    /// Fields that only the CRDs of the experimental channel have. Those of the standard channel drop them.
    pub(super) experimental: Vec<String>,
    /// Whether only the experimental channel has the kind itself.
    pub(super) experimental_kind: bool,
}

/// Judges an object of a kind. A kind without a CRD here accepts everything.
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
            return Judgement { refusals, experimental_kind: one.is_none(), ..Judgement::default() };
        }
    };
    let mut judgement = Judgement::default();
    standard.strangers(experimental, object, FieldPath::Root, &mut judgement.experimental);
    let (of_standard, of_experimental) = (refused(standard), refused(experimental));
    // The channels word the same fault differently, such as the list of supported values.
    let is_in = |all: &[Refusal], one: &Refusal| all.iter().any(|other| other.field == one.field);
    if !judgement.experimental.is_empty() {
        judgement.in_experimental = of_experimental.iter().filter(|one| !is_in(&of_standard, one)).cloned().collect();
    }
    (judgement.refusals, judgement.in_standard) = of_standard.into_iter().partition(|one| is_in(&of_experimental, one));
    if !judgement.in_standard.is_empty() {
        // Neither channel accepts the object.
        judgement.refusals.append(&mut judgement.in_experimental);
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
