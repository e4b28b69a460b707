//! RoutePolicies: settings for routes that the standard lacks (`fairway.dev/v1alpha1`), attached to a Gateway, a listener, a route or a
//! rule.
//!
//! Each section of the spec is settled by itself: the most specific target that has it decides, and among policies for the same target the
//! oldest. A section becomes the same filters and policy as the annotations of an Ingress (`crate::policy`). A section that restricts
//! access and can't be built denies it.

pub mod api;
mod apply;
mod newer;
pub(super) mod parameters;
mod read;
pub mod schema;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fairway_model::{HostPattern, Origin, TableName};

use self::api::RoutePolicy;
use self::read::{Asked, Section, SectionFault};
use super::attach::ListenerId;
use super::host::RouteAge;
use super::status::Shortcoming;
use crate::annotation::IngressAnnotations;
use crate::engine::dirty::{Dirty, Output};
use crate::objects::{Kind, ObjectKey, Objects};
use crate::options::Options;
use crate::policy::forward::Policies;
use crate::policy::user_auth::{self, UserAuth};
use crate::policy::wishes::wishes;
use crate::resource::backend::{BackendKey, Layer};
use crate::resource::{BackendWishes, Backends, Owner, Secrets};

/// All policies, by target.
#[derive(Debug, Default)]
pub(super) struct RoutePolicies {
    parts: BTreeMap<ObjectKey, RoutePolicyPart>,
    /// The policies of each target, oldest first.
    targets: BTreeMap<Subject, BTreeSet<RouteAge>>,
    /// The policies that name each Service.
    services: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    forwarding: Policies,
}

/// A target of policies.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Subject {
    /// A Gateway, a ListenerSet or a route.
    pub(super) object: ObjectKey,
    /// A listener or a rule; `None` for all of them.
    pub(super) section: Option<Arc<str>>,
}

/// One policy.
#[derive(Debug)]
struct RoutePolicyPart {
    owner: Arc<Owner>,
    turn: RouteAge,
    targets: Vec<Subject>,
    /// The place of each of them in `spec.targetRefs`.
    places: Vec<usize>,
    /// The first invalid target.
    bad_target: Option<SectionFault>,
    asked: Asked,
    /// The users of basic authentication, or why there are none; `None` until the Secret has been read.
    users: Option<UserAuth>,
    users_left_out: usize,
}

/// What a policy owns.
pub(super) struct PolicyOwned<'a> {
    pub(super) backends: &'a mut Backends,
    pub(super) secrets: &'a mut Secrets,
}

/// Where a rule of a route is served.
pub(super) struct Site<'a> {
    pub(super) route: &'a ObjectKey,
    /// Its name.
    pub(super) rule: Option<&'a Arc<str>>,
    pub(super) listener: &'a ListenerId,
    pub(super) gateway: &'a ObjectKey,
}

impl Site<'_> {
    /// The possible targets of policies, the most specific first.
    fn levels(&self) -> impl Iterator<Item = Subject> {
        let target = |object: &ObjectKey, section: Option<&Arc<str>>| Subject {
            object: object.clone(),
            section: section.cloned(),
        };
        let rule = self.rule.map(|rule| target(self.route, Some(rule)));
        let holder = &self.listener.holder;
        let listener = Some(target(holder, Some(&self.listener.name)));
        let set = (*holder != *self.gateway).then(|| target(holder, None));
        let whole = [Some(target(self.route, None)), listener, set, Some(target(self.gateway, None))];
        [rule].into_iter().chain(whole).flatten()
    }
}

/// A policy that decides about a part of a route.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AppliedPolicy {
    /// The match of a rule.
    pub route: Origin,
    /// The host on which it is served.
    pub pattern: HostPattern,
    /// The table of hosts.
    pub table: TableName,
    /// The policy.
    pub policy: ObjectKey,
    /// What it decides about, as members of its spec.
    pub members: Vec<&'static str>,
}

/// The policy that decides about each section.
struct Effective<'a>(Vec<Decision<'a>>);

/// The policy that decides about a section.
struct Decision<'a> {
    section: Section,
    /// Of its target: 0 is the most specific one that has policies.
    level: usize,
    part: &'a RoutePolicyPart,
}

impl<'a> Effective<'a> {
    fn decision(&self, section: Section) -> Option<&Decision<'a>> {
        self.0.iter().find(|decision| decision.section == section)
    }

    fn of(&self, section: Section) -> Option<&'a RoutePolicyPart> {
        self.decision(section).map(|decision| decision.part)
    }

    /// The policy for a less specific target than that of `access` that demands authentication. `satisfy: Any` must not cancel it, because
    /// only a policy with the same member overrides one.
    fn inherited_authentication(&self) -> Option<&'a RoutePolicyPart> {
        let access = self.decision(Section::Access)?;
        let authentication = [Section::BasicAuth, Section::ExternalAuth].into_iter().filter_map(|it| self.decision(it));
        authentication.filter(|it| it.level > access.level).max_by_key(|it| it.level).map(|it| it.part)
    }

    /// The values of all sections together, except those that are left out.
    fn annotations(&self) -> IngressAnnotations {
        let mut all = IngressAnnotations::default();
        for Decision { section, part, .. } in &self.0 {
            if part.fault(*section).is_some() {
                continue;
            }
            let own = &part.asked.annotations;
            match section {
                Section::Access => {
                    all.access = own.access.clone();
                    if self.inherited_authentication().is_some() {
                        all.access.satisfy = None;
                    }
                }
                Section::BasicAuth => all.user_auth = own.user_auth.clone(),
                Section::ExternalAuth => all.external_auth = own.external_auth.clone(),
                Section::Limits => {
                    let (rate, rate_after) = (all.limits.rate, all.limits.rate_after);
                    all.limits = own.limits.clone();
                    (all.limits.rate, all.limits.rate_after) = (rate, rate_after);
                }
                Section::Request => {
                    all.proxying.body_size = own.proxying.body_size;
                    all.proxying.request_buffering = own.proxying.request_buffering;
                }
                Section::Response => {
                    all.proxying.buffering = own.proxying.buffering;
                    all.proxying.buffer_size = own.proxying.buffer_size;
                    all.proxying.buffers_number = own.proxying.buffers_number;
                    (all.limits.rate, all.limits.rate_after) = (own.limits.rate, own.limits.rate_after);
                }
                Section::Timeouts => {
                    all.proxying.connect_timeout = own.proxying.connect_timeout;
                    all.proxying.send_timeout = own.proxying.send_timeout;
                    all.proxying.read_timeout = own.proxying.read_timeout;
                }
                Section::Retry => {
                    all.proxying.next_upstream = own.proxying.next_upstream;
                    all.proxying.next_upstream_tries = own.proxying.next_upstream_tries;
                    all.proxying.next_upstream_timeout = own.proxying.next_upstream_timeout;
                }
                Section::Rewrite => all.rewriting = own.rewriting.clone(),
                Section::Session => all.affinity = own.affinity.clone(),
                Section::LoadBalancing => all.balancing = own.balancing.clone(),
                Section::ErrorPages => {
                    all.proxying.http_errors = own.proxying.http_errors.clone();
                    all.proxying.pass_errors = own.proxying.pass_errors;
                }
                Section::Newer => {}
            }
        }
        all
    }
}

impl RoutePolicyPart {
    /// Why a section is not carried out, judging by the policy alone.
    fn fault(&self, section: Section) -> Option<&SectionFault> {
        self.asked.faults.iter().find(|fault| fault.section == section)
    }

    fn has(&self, section: Section) -> bool {
        self.asked.sections.contains(&section)
    }

    fn backends(&self) -> impl Iterator<Item = &BackendKey> {
        let unique: BTreeSet<&BackendKey> = self.asked.service.iter().chain(&self.asked.errors).collect();
        unique.into_iter()
    }

    fn services(&self) -> impl Iterator<Item = ObjectKey> {
        self.backends().filter(|backend| backend.layer != Layer::Name).map(BackendKey::service)
    }
}

impl RoutePolicies {
    /// Whether there are no policies.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The policies for an object or a part of it.
    pub(super) fn for_object<'a>(&'a self, object: &'a ObjectKey) -> impl Iterator<Item = &'a ObjectKey> {
        let start = Subject { object: object.clone(), section: None };
        let of_object = self.targets.range(start..).take_while(move |(target, _)| target.object == *object);
        of_object.flat_map(|(_, policies)| policies).map(RouteAge::key)
    }

    /// The policies that name a Service.
    pub(super) fn for_service(&self, service: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        self.services.get(service).into_iter().flatten()
    }

    /// The backends that a policy names, each with its field.
    pub(super) fn backends(&self, key: &ObjectKey) -> Vec<(BackendKey, String)> {
        let Some(part) = self.parts.get(key) else { return Vec::new() };
        let service = part.asked.service.iter().map(|key| (key.clone(), "spec.externalAuth.url".to_owned()));
        let errors = part.asked.errors.iter().map(|key| (key.clone(), "spec.errorPages.backendRef".to_owned()));
        service.chain(errors).collect()
    }

    /// The oldest policy for exactly this target that has a section.
    fn winner(&self, target: &Subject, section: Section) -> Option<&RoutePolicyPart> {
        let policies = self.targets.get(target)?.iter().filter_map(|turn| self.parts.get(turn.key()));
        policies.into_iter().find(|part| part.has(section))
    }

    /// The policies that apply to a rule; `None` if there are none.
    fn effective(&self, site: &Site<'_>) -> Option<Effective<'_>> {
        if self.parts.is_empty() {
            return None;
        }
        let levels: Vec<_> = site.levels().filter(|level| self.targets.contains_key(level)).collect();
        let decide = |section: &Section| {
            let mut winners = levels.iter().map(|level| self.winner(level, *section)).enumerate();
            winners.find_map(|(level, part)| Some(Decision { section: *section, level, part: part? }))
        };
        let found: Vec<_> = Section::ALL.iter().filter_map(decide).collect();
        (!found.is_empty()).then_some(Effective(found))
    }

    /// The policies that decide about a part of a rule, each with those parts.
    pub(super) fn deciding(&self, site: &Site<'_>) -> BTreeMap<&ObjectKey, Vec<&'static str>> {
        let mut found = BTreeMap::<_, Vec<_>>::new();
        for Decision { section, part, .. } in self.effective(site).into_iter().flat_map(|effective| effective.0) {
            found.entry(part.turn.key()).or_default().push(section.name());
        }
        found
    }

    /// The wishes for the backends of a rule; `None` if there are none.
    pub(super) fn wishes(&self, site: &Site<'_>) -> Option<Arc<BackendWishes>> {
        let effective = self.effective(site)?;
        effective.of(Section::Session).or(effective.of(Section::LoadBalancing))?;
        let all = wishes(&effective.annotations());
        (*all != BackendWishes::default()).then_some(all)
    }

    /// Reads a policy again. Returns the targets that it had and has.
    pub(super) fn read(
        &mut self,
        key: &ObjectKey,
        found: Option<(Arc<Owner>, RouteAge, &RoutePolicy)>,
        (objects, options): (&Objects, &Options),
        owned: PolicyOwned<'_>,
        dirty: &mut Dirty,
        out: &mut Output,
    ) -> BTreeSet<Subject> {
        let mut targets = BTreeSet::new();
        if let Some(before) = self.parts.remove(key) {
            for backend in before.backends() {
                owned.backends.detach(backend, &before.owner.age, dirty);
            }
            for service in before.services() {
                if let Some(policies) = self.services.get_mut(&service) {
                    policies.remove(key);
                    if policies.is_empty() {
                        self.services.remove(&service);
                    }
                }
            }
            if let Some(secret) = &before.asked.secret {
                owned.secrets.detach(secret, &before.owner.age, dirty, out);
            }
            for target in before.targets {
                if let Some(policies) = self.targets.get_mut(&target) {
                    policies.remove(&before.turn);
                    if policies.is_empty() {
                        self.targets.remove(&target);
                    }
                }
                targets.insert(target);
            }
        }
        let Some((owner, turn, policy)) = found else { return targets };
        let asked = read::read(key, &policy.spec, objects, options);
        let (targets_and_places, bad_target) = targets_of(key, policy);
        let (own, places) = targets_and_places.into_iter().unzip();
        let part =
            RoutePolicyPart { owner, turn, targets: own, places, bad_target, asked, users: None, users_left_out: 0 };
        for backend in part.backends() {
            owned.backends.attach(backend, &part.owner, dirty);
        }
        for service in part.services() {
            self.services.entry(service).or_default().insert(key.clone());
        }
        if let Some(secret) = &part.asked.secret {
            owned.secrets.attach(secret, &part.owner, dirty, out);
        }
        for target in &part.targets {
            self.targets.entry(target.clone()).or_default().insert(part.turn.clone());
            targets.insert(target.clone());
        }
        dirty.route_policy_users.insert(key.clone());
        self.parts.insert(key.clone(), part);
        targets
    }

    /// Reads the users of a policy again. Returns its targets if the users have changed.
    pub(super) fn settle_users(&mut self, key: &ObjectKey, secrets: &Secrets) -> Vec<Subject> {
        let Some(part) = self.parts.get_mut(key) else { return Vec::new() };
        let users = part.asked.secret.as_ref().map(|secret| {
            let (annotations, newest) = (&part.asked.annotations.user_auth, secrets.newest(secret));
            part.users_left_out = user_auth::left_out(annotations, newest);
            user_auth::build(annotations, secret, newest)
        });
        if part.users == users {
            return Vec::new();
        }
        part.users = users;
        part.targets.clone()
    }
}

/// The targets of a policy, each with its place in `spec.targetRefs`, and the first invalid one.
fn targets_of(key: &ObjectKey, policy: &RoutePolicy) -> (Vec<(Subject, usize)>, Option<SectionFault>) {
    let (mut targets, mut bad) = (Vec::<(Subject, usize)>::new(), None);
    for (at, one) in policy.spec.target_refs.iter().enumerate() {
        let kind = match &*one.kind.0 {
            "Gateway" => Kind::Gateway,
            "ListenerSet" => Kind::ListenerSet,
            "HTTPRoute" => Kind::HTTPRoute,
            "GRPCRoute" => Kind::GRPCRoute,
            _ => Kind::RoutePolicy,
        };
        if one.group.0 != super::api::GROUP || kind == Kind::RoutePolicy || one.name.0.is_empty() {
            bad.get_or_insert_with(|| SectionFault {
                section: Section::Access,
                field: format!("spec.targetRefs[{at}]"),
                value: one.kind.0.clone(),
                why: Shortcoming::new("Invalid", "expected a Gateway, a ListenerSet, an HTTPRoute or a GRPCRoute"),
            });
            continue;
        }
        let section = one.section_name.as_ref().map(|name| &*name.0).filter(|name| !name.is_empty());
        let object = ObjectKey::new(kind, &*key.namespace, &*one.name.0);
        let target = Subject { object, section: section.map(Into::into) };
        if targets.iter().all(|(known, _)| *known != target) {
            targets.push((target, at));
        }
    }
    (targets, bad)
}
