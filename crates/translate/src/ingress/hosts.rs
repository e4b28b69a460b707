//! Hosts, kept up to date: those that Ingresses name, the other names that lead to them, and their certificates.

mod certificate;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use fairway_model::packing::pack;
use fairway_model::{
    Action, BackendName, Host, HostKey, HostPattern, Hostname, Location, Origin, PathMatch, Redirect, Resource,
    ResourceName, Route, TableName,
};

use self::certificate::Choice;
use super::canary;
use super::merge::{HostInput, Merged, merge};
use super::part::Part;
use super::route::RedirectPorts;
use crate::config::configmap::GlobalConfig;
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::engine::dirty::{Dirty, Output};
use crate::engine::part::{Extent, portion};
use crate::objects::ObjectKey;
use crate::policy::forward::Policies;
use crate::resource::backend::BackendKey;
use crate::resource::{Age, ByAge, ConfigMaps, Secrets};

/// All names that may be served.
#[derive(Debug)]
pub(crate) struct Hosts {
    names: BTreeMap<HostPattern, NameState>,
    policies: Policies,
    /// Hosts that wait to be merged.
    waiting: BTreeSet<HostPattern>,
    /// Hosts that wait for the choice of their certificate.
    waiting_certificates: BTreeSet<HostPattern>,
}

/// The inputs of hosts, besides the Ingresses that name them.
#[derive(Clone, Copy)]
pub(crate) struct HostInputs<'a> {
    pub(crate) config: &'a GlobalConfig,
    pub(crate) secrets: &'a Secrets,
    pub(crate) config_maps: &'a ConfigMaps,
    /// `--default-backend-service`.
    pub(crate) default_backend: Option<&'a BackendName>,
    /// The service of `global-auth-url`.
    pub(crate) global_auth: Option<&'a BackendKey>,
    pub(crate) table: &'a TableName,
    pub(crate) annotations_prefix: &'a str,
    pub(crate) ports: RedirectPorts,
}

/// A name that may be served.
#[derive(Debug, Default)]
struct NameState {
    /// The Ingresses that name it as a host, oldest first, without canaries.
    parts: ByAge<Part>,
    choice: Choice,
    published: Option<Arc<Host>>,
    rare: Rare,
}

/// State that few names have, stored apart because there may be tens of thousands of them. Reading allocates nothing; writing does.
#[derive(Debug, Default)]
struct Rare(Option<Box<RareState>>);

#[derive(Debug)]
struct RareState {
    /// The canaries that name it as a host, oldest first.
    canaries: ByAge<Part>,
    /// Other hosts that lead here, unless an Ingress names this one as its host. The first one wins.
    claims: BTreeMap<Claim, ObjectKey>,
    /// The names that this host claims.
    claimed: BTreeSet<(HostPattern, Claim)>,
    /// Findings about this name.
    diagnostics: BTreeMap<ObjectKey, Vec<Diagnostic>>,
    /// Findings about claims to this name.
    claim_diagnostics: BTreeMap<ObjectKey, Vec<Diagnostic>>,
}

static NOTHING_RARE: RareState = RareState::new();

impl RareState {
    const fn new() -> Self {
        Self {
            canaries: ByAge::new(),
            claims: BTreeMap::new(),
            claimed: BTreeSet::new(),
            diagnostics: BTreeMap::new(),
            claim_diagnostics: BTreeMap::new(),
        }
    }
}

impl Deref for Rare {
    type Target = RareState;

    fn deref(&self) -> &RareState {
        self.0.as_deref().unwrap_or(&NOTHING_RARE)
    }
}

impl DerefMut for Rare {
    fn deref_mut(&mut self) -> &mut RareState {
        self.0.get_or_insert_with(|| Box::new(RareState::new()))
    }
}

/// One run of settling.
struct HostTurn<'i, 'd> {
    inputs: HostInputs<'i>,
    dirty: &'d mut Dirty,
    out: &'d mut Output,
}

/// Why a name leads to a host, in order of precedence: claims of objects that are being deleted yield.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Claim {
    leaving: bool,
    by: ClaimBy,
}

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum ClaimBy {
    /// It is a `server-alias` of this host, by an Ingress of this age.
    Alias(Age, HostPattern),
    /// It redirects to this host, with or without `www.`.
    Www(Age, Hostname),
}

impl ClaimBy {
    fn with(self, age: &Age) -> Claim {
        Claim { leaving: age.leaving, by: self }
    }
}

impl NameState {
    /// Whether an Ingress names this host. If all that do are being deleted, they yield to a claim of one that stays.
    fn is_primary(&self) -> bool {
        let claimed = || self.rare.claims.keys().next().is_some_and(|first| !first.leaving);
        !(self.parts.is_empty() || self.parts.all_leave() && claimed())
    }

    /// The names that this host claims.
    fn claimed_names(&self) -> impl Iterator<Item = &HostPattern> {
        self.rare.claimed.iter().map(|(name, _)| name)
    }
}

impl Default for Hosts {
    fn default() -> Self {
        Self {
            // There is always an answer for requests to unknown hosts.
            names: [(HostPattern::Any, NameState::default())].into(),
            policies: Policies::default(),
            waiting: BTreeSet::new(),
            waiting_certificates: BTreeSet::new(),
        }
    }
}

impl Hosts {
    /// Has the next merging of each host make its forwarding policies anew, in memory of their own.
    pub(crate) fn renew_shared(&mut self) {
        self.policies.0.renew();
    }

    /// Adds an Ingress that names a host.
    pub(crate) fn attach(&mut self, pattern: HostPattern, part: &Arc<Part>, dirty: &mut Dirty) {
        let state = self.names.entry(pattern.clone()).or_default();
        if part.annotations.is_canary() {
            state.rare.canaries.insert(part);
        } else {
            state.parts.insert(part);
        }
        dirty.hosts.insert(pattern);
    }

    /// Removes an Ingress.
    pub(crate) fn detach(&mut self, pattern: HostPattern, age: &Age, dirty: &mut Dirty) {
        if let Some(name) = self.names.get_mut(&pattern) {
            name.parts.remove(age);
            if !name.rare.canaries.is_empty() {
                name.rare.canaries.remove(age);
            }
        }
        dirty.hosts.insert(pattern);
    }

    /// The Ingresses that name a host, oldest first: either its canaries or all others.
    pub(crate) fn named(&self, pattern: &HostPattern, canaries: bool) -> impl Iterator<Item = &Part> {
        let state = self.names.get(pattern);
        let parts = state.map(|state| if canaries { &state.rare.canaries } else { &state.parts });
        parts.into_iter().flat_map(ByAge::values).map(|part| &**part)
    }

    /// The host that is served for a name.
    pub(crate) fn published(&self, pattern: &HostPattern) -> Option<&Arc<Host>> {
        self.names.get(pattern)?.published.as_ref()
    }

    /// Releases unused memory.
    pub(crate) fn compact(&mut self) {
        pack(&mut self.names);
    }

    /// Whether any hosts wait for their turn.
    pub(crate) fn is_waiting(&self) -> bool {
        !(self.waiting.is_empty() && self.waiting_certificates.is_empty())
    }

    /// The findings for an Ingress about the hosts that it names and those that it claims.
    pub(crate) fn findings<'a>(&'a self, part: &Part) -> Vec<&'a Diagnostic> {
        let key = part.key();
        let mut names: BTreeSet<&HostPattern> = part.hosts.iter().map(|rules| &rules.pattern).collect();
        if part.catch_all {
            names.insert(&HostPattern::Any);
        }
        let states = || names.iter().filter_map(|name| self.names.get(*name));
        let claimed: BTreeSet<&HostPattern> = states().flat_map(NameState::claimed_names).collect();
        let own = states().filter_map(|state| state.rare.diagnostics.get(key));
        let claims = claimed.into_iter().filter_map(|name| self.names.get(name)?.rare.claim_diagnostics.get(key));
        own.chain(claims).flatten().collect()
    }

    /// Merges the hosts that are due.
    pub(crate) fn settle(&mut self, inputs: HostInputs<'_>, dirty: &mut Dirty, out: &mut Output, extent: Extent) {
        let room = extent.results;
        let mut due = std::mem::take(&mut dirty.hosts);
        if std::mem::take(&mut dirty.all_hosts) {
            let primary = self.names.iter().filter(|(_, name)| name.is_primary());
            due.extend(primary.map(|(pattern, _)| pattern.clone()));
            due.insert(HostPattern::Any);
        }
        let due = portion(due, &mut self.waiting, room, extent);
        let certificates = std::mem::take(&mut dirty.certificates);
        let certificates = portion(certificates, &mut self.waiting_certificates, room, extent);
        let due = self.settle_choices(due, certificates, inputs.secrets);
        let mut turn = HostTurn { inputs, dirty, out };
        let mut derived = BTreeSet::new();
        // A wildcard's certificate may have added many names below it.
        let all_leave =
            |names: &Self, pattern: &HostPattern| names.names.get(pattern).is_some_and(|it| it.parts.all_leave());
        let due = portion(due, &mut self.waiting, room.saturating_mul(2), extent);
        let (mut leaving, staying): (BTreeSet<_>, BTreeSet<_>) =
            due.into_iter().partition(|pattern| all_leave(self, pattern));
        for pattern in staying {
            self.settle_name(pattern, &mut derived, &mut turn);
        }
        // Names whose Ingresses are all being deleted come last: one may yield to a new claim, or may no longer have to. Their earlier
        // claims are withdrawn first; their new claims keep no other such name from its own.
        for pattern in &leaving {
            self.replace_claims(pattern, BTreeMap::new(), &mut derived);
        }
        leaving.extend(derived.iter().filter(|pattern| all_leave(self, pattern)).cloned());
        for pattern in leaving {
            self.settle_name(pattern, &mut derived, &mut turn);
        }
        for pattern in derived {
            self.publish_derived(&pattern, &mut turn);
        }
    }

    fn settle_name(&mut self, pattern: HostPattern, derived: &mut BTreeSet<HostPattern>, turn: &mut HostTurn<'_, '_>) {
        let Some(state) = self.names.get(&pattern) else { return };
        let primary = state.is_primary() || pattern == HostPattern::Any;
        let merged = primary.then(|| self.merge(&pattern, self.has_entry(&pattern), turn.inputs));
        let claimed = merged.as_ref().map(|merged| self.claims(&pattern, merged)).unwrap_or_default();
        self.replace_claims(&pattern, claimed, derived);
        // An alias for names of any depth gives way to it, or may no longer have to.
        if let HostPattern::Label(parent) = &pattern {
            let deeper = HostPattern::Subdomains(parent.clone());
            derived.extend(self.names.contains_key(&deeper).then_some(deeper));
        }
        match merged {
            Some(merged) => self.publish_merged(&pattern, merged, turn),
            None => {
                derived.insert(pattern);
            }
        }
    }

    fn merge(&mut self, pattern: &HostPattern, certificate_entry: bool, inputs: HostInputs<'_>) -> Merged {
        let parts = self.names.get(pattern).into_iter().flat_map(|state| state.parts.values());
        let parts: Vec<&Part> = parts.map(|part| &**part).collect();
        let canaries = self.names.get(pattern).into_iter().flat_map(|state| state.rare.canaries.values());
        let canaries = canaries.map(|part| &**part);
        let input = HostInput {
            pattern,
            backend_tls: parts.iter().map(|part| part.backend_tls(inputs.secrets)).collect(),
            user_auth: parts.iter().map(|part| part.user_auth(inputs.secrets)).collect(),
            client_auth: parts.iter().map(|part| part.client_auth(inputs.secrets)).collect(),
            headers: parts.iter().map(|part| part.headers(inputs.config_maps, inputs.config)).collect(),
            parts,
            canaries: canaries.collect(),
            certificate_entry,
            ports: inputs.ports,
            config: inputs.config,
            default_backend: inputs.default_backend,
            global_auth: inputs.global_auth,
            annotations_prefix: inputs.annotations_prefix,
        };
        merge(&input, &mut self.policies)
    }

    /// The other names that lead to a host.
    fn claims(&self, pattern: &HostPattern, merged: &Merged) -> BTreeMap<(HostPattern, Claim), ObjectKey> {
        let mut claims = BTreeMap::new();
        let parts = self.names.get(pattern).into_iter().flat_map(|state| state.parts.values());
        // The first Ingress of the host with any aliases decides.
        if let Some(part) = parts.into_iter().find(|part| !part.aliases.is_empty()) {
            let others = part.aliases.iter().filter(|alias| *alias != pattern);
            claims.extend(others.map(|alias| {
                let claim = ClaimBy::Alias(part.owner.age.clone(), pattern.clone()).with(&part.owner.age);
                ((alias.clone(), claim), part.key().clone())
            }));
        }
        if let (Some((age, key)), HostPattern::Exact(name)) = (&merged.www, pattern) {
            let sibling = match name.as_str().strip_prefix("www.") {
                Some(bare) => bare.parse::<Hostname>(),
                None => format!("www.{name}").parse(),
            };
            if let Ok(sibling) = sibling {
                let claim = ClaimBy::Www(age.clone(), name.clone()).with(age);
                claims.insert((HostPattern::Exact(sibling), claim), key.clone());
            }
        }
        claims
    }

    fn replace_claims(
        &mut self,
        pattern: &HostPattern,
        claims: BTreeMap<(HostPattern, Claim), ObjectKey>,
        derived: &mut BTreeSet<HostPattern>,
    ) {
        let claiming = self.names.get_mut(pattern).filter(|state| !state.rare.claimed.is_empty());
        let before = claiming.map(|state| std::mem::take(&mut state.rare.claimed)).unwrap_or_default();
        for (target, claim) in &before {
            derived.insert(target.clone());
            if let Some(state) = self.names.get_mut(target).filter(|state| !state.rare.claims.is_empty()) {
                state.rare.claims.remove(claim);
            }
        }
        for ((target, claim), owner) in &claims {
            derived.insert(target.clone());
            self.names.entry(target.clone()).or_default().rare.claims.insert(claim.clone(), owner.clone());
        }
        if let Some(state) = self.names.get_mut(pattern).filter(|_| !claims.is_empty()) {
            state.rare.claimed = claims.into_keys().collect();
        }
    }

    fn publish_merged(&mut self, pattern: &HostPattern, mut merged: Merged, turn: &mut HostTurn<'_, '_>) {
        let Some(state) = self.names.get_mut(pattern) else { return };
        if let Some((key, diagnostic)) = state.choice.diagnostic.as_deref() {
            merged.diagnostics.entry(key.clone()).or_default().push(diagnostic.clone());
        }
        let mut decided = None;
        for part in state.parts.values().filter(|part| !part.aliases.is_empty()) {
            let Some(first) = &decided else {
                decided = Some(part.key());
                continue;
            };
            let message = format!(
                "host {pattern} has the aliases of Ingress {}/{}, which is older; these are ignored",
                first.namespace, first.name
            );
            let field = format!("metadata.annotations[\"{}/server-alias\"]", turn.inputs.annotations_prefix);
            let (severity, reason) = (Severity::Warning, Reason::HostConflict);
            let found = Diagnostic::new(severity, reason, &part.origin, field, "", message);
            merged.diagnostics.entry(part.key().clone()).or_default().push(found);
        }
        if state.rare.diagnostics != merged.diagnostics {
            let keys = state.rare.diagnostics.keys().chain(merged.diagnostics.keys());
            turn.dirty.reports.extend(keys.cloned());
            state.rare.diagnostics = merged.diagnostics;
        }
        let host = Host::new(turn.inputs.table.clone(), pattern.clone(), merged.routes)
            .with_certificate(state.choice.certificate.clone())
            .with_alternative_certificate(state.choice.alternative.clone())
            .with_client_auth(merged.client_auth)
            .with_ciphers(merged.ciphers)
            .with_passthrough(merged.passthrough);
        self.publish(pattern, Some(host), turn);
        self.report_claims(pattern, turn);
    }

    /// Publishes a name that no Ingress has as its host, or only Ingresses that yield it: as a copy of another host, or not at all.
    fn publish_derived(&mut self, pattern: &HostPattern, turn: &mut HostTurn<'_, '_>) {
        let Some(state) = self.names.get_mut(pattern) else { return };
        if state.is_primary() || *pattern == HostPattern::Any {
            self.report_claims(pattern, turn);
            return;
        }
        let alone = canary::alone(pattern, state.rare.canaries.values().map(|part| &**part));
        if state.rare.diagnostics != alone {
            turn.dirty.reports.extend(state.rare.diagnostics.keys().chain(alone.keys()).cloned());
            state.rare.diagnostics = alone;
        }
        let first = state.rare.claims.keys().next().cloned();
        let first = first.filter(|claim| self.definer(pattern, claim).is_none());
        let host = first.and_then(|claim| match claim.by {
            ClaimBy::Alias(_, primary) => self.alias(pattern, &primary, turn.inputs),
            ClaimBy::Www(age, name) => self.www(pattern, &age, &name, turn.inputs),
        });
        self.publish(pattern, host, turn);
        self.report_claims(pattern, turn);
        let unused = |state: &NameState| {
            state.parts.is_empty()
                && state.rare.canaries.is_empty()
                && state.rare.claims.is_empty()
                && state.rare.claimed.is_empty()
        };
        if self.names.get(pattern).is_some_and(unused) {
            self.names.remove(pattern);
        }
    }

    /// The Ingress that has the names of an alias `*.name` by its host of the same spelling, which keeps the alias from being served.
    fn definer(&self, alias: &HostPattern, claim: &Claim) -> Option<ObjectKey> {
        let HostPattern::Subdomains(parent) = alias else { return None };
        let parts = &self.names.get(&HostPattern::Label(parent.clone()))?.parts;
        let yields = parts.all_leave() && !claim.leaving;
        parts.values().next().filter(|_| !yields).map(|part| part.key().clone())
    }

    /// Another name of a host. It has no redirect to https unless a certificate covers it.
    fn alias(&mut self, pattern: &HostPattern, primary: &HostPattern, inputs: HostInputs<'_>) -> Option<Host> {
        let host = self.names.get(primary)?.published.clone()?;
        let certificate = self.certificate_for(pattern, primary, inputs.secrets);
        let entry = certificate.is_some() || self.has_wildcard_entry(pattern);
        if entry == self.has_entry(primary) {
            let other = host.alternative_certificate().filter(|other| certificate.as_ref() != Some(*other));
            let alternative = other.filter(|other| inputs.secrets.covers(other, pattern)).cloned();
            let alias = host.alias(pattern.clone()).with_certificate(certificate);
            return Some(alias.with_alternative_certificate(alternative));
        }
        let merged = self.merge(primary, entry, inputs);
        let host = Host::new(inputs.table.clone(), pattern.clone(), merged.routes);
        Some(host.with_certificate(certificate).with_client_auth(merged.client_auth).with_ciphers(merged.ciphers))
    }

    /// The sibling of a host with or without `www.`, which redirects all requests to the host.
    fn www(&self, pattern: &HostPattern, age: &Age, name: &Hostname, inputs: HostInputs<'_>) -> Option<Host> {
        let primary = HostPattern::Exact(name.clone());
        let state = self.names.get(&primary)?;
        let origin = state.parts.get(age).map_or_else(|| Origin::built_in("www"), |part| part.origin.clone());
        let certificate = self.certificate_for(pattern, &primary, inputs.secrets);
        let status = inputs.config.http_redirect_code.status();
        let action = Action::Redirect(Redirect::new(status, Location::OtherHost(name.clone())));
        let route = Route::new(origin, PathMatch::prefix("/").ok()?, action);
        Some(Host::new(inputs.table.clone(), pattern.clone(), vec![route]).with_certificate(certificate))
    }

    fn publish(&mut self, pattern: &HostPattern, host: Option<Host>, turn: &mut HostTurn<'_, '_>) {
        let Some(state) = self.names.get_mut(pattern) else { return };
        match host {
            Some(host) if !turn.dirty.renews && state.published.as_deref() == Some(&host) => {}
            Some(host) => {
                let host = Arc::new(host);
                turn.out.upserts.push(Resource::Host(host.clone()));
                state.published = Some(host);
            }
            None => {
                if state.published.take().is_some() {
                    let key = HostKey { table: turn.inputs.table.clone(), pattern: pattern.clone() };
                    turn.out.removals.push(ResourceName::Host(key));
                }
            }
        }
    }

    /// Reports claims to a name that have no effect.
    fn report_claims(&mut self, pattern: &HostPattern, turn: &mut HostTurn<'_, '_>) {
        let prefix = turn.inputs.annotations_prefix;
        let first = self.names.get(pattern).and_then(|state| state.rare.claims.keys().next());
        let definer = first.and_then(|claim| self.definer(pattern, claim));
        let Some(state) = self.names.get_mut(pattern) else { return };
        let mut found: BTreeMap<ObjectKey, Vec<Diagnostic>> = BTreeMap::new();
        let own = state.is_primary().then(|| state.parts.values().next().map(|part| part.key().clone())).flatten();
        let primary = own.or(definer);
        let served = state.rare.claims.first_key_value().map(|(claim, owner)| (claim.clone(), owner.clone()));
        let vain = state.rare.claims.iter().skip(usize::from(primary.is_none()));
        for (claim, owner) in vain {
            // Each host of an Ingress claims its aliases, and one of them gets each.
            let is_alias = |claim: &Claim| matches!(claim.by, ClaimBy::Alias(..));
            let again = served.as_ref().is_some_and(|(first, by)| by == owner && is_alias(first) && is_alias(claim));
            if primary.is_none() && again {
                continue;
            }
            let message = match (&primary, &served) {
                (Some(key), _) => format!("Ingress {}/{} defines this host, so it is skipped", key.namespace, key.name),
                (None, Some((_, key))) => {
                    format!("this name belongs to Ingress {}/{} already, so it is skipped", key.namespace, key.name)
                }
                (None, None) => "this name is taken".to_owned(),
            };
            let name = match claim.by {
                ClaimBy::Alias(..) => "server-alias",
                ClaimBy::Www(..) => "from-to-www-redirect",
            };
            let field = format!("metadata.annotations[\"{prefix}/{name}\"]");
            let told =
                found.get(owner).into_iter().flatten().any(|told| told.field == field && told.message == message);
            if told {
                continue;
            }
            // An author who defines both names is aware of this.
            let severity = if primary.as_ref() == Some(owner) { Severity::Info } else { Severity::Warning };
            let reason = Reason::HostConflict;
            let diagnostic = Diagnostic::new(severity, reason, &owner.origin(), field, &pattern.as_written(), message);
            found.entry(owner.clone()).or_default().push(diagnostic);
        }
        if state.rare.claim_diagnostics != found {
            turn.dirty.reports.extend(state.rare.claim_diagnostics.keys().chain(found.keys()).cloned());
            state.rare.claim_diagnostics = found;
        }
    }
}
